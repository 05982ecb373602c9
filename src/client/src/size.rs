// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sizes as people write them, in arguments and in the environment.
//!
//! By hand: the drop-in reads them before it can allocate, and bytesize reads a K as 1,000 bytes, takes
//! fractions, and does not say that a number is too large.

/// The reason why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is not a whole number, with or without a letter after it.
    #[error("not a size: write a whole number, with K, M or G after it if you like")]
    Malformed,
    /// It is more than 2^64 - 1 bytes.
    #[error("more than 2^64 - 1 bytes")]
    TooLarge,
}

/// Parses a number of bytes; a K, M or G after it makes it KiB, MiB or GiB. Does not allocate.
///
/// # Errors
///
/// [`SizeError`].
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let (number, shift) = [(['k', 'K'], 10), (['m', 'M'], 20), (['g', 'G'], 30)]
        .into_iter()
        .find_map(|(letters, shift)| Some((text.strip_suffix(letters)?, shift)))
        .unwrap_or((text, 0));
    let number: u64 = number.parse().map_err(|_| SizeError::Malformed)?;
    number.checked_mul(1 << shift).ok_or(SizeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_a_unit() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("64k"), Ok(64 << 10));
        assert_eq!(parse("3M"), Ok(3 << 20));
        assert_eq!(parse("2G"), Ok(2 << 30));
        for wrong in ["", "M", "1.5M", "-1", "3 M", "3MiB"] {
            assert_eq!(parse(wrong), Err(SizeError::Malformed), "{wrong}");
        }
        assert_eq!(parse("99999999999G"), Err(SizeError::TooLarge));
    }
}
