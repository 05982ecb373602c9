// SPDX-License-Identifier: MIT OR Apache-2.0

//! The free blocks of a slab: one bit each, kept beside the slab and not in it.

use std::array;

use super::class::{Class, GRAIN_SHIFT, MAX_BLOCKS};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A slab: some pages of the arena, divided into blocks of one class.
///
/// Callers hold the lock of its class. The fields are atomic only because slabs of all classes lie in one table,
/// by their first grain. All zeros is a slab without a free block, in no list.
pub(crate) struct Slab {
    /// The next slab in the list of its class, plus 1; 0 if none.
    pub(crate) next: AtomicU32,
    /// The previous slab in the list of its class, plus 1; 0 if none.
    pub(crate) previous: AtomicU32,
    /// The number of set bits in `bits`.
    free: AtomicU32,
    /// A bit for each grain, set from a discard of its memory until a block in it is taken.
    discarded: AtomicU32,
    /// A bit for each block, set while it is free and in no thread's cache.
    bits: [AtomicU64; MAX_BLOCKS / 64],
}

impl Default for Slab {
    /// Returns what all zeros are.
    fn default() -> Self {
        Self {
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            free: AtomicU32::new(0),
            discarded: AtomicU32::new(0),
            bits: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Returns the grains in which the block of this number lies, a bit for each.
fn grains_of(class: Class, number: usize) -> u32 {
    let first = (number * class.bytes()) >> GRAIN_SHIFT;
    let last = ((number + 1) * class.bytes() - 1) >> GRAIN_SHIFT;
    (2 << last) - (1 << first)
}

impl Slab {
    /// Makes all blocks of `class` free.
    pub(crate) fn divide(&self, class: Class) {
        let blocks = class.blocks();
        for (index, word) in self.bits.iter().enumerate() {
            word.store(bits_below(blocks.saturating_sub(index * 64)), Relaxed);
        }
        self.free.store(blocks as u32, Relaxed);
        self.discarded.store(0, Relaxed);
    }

    /// Returns the number of free blocks in no thread's cache.
    pub(crate) fn free(&self) -> usize {
        self.free.load(Relaxed) as usize
    }

    /// Begins to take blocks out, the lowest first, if the slab begins at `base`.
    #[inline]
    pub(crate) fn taking(&self, class: Class, base: usize) -> Taking<'_> {
        let bits = self.bits[0].load(Relaxed);
        Taking {
            slab: self,
            class,
            base,
            word: 0,
            bits,
            free: self.free.load(Relaxed),
            discarded: self.discarded.load(Relaxed),
            touched: 0,
        }
    }

    /// Makes the block at this offset, in this slab, free again, and returns how many are free then; `None` if
    /// it was free or is no block.
    #[inline]
    pub(crate) fn put(&self, class: Class, offset: usize) -> Option<usize> {
        let number = class.block_at(offset)?;
        let (word, bit) = (self.bits.get(number / 64)?, 1 << (number % 64));
        let bits = word.load(Relaxed);
        if bits & bit != 0 {
            return None;
        }
        word.store(bits | bit, Relaxed);
        let free = self.free.load(Relaxed) + 1;
        self.free.store(free, Relaxed);
        Some(free as usize)
    }

    /// Returns the grains that have memory although no block in them is in use, a bit for each.
    pub(crate) fn unused(&self, class: Class) -> u32 {
        let grains = class.slab_bytes() >> GRAIN_SHIFT;
        let used = (0..class.blocks()).filter(|number| {
            let bits = self.bits[number / 64].load(Relaxed);
            bits & (1 << (number % 64)) == 0
        });
        let used = used.fold(0, |used, number| used | grains_of(class, number));
        !used & !self.discarded.load(Relaxed) & bits_below(grains) as u32
    }

    /// Notes that the memory of these grains was discarded, a bit for each.
    pub(crate) fn discard(&self, grains: u32) {
        let discarded = self.discarded.load(Relaxed);
        self.discarded.store(discarded | grains, Relaxed);
    }
}

/// Blocks that are taken out of a slab: their offsets in the arena, in bytes.
#[must_use = "they are the slab's before the end"]
pub(crate) struct Taking<'a> {
    slab: &'a Slab,
    class: Class,
    base: usize,
    /// Where in the slab's bits it is, and which of them are left there.
    word: usize,
    bits: u64,
    /// Free blocks that are left.
    free: u32,
    discarded: u32,
    /// A bit a grain in which a block lies, where memory was discarded.
    touched: u32,
}

impl Taking<'_> {
    /// Has the slab lose the blocks; returns how many it has left, and in how many grains those lie whose
    /// memory was discarded.
    #[inline]
    pub(crate) fn end(self) -> (u32, u32) {
        let Self { slab, touched, .. } = self;
        slab.bits[self.word].store(self.bits, Relaxed);
        slab.free.store(self.free, Relaxed);
        if touched == 0 {
            return (self.free, 0);
        }
        let discarded = self.discarded;
        slab.discarded.store(discarded & !touched, Relaxed);
        (self.free, (discarded & touched).count_ones())
    }
}

impl Iterator for Taking<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            let next = self.slab.bits.get(self.word + 1)?;
            self.slab.bits[self.word].store(0, Relaxed);
            self.bits = next.load(Relaxed);
            self.word += 1;
        }
        let number = self.word * 64 + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        self.free -= 1;
        if self.discarded != 0 {
            self.touched |= grains_of(self.class, number);
        }
        Some(self.base + number * self.class.bytes())
    }
}

/// Returns the number whose lowest `count` bits are set.
fn bits_below(count: usize) -> u64 {
    match count {
        0..64 => (1 << count) - 1,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 1 << 20;

    /// Takes blocks out of a slab at 1 MiB, and returns their numbers.
    fn taken(slab: &Slab, class: Class, count: usize) -> Vec<usize> {
        let mut taking = slab.taking(class, BASE);
        let taken: Vec<_> = taking.by_ref().take(count).collect();
        assert_eq!(taking.end().0 as usize, slab.free());
        let number = |offset: usize| (offset - BASE) / class.bytes();
        taken.into_iter().map(number).collect()
    }

    fn put(slab: &Slab, class: Class, numbers: &[usize]) -> Result<(), usize> {
        numbers.iter().try_for_each(|number| {
            let free = slab.free();
            let put = slab.put(class, BASE + number * class.bytes());
            assert_eq!(slab.free(), put.unwrap_or(free));
            put.map(|_| ()).ok_or(*number)
        })
    }

    #[test]
    fn a_slab_has_as_many_blocks_as_fit() {
        for class in Class::all() {
            let slab = Slab::default();
            slab.divide(class);
            let all: Vec<usize> = (0..class.blocks()).collect();
            assert_eq!(slab.free(), all.len());
            assert_eq!(taken(&slab, class, 5000), all);
            assert_eq!((slab.free(), taken(&slab, class, 1)), (0, vec![]));
        }
    }

    #[test]
    fn low_blocks_are_allocated_first_also_after_a_free() {
        let (slab, class) = (Slab::default(), Class::of(16).unwrap());
        slab.divide(class);
        assert_eq!(taken(&slab, class, 200).len(), 200);
        assert_eq!(put(&slab, class, &[150, 3]), Ok(()));
        assert_eq!(put(&slab, class, &[70]), Ok(()));
        assert_eq!(slab.free(), 256 - 200 + 3);
        assert_eq!(taken(&slab, class, 2), [3, 70]);
        assert_eq!(taken(&slab, class, 3), [150, 200, 201]);
    }

    #[test]
    fn a_free_block_is_not_freed_again() {
        let (slab, class) = (Slab::default(), Class::of(32).unwrap());
        slab.divide(class);
        assert_eq!(put(&slab, class, &[5]), Err(5));
        taken(&slab, class, 9);
        assert_eq!(put(&slab, class, &[4, 6, 4, 8]), Err(4));
        assert_eq!(slab.free(), 128 - 9 + 2);
        assert_eq!(put(&slab, class, &[8]), Ok(()));
        assert_eq!(slab.put(class, BASE + 16), None);
    }

    #[test]
    fn grains_without_a_block_in_use_can_be_discarded_once() {
        // Several blocks in several grains, none of which is as large as a grain.
        let class = Class::of(9 << 10).unwrap();
        let grains = class.slab_bytes() >> GRAIN_SHIFT;
        assert!(class.blocks() >= 3 && grains >= 7);
        let slab = Slab::default();
        slab.divide(class);
        assert_eq!(slab.unused(class), (1 << grains) - 1);
        taken(&slab, class, class.blocks());
        assert_eq!(
            slab.unused(class),
            u32::from(class.blocks() * 9 <= (grains - 1) * 4) << (grains - 1)
        );
        // The second block, in the grains from 9 to 18 KiB.
        put(&slab, class, &[1]).unwrap();
        assert_eq!(slab.unused(class) & 0b11111, 0b01000);
        slab.discard(0b01000);
        assert_eq!(slab.unused(class) & 0b11111, 0);
        let mut taking = slab.taking(class, BASE);
        assert!(taking.next().is_some());
        assert_eq!(taking.end(), (0, 1));
        put(&slab, class, &[1]).unwrap();
        assert_eq!(slab.unused(class) & 0b11111, 0b01000);
    }
}
