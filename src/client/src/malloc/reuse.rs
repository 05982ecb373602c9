// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reuse target: how much free memory an arena keeps. It is as much as was returned to the system
//! and then needed again.
//!
//! Free memory of a burst is returned to the system at the next release. A program that works in
//! steps, as a training run does, needs that memory again; each byte that has to be allocated anew
//! raises the target, so from its third step on nothing is returned and nothing allocated. (glibc
//! learns its threshold for `mmap()` in the same way, from blocks that are freed.)
//!
//! The kernel may reclaim the free memory that is kept at any time, by the module's shrinker.

use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The bytes that may be free above the target before a trim: below this a call and the page faults
/// afterwards cost more than the memory is worth.
const SLACK: usize = 256 << 10;

/// An estimate of the memory in an arena's blocks and free pages, and of how much of it to keep.
///
/// Threads store into it without a lock: a store that is lost makes the estimate wrong by a block
/// until the next trim.
pub(super) struct Reuse {
    /// The bytes of its blocks, with pages that were not touched yet, and of its free memory.
    held: AtomicUsize,
    /// The reuse target: the bytes of free memory to keep.
    kept: AtomicUsize,
    /// The bytes that were returned to the system and not needed again since.
    returned: AtomicUsize,
}

impl Reuse {
    pub(super) const fn new() -> Self {
        Self {
            held: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            returned: AtomicUsize::new(0),
        }
    }

    /// Notes that `live` bytes are in blocks, after an allocation.
    #[inline]
    pub(super) fn allocated(&self, live: usize) {
        if live > self.held.load(Relaxed) {
            self.grown(live);
        }
    }

    #[cold]
    fn grown(&self, live: usize) {
        let by = live.saturating_sub(self.held.swap(live, Relaxed));
        let returned = self.returned.load(Relaxed);
        let again = by.min(returned);
        self.returned.store(returned - again, Relaxed);
        self.kept.fetch_add(again, Relaxed);
    }

    /// Returns the bytes to which free memory has to be trimmed, after a release that left `live`
    /// bytes in blocks; `None` if it can stay.
    #[inline]
    pub(super) fn excess(&self, live: usize) -> Option<usize> {
        let free = self.held.load(Relaxed).saturating_sub(live);
        let kept = self.kept.load(Relaxed);
        (free > kept + SLACK).then_some(kept)
    }

    /// Notes that `freed` bytes were returned to the system.
    pub(super) fn trimmed(&self, freed: usize) {
        self.returned.fetch_add(freed, Relaxed);
        let held = self.held.load(Relaxed);
        self.held.store(held.saturating_sub(freed), Relaxed);
    }

    /// Notes that the arena holds `held` bytes, according to the module.
    pub(super) fn measured(&self, held: usize) {
        self.held.store(held, Relaxed);
    }

    /// Resets the estimate for a new arena.
    pub(super) fn reset(&self) {
        self.held.store(0, Relaxed);
        self.kept.store(0, Relaxed);
        self.returned.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// A simulated arena, which holds what its blocks need, and trims when `Reuse` says so.
    #[derive(Default)]
    struct Arena {
        live: usize,
        held: usize,
        taken: usize,
    }

    impl Arena {
        fn alloc(&mut self, reuse: &Reuse, bytes: usize) {
            self.live += bytes;
            self.taken += self.live.saturating_sub(self.held);
            self.held = self.held.max(self.live);
            reuse.allocated(self.live);
        }

        fn free(&mut self, reuse: &Reuse, bytes: usize) {
            self.live -= bytes;
            if let Some(keep) = reuse.excess(self.live) {
                let freed = (self.held - self.live).saturating_sub(keep);
                self.held -= freed;
                reuse.trimmed(freed);
            }
        }
    }

    #[test]
    fn memory_of_a_burst_is_released() {
        let (reuse, mut arena) = (Reuse::new(), Arena::default());
        arena.alloc(&reuse, 10 * MIB);
        for _ in 0..50 {
            arena.alloc(&reuse, MIB);
        }
        for _ in 0..50 {
            arena.free(&reuse, MIB);
        }
        assert!(arena.held <= 10 * MIB + SLACK, "{} held", arena.held);
    }

    #[test]
    fn equal_steps_allocate_no_memory_from_the_third_on() {
        let (reuse, mut arena) = (Reuse::new(), Arena::default());
        arena.alloc(&reuse, 20 * MIB);
        let taken: Vec<usize> = (0..5)
            .map(|_| {
                let before = arena.taken;
                for _ in 0..30 {
                    arena.alloc(&reuse, MIB);
                }
                for _ in 0..30 {
                    arena.free(&reuse, MIB);
                }
                arena.taken - before
            })
            .collect();
        assert_eq!(taken[0], 30 * MIB);
        assert!(taken[1] > 0, "the second step teaches: {taken:?}");
        assert_eq!(taken[2..], [0, 0, 0]);
        assert!(arena.held <= 50 * MIB + SLACK);
    }

    #[test]
    fn memory_that_the_kernel_reclaimed_is_not_counted_as_held() {
        let (reuse, mut arena) = (Reuse::new(), Arena::default());
        arena.alloc(&reuse, 10 * MIB);
        reuse.measured(4 * MIB);
        assert_eq!(reuse.excess(4 * MIB), None);
    }
}
