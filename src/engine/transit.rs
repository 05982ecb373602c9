// SPDX-License-Identifier: GPL-2.0-only

//! Ranges of live blocks whose memory comes or goes at this moment, without the lock.
//!
//! A range in transit lies in one live block and one chunk, and overlaps no other. When its block is
//! freed, or loses the range to a resize, the range becomes an extent of its own
//! ([`Head::Reserved`](super::head::Head)), an orphan, which no request gets until the thread that
//! works on it has finished: so nothing that comes late finds its place in other hands.

use core::ops::Range;

/// The most ranges that are in transit at once; one more is asked to wait.
const SLOTS: usize = 32;

/// What happens to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has no memory, and gets some ([`Engine::touch`](super::Engine::touch)).
    Comes,
    /// It has memory, which leaves or is zeroed ([`Engine::discard`](super::Engine::discard)).
    Goes,
}

/// A range in transit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transit {
    pub(super) page: u32,
    pub(super) pages: u32,
    pub(super) kind: Kind,
    /// Its block is gone.
    pub(super) is_orphan: bool,
}

impl Transit {
    pub(super) fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Transits {
    slots: [Option<Transit>; SLOTS],
    count: u32,
}

impl Transits {
    /// Returns whether there are none.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a range that overlaps none. Returns its slot, or `None` where all are taken.
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

    /// Returns whether the block of a slot's range is gone.
    pub(super) fn is_orphan(&self, slot: usize) -> bool {
        let transit = self.slots.get(slot).and_then(Option::as_ref);
        transit.is_some_and(|transit| transit.is_orphan)
    }

    /// Returns the first range that has some of `range`.
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

    /// Notes that the block of a slot's range is gone.
    pub(super) fn orphan(&mut self, slot: usize) {
        if let Some(Some(transit)) = self.slots.get_mut(slot) {
            transit.is_orphan = true;
        }
    }

    /// Returns all of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Transit> {
        self.slots.iter().flatten()
    }
}
