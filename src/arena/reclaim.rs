// SPDX-License-Identifier: GPL-2.0-only

//! Releases the memory of free pages to the system.
//!
//! A range at a time, in three steps: under the lock the engine isolates it, so that no request gets
//! it; without the lock its folios are removed from the page cache; under the lock the range becomes
//! unbacked, except for pages that stayed, which are put back as free.
//!
//! A pinned page is removed, too, and freed with its last pin. Pages stay if their folio could not be
//! split, and under reclaim if it is locked, pinned or reaches beyond the range.

use super::{
    counters::add,
    state::State,
    Arena, //
};
use crate::{
    engine::{
        Drained,
        Isolated, //
    },
    ffi::{
        task,
        trace, //
    },
    mm::{
        backend::KernelGarbage,
        shrinker::Shrink,
        statistics::Node, //
    },
};
use core::{
    mem,
    ops::Range, //
};
use kernel::page::{
    PAGE_SHIFT,
    PAGE_SIZE, //
};

/// The most bytes that are isolated at a time, unless the largest folio is larger.
const STEP_BYTES: usize = 16 << 20;

/// The most ranges that one call of the shrinker isolates.
const RANGES: u32 = 64;

/// The use of the headroom under the limits that removed pages had.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Headroom {
    /// The arena keeps it as a [`Promise`](super::promise::Promise): the pages are moved.
    Promised,
    /// It is returned to the limits, for any arena.
    Returned,
}

impl Arena {
    /// Releases free pages to the system until at most `keep` bytes of them are held. Returns the
    /// bytes released. May sleep.
    pub(crate) fn trim(&self, keep: u64) -> u64 {
        let keep = (keep >> PAGE_SHIFT).min(u64::from(u32::MAX)) as u32;
        self.trim_pages(u64::MAX, keep) << PAGE_SHIFT
    }

    /// Releases at most `max_pages` free pages, down to `keep` of them, and counts them as trimmed. Returns
    /// their number. May sleep.
    pub(super) fn trim_pages(&self, max_pages: u64, keep: u32) -> u64 {
        let pages = self.release_free(max_pages, keep);
        add(&mut self.lock().events.trims, pages);
        pages
    }

    /// Releases at most `max_pages` free pages to the system, down to `keep` of them, those with the
    /// highest offsets first. Returns their number. May sleep.
    pub(super) fn release_free(&self, max_pages: u64, keep: u32) -> u64 {
        self.drain();
        let (step, align) = self.step();
        let mut freed = 0;
        let mut cursor = u32::MAX;
        while cursor > 0 {
            let mut state = self.lock();
            let free = state.engine.free_pages().saturating_sub(keep);
            let some = u64::from(free).min(max_pages - freed).min(step.into()) as u32;
            let isolated = state.engine.isolate_below(&mut cursor, some, align);
            drop(state);
            if let Some(isolated) = isolated {
                freed += u64::from(self.drop_isolated(isolated, Headroom::Returned));
            }
            task::resched();
        }
        // The headroom under the limits may serve a waiter.
        self.wake_unlocked();
        freed
    }

    /// Releases whole free folios on `node`, until `max_pages` pages are released; waits for no folio's
    /// lock, and leaves pinned folios. Goes on where the last call ended, and scans [`RANGES`] ranges, or
    /// the whole arena if `all` is set. Returns the number of pages. May sleep, also under reclaim.
    fn reclaim(&self, node: Node, max_pages: u64, all: bool) -> u64 {
        self.drain();
        let (step, _) = self.step();
        let mut freed = 0;
        let mut scanned = 0;
        let mut ends = 0;
        while freed < max_pages && ends < 2 && (all || scanned < RANGES) {
            scanned += 1;
            let some = (max_pages - freed).min(step.into()) as u32;
            let mut state = self.lock();
            let mut cursor = state.cursor;
            let isolated = self.isolate_folios(&mut state, &mut cursor, some);
            // At the lower end the walk goes on at the upper one, at most once.
            if cursor == 0 {
                ends += 1;
                cursor = u32::MAX;
            }
            state.cursor = cursor;
            drop(state);
            let Some(isolated) = isolated else {
                continue;
            };
            let stays = self.address_space.reclaim(isolated.range(), node);
            freed += u64::from(self.finish_removal(isolated, stays, Headroom::Returned));
            task::resched();
        }
        if freed > 0 {
            self.wake_unlocked();
        }
        let mut state = self.lock();
        add(&mut state.events.shrinks, freed);
        freed
    }

    /// Isolates at most `max_pages` free pages below `cursor`, or more if that takes in the whole of the folio
    /// at their beginning.
    fn isolate_folios(
        &self,
        state: &mut State,
        cursor: &mut u32,
        max_pages: u32,
    ) -> Option<Isolated> {
        let before = *cursor;
        let isolated = state.engine.isolate_below(cursor, max_pages, 1)?;
        let range = isolated.range();
        let folio = self.address_space.folio(range.start);
        let more = folio.map_or(0, |folio| range.start.saturating_sub(folio.range().start));
        if more == 0 {
            return Some(isolated);
        }
        state.engine.putback(isolated);
        *cursor = before.min(range.end);
        state
            .engine
            .isolate_below(cursor, range.len() as u32 + more, 1)
    }

    /// Returns the most pages that are isolated at a time, and the alignment of their beginning in pages,
    /// by which no folio is cut without need.
    fn step(&self) -> (u32, u32) {
        let largest = 1 << self.address_space.max_order();
        (largest.max((STEP_BYTES / PAGE_SIZE) as u32), largest)
    }

    /// Drains the quick lists: their blocks join the free runs beside them.
    pub(super) fn drain(&self) {
        loop {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            if self.lock().engine.drain(&mut garbage) != Drained::Part {
                break;
            }
        }
    }

    /// Removes the memory of an isolated range. Returns the number of pages removed. May sleep.
    pub(super) fn drop_isolated(&self, isolated: Isolated, headroom: Headroom) -> u32 {
        let stays = self.address_space.remove(isolated.range());
        self.finish_removal(isolated, stays, headroom)
    }

    /// Returns a function that finds the pages that stayed: the first range of the page cache at or
    /// after a page number, before `end`. It finds none if `stays` is false.
    pub(super) fn stayed(
        &self,
        stays: bool,
        end: u32,
    ) -> impl FnMut(u32) -> Option<Range<u32>> + '_ {
        move |page| {
            let first = stays.then(|| self.address_space.first_in(page..end))?;
            Some(first?.range())
        }
    }

    /// Makes the removed pages of an isolated range unbacked: all of them, unless `stays` is set. Puts
    /// back those that stayed. Returns the number of pages removed.
    pub(super) fn finish_removal(
        &self,
        isolated: Isolated,
        stays: bool,
        headroom: Headroom,
    ) -> u32 {
        let range = isolated.range();
        let mut stayed = self.stayed(stays, range.end);
        let mut left = 0;
        let mut rest = Some(isolated);
        while let Some(isolated) = rest {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let mut state = self.lock();
            let (some, more) = state
                .engine
                .remove_isolated(isolated, &mut garbage, &mut stayed);
            if headroom == Headroom::Promised {
                state.promised += u64::from(some) << PAGE_SHIFT;
                state.engine.count_moved(some);
            }
            drop(state);
            left += some;
            rest = more;
        }
        if headroom == Headroom::Returned {
            self.shared_limit.uncharge(u64::from(left) << PAGE_SHIFT);
        }
        let reason = match headroom {
            Headroom::Promised => trace::RECLAIM_MOVE,
            Headroom::Returned => trace::RECLAIM_FREE,
        };
        self.trace_reclaim(range, left, reason);
        left
    }
}

impl Shrink for Arena {
    fn reclaimable(&self, node: Node) -> u64 {
        let pages = self.published.free_pages();
        self.address_space.share_of(node, pages.into())
    }

    fn shrink(&self, node: Node, max_pages: u64) -> u64 {
        let freed = self.reclaim(node, max_pages, false);
        self.trace_shrink(Some(node), max_pages, freed, trace::SHRINK_RECLAIM);
        freed
    }

    fn shrink_all(&self, node: Node, max_pages: u64) -> u64 {
        let freed = self.reclaim(node, max_pages, true);
        self.trace_shrink(Some(node), max_pages, freed, trace::SHRINK_OOM);
        freed
    }

    /// Returns 0 while a thread waits in this arena.
    fn reclaimable_for_others(&self, node: Node) -> u64 {
        match self.waiters() {
            0 => {
                // Blocks on quick lists count as well.
                self.drain();
                self.reclaimable(node)
            }
            _ => 0,
        }
    }

    fn hand_over(&self, max_pages: u64) -> u64 {
        // The arena's own waiters come first.
        if self.waiters() > 0 {
            return 0;
        }
        let pages = self.release_free(max_pages, 0);
        add(&mut self.lock().events.shrinks, pages);
        self.trace_shrink(None, max_pages, pages, trace::SHRINK_LIMIT);
        pages
    }

    /// Counts the pages as trimmed.
    fn return_idle(&self) {
        let mut state = self.lock();
        let now = state.engine.counters();
        let before = mem::replace(&mut state.idle_counters, now);
        drop(state);
        // Free memory that a thread waits for is kept.
        if now == before && self.published.free_pages() > 0 && self.waiters() == 0 {
            self.trim_pages(u64::MAX, 0);
        }
    }
}
