// SPDX-License-Identifier: GPL-2.0

//! Which blocks of a slab are free: a bit each, beside the slab and not in it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::class::{Class, MOST_BLOCKS};

/// A slab: 64 KiB of the arena, divided into blocks of one class.
///
/// Whoever calls holds the lock of its class; the fields are atomic only
/// because slabs of all classes lie in one table. All zeros is a slab without
/// a free block, in no list.
pub(crate) struct Slab {
    /// The next in the list of its class, plus 1; 0 is none.
    pub(crate) next: AtomicU32,
    /// The one before in the list of its class, plus 1; 0 is none.
    pub(crate) previous: AtomicU32,
    /// Blocks whose bit is set.
    free: AtomicU32,
    /// No word below this one has a bit set.
    low: AtomicU32,
    /// A bit a block, set when it is free and in no thread's cache.
    bits: [AtomicU64; MOST_BLOCKS / 64],
}

impl Slab {
    /// Makes all blocks of `class` free.
    pub(crate) fn divide(&self, class: Class) {
        let blocks = class.blocks();
        for (index, word) in self.bits.iter().enumerate() {
            let left = blocks.saturating_sub(index * 64);
            match left {
                0 => break,
                1..64 => word.store((1 << left) - 1, Relaxed),
                _ => word.store(u64::MAX, Relaxed),
            }
        }
        self.low.store(0, Relaxed);
        self.free.store(blocks as u32, Relaxed);
    }

    /// Free blocks that are in no thread's cache.
    pub(crate) fn free(&self) -> usize {
        self.free.load(Relaxed) as usize
    }

    /// Takes up to `count` blocks out, the lowest first, and hands their
    /// numbers to `take`.
    pub(crate) fn take(&self, count: usize, mut take: impl FnMut(usize)) {
        let count = count.min(self.free());
        let mut left = count;
        let mut index = self.low.load(Relaxed) as usize;
        while left > 0 {
            let Some(word) = self.bits.get(index) else {
                break;
            };
            let mut bits = word.load(Relaxed);
            while bits != 0 && left > 0 {
                take(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
                left -= 1;
            }
            word.store(bits, Relaxed);
            if bits == 0 {
                index += 1;
            }
        }
        self.low.store(index as u32, Relaxed);
        self.free
            .store((self.free() - (count - left)) as u32, Relaxed);
    }

    /// Makes block `number` free again; `false` when it was.
    pub(crate) fn put(&self, number: usize) -> bool {
        let (index, bit) = (number / 64, 1 << (number % 64));
        let bits = self.bits[index].load(Relaxed);
        if bits & bit != 0 {
            return false;
        }
        self.bits[index].store(bits | bit, Relaxed);
        if (index as u32) < self.low.load(Relaxed) {
            self.low.store(index as u32, Relaxed);
        }
        self.free.store(self.free.load(Relaxed) + 1, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab() -> Slab {
        Slab {
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            free: AtomicU32::new(0),
            low: AtomicU32::new(0),
            bits: [const { AtomicU64::new(0) }; MOST_BLOCKS / 64],
        }
    }

    fn taken(slab: &Slab, count: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        slab.take(count, |number| taken.push(number));
        taken
    }

    #[test]
    fn a_slab_has_as_many_blocks_as_fit() {
        for class in Class::all() {
            let slab = slab();
            slab.divide(class);
            let all: Vec<usize> = (0..class.blocks()).collect();
            assert_eq!(slab.free(), all.len());
            assert_eq!(taken(&slab, usize::MAX), all);
            assert_eq!((slab.free(), taken(&slab, 1)), (0, vec![]));
        }
    }

    #[test]
    fn low_blocks_are_taken_first_also_when_they_come_back() {
        let slab = slab();
        slab.divide(Class::of(64).unwrap());
        assert_eq!(taken(&slab, 200).len(), 200);
        for number in [150, 3, 70] {
            assert!(slab.put(number));
        }
        assert_eq!(slab.free(), 1024 - 200 + 3);
        assert_eq!(taken(&slab, 5), [3, 70, 150, 200, 201]);
    }

    #[test]
    fn a_block_that_is_free_is_not_freed() {
        let slab = slab();
        slab.divide(Class::of(1024).unwrap());
        assert!(!slab.put(5));
        taken(&slab, 6);
        assert!(slab.put(5));
        assert!(!slab.put(5));
        assert_eq!(slab.free(), 59);
    }
}
