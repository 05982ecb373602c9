// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which blocks of a slab are free: a bit each, beside the slab and not in it.

use std::array;

use super::class::{Class, MOST_BLOCKS, SLAB_BYTES};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

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

impl Default for Slab {
    /// The same as all zeros.
    fn default() -> Self {
        Self {
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            free: AtomicU32::new(0),
            low: AtomicU32::new(0),
            bits: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
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

    /// Takes blocks out, the lowest first, as many as there are and `into` has
    /// room for, and says how many. What it puts there are their bytes from the
    /// arena's beginning, if the slab begins at `base`.
    pub(crate) fn take(&self, class: Class, base: usize, into: &mut [usize]) -> usize {
        let count = into.len().min(self.free());
        let mut places = into[..count].iter_mut();
        let mut index = self.low.load(Relaxed) as usize;
        let mut place = places.next();
        while place.is_some() {
            let Some(word) = self.bits.get(index) else {
                break;
            };
            let mut bits = word.load(Relaxed);
            let first = base + (index << (6 + class.shift()));
            while let (Some(to), true) = (&mut place, bits != 0) {
                **to = first + ((bits.trailing_zeros() as usize) << class.shift());
                bits &= bits - 1;
                place = places.next();
            }
            word.store(bits, Relaxed);
            if bits == 0 {
                index += 1;
            }
        }
        self.low.store(index as u32, Relaxed);
        self.free.store((self.free() - count) as u32, Relaxed);
        count
    }

    /// Makes the blocks at these offsets free again, all of them in this slab,
    /// up to the first that was free: it is the error.
    pub(crate) fn put(&self, class: Class, offsets: &[usize]) -> Result<(), usize> {
        let mut low = self.low.load(Relaxed);
        let mut done = offsets.iter();
        let twice = done.find(|offset| {
            let number = (*offset % SLAB_BYTES) >> class.shift();
            let (index, bit) = (number / 64, 1 << (number % 64));
            let bits = self.bits[index].load(Relaxed);
            self.bits[index].store(bits | bit, Relaxed);
            low = low.min(index as u32);
            bits & bit != 0
        });
        let left = done.len() + usize::from(twice.is_some());
        self.low.store(low, Relaxed);
        self.free
            .store((self.free() + offsets.len() - left) as u32, Relaxed);
        twice.map_or(Ok(()), |offset| Err(*offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of blocks that are taken out of a slab at 1 MiB.
    fn taken(slab: &Slab, class: Class, count: usize) -> Vec<usize> {
        let mut taken = vec![0; count];
        let count = slab.take(class, 1 << 20, &mut taken);
        taken.truncate(count);
        let number = |offset: usize| (offset - (1 << 20)) >> class.shift();
        taken.into_iter().map(number).collect()
    }

    fn put(slab: &Slab, class: Class, numbers: &[usize]) -> Result<(), usize> {
        let offset = |number: &usize| (1 << 20) + (number << class.shift());
        let offsets: Vec<usize> = numbers.iter().map(offset).collect();
        slab.put(class, &offsets)
            .map_err(|offset| (offset - (1 << 20)) >> class.shift())
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
    fn low_blocks_are_taken_first_also_when_they_come_back() {
        let (slab, class) = (Slab::default(), Class::of(64).unwrap());
        slab.divide(class);
        assert_eq!(taken(&slab, class, 200).len(), 200);
        assert_eq!(put(&slab, class, &[150, 3]), Ok(()));
        assert_eq!(put(&slab, class, &[70]), Ok(()));
        assert_eq!(slab.free(), 1024 - 200 + 3);
        assert_eq!(taken(&slab, class, 2), [3, 70]);
        assert_eq!(taken(&slab, class, 3), [150, 200, 201]);
    }

    #[test]
    fn a_block_that_is_free_is_not_freed() {
        let (slab, class) = (Slab::default(), Class::of(1024).unwrap());
        slab.divide(class);
        assert_eq!(put(&slab, class, &[5]), Err(5));
        taken(&slab, class, 9);
        assert_eq!(put(&slab, class, &[4, 6, 4, 8]), Err(4));
        assert_eq!(slab.free(), 64 - 9 + 2);
        assert_eq!(put(&slab, class, &[8]), Ok(()));
    }
}
