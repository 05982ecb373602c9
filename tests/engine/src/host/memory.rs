// SPDX-License-Identifier: GPL-2.0

//! Memory of the arena: allocated for reserved blocks, and dropped from free runs.

use std::cell::RefCell;
use std::ops::Range;

use crate::engine::{Garbage, Isolated, Reservation, Surplus, CHUNK_PAGES};

use super::{Arena, Page};

/// Returns a callback for the engine: the next range of pages before `end` that stay, at or after a page
/// number.
pub(super) fn stayed(
    end: u32,
    stays: impl Fn(u32) -> bool,
) -> impl FnMut(u32) -> Option<Range<u32>> {
    move |page| {
        let mut all = (page..end).skip_while(|page| !stays(*page));
        let first = all.next()?;
        let end = all.find(|page| !stays(*page)).unwrap_or(end);
        Some(first..end)
    }
}

impl<const KIB: usize> Arena<KIB> {
    /// Backs at most `max` pages of a reserved block with new memory.
    pub fn back(&mut self, reservation: &mut Reservation, max: u32) {
        self.ensure_backing(reservation, max);
        self.back_ensured(reservation, max);
    }

    /// Makes the records of the pages that [`Arena::back_ensured`] backs.
    pub fn ensure_backing(&mut self, reservation: &Reservation, max: u32) {
        while let Err(metadata) = self
            .engine
            .ensure_backing(reservation, max, &mut self.prealloc)
        {
            self.make(metadata);
        }
    }

    /// Backs at most `max` pages whose records were made.
    pub fn back_ensured(&mut self, reservation: &mut Reservation, max: u32) {
        let pages = reservation.missing().min(max);
        let end = reservation.extent().end.div_ceil(Self::PAGE) as u32;
        let next = end - reservation.missing();
        self.engine.back(reservation, pages);
        self.add_pages(next..next + pages);
        self.step();
    }

    /// Adds new pages where there are none.
    pub(super) fn add_pages(&mut self, range: Range<u32>) {
        for page in range {
            self.next_id += 1;
            let new = Page {
                id: self.next_id,
                used: RefCell::default(),
            };
            let old = self.backed.insert(page, new);
            assert!(old.is_none(), "a page was put where there was one");
        }
    }

    /// Claims address space after a reserved block.
    pub fn claim_surplus(&mut self, reservation: &Reservation, pages: u32) -> Option<Surplus> {
        loop {
            let result = self
                .engine
                .claim_surplus(reservation, pages, &mut self.prealloc);
            self.step();
            match result {
                Ok(surplus) => return surplus,
                Err(metadata) => self.make(metadata),
            }
        }
    }

    /// Backs a surplus after a block that ends at page number `first`.
    pub fn back_surplus(&mut self, first: u32, surplus: Surplus) {
        self.add_pages(first..first + surplus.pages());
        self.engine.back_surplus(surplus);
        self.step();
    }

    /// Releases a surplus without memory.
    pub fn release_surplus(&mut self, surplus: Surplus) {
        self.engine
            .release_surplus(surplus, &mut Garbage::default());
        self.step();
    }

    /// Isolates free pages, at most `max`.
    pub fn isolate(&mut self, max: u32) -> Option<Isolated> {
        self.isolate_for(max, max)
    }

    /// Isolates free pages, at most `max`, for a block that misses `missing` pages.
    pub fn isolate_for(&mut self, max: u32, missing: u32) -> Option<Isolated> {
        let isolated = self.engine.isolate(max, missing)?;
        self.step();
        assert!((1..=max).contains(&isolated.pages()));
        Some(isolated)
    }

    /// Removes the memory of an isolated range, except for pages that stay. Returns the number of pages
    /// removed.
    pub fn remove_but(&mut self, isolated: Isolated, stays: impl Fn(u32) -> bool) -> u32 {
        let range = isolated.range();
        for page in range.clone().filter(|page| !stays(*page)) {
            let old = self.backed.remove(&page);
            assert!(old.is_some(), "a page came from where there was none");
        }
        let mut stayed = stayed(range.end, &stays);
        let mut left = 0;
        let mut rest = Some(isolated);
        while let Some(isolated) = rest {
            let mut garbage = Garbage::default();
            let (some, more) = self
                .engine
                .remove_isolated(isolated, &mut garbage, &mut stayed);
            assert!(some <= CHUNK_PAGES as u32, "too many pages under one lock");
            left += some;
            rest = more;
        }
        let stayed = range.clone().filter(|page| stays(*page)).count() as u32;
        assert_eq!(left + stayed, range.len() as u32);
        left
    }

    /// Removes the memory of an isolated range. Returns the number of pages removed.
    pub fn remove(&mut self, isolated: Isolated) -> u32 {
        self.remove_but(isolated, |_| false)
    }

    /// Makes an isolated range free again.
    pub fn putback(&mut self, isolated: Isolated) {
        self.engine.putback(isolated);
        self.step();
    }

    /// Moves at most `max` free pages to a reserved block: drops their memory, and backs as many of its
    /// pages. Returns their number.
    pub fn steal(&mut self, reservation: &mut Reservation, max: u32) -> u32 {
        let before = reservation.missing();
        let goal = before.saturating_sub(max);
        while reservation.missing() > goal {
            let Some(isolated) = self.isolate_for(reservation.missing() - goal, before) else {
                break;
            };
            let left = self.remove(isolated);
            self.back(reservation, left);
        }
        let moved = before - reservation.missing();
        self.engine.count_moved(moved);
        self.moved += u64::from(moved);
        moved
    }

    /// Backs a reserved block's missing pages: with memory of free runs as far as the engine decides so or no
    /// other is allowed, otherwise with new memory. Returns `false` if that is too little.
    pub fn fill(&mut self, reservation: &mut Reservation, grow: bool) -> bool {
        let held = (self.counters().held_bytes / Self::PAGE) as u32;
        let headroom = if grow {
            self.limit.saturating_sub(held)
        } else {
            0
        };
        let reused = self.engine.reuse_target(reservation.missing(), 0);
        if reservation.is_movable() {
            let least = reservation.missing().saturating_sub(headroom);
            self.steal(reservation, reused.max(least));
        }
        self.back(reservation, headroom);
        reservation.missing() == 0
    }

    /// Reclaims free pages until at most `keep` remain. Returns their number.
    pub fn trim(&mut self, keep: u32) -> u32 {
        self.drain();
        let mut freed = 0;
        while let Some(isolated) = self.isolate(self.engine.free_pages().saturating_sub(keep)) {
            freed += self.remove(isolated);
            self.step();
        }
        freed
    }
}
