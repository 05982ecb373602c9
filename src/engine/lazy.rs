// SPDX-License-Identifier: GPL-2.0-only

//! Memory that comes when it is touched.
//!
//! A lazy block has its room under the limits from the beginning; a page of it gets memory at the first
//! touch. [`Engine::touch`] says how much comes with it: a page at first, then, for a block that is
//! touched in order, a part of what lies before.

use super::head::{Head, Memory};
use super::request::Reservation;
use super::transit::Kind;
use super::{Backend, Engine, Garbage, Metadata, Prealloc, CHUNK_PAGES};
use core::ops::Range;

/// Of what comes with a touch, so many times as much has to lie right before it. (Settled by
/// measurement: of blocks of 200 KiB to 8 MiB, two thirds touched in order, an arena holds 1.109 of what
/// is touched with 3, and 1.149 with 2; an MiB of 2 and of 16 MiB costs 301 k and 217 k instructions
/// with 3. Smaller folios at the beginning of a block make no program hold less: ffmpeg was measured
/// eight times with at most 32 KiB in the first 2 MiB, and without that.)
const BEFORE: u32 = 3;

/// A range of a lazy block that is about to get memory.
///
/// It has to be given to [`Engine::finish_touch`] or [`Engine::cancel_touch`]; dropped, it stays in
/// transit until the arena ends.
#[must_use = "a touch that is neither finished nor cancelled stays in transit"]
#[derive(Debug)]
pub struct Touch {
    slot: usize,
    page: u32,
    pages: u32,
}

impl Touch {
    /// Returns its page numbers: `1 << order` of them, naturally aligned.
    pub fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }

    /// Returns its order.
    pub fn order(&self) -> u32 {
        self.pages.trailing_zeros()
    }
}

/// Why a page gets no memory by a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untouchable {
    /// Allocate one of these, add it to the prealloc, call again. Nothing has changed.
    Need(Metadata),
    /// It has memory: another thread was faster.
    Present,
    /// Another thread brings or drops memory there, or too many do elsewhere: call again later.
    Busy,
    /// It lies in no lazy block, or in one that has lost a page.
    Nothing,
}

impl From<Metadata> for Untouchable {
    fn from(metadata: Metadata) -> Self {
        Self::Need(metadata)
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Returns the pages of lazy blocks that have no memory, but their room under the limits.
    pub fn owed_pages(&self) -> u32 {
        self.owed
    }

    /// Notes that a lazy reservation has room under the limits for all pages that it misses: they are
    /// owed to it from now on.
    pub fn owe(&mut self, reservation: &mut Reservation) {
        debug_assert!(reservation.lazy && reservation.owed == 0);
        reservation.owed = reservation.missing;
        self.owed += reservation.missing;
        self.claimed -= u64::from(reservation.missing) << Self::PAGE_SHIFT;
    }

    /// Reserves the page number `page` of a lazy block for memory that its caller brings, with as many
    /// pages after it as are worth it, at most `1 << max_order` in all.
    ///
    /// More than one page is asked for only where the page is naturally aligned to them, none of them
    /// has memory, and [`BEFORE`] times as many right before it do, all in the same block.
    pub fn touch(
        &mut self,
        page: u32,
        max_order: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Touch, Untouchable> {
        if self.directory.is_backed(page) {
            return Err(Untouchable::Present);
        }
        let block = self.lazy_block(page).ok_or(Untouchable::Nothing)?;
        if self.transits.first_in(page..page + 1).is_some() {
            return Err(Untouchable::Busy);
        }
        self.directory.ensure_chunk(page, prealloc)?;
        let pages = 1 << self.order_at(page, max_order, block);
        let slot = self.transits.add(page, pages, Kind::Comes);
        let slot = slot.ok_or(Untouchable::Busy)?;
        self.directory.count_transit(page, 1);
        Ok(Touch { slot, page, pages })
    }

    /// Returns whether a page gets memory when it is touched, if it has none.
    pub fn is_lazy(&self, page: u32) -> bool {
        self.lazy_block(page).is_some()
    }

    /// Returns the page numbers of the lazy block in which a page lies.
    fn lazy_block(&self, page: u32) -> Option<Range<u32>> {
        match self.directory.extent_of(page)? {
            (
                first,
                Head::Live {
                    pages,
                    memory: Memory::Lazy,
                    ..
                },
            ) => Some(first..first + pages),
            _ => None,
        }
    }

    /// Returns the order of what comes with a touch of `page` in a block.
    fn order_at(&self, page: u32, max_order: u32, block: Range<u32>) -> u32 {
        let natural = page.trailing_zeros().min(CHUNK_PAGES.trailing_zeros());
        let suits = |order: &u32| {
            let pages = 1 << order;
            let Some(before) = page.checked_sub(BEFORE * pages) else {
                return false;
            };
            let end = page + pages;
            block.start <= before
                && end <= block.end
                && self.directory.count_backed(before..page) == BEFORE * pages
                && self.directory.count_backed(page..end) == 0
                && self.transits.first_in(page..end).is_none()
        };
        (1..=natural.min(max_order)).rev().find(suits).unwrap_or(0)
    }

    /// Notes that a range has its memory. Returns it where its block went meanwhile: the memory is to
    /// leave again, then [`Engine::cancel_touch`].
    pub fn finish_touch(&mut self, touch: Touch) -> Result<(), Touch> {
        if self.transits.is_orphan(touch.slot) {
            return Err(touch);
        }
        self.end_transit(touch.slot);
        let came = self.directory.set_backed(touch.range(), true);
        debug_assert_eq!(came, touch.pages, "a page gets memory that has some");
        self.holes -= touch.pages;
        self.owed -= touch.pages;
        let bytes = u64::from(touch.pages) << Self::PAGE_SHIFT;
        self.held_bytes += bytes;
        // A block that is being released claims nothing any more.
        if self.is_live(touch.page) {
            self.claimed += bytes;
            self.peak_bytes = self.peak_bytes.max(self.claimed);
        }
        self.faulted_bytes = self.faulted_bytes.wrapping_add(bytes);
        Ok(())
    }

    /// Returns whether a page lies in a live block of whole pages.
    pub(super) fn is_live(&self, page: u32) -> bool {
        let extent = self.directory.extent_of(page);
        matches!(extent, Some((_, Head::Live { .. })))
    }

    /// Notes that a range gets no memory.
    pub fn cancel_touch(&mut self, touch: Touch, garbage: &mut Garbage<B, PAGE_KIB>) {
        if self.transits.is_orphan(touch.slot) {
            self.directory.take_head(touch.page);
            self.release_pages(touch.page, touch.pages, false);
        }
        self.end_transit(touch.slot);
        for page in [touch.page, touch.range().end] {
            self.directory.give_chunk(page, garbage);
        }
    }

    /// Ends what is in transit in a slot.
    pub(super) fn end_transit(&mut self, slot: usize) {
        if let Some(transit) = self.transits.remove(slot) {
            self.directory.count_transit(transit.page, -1);
        }
    }
}
