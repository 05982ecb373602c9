// SPDX-License-Identifier: MIT OR Apache-2.0

//! Size classes of small blocks: the powers of 2 from 16 B to 32 KiB.

/// The smallest block, as a shift.
const MIN_SHIFT: u32 = 4;
/// Bytes of the smallest block, to which every block is aligned.
pub(crate) const MIN_BYTES: usize = 1 << MIN_SHIFT;
/// The largest block that comes from a slab, as a shift.
const MAX_SHIFT: u32 = 15;

/// How many classes there are.
pub(crate) const CLASSES: usize = (MAX_SHIFT - MIN_SHIFT + 1) as usize;
/// How many [`Place`]s there are, a power of 2.
pub(crate) const PLACES: usize = 16;
/// Bytes of a slab, as a shift: as many pages as one page fault maps.
pub(crate) const SLAB_SHIFT: u32 = 16;
/// Bytes of a slab.
pub(crate) const SLAB_BYTES: usize = 1 << SLAB_SHIFT;
/// Blocks of the smallest class in a slab.
pub(crate) const MOST_BLOCKS: usize = SLAB_BYTES >> MIN_SHIFT;

/// Blocks of a class that a thread may keep: with three numbers beside it is a
/// power of 2.
pub(crate) const MOST_CACHED: usize = 61;
/// Bytes of a class that a thread may keep.
const MOST_CACHED_BYTES: usize = 128 << 10;

/// A size class of small blocks.
///
/// # Invariants
///
/// The number is below [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class(u32);

impl Class {
    /// The class of a request; `None` when it is none of bytes, or too large for a slab.
    #[inline]
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        Self::numbered(Place::of(bytes)?.0.wrapping_sub(1))
    }

    /// The class with this number.
    #[inline]
    pub(crate) fn numbered(number: u32) -> Option<Self> {
        // INVARIANT: Just looked at.
        ((number as usize) < CLASSES).then_some(Self(number))
    }

    /// Every class, the smallest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES as u32).filter_map(Self::numbered)
    }

    /// Its number, below [`CLASSES`].
    #[inline]
    pub(crate) fn number(self) -> usize {
        self.0 as usize
    }

    /// Where a cache has it.
    #[inline]
    pub(crate) fn place(self) -> Place {
        Place::of_bits(self.0 + 1)
    }

    /// The bytes of its blocks, as a shift.
    #[inline]
    pub(crate) fn shift(self) -> u32 {
        self.0 + MIN_SHIFT
    }

    /// The bytes of its blocks.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        1 << self.shift()
    }

    /// Blocks in a slab.
    pub(crate) fn blocks(self) -> usize {
        SLAB_BYTES >> self.shift()
    }

    /// Blocks that a thread may keep: bounded in number and in bytes.
    pub(crate) fn most_cached(self) -> usize {
        (MOST_CACHED_BYTES >> self.shift()).min(MOST_CACHED)
    }
}

/// A class, or 0 for none, in as few bits as that takes: what a block is of is looked up in one
/// step.
///
/// # Invariants
///
/// It is below [`PLACES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

const _: () = assert!(CLASSES < PLACES);

/// The places of requests that end in one of so many of the smallest blocks: to look there is fewer
/// instructions than to find the highest bit.
static PLACE_OF: [u8; 1 << (MAX_SHIFT - MIN_SHIFT)] = {
    let mut places = [1; 1 << (MAX_SHIFT - MIN_SHIFT)];
    let mut at = 1;
    while at < places.len() {
        places[at] = at.ilog2() as u8 + 2;
        at += 1;
    }
    places
};

impl Place {
    /// The class of a request; `None` when it is none of bytes, or too large for a slab.
    #[inline]
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        // 0 wraps around, and is too large.
        let place = PLACE_OF.get(bytes.wrapping_sub(1) >> MIN_SHIFT)?;
        Some(Self::of_bits((*place).into()))
    }

    /// What the lowest bits of a number say.
    #[inline]
    pub(crate) fn of_bits(number: u32) -> Self {
        // INVARIANT: It is a power of 2 of which one less is left.
        Self(number & (PLACES as u32 - 1))
    }

    /// It as a number, below [`PLACES`].
    #[inline]
    pub(crate) fn number(self) -> usize {
        self.0 as usize & (PLACES - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_the_smallest_power_of_2_that_holds_it() {
        for bytes in 1..=32 << 10 {
            let class = Class::of(bytes).unwrap();
            assert_eq!(class.bytes(), bytes.next_power_of_two().max(16));
            assert_eq!(Class::numbered(class.number() as u32), Some(class));
        }
    }

    #[test]
    fn what_no_slab_can_serve_has_no_class() {
        for bytes in [0, (32 << 10) + 1, 64 << 10, usize::MAX] {
            assert_eq!(Class::of(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn what_a_thread_keeps_is_less_than_a_mebibyte() {
        let bytes = Class::all().map(|class| class.most_cached() * class.bytes());
        assert!(bytes.sum::<usize>() < 1 << 20);
        // It is filled and emptied by halves.
        assert!(Class::all().all(|class| class.most_cached() >= 4));
    }
}
