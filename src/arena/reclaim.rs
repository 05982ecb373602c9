// SPDX-License-Identifier: GPL-2.0

//! How the memory of free pages leaves.
//!
//! A range at a time, in three steps: under the lock it is put out of reach of requests; without it,
//! its folios leave the page cache; under the lock it becomes address space, but for what stayed
//! behind, which is free again. A page that is pinned leaves as a rule: it lives on for the pin alone.
//! What stays is part of a folio that could not be split, or, under reclaim, of one that is locked,
//! pinned or reaches beyond the range.

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
    ffi::task,
    mm::{
        backend::KernelGarbage,
        shrinker::Shrink,
        statistics::Node, //
    },
};
use core::ops::Range;
use kernel::page::{
    PAGE_SHIFT,
    PAGE_SIZE, //
};

/// The most bytes that are put out of reach at a time, if a folio is no larger.
const STEP_BYTES: usize = 16 << 20;

/// The most ranges that one call of the shrinker looks at, and as many steps of the walk to them.
const RANGES: u32 = 64;

/// What becomes of the room that pages leave under the limits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It stays the arena's, as a promise: the pages are moved.
    Promised,
    /// Others may have it.
    Given,
}

impl Arena {
    /// Gives free pages back to the system until at most `keep` bytes of them are held. Returns the
    /// bytes that left. May sleep.
    pub(crate) fn trim(&self, keep: u64) -> u64 {
        let keep = (keep >> PAGE_SHIFT).min(u64::from(u32::MAX)) as u32;
        self.trim_pages(u64::MAX, keep) << PAGE_SHIFT
    }

    /// Gives at most `most` free pages back, down to `keep` of them. Returns how many left. May sleep.
    pub(super) fn trim_pages(&self, most: u64, keep: u32) -> u64 {
        let pages = self.give_up(most, keep);
        add(&mut self.lock().events.trims, pages);
        pages
    }

    /// Gives at most `most` free pages back to the system, down to `keep` of them, those with the
    /// highest offsets first. Returns how many left. May sleep.
    pub(super) fn give_up(&self, most: u64, keep: u32) -> u64 {
        self.drain();
        let (step, align) = self.step();
        let mut freed = 0;
        let mut cursor = u32::MAX;
        while cursor > 0 {
            let mut state = self.lock();
            let free = state.engine.free_pages().saturating_sub(keep);
            let some = u64::from(free).min(most - freed).min(step.into()) as u32;
            let isolated = state.engine.isolate_below(&mut cursor, some, align);
            drop(state);
            if let Some(isolated) = isolated {
                freed += u64::from(self.drop_isolated(isolated, Room::Given));
            }
            task::resched();
        }
        // What left is room under the limits.
        self.wake_unlocked();
        freed
    }

    /// Gives whole folios of free memory on a node back that nobody uses, until `most` pages left, and waits for
    /// none. Goes on where the last call ended, and looks at a part of the arena, or, if that is said, at
    /// all of it. Returns how many pages left. May sleep, also under reclaim.
    fn reclaim(&self, node: Node, most: u64, all: bool) -> u64 {
        self.drain();
        let (step, _) = self.step();
        let mut freed = 0;
        let mut looked = 0;
        let mut ends = 0;
        while freed < most && ends < 2 && (all || looked < RANGES) {
            looked += 1;
            let some = (most - freed).min(step.into()) as u32;
            let mut state = self.lock();
            let mut cursor = state.cursor;
            let isolated = self.isolate_folios(&mut state, &mut cursor, some);
            // From the other end again: at most once around.
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
            freed += u64::from(self.settle(isolated, stays, Room::Given));
            task::resched();
        }
        if freed > 0 {
            self.wake_unlocked();
        }
        let mut state = self.lock();
        add(&mut state.events.shrinks, freed);
        freed
    }

    /// Isolates at most `most` pages below `cursor`, or a few more, so that the first folio of them lies
    /// in them if it can.
    fn isolate_folios(&self, state: &mut State, cursor: &mut u32, most: u32) -> Option<Isolated> {
        let before = *cursor;
        let isolated = state.engine.isolate_below(cursor, most, 1)?;
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

    /// The most pages that are put out of reach at a time, and what their beginning is a multiple of,
    /// so that no folio is cut where it need not be.
    fn step(&self) -> (u32, u32) {
        let largest = 1 << self.address_space.max_order();
        (largest.max((STEP_BYTES / PAGE_SIZE) as u32), largest)
    }

    /// Empties the quick lists: their blocks join what is free around them.
    pub(super) fn drain(&self) {
        loop {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            if self.lock().engine.drain(&mut garbage) != Drained::Part {
                break;
            }
        }
    }

    /// The memory of an isolated range leaves. Returns how many pages did. May sleep.
    pub(super) fn drop_isolated(&self, isolated: Isolated, room: Room) -> u32 {
        let stays = self.address_space.remove(isolated.range());
        self.settle(isolated, stays, room)
    }

    /// Returns what tells the engine of the pages before `end` that did not leave, if some `stays`: the
    /// first that lie side by side at or behind a page number.
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

    /// Tells the engine what has left of an isolated range: all of it, unless something `stays`.
    /// Returns how many pages left.
    pub(super) fn settle(&self, isolated: Isolated, stays: bool, room: Room) -> u32 {
        let mut stayed = self.stayed(stays, isolated.range().end);
        let mut left = 0;
        let mut rest = Some(isolated);
        while let Some(isolated) = rest {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let mut state = self.lock();
            let (some, more) = state
                .engine
                .remove_isolated(isolated, &mut garbage, &mut stayed);
            if room == Room::Promised {
                state.promised += u64::from(some) << PAGE_SHIFT;
                state.engine.count_moved(some);
            }
            drop(state);
            left += some;
            rest = more;
        }
        if room == Room::Given {
            self.shared_limit.give(u64::from(left) << PAGE_SHIFT);
        }
        left
    }
}

impl Shrink for Arena {
    fn reclaimable(&self, node: Node) -> u64 {
        let pages = self.published.free_pages();
        self.address_space.share_of(node, pages.into())
    }

    fn shrink(&self, node: Node, most: u64) -> u64 {
        self.reclaim(node, most, false)
    }

    fn shrink_all(&self, node: Node, most: u64) -> u64 {
        self.reclaim(node, most, true)
    }

    /// None, where somebody waits for them here.
    fn reclaimable_for_others(&self, node: Node) -> u64 {
        match self.waiters() {
            0 => {
                // What is on quick lists, too.
                self.drain();
                self.reclaimable(node)
            }
            _ => 0,
        }
    }

    fn hand_over(&self, most: u64) -> u64 {
        // What somebody waits for here stays.
        if self.waiters() > 0 {
            return 0;
        }
        let pages = self.give_up(most, 0);
        add(&mut self.lock().events.shrinks, pages);
        pages
    }
}
