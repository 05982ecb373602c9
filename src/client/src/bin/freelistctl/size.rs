// SPDX-License-Identifier: GPL-2.0

//! Sizes on the command line.

/// Bytes, or with a letter behind it KiB, MiB or GiB.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a number is wanted, and K, M or G behind it if you like".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that is more than there can be".to_owned())
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
        for wrong in ["", "M", "1.5M", "-1", "3 M", "3MiB", "99999999999999G"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
