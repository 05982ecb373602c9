// SPDX-License-Identifier: GPL-2.0

//! Where the pages of a reserved block come from: new ones within the limits, in batches, or those
//! of free blocks elsewhere in the arena.
//!
//! New pages are cheaper, so they are preferred, as long as the arena does not hold much more than
//! its blocks ever needed at a time, the limits allow it, and the system has them.

use super::{
    reclaim::Patience,
    Arena, //
};
use crate::{
    engine::{
        Policy,
        Request,
        Reservation,
        BATCH, //
    },
    ffi::{
        errno::edquot,
        task, //
    },
    mm::{
        backend::{
            make,
            KernelPrealloc, //
        },
        contiguous::{
            Contiguous,
            OrderHint, //
        },
        page::{
            Page,
            Supply, //
        },
        shrinker, //
    },
};
use core::slice::from_mut;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Room under the limits for pages that are being brought. To be given to [`Arena::forget`].
#[must_use]
struct Promise {
    bytes: u64,
}

/// What stops a block from getting its pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Short {
    /// The request may not grow, and less is free than it seemed.
    Memory,
    /// The arena's own limit.
    Own,
    /// The limit of all arenas, beyond which the block would take so many pages.
    Shared(u64),
}

impl From<Short> for Error {
    fn from(short: Short) -> Self {
        match short {
            Short::Memory => ENOMEM,
            Short::Own | Short::Shared(_) => edquot(),
        }
    }
}

/// Pages that reserved blocks miss.
fn missing(blocks: &[Reservation]) -> u32 {
    blocks.iter().map(Reservation::missing).sum()
}

impl Arena {
    /// Brings the pages that a reserved block lacks; new ones only where it may `grow`, and none
    /// but new ones side by side where they have to be `contiguous`. What was brought before an
    /// error stays with the block: `cancel` takes it back. May sleep.
    ///
    /// `EDQUOT` when a limit forbids it, `ENOMEM` when memory is short or all that was free is in
    /// use by now, `EINTR` when the caller is being killed.
    pub(super) fn fill(
        &self,
        pending: &mut Reservation,
        prealloc: &mut KernelPrealloc,
        request: &Request,
    ) -> Result {
        while pending.missing() > 0 {
            let promise = match self.promise(pending, request.policy.may_grow()) {
                Err(short) if self.make_room(short, pending, request) => continue,
                promise => promise?,
            };
            if request.policy == Policy::Contiguous {
                return self.bring_contiguous(pending, prealloc, promise);
            }
            let fresh = (promise.bytes >> PAGE_SHIFT) as u32;
            let mut result = self.steal(pending, prealloc, pending.missing() - fresh);
            if result.is_ok() && pending.missing() <= fresh {
                result = self.bring(from_mut(pending), prealloc, promise);
            } else {
                // Less was free than it seemed: another look.
                self.forget(promise);
            }
            match result {
                // The system has no more, but perhaps the arena has.
                Err(error) if error == ENOMEM && pending.is_movable() => {
                    self.steal(pending, prealloc, pending.missing())?;
                    if pending.missing() > 0 {
                        return Err(ENOMEM);
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Brings new pages for several reserved blocks at once, if nothing speaks against it: no
    /// limit, and no free memory that would better be used. What is missing afterwards is left to
    /// [`Arena::fill`]. May sleep.
    pub(super) fn fill_together(&self, blocks: &mut [Reservation], prealloc: &mut KernelPrealloc) {
        let missing = missing(blocks);
        if missing < 2 {
            return;
        }
        let bytes = u64::from(missing) << PAGE_SHIFT;
        let mut state = self.state.lock();
        let after = state.engine.held_bytes() + state.promised + bytes;
        if after > state.limit
            || state.engine.reuse_target(missing, state.promised) > 0
            || !self.shared_limit.take(bytes)
        {
            return;
        }
        state.promised += bytes;
        drop(state);
        // Why it failed shows where the rest is brought.
        let _ = self.bring(blocks, prealloc, Promise { bytes });
    }

    /// Moves at most `most` free pages to a reserved block.
    fn steal(&self, pending: &mut Reservation, prealloc: &mut KernelPrealloc, most: u32) -> Result {
        let goal = pending.missing() - most;
        while pending.missing() > goal {
            if task::fatal_signal() {
                return Err(EINTR);
            }
            let mut pages = Supply::new();
            let bytes = self.take_to_move(pending.missing() - goal, &mut pages);
            if bytes == 0 {
                break;
            }
            let mut promise = Promise { bytes };
            let result = self.put(from_mut(pending), prealloc, &mut pages, &mut promise);
            pending.mark_stale();
            self.forget(promise);
            result?;
        }
        Ok(())
    }

    /// Brings new pages, for as much as was promised.
    fn bring(
        &self,
        blocks: &mut [Reservation],
        prealloc: &mut KernelPrealloc,
        mut promise: Promise,
    ) -> Result {
        let mut result = Ok(());
        let mut hint = OrderHint::new();
        while result.is_ok() {
            let want = missing(blocks);
            if want == 0 {
                break;
            }
            if task::fatal_signal() {
                result = Err(EINTR);
                break;
            }
            result = self
                .memcg
                .charge(|| Contiguous::some_of(want, &mut hint))
                .and_then(|mut pages| self.put(blocks, prealloc, &mut pages, &mut promise));
        }
        self.forget(promise);
        result
    }

    /// Brings new pages that lie side by side, as many as the block lacks.
    fn bring_contiguous(
        &self,
        pending: &mut Reservation,
        prealloc: &mut KernelPrealloc,
        mut promise: Promise,
    ) -> Result {
        let pages = pending.missing();
        let result = self
            .memcg
            .charge(|| Contiguous::new(pages))
            .and_then(|mut pages| self.put(from_mut(pending), prealloc, &mut pages, &mut promise));
        self.forget(promise);
        result
    }

    /// Puts pages, whose room was promised, behind reserved blocks that miss as many; in batches. May
    /// sleep.
    fn put(
        &self,
        blocks: &mut [Reservation],
        prealloc: &mut KernelPrealloc,
        pages: &mut impl ExactSizeIterator<Item = Page>,
        promise: &mut Promise,
    ) -> Result {
        while pages.len() > 0 {
            let before = pages.len();
            let mut batch = pages.by_ref().take(BATCH as usize);
            let mut state = self.state.lock();
            let mut result = Ok(());
            for block in &mut *blocks {
                if result.is_ok() && batch.len() > 0 {
                    result = state.engine.back(block, &mut batch, prealloc);
                }
            }
            let came = ((before - pages.len()) as u64) << PAGE_SHIFT;
            state.promised -= came;
            promise.bytes -= came;
            drop(state);
            if let Err(metadata) = result {
                self.memcg.charge(|| make(metadata, prealloc))?;
            }
            task::resched();
        }
        Ok(())
    }

    /// Makes room under the limits where there is free memory that stands in the way: the arena's own,
    /// for a request that has no use for it, or that of others. Says whether there is some more. May
    /// sleep.
    fn make_room(&self, short: Short, pending: &Reservation, request: &Request) -> bool {
        if short == Short::Memory || task::fatal_signal() {
            return false;
        }
        // What somebody waits for is not to be given up.
        if request.policy == Policy::Contiguous && self.waiters() == 0 {
            let missing = pending.missing().into();
            if self.give_up(missing, 0, Patience::Wait) > 0 {
                return true;
            }
        }
        let Short::Shared(pages) = short else {
            return false;
        };
        // Before the look, so that nothing is missed after it.
        self.shared_limit.refuse(self.id);
        // Nothing is taken in vain.
        shrinker::reclaimable_of_others(self) >= pages
            && shrinker::reclaim_from_others(self, pages) > 0
    }

    /// Decides how many of the pages that a block misses are to be new, and reserves room for them
    /// under both limits.
    fn promise(&self, pending: &Reservation, grow: bool) -> Result<Promise, Short> {
        let missing = pending.missing();
        let mut state = self.state.lock();
        let free = if pending.is_movable() {
            state.engine.free_pages()
        } else {
            0
        };
        let least = missing.saturating_sub(free);
        if !grow {
            return if least == 0 {
                Ok(Promise { bytes: 0 })
            } else {
                Err(Short::Memory)
            };
        }
        let held = state.engine.held_bytes() + state.promised;
        let headroom = state.limit.saturating_sub(held) >> PAGE_SHIFT;
        let headroom = headroom.min(u64::from(missing)) as u32;
        if least > headroom {
            return Err(Short::Own);
        }
        let wanted = missing - state.engine.reuse_target(missing, state.promised);
        // Nothing is taken in vain, not even for a moment: somebody else might be refused for it.
        for pages in [wanted.clamp(least, headroom), least] {
            let bytes = u64::from(pages) << PAGE_SHIFT;
            if self.shared_limit.take(bytes) {
                state.promised += bytes;
                return Ok(Promise { bytes });
            }
        }
        let beyond = u64::from(least).saturating_sub(self.shared_limit.headroom() >> PAGE_SHIFT);
        Err(Short::Shared(beyond.max(1)))
    }

    /// Gives back what is left of a promise.
    fn forget(&self, promise: Promise) {
        if promise.bytes > 0 {
            let mut state = self.state.lock();
            state.promised -= promise.bytes;
            self.wake(&mut state);
            drop(state);
            self.shared_limit.give(promise.bytes);
        }
    }
}
