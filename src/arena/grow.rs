// SPDX-License-Identifier: GPL-2.0-only

//! Backs reserved blocks with new folios, within the limits.
//!
//! Moving means that free memory elsewhere in the arena is released first, and its headroom serves the
//! new folios. It costs more than growing, so it happens in three cases only: the arena would hold more than
//! its slack allows beyond its blocks' highest need, a limit is reached, or the system is out of memory.

use super::{
    promise::{
        Promise,
        Sources, //
    },
    reclaim::Headroom,
    state::State,
    Arena, //
};
use crate::{
    engine::{
        Metadata,
        Policy,
        Request,
        Reservation,
        Surplus,
        Touch, //
    },
    ffi::{
        errno::edquot,
        task, //
    },
    mm::{
        backend::{
            KernelGarbage,
            KernelPrealloc, //
        }, //
    },
};
use core::slice::from_mut;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// The number of ranges without a removable page after which `vacate` stops.
const STUCK: usize = 8;
/// The most pages that a touch releases for the touches after it: 2 MiB with pages of 4 KiB.
const VACATED_AHEAD: u32 = 512;
/// How often a block's pages are moved when the system is out of memory.
const TRIES: u32 = 4;
/// One part in so many of a limit is kept free of surplus pages.
const LIMIT_PART: u64 = 8;

/// Returns the number of pages without memory of all `blocks`.
pub(super) fn missing(blocks: &[Reservation]) -> u32 {
    blocks.iter().map(Reservation::missing).sum()
}

impl Arena {
    /// Backs the missing pages of a reserved block. A request that may not grow gets as many as the
    /// arena releases elsewhere. After an error the block keeps the pages that were backed, and `cancel`
    /// releases them. May sleep.
    ///
    /// `EDQUOT` when a limit is reached, `ENOMEM` when memory is short, or the free memory has been
    /// taken by another thread, `EINTR` when the caller is being killed.
    pub(super) fn fill(
        &self,
        pending: &mut Reservation,
        prealloc: &mut KernelPrealloc,
        request: &Request,
    ) -> Result {
        if pending.is_lazy() {
            return self.take_headroom(pending, request);
        }
        let mut tries = 0;
        let mut sources = match request.policy.may_grow() {
            true => Sources::FreeFirst,
            false => Sources::Free,
        };
        while pending.missing() > 0 {
            let mut promise = match self.promise(pending, sources) {
                Err(short) if self.make_headroom(short, pending, request) => continue,
                promise => promise?,
            };
            if request.policy == Policy::Contiguous {
                return self.back_contiguous(pending, prealloc, promise);
            }
            let lacks = pending.missing().saturating_sub(promise.pages());
            if lacks > 0 {
                let moved = self.vacate(lacks, pending.missing(), &mut promise);
                if moved != Ok(lacks) {
                    self.return_unused(promise);
                    // Other threads took free pages, or pages stayed: try again without moving.
                    match (moved?, sources) {
                        (0, Sources::FreeFirst) => sources = Sources::New,
                        (0, Sources::New) => return Err(edquot()),
                        (0, Sources::Free) => return Err(ENOMEM),
                        _ => {}
                    }
                    continue;
                }
            }
            match self.back_pages(from_mut(pending), prealloc, promise) {
                // The system is out of memory, but the arena may have free pages.
                Err(error) if error == ENOMEM && pending.is_movable() && tries < TRIES => {
                    tries += 1;
                    let mut promise = Promise { bytes: 0 };
                    let missing = pending.missing();
                    let moved = self.vacate(missing, missing, &mut promise);
                    self.return_unused(promise);
                    if moved? == 0 {
                        return Err(ENOMEM);
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Takes headroom under both limits for the missing pages of a lazy block. If a limit has too little,
    /// free memory elsewhere in the arena is released. May sleep.
    ///
    /// `EDQUOT` when a limit, or the bound of untouched lazy memory, is reached; `EINTR` when the caller is
    /// being killed.
    fn take_headroom(&self, pending: &mut Reservation, request: &Request) -> Result {
        while pending.missing() > pending.owed() {
            if !self.may_owe(&self.lock(), pending) {
                return Err(edquot());
            }
            let mut promise = match self.promise(pending, Sources::New) {
                Err(short) if self.make_headroom(short, pending, request) => continue,
                promise => promise?,
            };
            let lacks = pending.missing().saturating_sub(promise.pages());
            let left = if lacks > 0 {
                self.vacate(lacks, pending.missing(), &mut promise)
            } else {
                Ok(0)
            };
            if left == Ok(lacks) {
                let mut state = self.lock();
                // Another thread may have reserved lazy memory meanwhile.
                if self.may_owe(&state, pending) {
                    state.promised -= promise.bytes;
                    state.engine.owe(pending);
                    continue;
                }
            }
            self.return_unused(promise);
            if left? == 0 {
                return Err(edquot());
            }
        }
        Ok(())
    }

    /// Returns whether the bound of untouched lazy memory admits the missing pages of a block.
    fn may_owe(&self, state: &State, pending: &Reservation) -> bool {
        let pages = u64::from(state.engine.owed_pages()) + u64::from(pending.missing());
        pages << PAGE_SHIFT <= self.lazy_limit
    }

    /// Releases free memory elsewhere in the arena before a touch is backed, if that would exceed the slack:
    /// for the rest of the block, too, as its touches come one after the other. May sleep.
    pub(super) fn reuse_for_touch(&self, touch: &Touch) {
        let pages = 1 << touch.order();
        let state = self.lock();
        let target = state.engine.reuse_target(pages, state.promised);
        drop(state);
        if target > 0 {
            let rest = touch.rest_of_block();
            let mut promise = Promise { bytes: 0 };
            // A caller that is being killed continues with fewer pages moved.
            let _ = self.vacate(target.max(rest.min(VACATED_AHEAD)), rest, &mut promise);
            self.return_unused(promise);
        }
    }

    /// Backs several reserved blocks with new pages at once, if the limits have headroom and nothing has to be
    /// moved. [`Arena::fill`] backs the pages that are missing afterwards. May sleep.
    pub(super) fn fill_together(&self, blocks: &mut [Reservation], prealloc: &mut KernelPrealloc) {
        let missing = missing(blocks);
        if missing < 2 {
            return;
        }
        let bytes = u64::from(missing) << PAGE_SHIFT;
        let mut state = self.lock();
        if state.taken() + bytes > state.limit
            || state.engine.reuse_target(missing, state.promised) > 0
            || !self.shared_limit.try_charge(bytes)
        {
            return;
        }
        state.promised += bytes;
        drop(state);
        // `fill` meets the same error if it lasts.
        let _ = self.back_pages(blocks, prealloc, Promise { bytes });
    }

    /// Releases at most `max_pages` free pages of the arena, for a block that misses `missing` pages, and adds
    /// their headroom to a promise. Returns their number. May sleep.
    ///
    /// `EINTR` when the caller is being killed.
    fn vacate(&self, max_pages: u32, missing: u32, promise: &mut Promise) -> Result<u32> {
        let mut aside = [const { None }; STUCK];
        let mut stuck = 0;
        let mut done = 0;
        let mut last = None;
        let mut result = Ok(());
        while done < max_pages {
            result = task::fail_if_killed();
            if result.is_err() {
                break;
            }
            let Some(isolated) = self.lock().engine.isolate(max_pages - done, missing) else {
                break;
            };
            let range = Some(isolated.range());
            if range == last {
                // No page of it could be removed the last time: set it aside until the end.
                let Some(place) = aside.get_mut(stuck) else {
                    self.lock().engine.putback(isolated);
                    break;
                };
                *place = Some(isolated);
                stuck += 1;
                continue;
            }
            let left = self.drop_isolated(isolated, Headroom::Promised);
            promise.bytes += u64::from(left) << PAGE_SHIFT;
            done += left;
            last = range.filter(|_| left == 0);
            task::resched();
        }
        for isolated in aside.into_iter().flatten() {
            self.lock().engine.putback(isolated);
        }
        result.map(|()| done)
    }

    /// Backs blocks with new pages, as many as the promise allows, in the largest folios that the system has.
    /// May sleep.
    fn back_pages(
        &self,
        blocks: &mut [Reservation],
        prealloc: &mut KernelPrealloc,
        mut promise: Promise,
    ) -> Result {
        let mut result = Ok(());
        // Lowered after each order that the system does not have.
        let mut max_order = self.address_space.max_order();
        let mut done = 0;
        while let Some(first) = blocks.get(done) {
            if first.missing() == 0 {
                done += 1;
                continue;
            }
            let rest = blocks.get_mut(done..).unwrap_or_default();
            result = task::fail_if_killed()
                .and_then(|()| self.back_folio(rest, prealloc, &mut promise, &mut max_order));
            if result.is_err() {
                break;
            }
            task::resched();
        }
        self.return_unused(promise);
        result
    }

    /// Backs missing pages of the first block and of the blocks that follow it in the address space with
    /// one folio. Lowers `max_order` instead if the system has no folio of that order. May sleep.
    fn back_folio(
        &self,
        blocks: &mut [Reservation],
        prealloc: &mut KernelPrealloc,
        promise: &mut Promise,
        max_order: &mut u32,
    ) -> Result {
        let Some(page) = blocks.first().map(Reservation::next_page) else {
            return Ok(());
        };
        let natural = page.trailing_zeros().min(*max_order);
        let (count, span) = span(blocks, 1 << natural);
        let blocks = blocks.get_mut(..count).unwrap_or_default();
        let span = span.min(promise.pages());
        let mut surplus = None;
        let mut order = natural;
        if span < 1 << natural {
            surplus = self.surplus(blocks, (1 << natural) - span, natural, prealloc)?;
            if surplus.is_none() {
                order = span.checked_ilog2().ok_or(ENOMEM)?;
            }
        }
        let pages = (1 << order) - surplus.as_ref().map_or(0, Surplus::pages);
        let mut result = self.ensure_backing(blocks, pages, prealloc);
        if result.is_ok() {
            result = self.memcg.charge(|| self.address_space.add(page, order));
            self.trace_grow(page, order, &result);
        }
        if let Err(error) = result {
            self.release_surplus(surplus);
            if error != ENOMEM || order == 0 {
                return Err(error);
            }
            *max_order = order - 1;
            return Ok(());
        }
        let mut state = self.lock();
        state.back(blocks, pages, promise);
        if let Some(surplus) = surplus {
            state.promised -= u64::from(surplus.pages()) << PAGE_SHIFT;
            state.engine.back_surplus(surplus);
        }
        Ok(())
    }

    /// Allocates the metadata that the engine needs before the next `pages` pages of the blocks can be
    /// backed. May sleep.
    pub(super) fn ensure_backing(
        &self,
        blocks: &[Reservation],
        pages: u32,
        prealloc: &mut KernelPrealloc,
    ) -> Result {
        loop {
            let mut state = self.lock();
            let mut left = pages;
            let result = blocks.iter().try_for_each(|block| -> Result<(), Metadata> {
                let some = left.min(block.missing());
                left -= some;
                state.engine.ensure_backing(block, some, prealloc)
            });
            drop(state);
            match result {
                Ok(()) => return Ok(()),
                Err(metadata) => self.make(metadata, prealloc)?,
            }
        }
    }

    /// Claims `pages` unbacked pages after the blocks, which become free memory in the same huge page.
    /// Takes headroom for them. Returns `None` if the slack does not allow them, near a limit, while a
    /// thread waits, or if these pages are in use. May sleep.
    fn surplus(
        &self,
        blocks: &[Reservation],
        pages: u32,
        order: u32,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Option<Surplus>> {
        let Some(last) = blocks.last() else {
            return Ok(None);
        };
        if order == 0 || order < self.address_space.max_order() {
            return Ok(None);
        }
        let bytes = u64::from(pages) << PAGE_SHIFT;
        loop {
            let mut state = self.lock();
            let after = state.taken() + bytes;
            let shared = self.shared_limit.bytes() / LIMIT_PART;
            if state.waiters.count() > 0
                || !state.engine.admits_surplus(pages, state.promised)
                || after > state.limit - state.limit / LIMIT_PART
                || self.shared_limit.headroom() < bytes.saturating_add(shared)
            {
                return Ok(None);
            }
            match state.engine.claim_surplus(last, pages, prealloc) {
                Ok(Some(surplus)) if self.shared_limit.try_charge(bytes) => {
                    state.promised += bytes;
                    return Ok(Some(surplus));
                }
                Ok(surplus) => {
                    let mut garbage = KernelGarbage::default();
                    if let Some(surplus) = surplus {
                        state.engine.release_surplus(surplus, &mut garbage);
                    }
                    drop(state);
                    drop(garbage);
                    return Ok(None);
                }
                Err(metadata) => {
                    drop(state);
                    self.make(metadata, prealloc)?;
                }
            }
        }
    }

    /// Releases a surplus that got no memory, and its headroom.
    fn release_surplus(&self, surplus: Option<Surplus>) {
        let Some(surplus) = surplus else {
            return;
        };
        let bytes = u64::from(surplus.pages()) << PAGE_SHIFT;
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut state = self.lock();
        state.promised -= bytes;
        state.engine.release_surplus(surplus, &mut garbage);
        drop(state);
        self.shared_limit.uncharge(bytes);
    }

    /// Backs a contiguous block with its one folio. `ENOMEM` when the system has none. May sleep.
    fn back_contiguous(
        &self,
        pending: &mut Reservation,
        prealloc: &mut KernelPrealloc,
        mut promise: Promise,
    ) -> Result {
        let pages = pending.missing();
        let order = pages.checked_ilog2().unwrap_or(0);
        let mut result = self.ensure_backing(from_mut(pending), pages, prealloc);
        if result.is_ok() {
            let page = pending.next_page();
            result = self.memcg.charge(|| self.address_space.add(page, order));
            self.trace_grow(page, order, &result);
        }
        if result.is_ok() {
            let mut state = self.lock();
            state.engine.back(pending, pages);
            state.promised -= promise.bytes;
            promise.bytes = 0;
        }
        self.return_unused(promise);
        result
    }
}

impl State {
    /// Notes that the next `pages` missing pages of the blocks, which lie side by side, have memory now.
    /// They use up their part of the promise.
    pub(super) fn back(&mut self, blocks: &mut [Reservation], pages: u32, promise: &mut Promise) {
        let mut left = pages;
        for block in blocks {
            let some = left.min(block.missing());
            self.engine.back(block, some);
            left -= some;
        }
        self.take_up(pages, promise);
    }
}

/// Returns how many of the blocks lie side by side with nothing but missing pages, from the next missing
/// page of the first block on and until `max_pages` pages are missing; and the number of these pages.
pub(super) fn span(blocks: &[Reservation], max_pages: u32) -> (usize, u32) {
    let mut count = 0;
    let mut pages = 0;
    let mut next = None;
    for block in blocks {
        let follows = next.is_none_or(|next| block.next_page() == next);
        if !follows || pages >= max_pages || block.missing() == 0 {
            break;
        }
        count += 1;
        pages += block.missing();
        next = Some(block.end_page());
    }
    (count, pages)
}
