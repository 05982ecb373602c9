// SPDX-License-Identifier: GPL-2.0-only

//! Promises: headroom under the limits for pages before they are allocated.
//!
//! An arena takes the headroom first, so that two threads that grow at once cannot both use the last of it.

use super::{
    state::State,
    Arena, //
};
use crate::{
    engine::{
        Policy,
        Request,
        Reservation, //
    },
    ffi::{
        errno::edquot,
        task, //
    },
    mm::shrinker, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Headroom under both limits for pages that are being allocated. It has to be passed to
/// [`Arena::return_unused`] in the end.
#[must_use]
pub(super) struct Promise {
    pub(super) bytes: u64,
}

impl Promise {
    pub(super) fn pages(&self) -> u32 {
        (self.bytes >> PAGE_SHIFT) as u32
    }
}

/// The pages that a block may get.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sources {
    /// Free pages of the arena only.
    Free,
    /// Free pages up to the reuse target, and new ones.
    FreeFirst,
    /// New pages as far as the limits allow, and free ones for the rest.
    New,
}

/// The reason why a block cannot get its pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// The request may not grow, and too little memory is free.
    Memory,
    /// The arena's own limit is reached.
    Own,
    /// The block needs that many pages more than the limit of all arenas has.
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

impl Arena {
    /// Makes headroom under the limits: the arena releases free memory for a contiguous request, which
    /// cannot use it, and other arenas release free memory if the shared limit is reached. Returns whether
    /// any was released. May sleep.
    pub(super) fn make_headroom(
        &self,
        short: Short,
        pending: &Reservation,
        request: &Request,
    ) -> bool {
        if short == Short::Memory || task::fatal_signal() {
            return false;
        }
        // Free memory that a thread waits for is kept.
        if request.policy == Policy::Contiguous && self.waiters() == 0 {
            let missing = pending.missing().into();
            if self.release_free(missing, 0) > 0 {
                return true;
            }
        }
        let Short::Shared(pages) = short else {
            return false;
        };
        self.take_from_others(pages)
    }

    /// Has other arenas release `pages` free pages, if they have that many together. Returns whether any
    /// was released. May sleep.
    pub(super) fn take_from_others(&self, pages: u64) -> bool {
        // Noted before the other arenas are asked: memory that is freed after that causes a wake-up.
        self.shared_limit.refuse(self.id);
        // Other arenas lose nothing unless that is enough.
        shrinker::reclaimable_of_others(self) >= pages
            && shrinker::reclaim_from_others(self, pages) > 0
    }

    /// Takes headroom under both limits for the missing pages of a block. All other missing pages have to be
    /// moved: as many as the limits lack, and with `FreeFirst` as many as would exceed the slack.
    pub(super) fn promise(
        &self,
        pending: &Reservation,
        sources: Sources,
    ) -> Result<Promise, Short> {
        let missing = pending.missing();
        let mut state = self.lock();
        let free = if pending.is_movable() {
            state.engine.free_pages()
        } else {
            0
        };
        let least = missing.saturating_sub(free);
        if sources == Sources::Free {
            return if least == 0 {
                Ok(Promise { bytes: 0 })
            } else {
                Err(Short::Memory)
            };
        }
        let headroom = state.limit.saturating_sub(state.taken()) >> PAGE_SHIFT;
        let headroom = headroom.min(u64::from(missing)) as u32;
        if least > headroom {
            return Err(Short::Own);
        }
        let target = match sources {
            Sources::FreeFirst => missing - state.engine.reuse_target(missing, state.promised),
            _ => missing,
        };
        // Headroom that is taken without need, even for a moment, could make another arena's request fail.
        for pages in [target.clamp(least, headroom), least] {
            let bytes = u64::from(pages) << PAGE_SHIFT;
            if self.shared_limit.try_charge(bytes) {
                state.promised += bytes;
                return Ok(Promise { bytes });
            }
        }
        let beyond = u64::from(least).saturating_sub(self.shared_limit.headroom() >> PAGE_SHIFT);
        Err(Short::Shared(beyond.max(1)))
    }

    /// Returns the unused headroom of a promise to the limits.
    pub(super) fn return_unused(&self, promise: Promise) {
        if promise.bytes > 0 {
            let mut state = self.lock();
            state.promised -= promise.bytes;
            self.wake(&mut state);
            drop(state);
            self.shared_limit.uncharge(promise.bytes);
        }
    }
}

impl State {
    /// Uses up the headroom of `pages` pages of a promise.
    pub(super) fn take_up(&mut self, pages: u32, promise: &mut Promise) {
        let bytes = u64::from(pages) << PAGE_SHIFT;
        self.promised -= bytes;
        promise.bytes -= bytes;
    }
}
