// SPDX-License-Identifier: MIT OR Apache-2.0

//! The test pattern in a block: its first byte, one byte of each page, and its last byte, each a function of
//! the block's number and of the position. Overlapping blocks and swapped pages show as wrong bytes.

use freelist::{Mapping, Result};

/// Returns the positions of the pattern in a block of `size` bytes, ascending and distinct.
fn places(size: u64, page_size: u64) -> impl Iterator<Item = u64> {
    let pages = (0..size).step_by(page_size as usize);
    let last = size.checked_sub(1).filter(|last| last % page_size != 0);
    pages.chain(last)
}

/// Returns the byte at a position of a block, by a mixing function (SplitMix64, Steele, Lea and Flood 2014), so
/// that neighbours are unrelated.
fn value(block: usize, place: u64) -> u8 {
    let mut x = (((block as u64) << 32) ^ place).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as u8
}

/// Writes the pattern of block number `block`, which lies at `offset`.
pub(crate) fn write(
    memory: &Mapping,
    page_size: u64,
    block: usize,
    offset: u64,
    size: u64,
) -> Result<()> {
    for place in places(size, page_size) {
        memory.set_byte(offset + place, value(block, place))?;
    }
    Ok(())
}

/// Returns the number of bytes that were checked, and of those that are wrong.
pub(crate) fn check(
    memory: &Mapping,
    page_size: u64,
    block: usize,
    offset: u64,
    size: u64,
) -> Result<(u64, u64)> {
    let (mut checked, mut wrong) = (0, 0);
    for place in places(size, page_size) {
        checked += 1;
        wrong += u64::from(memory.byte(offset + place)? != value(block, place));
    }
    Ok((checked, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_last_and_one_byte_of_every_page_are_touched() {
        let places = |size| places(size, 4096).collect::<Vec<_>>();
        assert_eq!(places(0), [0; 0]);
        assert_eq!(places(1), [0]);
        assert_eq!(places(2), [0, 1]);
        assert_eq!(places(4096), [0, 4095]);
        assert_eq!(places(4097), [0, 4096]);
        assert_eq!(places(8193), [0, 4096, 8192]);
        assert_eq!(places(8195), [0, 4096, 8192, 8194]);
    }

    #[test]
    fn blocks_and_pages_differ() {
        let wrong = (1..1000).filter(|block| value(*block, 0) == value(0, 0));
        assert!(wrong.count() < 20);
        let wrong = (1..1000).filter(|page| value(0, page * 4096) == value(0, 0));
        assert!(wrong.count() < 20);
    }
}
