// SPDX-License-Identifier: GPL-2.0-only

//! Ranges in transit: parts of live blocks that get or lose memory at this moment, without the lock.
//!
//! A range in transit lies in one live block and one chunk, and overlaps no other. When its block is
//! freed, or loses the range to a resize, the range becomes an orphan: an extent of its own
//! ([`Head::Reserved`](super::head::Head)) that no request gets until the thread that backs or drops
//! its memory has finished. So that thread never touches pages of another block.

use core::ops::Range;

/// The most ranges that are in transit at once. A call that needs one more is refused as busy.
const SLOTS: usize = 32;

/// The direction of a range in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It gets memory ([`Engine::touch`](super::Engine::touch)).
    Comes,
    /// Its memory is dropped or zeroed ([`Engine::discard`](super::Engine::discard)).
    Goes,
}

/// A range in transit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transit {
    pub(super) page: u32,
    pub(super) pages: u32,
    pub(super) kind: Kind,
    /// Its block was freed, or lost the range.
    pub(super) is_orphan: bool,
}

impl Transit {
    pub(super) fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }
}

/// All ranges in transit of an arena.
#[derive(Default)]
pub(super) struct Transits {
    slots: [Option<Transit>; SLOTS],
    count: u32,
}

impl Transits {
    /// Returns whether no range is in transit.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a range that overlaps no other. Returns its slot, or `None` when all slots are in use.
    pub(super) fn add(&mut self, page: u32, pages: u32, kind: Kind) -> Option<usize> {
        let slot = self.slots.iter().position(Option::is_none)?;
        *self.slots.get_mut(slot)? = Some(Transit {
            page,
            pages,
            kind,
            is_orphan: false,
        });
        self.count += 1;
        Some(slot)
    }

    /// Removes the range of a slot and returns it.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Transit> {
        let transit = self.slots.get_mut(slot)?.take()?;
        self.count -= 1;
        Some(transit)
    }

    /// Returns whether the range of a slot is an orphan.
    pub(super) fn is_orphan(&self, slot: usize) -> bool {
        let transit = self.slots.get(slot).and_then(Option::as_ref);
        transit.is_some_and(|transit| transit.is_orphan)
    }

    /// Returns the first range in transit that overlaps `range`, with its slot.
    pub(super) fn first_in(&self, range: Range<u32>) -> Option<(usize, Transit)> {
        if self.count == 0 {
            return None;
        }
        let slots = self.slots.iter().enumerate();
        let transits = slots.filter_map(|(slot, transit)| Some((slot, (*transit)?)));
        let inside = transits.filter(|(_, transit)| {
            transit.page < range.end && range.start < transit.page + transit.pages
        });
        inside.min_by_key(|(_, transit)| transit.page)
    }

    /// Makes the range of a slot an orphan.
    pub(super) fn orphan(&mut self, slot: usize) {
        if let Some(Some(transit)) = self.slots.get_mut(slot) {
            transit.is_orphan = true;
        }
    }

    /// Returns all ranges in transit, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Transit> {
        self.slots.iter().flatten()
    }
}
