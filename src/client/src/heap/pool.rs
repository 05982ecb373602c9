// SPDX-License-Identifier: MIT OR Apache-2.0

//! Slabs that are wholly free: kept for a while for any class that has slabs of that size, so that memory that
//! is freed and asked for again in turn does not go to the arena and back each time.

use super::class::{MOST_GRAINS, UNIT_BYTES};

/// Free slabs that are kept, at most.
const MOST_SPARE: usize = 256;
/// Bytes of free slabs that are kept, at most.
const MOST_SPARE_BYTES: usize = 1 << 20;
/// When the heap asks the arena for slabs, it first gives free slabs back beyond one byte in so many of all its
/// slabs: free slabs of one size do not serve requests for another, and would add to what it holds.
const HELD_PER_SPARE: usize = 64;
/// The most slabs that one call of the source allocates or frees.
pub(super) const BATCH: usize = MOST_GRAINS;
/// One call allocates one byte in so many of all slabs that the heap has, at most 64 KiB.
const HELD_PER_BATCH: usize = 128;
/// The most discards in a row that are left out.
const MOST_LEFT_OUT: u32 = 255;

/// A slab that is wholly free.
#[derive(Debug, Clone, Copy, Default)]
struct Spare {
    offset: u64,
    bytes: usize,
}

/// The slabs that are wholly free, the oldest first.
#[derive(Debug)]
pub(super) struct Pool {
    spare: [Spare; MOST_SPARE],
    count: usize,
    spare_bytes: usize,
    /// Of all slabs that the heap has, those in use too.
    held_bytes: usize,
    /// The most that they were since memory was to be discarded last.
    highest_bytes: usize,
    /// Of it, and of that what was touched again, since the last look at them.
    discarded_grains: u32,
    touched_grains: u32,
    /// How often it is to be left out from now on, and was to be when that was set.
    leave_out: u32,
    left_out: u32,
}

impl Pool {
    /// Makes an empty one.
    pub(super) fn new() -> Self {
        Self {
            spare: [Spare::default(); MOST_SPARE],
            count: 0,
            spare_bytes: 0,
            held_bytes: 0,
            highest_bytes: 0,
            discarded_grains: 0,
            touched_grains: 0,
            leave_out: 0,
            left_out: 0,
        }
    }

    /// Returns how many slabs of `bytes` bytes are to be asked for in a call.
    pub(super) fn batch(&self, bytes: usize) -> usize {
        let most = (self.held_bytes / HELD_PER_BATCH).min(UNIT_BYTES);
        (most / bytes).clamp(1, BATCH)
    }

    /// Notes that so many bytes of slabs came from the arena.
    pub(super) fn add(&mut self, bytes: usize) {
        self.held_bytes += bytes;
        self.highest_bytes = self.held_bytes.max(self.highest_bytes);
    }

    /// Whether memory of slabs that are partly free is to be discarded now: each time that slabs are half of
    /// what they were. Where at least half of what was discarded was needed again, as a program does that
    /// works in steps, it is left out four times as often as before; else a quarter.
    pub(super) fn is_discard_due(&mut self, touched_grains: u32) -> bool {
        self.touched_grains = self.touched_grains.saturating_add(touched_grains);
        if self.held_bytes > self.highest_bytes / 2 {
            return false;
        }
        self.highest_bytes = self.held_bytes;
        if self.touched_grains > 0 && self.discarded_grains > 0 {
            self.left_out = match self.touched_grains >= self.discarded_grains / 2 {
                true => (self.left_out * 4 + 3).min(MOST_LEFT_OUT),
                false => self.left_out / 4,
            };
            self.leave_out = self.left_out;
            (self.touched_grains, self.discarded_grains) = (0, 0);
        }
        let is_due = self.leave_out == 0;
        self.leave_out = self.leave_out.saturating_sub(1);
        is_due
    }

    /// Notes how many grains were discarded then.
    pub(super) fn note_discard(&mut self, grains: u32) {
        self.discarded_grains = self.discarded_grains.saturating_add(grains);
    }

    /// Takes the slab of `bytes` bytes that came last.
    pub(super) fn pop(&mut self, bytes: usize) -> Option<u64> {
        let spare = &self.spare[..self.count];
        let at = spare.iter().rposition(|spare| spare.bytes == bytes)?;
        let offset = spare[at].offset;
        self.spare.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.spare_bytes -= bytes;
        Some(offset)
    }

    /// Keeps a slab; `false` if it is one too many.
    pub(super) fn push(&mut self, offset: u64, bytes: usize) -> bool {
        if self.spare_bytes + bytes > MOST_SPARE_BYTES {
            return false;
        }
        let Some(place) = self.spare.get_mut(self.count) else {
            return false;
        };
        *place = Spare { offset, bytes };
        self.count += 1;
        self.spare_bytes += bytes;
        true
    }

    /// Whether so much is kept that some is to be given back before more comes from the arena.
    pub(super) fn is_large(&self) -> bool {
        self.spare_bytes > self.held_bytes / HELD_PER_SPARE
    }

    /// Takes up to [`BATCH`] slabs out that came first, to be given back, and returns how many.
    pub(super) fn leave(&mut self, into: &mut [u64; BATCH]) -> usize {
        let count = self.count.min(BATCH);
        let mut bytes = 0;
        for (place, spare) in into.iter_mut().zip(&self.spare[..count]) {
            *place = spare.offset;
            bytes += spare.bytes;
        }
        self.spare.copy_within(count..self.count, 0);
        self.count -= count;
        self.spare_bytes -= bytes;
        self.held_bytes -= bytes;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::class::GRAIN_BYTES;

    #[test]
    fn the_last_of_a_size_is_used_first_and_the_oldest_leave() {
        let mut pool = Pool::new();
        pool.add(1 << 20);
        for (offset, grains) in [(1, 1), (2, 3), (3, 1), (4, 2), (5, 1)] {
            assert!(pool.push(offset, grains * GRAIN_BYTES));
        }
        assert_eq!(pool.pop(GRAIN_BYTES), Some(5));
        assert_eq!(pool.pop(3 * GRAIN_BYTES), Some(2));
        assert_eq!(pool.pop(3 * GRAIN_BYTES), None);
        let mut slabs = [0; BATCH];
        assert_eq!(pool.leave(&mut slabs), 3);
        assert_eq!(slabs[..3], [1, 3, 4]);
        assert_eq!(pool.held_bytes, (1 << 20) - 4 * GRAIN_BYTES);
        assert_eq!(pool.leave(&mut slabs), 0);
    }

    #[test]
    fn what_is_kept_and_asked_for_grows_with_the_heap() {
        let (mut pool, unit) = (Pool::new(), UNIT_BYTES);
        assert_eq!(pool.batch(GRAIN_BYTES), 1);
        pool.add(4 << 20);
        assert!(pool.push(0, unit) && !pool.is_large());
        assert!(pool.push(0, GRAIN_BYTES) && pool.is_large());
        assert_eq!((pool.batch(GRAIN_BYTES), pool.batch(unit)), (8, 1));
        pool.add(1 << 30);
        assert_eq!((pool.batch(GRAIN_BYTES), pool.batch(unit)), (BATCH, 1));
        let count = (0..1000).filter(|_| pool.push(0, unit)).count();
        assert_eq!(count, MOST_SPARE_BYTES / unit - 2);
        let mut pool = Pool::new();
        assert_eq!(
            (0..1000).filter(|_| pool.push(0, GRAIN_BYTES)).count(),
            MOST_SPARE
        );
    }
}
