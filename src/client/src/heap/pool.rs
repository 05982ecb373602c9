// SPDX-License-Identifier: MIT OR Apache-2.0

//! Slabs that are wholly free. They are kept for a while, for any class with slabs of that size, so that
//! memory that is freed and allocated in turn is not freed to the arena each time.

use super::class::{MAX_GRAINS, UNIT_BYTES};

/// The most free slabs that are kept.
const MAX_FREE_SLABS: usize = 256;
/// The most bytes of free slabs that are kept.
const MAX_FREE_BYTES: usize = 1 << 20;
/// Before the heap allocates slabs from the arena, it frees free slabs down to one byte in so many of all its
/// slabs: free slabs of one size serve no request for another, and would add to the memory that it holds.
const HELD_PER_FREE: usize = 64;
/// The most slabs that one call of the source allocates or frees.
pub(super) const BATCH: usize = MAX_GRAINS;
/// One call allocates at most one byte in so many of all the heap's slabs, and at most 64 KiB.
const HELD_PER_BATCH: usize = 128;
/// The most discards in a row that are skipped.
const MAX_SKIPS: u32 = 255;

/// A slab that is wholly free.
#[derive(Debug, Clone, Copy, Default)]
struct FreeSlab {
    offset: u64,
    bytes: usize,
}

/// The slabs that are wholly free, the oldest first.
#[derive(Debug)]
pub(super) struct Pool {
    slabs: [FreeSlab; MAX_FREE_SLABS],
    count: usize,
    free_bytes: usize,
    /// The bytes of all the heap's slabs, with those in use.
    held_bytes: usize,
    /// The peak of `held_bytes` since a discard was due last.
    peak_bytes: usize,
    /// The grains that were discarded, and those of them that were touched again, since that was judged last.
    discarded_grains: u32,
    touched_grains: u32,
    /// The number of discards still to be skipped, and what it was when it was set.
    to_skip: u32,
    skips: u32,
}

impl Pool {
    /// Makes an empty pool.
    pub(super) fn new() -> Self {
        Self {
            slabs: [FreeSlab::default(); MAX_FREE_SLABS],
            count: 0,
            free_bytes: 0,
            held_bytes: 0,
            peak_bytes: 0,
            discarded_grains: 0,
            touched_grains: 0,
            to_skip: 0,
            skips: 0,
        }
    }

    /// Returns the number of slabs of `bytes` bytes that one call should allocate.
    pub(super) fn batch(&self, bytes: usize) -> usize {
        let max_bytes = (self.held_bytes / HELD_PER_BATCH).min(UNIT_BYTES);
        (max_bytes / bytes).clamp(1, BATCH)
    }

    /// Notes that slabs of `bytes` bytes in all were allocated from the arena.
    pub(super) fn add(&mut self, bytes: usize) {
        self.held_bytes += bytes;
        self.peak_bytes = self.held_bytes.max(self.peak_bytes);
    }

    /// Returns whether the unused pages of slabs are to be discarded now, which is when all slabs together
    /// are half of their peak. If at least half of the discarded memory was needed again, as in a program
    /// that works in steps, four times as many discards are skipped as before, otherwise a quarter.
    pub(super) fn is_discard_due(&mut self, touched_grains: u32) -> bool {
        self.touched_grains = self.touched_grains.saturating_add(touched_grains);
        if self.held_bytes > self.peak_bytes / 2 {
            return false;
        }
        self.peak_bytes = self.held_bytes;
        if self.touched_grains > 0 && self.discarded_grains > 0 {
            self.skips = match self.touched_grains >= self.discarded_grains / 2 {
                true => (self.skips * 4 + 3).min(MAX_SKIPS),
                false => self.skips / 4,
            };
            self.to_skip = self.skips;
            (self.touched_grains, self.discarded_grains) = (0, 0);
        }
        let is_due = self.to_skip == 0;
        self.to_skip = self.to_skip.saturating_sub(1);
        is_due
    }

    /// Notes the number of grains that were discarded for that.
    pub(super) fn note_discard(&mut self, grains: u32) {
        self.discarded_grains = self.discarded_grains.saturating_add(grains);
    }

    /// Takes the newest slab of `bytes` bytes.
    pub(super) fn pop(&mut self, bytes: usize) -> Option<u64> {
        let slabs = &self.slabs[..self.count];
        let at = slabs.iter().rposition(|slab| slab.bytes == bytes)?;
        let offset = slabs[at].offset;
        self.slabs.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.free_bytes -= bytes;
        Some(offset)
    }

    /// Keeps a slab. Returns `false` if the pool is full.
    pub(super) fn push(&mut self, offset: u64, bytes: usize) -> bool {
        if self.free_bytes + bytes > MAX_FREE_BYTES {
            return false;
        }
        let Some(place) = self.slabs.get_mut(self.count) else {
            return false;
        };
        *place = FreeSlab { offset, bytes };
        self.count += 1;
        self.free_bytes += bytes;
        true
    }

    /// Returns whether slabs have to be freed before more are allocated from the arena.
    pub(super) fn is_large(&self) -> bool {
        self.free_bytes > self.held_bytes / HELD_PER_FREE
    }

    /// Takes out the oldest slabs, up to [`BATCH`], for the caller to free, and returns their number.
    pub(super) fn take_oldest(&mut self, into: &mut [u64; BATCH]) -> usize {
        let count = self.count.min(BATCH);
        let mut bytes = 0;
        for (place, slab) in into.iter_mut().zip(&self.slabs[..count]) {
            *place = slab.offset;
            bytes += slab.bytes;
        }
        self.slabs.copy_within(count..self.count, 0);
        self.count -= count;
        self.free_bytes -= bytes;
        self.held_bytes -= bytes;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::class::GRAIN_BYTES;

    #[test]
    fn the_newest_slab_of_a_size_is_used_first_and_the_oldest_are_released() {
        let mut pool = Pool::new();
        pool.add(1 << 20);
        for (offset, grains) in [(1, 1), (2, 3), (3, 1), (4, 2), (5, 1)] {
            assert!(pool.push(offset, grains * GRAIN_BYTES));
        }
        assert_eq!(pool.pop(GRAIN_BYTES), Some(5));
        assert_eq!(pool.pop(3 * GRAIN_BYTES), Some(2));
        assert_eq!(pool.pop(3 * GRAIN_BYTES), None);
        let mut slabs = [0; BATCH];
        assert_eq!(pool.take_oldest(&mut slabs), 3);
        assert_eq!(slabs[..3], [1, 3, 4]);
        assert_eq!(pool.held_bytes, (1 << 20) - 4 * GRAIN_BYTES);
        assert_eq!(pool.take_oldest(&mut slabs), 0);
    }

    #[test]
    fn the_pool_and_its_batches_grow_with_the_heap() {
        let (mut pool, unit) = (Pool::new(), UNIT_BYTES);
        assert_eq!(pool.batch(GRAIN_BYTES), 1);
        pool.add(4 << 20);
        assert!(pool.push(0, unit) && !pool.is_large());
        assert!(pool.push(0, GRAIN_BYTES) && pool.is_large());
        assert_eq!((pool.batch(GRAIN_BYTES), pool.batch(unit)), (8, 1));
        pool.add(1 << 30);
        assert_eq!((pool.batch(GRAIN_BYTES), pool.batch(unit)), (BATCH, 1));
        let count = (0..1000).filter(|_| pool.push(0, unit)).count();
        assert_eq!(count, MAX_FREE_BYTES / unit - 2);
        let mut pool = Pool::new();
        assert_eq!(
            (0..1000).filter(|_| pool.push(0, GRAIN_BYTES)).count(),
            MAX_FREE_SLABS
        );
    }
}
