// SPDX-License-Identifier: GPL-2.0-only

//! Backs pages of lazy blocks, and pages that were discarded, at a page fault. A discard makes its block
//! lazy.
//!
//! Memory is allocated without the arena's lock. Its range is in transit meanwhile
//! ([`engine::Touch`](crate::engine::Touch)): if the block is freed in between, the memory is removed
//! again before another block can have the range.

use super::Arena;
use crate::{
    engine::{
        Touch,
        Untouchable,
        MAX_PAGES, //
    },
    ffi::{
        nospec,
        race_point::RacePoint,
        task, //
    },
    mm::{
        address_space::Urge,
        backend::{
            KernelGarbage,
            KernelPrealloc, //
        },
        folio::LockedFolio, //
    },
};
use kernel::prelude::*;

/// The most pages that an arena releases at a time before a touch may run the OOM killer.
const RELEASE_PAGES: u64 = 8192;

/// The outcome of a touch.
pub(crate) enum Touched {
    /// The page has memory: this folio.
    Present(LockedFolio),
    /// The touch has backed the page: with this folio, which no page table maps yet.
    New(LockedFolio),
    /// Another thread is changing the range: the fault has to be taken again.
    Again,
    /// There is no memory for the page.
    Nothing,
}

impl Arena {
    /// Backs page number `index` if it lies in a lazy block and has no memory. When memory is
    /// short, free memory of the arena is released first, then the OOM killer runs. May sleep.
    pub(crate) fn touch(&self, index: u64) -> Touched {
        let Some(page) = nospec::index_nospec(index, MAX_PAGES) else {
            return Touched::Nothing;
        };
        let mut prealloc = KernelPrealloc::default();
        let mut max_order = self.address_space.max_order();
        let mut urge = Urge::Reclaim;
        loop {
            let result = self.lock().engine.touch(page, max_order, &mut prealloc);
            let touch = match result {
                Ok(touch) => touch,
                Err(Untouchable::Need(metadata)) => {
                    if self.make_in_any_case(metadata, &mut prealloc).is_err() {
                        return Touched::Nothing;
                    }
                    continue;
                }
                Err(Untouchable::Present) => return Touched::Again,
                Err(Untouchable::Busy) => {
                    task::pause();
                    return Touched::Again;
                }
                Err(Untouchable::Nothing) => return Touched::Nothing,
            };
            let order = touch.order();
            match self.back_touched(touch, urge) {
                Ok(touched) => return touched,
                Err(_) if task::fatal_signal() => return Touched::Nothing,
                Err(_) if order > 0 => max_order = order - 1,
                // No process is killed while the arena has free memory.
                Err(_) if self.release_free(RELEASE_PAGES, 0) > 0 => {}
                Err(_) if urge == Urge::Reclaim => urge = Urge::Kill,
                Err(_) => return Touched::Nothing,
            }
        }
    }

    /// Allocates the memory of a touch. After `ENOMEM`, when there is none or the cgroup is full, the
    /// touch is cancelled. May sleep.
    fn back_touched(&self, touch: Touch, urge: Urge) -> Result<Touched> {
        let (page, order) = (touch.range().start, touch.order());
        self.reuse_for_touch(&touch);
        let added = self
            .memcg
            .charge(|| self.address_space.add_locked(page, order, urge));
        RacePoint::Touch.reach();
        let folio = match added {
            Ok(folio) => folio,
            Err(error) => {
                self.cancel_touch(touch);
                return Err(error);
            }
        };
        let result = self.lock().engine.finish_touch(touch);
        match result {
            Ok(()) => Ok(Touched::New(folio)),
            Err(touch) => {
                // It is locked, and was never mapped.
                self.address_space.remove_locked(&folio);
                drop(folio);
                self.cancel_touch(touch);
                Ok(Touched::Again)
            }
        }
    }

    fn cancel_touch(&self, touch: Touch) {
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        self.lock().engine.cancel_touch(touch, &mut garbage);
    }
}
