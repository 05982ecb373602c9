// SPDX-License-Identifier: GPL-2.0

//! Pages that leave: to another place of the arena, or back to the system.
//!
//! | step | who | the piece is |
//! | --- | --- | --- |
//! | [`Engine::isolate`] | under the lock | reserved: nobody gets it, no fault finds it |
//! | removing its mappings | without the lock | the same |
//! | [`Engine::remove_isolated`] | under the lock | address space; its pages are the caller's |
//!
//! A piece whose mappings cannot be removed now is free again by [`Engine::putback`].

use super::backend::{Backend, Kit};
use super::directory::{Head, CHUNK_ORDER};
use super::runs::Slot;
use super::{Engine, BATCH, CHUNK_PAGES};

/// Free pages that are about to leave: nobody can get them.
///
/// It has to be given to [`Engine::remove_isolated`] or [`Engine::putback`]; dropped, they are lost
/// until the arena ends.
#[must_use = "pages that neither leave nor stay are lost"]
#[derive(Debug)]
pub struct Isolated {
    page: u32,
    order: u8,
}

impl Isolated {
    /// Its first page.
    pub fn page(&self) -> u32 {
        self.page
    }

    /// How many pages it has, at most [`BATCH`].
    pub fn pages(&self) -> u32 {
        1 << self.order
    }
}

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Takes at most `most` and at most [`BATCH`] free pages with memory, side by side, out of
    /// reach: the last of the run that is missed least. `None` when there is none, or `most` is 0.
    ///
    /// What is on quick lists is in no run: [`Engine::drain`] them first.
    pub fn isolate(&mut self, most: u32) -> Option<Isolated> {
        let order_of_most = most.min(BATCH).checked_ilog2()?;
        let run = self.directory.run_at(self.lists.find_dispensable()?)?;
        let order = run.backed.trailing_zeros().min(order_of_most) as u8;
        let page = run.page + run.backed - (1 << order);
        self.remove(run);
        // What is left of the run lies to the left of the piece, with memory, and to the right,
        // without.
        let mut slot = run;
        while slot.order > order {
            let half = slot.order - 1;
            let middle = slot.page + (1 << half);
            let left = Slot::new(slot.page, half, slot.backed.min(1 << half));
            let right = Slot::new(middle, half, slot.backed - left.backed);
            slot = if page < middle {
                self.insert_slot(right);
                left
            } else {
                self.insert_slot(left);
                right
            };
        }
        let pages = 1 << order;
        self.directory.put(
            page,
            order,
            Head::Reserved {
                order,
                whole: true,
                pages,
                backed: pages,
            },
        );
        Some(Isolated { page, order })
    }

    /// The pages leave, to `out` by value, to be dropped after the unlock. A chunk that is left
    /// without memory goes to a kit that has none.
    pub fn remove_isolated(
        &mut self,
        isolated: Isolated,
        kit: &mut Kit<M, PAGE_KIB>,
        out: &mut impl FnMut(M::Page),
    ) {
        for page in (0..isolated.pages()).map(|n| isolated.page + n) {
            self.take_page(page, out);
        }
        self.directory.take_head(isolated.page, isolated.order);
        self.release_empty(isolated.page, isolated.order, kit);
    }

    /// The pages stay: they are free again.
    pub fn putback(&mut self, isolated: Isolated) {
        let pages = isolated.pages();
        self.directory.take_head(isolated.page, isolated.order);
        self.release(Slot::new(isolated.page, isolated.order, pages));
    }

    /// Takes the memory behind a pending page away.
    pub(super) fn take_page(&mut self, page: u32, out: &mut impl FnMut(M::Page)) {
        let record = self.directory.record_mut(page);
        let Some(handle) = record.and_then(|record| record.page.take()) else {
            debug_assert!(false, "a page that leaves is there");
            return;
        };
        out(handle);
        self.held_bytes -= Self::PAGE_BYTES;
    }

    /// Frees address space that lost its memory, or never had any, and the chunk behind it if that
    /// is of no more use.
    pub(super) fn release_empty(&mut self, page: u32, order: u8, kit: &mut Kit<M, PAGE_KIB>) {
        let joined = self.release(Slot::new(page, order, 0));
        let chunk = page & !(CHUNK_PAGES as u32 - 1);
        if joined.order >= CHUNK_ORDER && joined.page + joined.backed <= chunk {
            self.give_chunk(chunk, kit);
        }
    }

    /// Gives the chunk that begins at `page`, if one does, back: neither memory nor anything
    /// smaller than a chunk is in it.
    pub(super) fn give_chunk(&mut self, page: u32, kit: &mut Kit<M, PAGE_KIB>) {
        if page % CHUNK_PAGES as u32 == 0 && kit.chunk.is_none() {
            kit.chunk = self.directory.take_chunk(page);
        }
    }
}
