// SPDX-License-Identifier: GPL-2.0

//! How free pages leave: to another place of the arena, or back to the system.
//!
//! In batches, each in four steps: under the lock they are put out of reach; without it, the faults
//! that may have found them are waited for, and their mappings removed; under the lock they are
//! taken out; without it, they are used elsewhere or dropped. A page that somebody else refers to (a
//! pipe, a pin) is dropped in any case: it lives on for him alone.

use super::{
    counters::add,
    Arena, //
};
use crate::{
    engine::{
        Drained,
        Isolated,
        BATCH, //
    },
    ffi::{
        race_point::RacePoint,
        task, //
    },
    mm::{
        backend::KernelGarbage,
        page::Supply,
        shrinker::Shrink, //
    },
};
use kernel::page::PAGE_SHIFT;

/// The most pieces in a batch.
const PIECES: usize = 16;

/// Whether faults in flight are waited for. Who reclaims memory must not: the fault may be waiting
/// for memory itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Try,
}

/// What becomes of the room that pages leave under the limits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// It stays the arena's, as a promise.
    Kept,
    /// Others may have it.
    Given,
}

impl Arena {
    /// Gives free pages back to the system until at most `keep` bytes of them are held. Gives the
    /// bytes that went. May sleep.
    pub(crate) fn trim(&self, keep: u64) -> u64 {
        let keep = (keep >> PAGE_SHIFT).min(u64::from(u32::MAX)) as u32;
        self.trim_pages(u64::MAX, keep) << PAGE_SHIFT
    }

    /// Gives at most `most` free pages back, down to `keep` of them. Gives how many. May sleep.
    pub(super) fn trim_pages(&self, most: u64, keep: u32) -> u64 {
        let pages = self.give_up(most, keep, Patience::Wait);
        add(&mut self.state.lock().events.trims, pages);
        pages
    }

    /// Gives at most `most` free pages back to the system, down to `keep` of them. Gives how many
    /// went. May sleep.
    pub(super) fn give_up(&self, most: u64, keep: u32, patience: Patience) -> u64 {
        self.drain();
        let mut freed = 0;
        while freed < most {
            let free = self.state.lock().engine.free_pages();
            let batch = u64::from(free.saturating_sub(keep)).min(most - freed);
            let mut pages = Supply::new();
            let count = self.take_free(batch as u32, patience, Room::Given, &mut pages);
            if count == 0 {
                break;
            }
            drop(pages);
            self.shared_limit.give(u64::from(count) << PAGE_SHIFT);
            freed += u64::from(count);
            task::resched();
        }
        // What left is room under the limits.
        self.wake_unlocked();
        freed
    }

    /// Empties the quick lists: their blocks join what is free around them.
    pub(super) fn drain(&self) {
        loop {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            if self.state.lock().engine.drain(&mut garbage) != Drained::Part {
                break;
            }
        }
    }

    /// Takes at most `most` free pages, and at most a batch, for another place of the arena: their
    /// room is promised. Gives how many bytes, and in `pages` those that nobody else refers to.
    pub(super) fn take_to_move(&self, most: u32, pages: &mut Supply) -> u64 {
        let count = self.take_free(most, Patience::Wait, Room::Kept, pages);
        pages.keep_sole();
        u64::from(count) << PAGE_SHIFT
    }

    /// Takes at most `most` free pages, and at most a batch, unmapped, into `pages`, which is empty.
    /// Gives how many.
    fn take_free(&self, most: u32, patience: Patience, room: Room, pages: &mut Supply) -> u32 {
        let mut pieces = self.isolate(most.min(BATCH));
        if pieces[0].is_none() {
            return 0;
        }
        if patience == Patience::Wait {
            self.address_space.invalidate_barrier();
        } else if !self.address_space.try_invalidate_barrier() {
            let mut state = self.state.lock();
            for piece in pieces.into_iter().flatten() {
                state.engine.putback(piece);
            }
            self.wake(&mut state);
            return 0;
        }
        self.unmap(&pieces);
        RacePoint::Leave.reach();
        let mut count = 0;
        for piece in pieces.iter_mut().map_while(Option::take) {
            count += piece.pages();
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let mut state = self.state.lock();
            if room == Room::Kept {
                state.promised += u64::from(piece.pages()) << PAGE_SHIFT;
                state.engine.count_moved(piece.pages());
            }
            let mut out = |page| {
                pages.put(page);
                None
            };
            state.engine.remove_isolated(piece, &mut garbage, &mut out);
            drop(state);
        }
        count
    }

    /// Gives the pages of an isolated range, at most a batch, back to the system. May sleep.
    pub(super) fn drop_isolated(&self, isolated: Isolated) {
        let count = isolated.pages();
        self.address_space.invalidate_barrier();
        self.address_space.unmap(isolated.page(), count);
        let mut pages = Supply::new();
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut out = |page| {
            pages.put(page);
            None
        };
        self.state
            .lock()
            .engine
            .remove_isolated(isolated, &mut garbage, &mut out);
        drop(pages);
        self.shared_limit.give(u64::from(count) << PAGE_SHIFT);
        self.wake_unlocked();
    }

    /// Puts at most `most` free pages out of reach.
    fn isolate(&self, most: u32) -> [Option<Isolated>; PIECES] {
        let mut pieces = [const { None }; PIECES];
        let mut left = most;
        let mut state = self.state.lock();
        for place in &mut pieces {
            let Some(piece) = state.engine.isolate(left) else {
                break;
            };
            left -= piece.pages();
            *place = Some(piece);
        }
        drop(state);
        pieces
    }

    /// Removes the mappings of pages that are out of reach: in one go where they lie side by side.
    fn unmap(&self, pieces: &[Option<Isolated>]) {
        let (mut first, mut pages) = (0, 0);
        for piece in pieces.iter().flatten() {
            // Those of one run come from its end.
            if piece.page() + piece.pages() != first {
                if pages > 0 {
                    self.address_space.unmap(first, pages);
                }
                pages = 0;
            }
            first = piece.page();
            pages += piece.pages();
        }
        self.address_space.unmap(first, pages);
    }
}

impl Shrink for Arena {
    fn reclaimable(&self) -> u64 {
        self.drain();
        self.state.lock().engine.free_pages().into()
    }

    fn shrink(&self, most: u64) -> u64 {
        let pages = self.give_up(most, 0, Patience::Try);
        add(&mut self.state.lock().events.shrinks, pages);
        pages
    }

    /// None, where somebody waits for them here.
    fn reclaimable_for_others(&self) -> u64 {
        match self.waiters() {
            0 => self.reclaimable(),
            _ => 0,
        }
    }

    fn hand_over(&self, most: u64) -> u64 {
        self.shrink(most.min(self.reclaimable_for_others()))
    }
}
