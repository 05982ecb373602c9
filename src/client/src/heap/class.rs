// SPDX-License-Identifier: MIT OR Apache-2.0

//! Size classes of small blocks, up to 32 KiB: multiples of 16 B up to 128 B, then eight a doubling.
//! Each has slabs of its own size, from 4 to 64 KiB, chosen so that little of a slab is unused.

use core::fmt;

/// Bytes of the smallest block, to which every block is aligned.
pub(crate) const MIN_BYTES: usize = 1 << MIN_SHIFT;
const MIN_SHIFT: u32 = 4;
/// The bytes of the largest block that comes from a slab.
pub(crate) const MAX_BYTES: usize = 32 << 10;

/// The number of classes up to 128 B, and in each doubling above.
const STEPS: usize = 8;
/// The number of classes.
pub(crate) const CLASSES: usize =
    STEPS + STEPS * (MAX_BYTES / (STEPS * MIN_BYTES)).ilog2() as usize;
/// The number of [`Place`]s.
pub(crate) const PLACES: usize = 1 << u8::BITS;

/// The log2 of [`GRAIN_BYTES`].
pub(crate) const GRAIN_SHIFT: u32 = 12;
/// The unit of slabs' sizes in bytes: no page is smaller.
pub(crate) const GRAIN_BYTES: usize = 1 << GRAIN_SHIFT;
/// The log2 of [`UNIT_BYTES`].
pub(crate) const UNIT_SHIFT: u32 = 16;
/// The bytes of the largest slab, and the alignment of blocks that are in no slab.
pub(crate) const UNIT_BYTES: usize = 1 << UNIT_SHIFT;
/// The grains of the largest slab.
pub(crate) const MAX_GRAINS: usize = UNIT_BYTES / GRAIN_BYTES;
/// The most blocks in a slab.
pub(crate) const MAX_BLOCKS: usize = GRAIN_BYTES / MIN_BYTES;

/// The most blocks of a class that a thread's cache keeps.
pub(crate) const MAX_CACHED: usize = 60;
/// The most bytes of a class that a thread's cache keeps, if they are more than one block.
const MAX_CACHED_BYTES: usize = 8 << 10;

/// The size in bytes above which blocks are a large part of their slab: its memory is allocated when they are touched.
const LAZY_BYTES: usize = 2 << 10;

/// The constants of a class.
#[derive(Debug, Clone, Copy)]
struct Shape {
    number: u8,
    max_cached: u8,
    bytes: u32,
    slab_bytes: u32,
    blocks: u32,
    start: Start,
}

/// Finds whether a block begins at an address in a slab, in four instructions: the address's distance from the
/// slab's beginning is multiplied by the reciprocal of the block's size (Lemire, Kaser and Kurz 2019).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// The bits of an address that are its distance from the slab's beginning.
    pub(crate) mask: u32,
    /// 2^32 divided by the block's bytes, rounded down, plus 1.
    pub(crate) reciprocal: u32,
    /// The bound of the product's low half: it is less at the beginnings of the slab's blocks, and nowhere else.
    pub(crate) end: u32,
}

impl Start {
    const fn new(bytes: usize, slab_bytes: usize) -> Self {
        let reciprocal = (1 << 32) / bytes as u64 + 1;
        // The product for block k is k times this.
        let excess = reciprocal * bytes as u64 - (1 << 32);
        Self {
            mask: slab_bytes.next_power_of_two() as u32 - 1,
            reciprocal: reciprocal as u32,
            end: (slab_bytes / bytes) as u32 * excess as u32,
        }
    }

    /// Returns whether a block begins at an address that lies in a slab of the class.
    #[inline]
    pub(crate) fn is_at(self, address: usize) -> bool {
        (address as u32 & self.mask).wrapping_mul(self.reciprocal) < self.end
    }
}

/// Returns the bytes of the blocks of a class.
const fn bytes_of(number: usize) -> usize {
    match number {
        0..STEPS => (number + 1) << MIN_SHIFT,
        _ => (STEPS + number % STEPS + 1) << (MIN_SHIFT + (number / STEPS) as u32 - 1),
    }
}

/// Returns the bytes of a class's slabs: the size for which the waste is least. That is the part in no block,
/// plus 3 % of the size for each grain (memory that a class with few blocks leaves unused), or 0.6 % if the memory
/// is allocated at the first touch. Where it is allocated with the slab, sizes are powers of 2, which lie without
/// gaps and get large folios.
const fn slab_bytes_of(bytes: usize) -> usize {
    let is_large = bytes > LAZY_BYTES;
    let of_size = if is_large { 60 } else { 300 };
    let (mut best, mut least) = (0, usize::MAX);
    let mut grains = bytes.div_ceil(GRAIN_BYTES);
    while grains <= MAX_GRAINS {
        let slab = grains * GRAIN_BYTES;
        let cost = slab % bytes * 10_000 / slab + of_size * grains;
        if cost < least && (is_large || grains.is_power_of_two()) {
            (best, least) = (slab, cost);
        }
        grains += 1;
    }
    best
}

/// Returns how many blocks of so many bytes a thread keeps, at most: bounded in number and in bytes.
const fn max_cached_of(bytes: usize) -> usize {
    match MAX_CACHED_BYTES / bytes {
        0 => 1,
        MAX_CACHED.. => MAX_CACHED,
        max => max,
    }
}

static SHAPES: [Shape; CLASSES] = {
    let mut shapes = [Shape {
        number: 0,
        max_cached: 0,
        bytes: 0,
        slab_bytes: 0,
        blocks: 0,
        start: Start::new(1 << 16, 1 << 16),
    }; CLASSES];
    let mut number = 0;
    while number < CLASSES {
        let bytes = bytes_of(number);
        let slab_bytes = slab_bytes_of(bytes);
        assert!(slab_bytes / bytes <= MAX_BLOCKS);
        shapes[number] = Shape {
            number: number as u8,
            max_cached: max_cached_of(bytes) as u8,
            bytes: bytes as u32,
            slab_bytes: slab_bytes as u32,
            blocks: (slab_bytes / bytes) as u32,
            start: Start::new(bytes, slab_bytes),
        };
        number += 1;
    }
    shapes
};

/// A size class of small blocks.
#[derive(Clone, Copy)]
pub(crate) struct Class(&'static Shape);

impl PartialEq for Class {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for Class {}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Class of {} bytes", self.0.bytes)
    }
}

impl Class {
    /// Returns the class of a request; `None` for 0 bytes or more than 32 KiB.
    #[inline]
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        Place::of(bytes)?.class()
    }

    /// Returns the class with this number.
    #[inline]
    pub(crate) fn numbered(number: u32) -> Option<Self> {
        SHAPES.get(number as usize).map(Self)
    }

    /// Returns every class, the smallest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        SHAPES.iter().map(Self)
    }

    /// Returns its number, below [`CLASSES`].
    #[inline]
    pub(crate) fn number(self) -> usize {
        usize::from(self.0.number)
    }

    /// Returns the place of the class in a cache.
    #[inline]
    pub(crate) fn place(self) -> Place {
        Place(self.0.number + 1)
    }

    #[inline]
    fn shape(self) -> &'static Shape {
        self.0
    }

    /// Returns the bytes of its blocks.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        self.shape().bytes as usize
    }

    /// Returns the bytes of its slabs, whole grains.
    #[inline]
    pub(crate) fn slab_bytes(self) -> usize {
        self.shape().slab_bytes as usize
    }

    /// Returns how many blocks a slab has.
    #[inline]
    pub(crate) fn blocks(self) -> usize {
        self.shape().blocks as usize
    }

    /// Returns whether the memory of its slabs is allocated when it is touched: where blocks of a page or so lie
    /// side by side, those that were never used have none.
    #[inline]
    pub(crate) fn is_lazy(self) -> bool {
        self.bytes() > LAZY_BYTES && self.blocks() > 1
    }

    /// Returns the test for an address at which one of its blocks begins.
    #[inline]
    pub(crate) fn start(self) -> Start {
        self.shape().start
    }

    /// Returns where the slab begins that `offset` lies in: slabs are aligned to the power of 2 that holds
    /// them.
    #[inline]
    pub(crate) fn slab_at(self, offset: usize) -> usize {
        offset & !(self.start().mask as usize)
    }

    /// Returns the number of the block in its slab that begins at `offset`; `None` where none begins.
    #[inline]
    pub(crate) fn block_at(self, offset: usize) -> Option<usize> {
        let start = self.start();
        let distance = (offset as u32 & start.mask) as u64;
        let number = (distance * u64::from(start.reciprocal)) >> 32;
        start.is_at(offset).then_some(number as usize)
    }

    /// Returns how many blocks a thread keeps, at most: bounded in number and in bytes.
    #[inline]
    pub(crate) fn max_cached(self) -> usize {
        usize::from(self.shape().max_cached)
    }
}

/// The number of a class plus 1, or 0 for no class, in a byte. It is looked up in one step, and indexes any
/// table of [`PLACES`] without a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u8);

const _: () = assert!(CLASSES < PLACES);

/// The place of each request, by the number of the smallest blocks that it needs: looking it up takes fewer
/// instructions than computing it.
static PLACE_OF: [u8; MAX_BYTES / MIN_BYTES] = {
    let mut places = [0; MAX_BYTES / MIN_BYTES];
    let (mut at, mut number) = (0, 0);
    while at < places.len() {
        if bytes_of(number) <= at * MIN_BYTES {
            number += 1;
        }
        places[at] = number as u8 + 1;
        at += 1;
    }
    places
};

impl Place {
    /// The place of no class.
    pub(crate) const NONE: Self = Self(0);

    /// Returns the place of a request; `None` for 0 bytes or more than 32 KiB.
    #[inline]
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        // 0 wraps around, and is too large.
        let place = PLACE_OF.get(bytes.wrapping_sub(1) >> MIN_SHIFT)?;
        Some(Self(*place))
    }

    /// Returns the place with that value.
    #[inline]
    pub(crate) fn of_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// Returns the value as a byte.
    #[inline]
    pub(crate) fn byte(self) -> u8 {
        self.0
    }

    /// Returns the class; `None` at the place of no class.
    #[inline]
    pub(crate) fn class(self) -> Option<Class> {
        Class::numbered(u32::from(self.0).wrapping_sub(1))
    }

    /// Returns the value as an index, below [`PLACES`].
    #[inline]
    pub(crate) fn number(self) -> usize {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_the_smallest_class_that_holds_it() {
        let mut classes = Class::all().peekable();
        for bytes in 1..=MAX_BYTES {
            classes.next_if(|class| class.bytes() < bytes);
            assert_eq!(Class::of(bytes), classes.peek().copied(), "{bytes}");
        }
        assert_eq!(classes.count(), 1);
    }

    #[test]
    fn classes_are_16_bytes_apart_and_then_an_eighth_of_a_doubling() {
        let bytes: Vec<usize> = Class::all().map(Class::bytes).collect();
        assert_eq!(bytes[..10], [16, 32, 48, 64, 80, 96, 112, 128, 144, 160]);
        assert_eq!(bytes[CLASSES - 1], 32 << 10);
        for pair in bytes[8..].windows(2) {
            assert_eq!(pair[1] - pair[0], (pair[1] - 1).next_power_of_two() / 16);
        }
    }

    #[test]
    fn a_size_above_all_slabs_has_no_class() {
        for bytes in [0, (32 << 10) + 1, 64 << 10, usize::MAX] {
            assert_eq!(Class::of(bytes), None, "{bytes}");
        }
        assert_eq!(Place::NONE.class(), None);
    }

    #[test]
    fn a_slab_is_4_to_64_kib_and_little_of_it_is_unused() {
        for class in Class::all() {
            let (slab, blocks) = (class.slab_bytes(), class.blocks());
            assert!(slab % GRAIN_BYTES == 0 && slab <= UNIT_BYTES, "{slab}");
            assert!((1..=MAX_BLOCKS).contains(&blocks));
            let unused = slab - blocks * class.bytes();
            assert!(
                unused < class.bytes() && unused * 11 < slab,
                "{unused} of {slab}"
            );
        }
    }

    #[test]
    fn a_block_begins_at_the_multiples_of_its_size_in_the_slab_and_nowhere_else() {
        let slab = 5 << UNIT_SHIFT;
        for class in Class::all() {
            let blocks = (0..class.blocks()).map(|number| slab + number * class.bytes());
            let mut blocks = blocks.enumerate().peekable();
            for offset in slab..slab + class.slab_bytes().next_power_of_two() {
                assert_eq!(class.slab_at(offset), slab);
                let block = blocks.next_if(|block| block.1 == offset);
                assert_eq!(
                    class.block_at(offset),
                    block.map(|block| block.0),
                    "{class:?} {offset}"
                );
            }
            assert_eq!(blocks.count(), 0);
        }
    }

    #[test]
    fn blocks_of_a_multiple_of_an_alignment_have_that_alignment() {
        for align in (4..=15).map(|shift| 1 << shift) {
            for size in (align..=MAX_BYTES).step_by(align) {
                let class = Class::of(size).unwrap();
                assert_eq!(class.bytes() % align, 0, "{size}");
                assert_eq!(class.slab_bytes().next_power_of_two() % align, 0, "{size}");
            }
        }
    }

    #[test]
    fn a_thread_caches_few_large_blocks_and_at_least_one_of_each_class() {
        for class in Class::all() {
            let (max, bytes) = (class.max_cached(), class.bytes());
            assert!(max == 1 || max * bytes <= 8 << 10);
            assert!((1..=MAX_CACHED).contains(&max));
        }
    }
}
