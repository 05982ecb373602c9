// SPDX-License-Identifier: GPL-2.0-only

//! Lazy blocks: a page gets memory when it is first touched.
//!
//! All pages of a lazy block count against the limits from the beginning. [`Engine::touch`] decides how
//! many pages a touch backs: one at first, more in a block that is touched in order.

use super::head::{Head, Memory};
use super::request::Reservation;
use super::transit::Kind;
use super::{Backend, Engine, Garbage, Metadata, Prealloc, CHUNK_PAGES};
use core::ops::Range;

/// A touch backs `n` pages, more than one, only where the `BEFORE * n` pages right before them have memory.
///
/// Chosen by measurement. With blocks of 200 KiB to 8 MiB, two thirds of each touched in order, an
/// arena holds 1.109 times the touched bytes with 3, and 1.149 times with 2. With 3 and without
/// [`EARLY_BEFORE`], a MiB costs 301 k instructions in a block of 2 MiB and 217 k in one of 16 MiB.
/// Smaller folios at the beginning of a block make no program hold less: ffmpeg was measured eight
/// times with at most 32 KiB in the first 2 MiB, and without that limit.
const BEFORE: u32 = 3;

/// As [`BEFORE`], for at most an eighth of [`LARGE_BYTES`] in a block of that size or more: the beginning
/// of such a block costs less, and what is held at two thirds of it is the same.
const EARLY_BEFORE: u32 = 2;

/// See [`EARLY_BEFORE`].
const LARGE_BYTES: u32 = 2 << 20;

/// A range of a lazy block that is about to get memory.
///
/// It has to be passed to [`Engine::finish_touch`] or [`Engine::cancel_touch`]. A dropped one stays in
/// transit until the arena ends.
#[must_use = "a touch that is neither finished nor cancelled stays in transit"]
#[derive(Debug)]
pub struct Touch {
    slot: usize,
    page: u32,
    pages: u32,
    rest: u32,
}

impl Touch {
    /// Returns its page numbers: `1 << order` of them, naturally aligned.
    pub fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }

    /// Returns how many pages its block has from the first of them on.
    pub fn rest_of_block(&self) -> u32 {
        self.rest
    }

    /// Returns its order.
    pub fn order(&self) -> u32 {
        self.pages.trailing_zeros()
    }
}

/// Why a touch gives a page no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untouchable {
    /// Metadata is lacked: allocate one of these, add it to the prealloc, call again. Nothing has
    /// changed.
    Need(Metadata),
    /// The page has memory: another thread has backed it.
    Present,
    /// The page is in transit, or all slots are in use: call again later.
    Busy,
    /// The page lies in no lazy block, or in one that has lost a page.
    Nothing,
}

impl From<Metadata> for Untouchable {
    fn from(metadata: Metadata) -> Self {
        Self::Need(metadata)
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Returns how many pages of lazy blocks have no memory but count against the limits.
    pub fn owed_pages(&self) -> u32 {
        self.owed
    }

    /// Notes that the caller has counted all missing pages of a lazy reservation against the limits:
    /// they are owed from now on.
    pub fn owe(&mut self, reservation: &mut Reservation) {
        debug_assert!(reservation.lazy && reservation.owed == 0);
        reservation.owed = reservation.missing;
        self.owed += reservation.missing;
        self.claimed -= u64::from(reservation.missing) << Self::PAGE_SHIFT;
    }

    /// Puts the page number `page` of a lazy block in transit, to be backed by the caller, with pages
    /// after it: at most `1 << max_order` in all.
    ///
    /// It is more than one page only where `page` is naturally aligned to them, none of them has
    /// memory, and [`BEFORE`] times as many right before `page` do ([`EARLY_BEFORE`] times at the beginning
    /// of a large block), all in the same block.
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
        let rest = block.end - page;
        let pages = 1 << self.order_at(page, max_order, block);
        let slot = self.transits.add(page, pages, Kind::Comes);
        let slot = slot.ok_or(Untouchable::Busy)?;
        self.directory.count_transit(page, 1);
        Ok(Touch {
            slot,
            page,
            pages,
            rest,
        })
    }

    /// Returns whether a page without memory would get memory when it is touched.
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

    /// Returns the order of the folio for a touch of `page` in a block.
    fn order_at(&self, page: u32, max_order: u32, block: Range<u32>) -> u32 {
        let natural = page.trailing_zeros().min(CHUNK_PAGES.trailing_zeros());
        let large = LARGE_BYTES >> Self::PAGE_SHIFT;
        let early = if block.len() as u32 >= large {
            large / 8
        } else {
            0
        };
        let suits = |order: &u32| {
            let pages = 1 << order;
            let before = pages * if pages <= early { EARLY_BEFORE } else { BEFORE };
            let Some(before) = page.checked_sub(before) else {
                return false;
            };
            let end = page + pages;
            block.start <= before
                && end <= block.end
                && self.directory.count_backed(before..page) == page - before
                && self.directory.count_backed(page..end) == 0
                && self.transits.first_in(page..end).is_none()
        };
        (1..=natural.min(max_order)).rev().find(suits).unwrap_or(0)
    }

    /// Ends a touch: the caller has backed the range.
    ///
    /// Returns the touch if its block was freed or shortened meanwhile. The caller drops the memory
    /// again, then calls [`Engine::cancel_touch`].
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
        // A block that is being released has given up its claim already.
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

    /// Ends a touch whose range has no memory.
    pub fn cancel_touch(&mut self, touch: Touch, garbage: &mut Garbage<B, PAGE_KIB>) {
        if self.transits.is_orphan(touch.slot) {
            self.directory.take_head(touch.page);
            self.release_pages(touch.page, touch.pages, false);
        }
        self.end_transit(touch.slot);
        for page in [touch.page, touch.range().end] {
            self.directory.release_chunk(page, garbage);
        }
    }

    /// Removes the range in transit of a slot.
    pub(super) fn end_transit(&mut self, slot: usize) {
        if let Some(transit) = self.transits.remove(slot) {
            self.directory.count_transit(transit.page, -1);
        }
    }
}
