// SPDX-License-Identifier: GPL-2.0-only

//! `FREELIST_IOC_DISCARD`: drops the memory of pages inside live blocks.

use super::{
    free::offset_nospec,
    reclaim::Headroom,
    Arena, //
};
use crate::{
    engine::{
        Discard,
        DiscardError,
        Discarding, //
    },
    ffi::{
        race_point::RacePoint,
        task,
        trace, //
    },
    mm::backend::KernelGarbage,
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

impl Arena {
    /// Drops the memory of the whole pages inside `bytes` bytes from `offset` on: they read as zero, and
    /// get memory when they are touched. A page that is pinned for I/O, or whose folio cannot be split,
    /// keeps its memory and is zeroed. May sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | `bytes` is 0; a part of the range lies in no live block, or in one that has a header, is contiguous or is below a page |
    /// | `EINTR` | the caller is being killed: a part of the range was discarded |
    pub(crate) fn discard(&self, offset: u64, bytes: u64) -> Result {
        let last = bytes
            .checked_sub(1)
            .and_then(|more| offset.checked_add(more));
        let first = offset_nospec(offset).ok_or(EINVAL)?;
        let last = last.and_then(offset_nospec).ok_or(EINVAL)?;
        let mut page = (first >> PAGE_SHIFT) as u32;
        let end = (last >> PAGE_SHIFT) as u32 + 1;
        while page < end {
            page = self.lock().engine.check_discard(page, end)?;
            task::resched();
        }
        let mut page = first.div_ceil(PAGE_SIZE as u64) as u32;
        let end = ((last + 1) >> PAGE_SHIFT) as u32;
        while page < end {
            task::fail_if_killed()?;
            let next = self.lock().engine.discard(page, end);
            match next {
                Discarding::Range(discard) => {
                    page = discard.range().end;
                    self.discard_range(discard);
                }
                Discarding::Next(next) => page = next,
                Discarding::Busy => task::pause(),
            }
            task::resched();
        }
        Ok(())
    }

    fn discard_range(&self, discard: Discard) {
        let range = discard.range();
        let keeps_memory = discard.keeps_memory();
        RacePoint::Removal.reach();
        let stays = if keeps_memory {
            self.address_space.zero(&range, 0..PAGE_SIZE, || true)
        } else {
            self.address_space.discard(range.clone())
        };
        let mut stayed = self.stayed(stays, range.end);
        let mut left = range.len() as u32;
        let mut stayed = |page| {
            let stays = stayed(page)?;
            // A folio may reach beyond the range, on both sides.
            let inside = page.max(stays.start)..range.end.min(stays.end);
            left = left.saturating_sub(inside.len() as u32);
            Some(stays)
        };
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut state = self.lock();
        let orphan = state
            .engine
            .finish_discard(discard, &mut garbage, &mut stayed);
        drop(state);
        if let Some(isolated) = orphan {
            self.finish_removal(isolated, stays, Headroom::Returned);
            self.wake_unlocked();
        } else if !keeps_memory {
            self.trace_reclaim(range, left, trace::RECLAIM_DISCARD);
        }
    }
}

impl From<DiscardError> for Error {
    fn from(error: DiscardError) -> Self {
        match error {
            DiscardError::NotLive | DiscardError::Unsuited => EINVAL,
        }
    }
}
