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

    /// Takes out the lowest blocks, up to the entries of `into`, and stores their offsets in the arena, of a
    /// slab that begins at `base`. Returns the number of blocks, and the number of grains in which they lie
    /// that were discarded.
    pub(crate) fn take(&self, class: Class, base: usize, into: &mut [usize]) -> (usize, u32) {
        let count = into.len().min(self.free());
        let mut touched = 0;
        let discarded = self.discarded.load(Relaxed);
        let mut places = into[..count].iter_mut();
        let mut place = places.next();
        for (index, word) in self.bits.iter().enumerate() {
            if place.is_none() {
                break;
            }
            let mut bits = word.load(Relaxed);
            while let (Some(to), true) = (&mut place, bits != 0) {
                let number = index * 64 + bits.trailing_zeros() as usize;
                **to = base + number * class.bytes();
                if discarded != 0 {
                    touched |= grains_of(class, number);
                }
                bits &= bits - 1;
                place = places.next();
            }
            word.store(bits, Relaxed);
        }
        self.free.store((self.free() - count) as u32, Relaxed);
        if discarded != 0 {
            self.discarded.store(discarded & !touched, Relaxed);
        }
        (count, (discarded & touched).count_ones())
    }

    /// Makes the blocks at these offsets, which are in this slab, free again. Fails with the first offset of
    /// which the block was free, or at which none begins, and frees none after it.
    pub(crate) fn put(&self, class: Class, offsets: &[usize]) -> Result<(), usize> {
        let mut done = 0;
        let result = offsets.iter().try_for_each(|offset| {
            let number = class.block_at(*offset).ok_or(*offset)?;
            let (word, bit) = (&self.bits[number / 64], 1 << (number % 64));
            let bits = word.load(Relaxed);
            word.store(bits | bit, Relaxed);
            match bits & bit {
                0 => done += 1,
                _ => return Err(*offset),
            }
            Ok(())
        });
        self.free.store(self.free.load(Relaxed) + done, Relaxed);
        result
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
        let mut taken = vec![0; count];
        let (count, _) = slab.take(class, BASE, &mut taken);
        taken.truncate(count);
        let number = |offset: usize| (offset - BASE) / class.bytes();
        taken.into_iter().map(number).collect()
    }

    fn put(slab: &Slab, class: Class, numbers: &[usize]) -> Result<(), usize> {
        let offset = |number: &usize| BASE + number * class.bytes();
        let offsets: Vec<usize> = numbers.iter().map(offset).collect();
        slab.put(class, &offsets)
            .map_err(|offset| (offset - BASE) / class.bytes())
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
    fn a_block_that_is_free_is_not_freed() {
        let (slab, class) = (Slab::default(), Class::of(32).unwrap());
        slab.divide(class);
        assert_eq!(put(&slab, class, &[5]), Err(5));
        taken(&slab, class, 9);
        assert_eq!(put(&slab, class, &[4, 6, 4, 8]), Err(4));
        assert_eq!(slab.free(), 128 - 9 + 2);
        assert_eq!(put(&slab, class, &[8]), Ok(()));
        assert_eq!(slab.put(class, &[BASE + 16]), Err(BASE + 16));
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
        assert_eq!(slab.take(class, BASE, &mut [0]), (1, 1));
        put(&slab, class, &[1]).unwrap();
        assert_eq!(slab.unused(class) & 0b11111, 0b01000);
    }
}
