// SPDX-License-Identifier: MIT OR Apache-2.0

//! Free blocks of one class that a thread keeps: a stack from which its owner takes without any lock or
//! atomic operation, and that another thread can drain.
//!
//! The links are not in the blocks, so that a program's writes into a block that it gave back lead to no
//! wrong address.
//!
//! # Draining
//!
//! The owner's [`Magazine::pop`] lowers `len`, then looks at `low`, below which blocks are not its own.
//! A drain does these the other way round: it raises `low` beyond every `len`, makes all threads of the
//! process pass a barrier ([`heavy_barrier`](crate::sync::heavy_barrier)), then looks at `len`. Either the owner's look came before the
//! barrier, and the drain sees the lowered `len`; or after it, and the owner leaves the block and calls at
//! the slow path. This is Dekker's protocol with the barrier of the frequent side moved to the other one
//! (Dice, Huang and Yang 2001), around the deque of Chase and Lev (2005).
//!
//! A push needs no look: it stores above every `len` that the drain can have seen.

use std::cell::Cell;
use std::hint;
use std::ptr::{self, NonNull};

use super::class::{Start, MOST_CACHED};
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::sync::light_barrier;

/// `low` during a drain: above every `len`.
const CLOSED: u32 = u32::MAX;

/// Free blocks of one class, as a stack: the last one that came is the first that goes, as it is the
/// likeliest to be in the CPU's caches. Its size is a power of 2, which is quick to find. All zeros is one
/// that is empty and takes nothing.
///
/// # Invariants
///
/// - `len` and `most` are at most [`MOST_CACHED`], but for a `len` that the owner lowers below `low` and raises
///   again at once.
/// - `blocks[0]` is null; those above `low` up to `len` are not. One at `low` or below is not the owner's,
///   and null.
pub(crate) struct Magazine {
    /// The place of the block that came last.
    len: AtomicU32,
    /// Blocks up to this place were drained.
    low: AtomicU32,
    /// The highest place for a block; 0 in a forked child. The owner's.
    most: Cell<u32>,
    /// Where blocks of the class begin. The owner's.
    start: Cell<Start>,
    blocks: [AtomicPtr<u8>; MOST_CACHED + 1],
}

// SAFETY: Other threads than the owner call `close()` and `count()` alone, which access no cell.
unsafe impl Sync for Magazine {}

impl Magazine {
    /// Takes the block that came last. For the owner.
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
        // SAFETY: By the invariant: it lies above `low`. (It is said so that no caller looks again.)
        Some(unsafe {
            hint::assert_unchecked(!block.is_null());
            NonNull::new_unchecked(block)
        })
    }

    /// Keeps a block; `false` when there are as many as there may be, when no block of the class begins at
    /// such an address, or when it is the one that came last. For the owner.
    #[inline]
    pub(crate) fn push(&self, block: NonNull<u8>) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        if len >= self.most.get() || !self.start.get().is_at(block.addr().get()) {
            return false;
        }
        if self.at(len).load(Ordering::Relaxed) == block.as_ptr() {
            return false;
        }
        // INVARIANT: The new one is not null, and lies at most at `most`.
        self.at(len + 1).store(block.as_ptr(), Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Release);
        true
    }

    /// The block at this place.
    #[inline]
    fn at(&self, place: u32) -> &AtomicPtr<u8> {
        // SAFETY: By the invariant neither `len` nor `most` is larger, and the callers have compared with
        // one of them: `push()` looks at `len` and beyond it below `most`, `pop()` at a `len` above `low`.
        unsafe { self.blocks.get_unchecked(place as usize) }
    }

    /// Whether a block is the one that came last: it is free then. For the owner.
    pub(crate) fn is_last(&self, block: NonNull<u8>) -> bool {
        let last = self.blocks.get(self.len.load(Ordering::Relaxed) as usize);
        last.is_some_and(|last| last.load(Ordering::Relaxed) == block.as_ptr())
    }

    /// Returns how many blocks it may keep. For the owner.
    pub(crate) fn most(&self) -> usize {
        self.most.get() as usize
    }

    /// Lets it keep `most` blocks of the class that begins at these addresses, no fewer than it has. For the
    /// owner, on its slow path.
    pub(crate) fn set_most(&self, most: usize, start: Start) {
        self.start.set(start);
        // INVARIANT: It is no more.
        self.most.set(most.min(MOST_CACHED) as u32);
    }

    /// Returns how many blocks it keeps; any number may be wrong by the time that another thread has it.
    pub(crate) fn count(&self) -> usize {
        let (low, len) = (
            self.low.load(Ordering::Relaxed),
            self.len.load(Ordering::Relaxed),
        );
        match len as usize {
            0..=MOST_CACHED => len.saturating_sub(low) as usize,
            _ => 0,
        }
    }

    /// Keeps blocks, of which the first will go first, as far as there is room, if it is empty. For the
    /// owner, on its slow path, where no drain comes.
    pub(crate) fn fill(&self, blocks: impl DoubleEndedIterator<Item = NonNull<u8>>) {
        let mut len = 0;
        for (place, block) in self.blocks[1..].iter().zip(blocks.rev()) {
            place.store(block.as_ptr(), Ordering::Relaxed);
            len += 1;
        }
        // INVARIANT: So many were just filled.
        self.low.store(0, Ordering::Relaxed);
        self.len.store(len, Ordering::Release);
    }

    /// Takes the `count` blocks out that came first, or all that there are, and returns how many they are. For
    /// the owner, on its slow path, where no drain comes.
    pub(crate) fn take_oldest(&self, count: usize, into: &mut [*mut u8; MOST_CACHED]) -> usize {
        let low = self.low.load(Ordering::Relaxed) as usize;
        let kept = &self.blocks[low + 1..=low + self.count()];
        let count = count.min(kept.len());
        for (place, block) in into.iter_mut().zip(&kept[..count]) {
            *place = block.load(Ordering::Relaxed);
        }
        for (place, block) in self.blocks[1..].iter().zip(&kept[count..]) {
            place.store(block.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        // INVARIANT: What is left came from the first places. Only [`Magazine::push`] looks at those behind
        // it, which overwrites them.
        self.low.store(0, Ordering::Relaxed);
        self.len
            .store((kept.len() - count) as u32, Ordering::Release);
        count
    }

    /// Begins a drain, in a thread that is not the owner, which is not on its slow path and does not come to
    /// it before the drain has ended. Until then the owner takes no block.
    pub(crate) fn close(&self) -> Closed<'_> {
        Closed {
            magazine: self,
            low: self.low.swap(CLOSED, Ordering::Relaxed),
        }
    }
}

/// A magazine during a drain.
#[must_use = "its owner takes no block before the drain ends"]
pub(crate) struct Closed<'a> {
    magazine: &'a Magazine,
    low: u32,
}

impl Closed<'_> {
    /// Takes all blocks out and ends the drain, after a [`heavy_barrier`](crate::sync::heavy_barrier) if
    /// `is_passed`; otherwise none. Returns how many they are.
    pub(crate) fn take(self, is_passed: bool, into: &mut [*mut u8; MOST_CACHED]) -> usize {
        let Magazine {
            len, low, blocks, ..
        } = self.magazine;
        let (first, last) = (self.low as usize + 1, len.load(Ordering::Acquire) as usize);
        let drained = match last {
            0..=MOST_CACHED if is_passed && first <= last => &blocks[first..=last],
            _ => &[],
        };
        for (place, block) in into.iter_mut().zip(drained) {
            // INVARIANT: It is not the owner's any more. Its next push stores at a higher place, and has to
            // find none there that another thread may have been handed meanwhile.
            *place = block.swap(ptr::null_mut(), Ordering::Relaxed);
        }
        low.store(self.low + drained.len() as u32, Ordering::Release);
        drained.len()
    }
}

impl Default for Magazine {
    /// The same as all zeros.
    fn default() -> Self {
        Self {
            len: AtomicU32::new(0),
            low: AtomicU32::new(0),
            most: Cell::new(0),
            start: Cell::new(Start::default()),
            blocks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }
}
