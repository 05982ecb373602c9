// SPDX-License-Identifier: GPL-2.0-only

//! Surplus: unbacked pages after a reserved block that get memory together with its last pages, as one
//! large folio is cheaper than several small ones. They are free at once.

use super::head::Head;
use super::request::{Refusal, Reservation};
use super::{Backend, Engine, Garbage, Metadata, Prealloc};

/// Pages after a reserved block that are about to get memory.
///
/// It has to be passed to [`Engine::back_surplus`] or [`Engine::release_surplus`]. The pages of a
/// dropped one are lost until the arena ends.
#[must_use = "a surplus that is neither backed nor released is lost"]
#[derive(Debug)]
pub struct Surplus {
    page: u32,
    pages: u32,
}

impl Surplus {
    /// Returns how many pages it has.
    pub fn pages(&self) -> u32 {
        self.pages
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Reserves the `pages` pages after a reserved block. Returns `None` if they are not all unbacked
    /// and free.
    ///
    /// Fails with the metadata that is lacked. No page is reserved then.
    pub fn claim_surplus(
        &mut self,
        reservation: &Reservation,
        pages: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Option<Surplus>, Metadata> {
        let page = reservation.end_page();
        if pages == 0 || self.unbacked_from(page) < pages {
            return Ok(None);
        }
        self.ensure_records(page..page + pages, prealloc)?;
        match self.claim_space(page, pages, prealloc) {
            Ok(()) => {}
            Err(Refusal::Need(metadata)) => return Err(metadata),
            Err(_) => return Ok(None),
        }
        self.put_reserved(page, pages, 0);
        Ok(Some(Surplus { page, pages }))
    }

    /// Makes a surplus free, after the caller has backed it.
    pub fn back_surplus(&mut self, Surplus { page, pages }: Surplus) {
        let came = self.directory.set_backed(page..page + pages, true);
        debug_assert_eq!(came, pages, "a page gets memory that has some");
        self.held_bytes += u64::from(pages) << Self::PAGE_SHIFT;
        self.take_reserved(page);
        self.release_pages(page, pages, true);
    }

    /// Makes a surplus without memory unbacked free pages again.
    pub fn release_surplus(
        &mut self,
        Surplus { page, pages }: Surplus,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) {
        self.take_reserved(page);
        self.release_pages(page, pages, false);
        for end in [page, page + pages - 1, page + pages] {
            self.directory.release_chunk(end, garbage);
        }
    }

    fn take_reserved(&mut self, page: u32) {
        let head = self.directory.take_head(page);
        debug_assert!(matches!(head, Some(Head::Reserved { .. })));
    }
}
