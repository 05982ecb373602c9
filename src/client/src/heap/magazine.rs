// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thread's free blocks of one class: a stack from which its owner takes without any lock or atomic
//! operation, and that another thread can drain.
//!
//! The links are not in the blocks, so a program that writes into a freed block leads the heap to no wrong
//! address.
//!
//! # Draining
//!
//! The owner's [`Magazine::pop`] lowers `len`, then looks at `low`, below which blocks are not its own.
//! A drain does these in the opposite order: it raises `low` above every `len`, makes all threads of the process
//! pass a barrier ([`heavy_barrier`](crate::sync::heavy_barrier)), then reads `len`. Either the owner read `low`
//! before the barrier, and the drain sees the lowered `len`; or after it, and the owner leaves the block and
//! takes the slow path. This is Dekker's protocol with the barrier of the frequent side moved to the other one
//! (Dice, Huang and Yang 2001), around the deque of Chase and Lev (2005).
//!
//! A push does not read `low`: it stores above every `len` that the drain can have seen.

use std::cell::Cell;
use std::hint;
use std::ptr::{self, NonNull};
use std::slice;

use super::class::{Start, MAX_CACHED};
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::sync::light_barrier;

/// `low` during a drain: above every `len`.
const CLOSED: u32 = u32::MAX;

/// Free blocks of one class, as a stack: the newest is taken first, as it is likeliest to be in the CPU's
/// caches. The size of a magazine is a power of 2, so that an index is quick to compute. All zeros is a magazine
/// that is empty and accepts nothing.
///
/// # Invariants
///
/// - `len` and `bound` are at most [`MAX_CACHED`], but for a `len` that the owner lowers below `low` and raises
///   again at once.
/// - `blocks[0]` is null; those above `low` up to `len` are not. One at `low` or below is not the owner's,
///   and null.
pub(crate) struct Magazine {
    /// The place of the newest block.
    len: AtomicU32,
    /// The highest place whose block was drained.
    low: AtomicU32,
    /// The highest place for a block; 0 in a forked child. Only the owner accesses it.
    bound: Cell<u32>,
    /// The test for an address at which a block of the class begins. Only the owner accesses it.
    start: Cell<Start>,
    blocks: [AtomicPtr<u8>; MAX_CACHED + 1],
}

// SAFETY: Other threads than the owner call `close()` and `count()` alone, which access no cell.
unsafe impl Sync for Magazine {}

impl Magazine {
    /// Takes the newest block. For the owner.
    #[inline]
    pub(crate) fn pop(&self) -> Option<NonNull<u8>> {
        let len = self.len.load(Ordering::Relaxed);
        self.len.store(len.wrapping_sub(1), Ordering::Release);
        light_barrier();
        if len <= self.low.load(Ordering::Relaxed) {
            self.len.store(len, Ordering::Release);
            return None;
        }
        let block = self.at(len).load(Ordering::Relaxed);
        // SAFETY: By the invariant: it lies above `low`. (Unchecked, so that no caller compares with null.)
        Some(unsafe {
            hint::assert_unchecked(!block.is_null());
            NonNull::new_unchecked(block)
        })
    }

    /// Keeps a block. Returns `false` if the magazine is full, if no block of the class begins at that
    /// address, or if it is the newest block, which is free already. For the owner.
    #[inline]
    pub(crate) fn push(&self, block: NonNull<u8>) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        if len >= self.bound.get() || !self.start.get().is_at(block.addr().get()) {
            return false;
        }
        if self.at(len).load(Ordering::Relaxed) == block.as_ptr() {
            return false;
        }
        // INVARIANT: The new one is not null, and lies at most at `bound`.
        self.at(len + 1).store(block.as_ptr(), Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Release);
        true
    }

    /// Returns the block at this place.
    #[inline]
    fn at(&self, place: u32) -> &AtomicPtr<u8> {
        // SAFETY: By the invariant neither `len` nor `bound` is larger, and the callers have compared with
        // one of them: `push()` reads at `len`, and above it below `bound`; `pop()` at a `len` above `low`.
        unsafe { self.blocks.get_unchecked(place as usize) }
    }

    /// Returns whether a block is the newest one, and so is free. For the owner.
    pub(crate) fn is_last(&self, block: NonNull<u8>) -> bool {
        let last = self.blocks.get(self.len.load(Ordering::Relaxed) as usize);
        last.is_some_and(|last| last.load(Ordering::Relaxed) == block.as_ptr())
    }

    /// Returns the most blocks that it may keep. For the owner.
    pub(crate) fn bound(&self) -> usize {
        self.bound.get() as usize
    }

    /// Sets the most blocks that it may keep, no fewer than it has, and where blocks of its class begin. For
    /// the owner, on its slow path.
    pub(crate) fn set_bound(&self, bound: usize, start: Start) {
        self.start.set(start);
        // INVARIANT: The bound is at most that.
        self.bound.set(bound.min(MAX_CACHED) as u32);
    }

    /// Returns the number of blocks. In another thread than the owner it may be out of date.
    pub(crate) fn count(&self) -> usize {
        let (low, len) = (
            self.low.load(Ordering::Relaxed),
            self.len.load(Ordering::Relaxed),
        );
        match len as usize {
            0..=MAX_CACHED => len.saturating_sub(low) as usize,
            _ => 0,
        }
    }

    /// Begins to fill it, if it is empty. For the owner, on its slow path, where no drain runs.
    pub(crate) fn fill(&self) -> Filling<'_> {
        Filling {
            magazine: self,
            len: 0,
        }
    }

    /// Takes out the `count` oldest blocks, or all if there are fewer, and passes them to `hand`, which does not
    /// use this magazine. For the owner, on its slow path, where no drain runs.
    pub(crate) fn take_oldest<R>(&self, count: usize, hand: impl FnOnce(Oldest<'_>) -> R) -> R {
        let low = self.low.load(Ordering::Relaxed) as usize;
        let kept = self.blocks.get(low + 1..=low + self.count());
        let kept = kept.unwrap_or_default();
        let (oldest, others) = kept.split_at(count.min(kept.len()));
        let result = hand(Oldest(oldest.iter()));
        for (place, block) in self.blocks[1..].iter().zip(others) {
            place.store(block.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        // INVARIANT: The rest was moved to the first places. Only [`Magazine::push`] accesses the places above,
        // and it overwrites them.
        self.low.store(0, Ordering::Relaxed);
        self.len.store(others.len() as u32, Ordering::Release);
        result
    }

    /// Begins a drain, for a thread that is not the owner. The caller keeps the owner off its slow path until
    /// the drain has ended; until then the owner takes no block.
    pub(crate) fn close(&self) -> Closed<'_> {
        Closed {
            magazine: self,
            low: self.low.swap(CLOSED, Ordering::Relaxed),
        }
    }
}

/// The oldest blocks of a magazine, which are taken out.
pub(crate) struct Oldest<'a>(slice::Iter<'a, AtomicPtr<u8>>);

impl Iterator for Oldest<'_> {
    type Item = *mut u8;

    #[inline]
    fn next(&mut self) -> Option<*mut u8> {
        Some(self.0.next()?.load(Ordering::Relaxed))
    }
}

/// A magazine that is being filled.
#[must_use = "it is empty before the end"]
pub(crate) struct Filling<'a> {
    magazine: &'a Magazine,
    len: u32,
}

impl Filling<'_> {
    /// Adds a block, which is popped after those that were added before; at most [`MAX_CACHED`].
    #[inline]
    pub(crate) fn add(&mut self, block: NonNull<u8>) {
        if let Some(place) = self.magazine.blocks.get(self.len as usize + 1) {
            place.store(block.as_ptr(), Ordering::Relaxed);
            self.len += 1;
        }
    }

    /// Ends the filling: the magazine has the blocks now.
    pub(crate) fn end(self) {
        let Magazine {
            len, low, blocks, ..
        } = self.magazine;
        // The first block lies highest, as it is popped next.
        let (mut one, mut other) = (1, self.len as usize);
        while one < other {
            let block = blocks[one].load(Ordering::Relaxed);
            blocks[one].store(blocks[other].load(Ordering::Relaxed), Ordering::Relaxed);
            blocks[other].store(block, Ordering::Relaxed);
            (one, other) = (one + 1, other - 1);
        }
        // INVARIANT: As many places were just filled.
        low.store(0, Ordering::Relaxed);
        len.store(self.len, Ordering::Release);
    }
}

/// A magazine during a drain.
#[must_use = "its owner takes no block before the drain ends"]
pub(crate) struct Closed<'a> {
    magazine: &'a Magazine,
    low: u32,
}

impl Closed<'_> {
    /// Ends the drain. If `is_passed`, all threads have passed a [`heavy_barrier`](crate::sync::heavy_barrier)
    /// since it began, and all blocks are taken out; otherwise none. Returns their number.
    pub(crate) fn take(self, is_passed: bool, into: &mut [*mut u8; MAX_CACHED]) -> usize {
        let Magazine {
            len, low, blocks, ..
        } = self.magazine;
        let (first, last) = (self.low as usize + 1, len.load(Ordering::Acquire) as usize);
        let drained = match last {
            0..=MAX_CACHED if is_passed && first <= last => &blocks[first..=last],
            _ => &[],
        };
        for (place, block) in into.iter_mut().zip(drained) {
            // INVARIANT: The block is no longer the owner's, which may be handed it again by another thread:
            // a null here keeps its next push from taking that for a double free.
            *place = block.swap(ptr::null_mut(), Ordering::Relaxed);
        }
        low.store(self.low + drained.len() as u32, Ordering::Release);
        drained.len()
    }
}

impl Default for Magazine {
    /// Returns what all zeros are.
    fn default() -> Self {
        Self {
            len: AtomicU32::new(0),
            low: AtomicU32::new(0),
            bound: Cell::new(0),
            start: Cell::new(Start::default()),
            blocks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }
}
