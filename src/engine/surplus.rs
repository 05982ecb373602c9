// SPDX-License-Identifier: GPL-2.0-only

//! Address space behind a reserved block that gets memory together with its last pages: one large
//! piece is cheaper than several small ones. What the block does not need of it is free at once.

use super::head::Head;
use super::request::{Refusal, Reservation};
use super::{Backend, Engine, Garbage, Metadata, Prealloc};

/// Pages behind a reserved block that are about to get memory.
///
/// It has to be given to [`Engine::back_surplus`] or [`Engine::release_surplus`]; dropped, its pages
/// are lost until the arena ends.
#[must_use = "a surplus that is neither backed nor released is lost"]
#[derive(Debug)]
pub struct Surplus {
    page: u32,
    pages: u32,
}

impl Surplus {
    /// How many pages it has.
    pub fn pages(&self) -> u32 {
        self.pages
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Claims `pages` pages behind a reserved block, if so many are address space there. Changes
    /// nothing where metadata is lacked: the call is to be made again with more in `prealloc`.
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

    /// The pages of a surplus have their memory: they are free.
    pub fn back_surplus(&mut self, Surplus { page, pages }: Surplus) {
        let came = self.directory.set_backed(page..page + pages, true);
        debug_assert_eq!(came, pages, "a page gets memory that has some");
        self.held_bytes += u64::from(pages) << Self::PAGE_SHIFT;
        self.take_reserved(page);
        self.release_pages(page, pages, true);
    }

    /// They get none: they are address space again.
    pub fn release_surplus(
        &mut self,
        Surplus { page, pages }: Surplus,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) {
        self.take_reserved(page);
        self.release_pages(page, pages, false);
        for end in [page, page + pages - 1, page + pages] {
            self.directory.give_chunk(end, garbage);
        }
    }

    fn take_reserved(&mut self, page: u32) {
        let head = self.directory.take_head(page);
        debug_assert!(matches!(head, Some(Head::Reserved { .. })));
    }
}
