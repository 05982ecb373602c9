// SPDX-License-Identifier: GPL-2.0

//! Reclaim: the memory of free pages leaves, to another place of the arena or back to the system.
//!
//! | step | with the lock | the range is |
//! | --- | --- | --- |
//! | [`Engine::isolate`] | held | reserved: no request gets it, no fault finds it |
//! | its mappings are removed | not held | the same |
//! | [`Engine::remove_isolated`] | held | address space, but for what stayed behind: that is free again |
//! | [`Engine::putback`], in place of that | held | free again |
//!
//! None of them needs metadata.

use super::runs::Run;
use super::{Backend, Engine, Garbage, CHUNK_PAGES};
use core::ops::Range;

/// Free pages that are about to leave: no request can get them.
///
/// It has to be given to [`Engine::remove_isolated`] or [`Engine::putback`]; dropped, they are lost
/// until the arena ends.
#[must_use = "a range that is neither removed nor put back is lost"]
#[derive(Debug)]
pub struct Isolated {
    page: u32,
    pages: u32,
}

impl Isolated {
    /// The first page.
    pub fn page(&self) -> u32 {
        self.page
    }

    /// How many pages it has.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Its page numbers.
    pub fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Isolates at most `most`, and at most [`CHUNK_PAGES`], free pages with memory, side by side:
    /// the last of the run that is missed least. `None` when there is none, or `most` is 0.
    ///
    /// What is on quick lists is in no run: [`Engine::drain`] them first.
    pub fn isolate(&mut self, most: u32) -> Option<Isolated> {
        let most = most.min(CHUNK_PAGES as u32);
        if most == 0 {
            return None;
        }
        let run = self.run_at(self.lists.find_dispensable()?)?;
        let pages = run.pages.min(most);
        Some(self.isolate_end(run, pages))
    }

    /// Isolates at most `most` pages of a run, from its beginning.
    pub(super) fn isolate_start(&mut self, run: Run, most: u32) -> Isolated {
        let pages = run.pages.min(most);
        self.remove(run);
        self.put_reserved(run.page, pages, pages);
        if run.pages > pages {
            self.release_pages(run.page + pages, run.pages - pages, true);
        }
        Isolated {
            page: run.page,
            pages,
        }
    }

    fn isolate_end(&mut self, run: Run, pages: u32) -> Isolated {
        let page = run.end() - pages;
        self.remove(run);
        // No longer a neighbour of what is behind it, so that nothing joins.
        self.put_reserved(page, pages, pages);
        if page > run.page {
            self.release_pages(run.page, page - run.page, true);
        }
        Isolated { page, pages }
    }

    /// The memory of an isolated range leaves, page by page, to `out` by value, to be dropped after
    /// the unlock. A page that `out` returns stays behind: it is free again, with old bytes. Returns
    /// how many stayed.
    pub fn remove_isolated(
        &mut self,
        isolated: Isolated,
        garbage: &mut Garbage<B, PAGE_KIB>,
        out: &mut impl FnMut(B::Page) -> Option<B::Page>,
    ) -> u32 {
        self.directory.take_head(isolated.page);
        let mut stayed = 0;
        // From where on the pages are alike, and whether these have their memory still.
        let mut alike = (isolated.page, false);
        for page in isolated.range() {
            let back = self.directory.take_page(page).and_then(&mut *out);
            let stays = back.is_some();
            if let Some(back) = back {
                self.directory.put_back(page, back);
                stayed += 1;
            } else {
                self.held_bytes -= Self::PAGE_BYTES;
            }
            if page > alike.0 && stays != alike.1 {
                self.release_pages(alike.0, page - alike.0, alike.1);
                alike.0 = page;
            }
            alike.1 = stays;
        }
        let end = isolated.range().end;
        self.release_pages(alike.0, end - alike.0, alike.1);
        // At most two chunks have some of the range; what joined it may begin in them no more.
        for page in [isolated.page, end - 1, end] {
            self.directory.give_chunk(page, garbage);
        }
        stayed
    }

    /// The memory of an isolated range stays: it is free again.
    pub fn putback(&mut self, isolated: Isolated) {
        self.release_reserved(isolated.page, isolated.pages);
    }
}
