// SPDX-License-Identifier: GPL-2.0

//! The pages of blocks: of live ones for faults, of reserved ones for what is done before they are
//! live.

use super::directory::Head;
use super::request::{Releasing, Reservation};
use super::{Backend, Engine};
use core::ops::Range;

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// The page numbers of the live block in which page number `page` lies, or `page` alone if
    /// live subpage blocks lie in it.
    pub fn live_extent(&self, page: u32) -> Option<Range<u32>> {
        match self.directory.extent_of(page)? {
            (first, Head::Live { pages, .. }) => Some(first..first + pages),
            (first, Head::Subpage(tree)) if tree.any_live() => Some(first..first + 1),
            _ => None,
        }
    }

    /// The page behind page number `page`.
    pub fn page(&self, page: u32) -> Option<&B::Page> {
        self.directory.record(page)?.page.as_ref()
    }

    /// The pages behind page numbers from `page` on, at most `most`: as many as are there, up to a
    /// multiple of [`CHUNK_PAGES`].
    pub fn pages(&self, page: u32, most: u32) -> impl Iterator<Item = &B::Page> {
        self.directory.pages(page, most)
    }

    /// The page `index` of a reserved block, if it is there already.
    pub fn reserved_page(&self, reservation: &Reservation, index: u32) -> Option<&B::Page> {
        self.page((reservation.start >> Self::PAGE_SHIFT) as u32 + index)
    }

    /// The first page of a block that is being freed.
    pub fn releasing_page(&self, releasing: &Releasing) -> Option<&B::Page> {
        self.page((releasing.start >> Self::PAGE_SHIFT) as u32)
    }
}
