// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much free memory an arena keeps: as much as was wanted again after it had been given back.
//!
//! Memory that a burst leaves goes back to the system at the next release. A program that works in
//! steps, as a training run does, asks for that memory again; each byte that had to be taken anew
//! raises what is kept, so that from its third step on nothing goes back and nothing is taken. (glibc
//! learns its threshold for `mmap()` in the same way, from blocks that come back.)
//!
//! What is kept is free memory that the kernel may take at any time: the module's shrinker gives it
//! to whatever is short.

use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that may be free beyond what is kept before any go back: below this a call and the page
/// faults afterwards cost more than the memory is worth.
const SLACK: usize = 256 << 10;

/// An estimate of what an arena has in blocks and free memory, and what of it is worth keeping.
///
/// Threads store into it without a lock: what one of them misses makes the estimate wrong by a
/// block until the next trim.
pub(super) struct Reuse {
    /// Bytes of its blocks, with what was not touched yet, and of its free memory.
    held: AtomicUsize,
    /// Bytes of free memory that are worth keeping.
    kept: AtomicUsize,
    /// Bytes that went back and were not taken again since.
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

    /// Notes that `live` bytes are in blocks, after one was allocated.
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

    /// Returns what to trim the free memory to, after a release left `live` bytes in blocks; `None`
    /// if it can stay.
    #[inline]
    pub(super) fn excess(&self, live: usize) -> Option<usize> {
        let free = self.held.load(Relaxed).saturating_sub(live);
        let kept = self.kept.load(Relaxed);
        (free > kept + SLACK).then_some(kept)
    }

    /// Notes that `freed` bytes went back to the system.
    pub(super) fn trimmed(&self, freed: usize) {
        self.returned.fetch_add(freed, Relaxed);
        let held = self.held.load(Relaxed);
        self.held.store(held.saturating_sub(freed), Relaxed);
    }

    /// Notes what the arena has, as it says itself.
    pub(super) fn measured(&self, held: usize) {
        self.held.store(held, Relaxed);
    }

    /// Forgets everything: the arena is another one.
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

    /// An arena that holds what its blocks need, and trims as it is told.
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
    fn what_a_burst_leaves_goes_back() {
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
    fn steps_that_want_the_same_again_take_nothing_from_the_third_on() {
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
    fn what_the_kernel_took_is_not_counted_as_held_after_a_look() {
        let (reuse, mut arena) = (Reuse::new(), Arena::default());
        arena.alloc(&reuse, 10 * MIB);
        reuse.measured(4 * MIB);
        assert_eq!(reuse.excess(4 * MIB), None);
    }
}
