// SPDX-License-Identifier: GPL-2.0-only

//! Reclaim: the memory of free pages leaves.
//!
//! | step | with the lock | the range is |
//! | --- | --- | --- |
//! | [`Engine::isolate`] | held | reserved: no request gets it |
//! | its memory is dropped, as far as it can be | not held | the same |
//! | [`Engine::remove_isolated`] | held | address space, but for what stayed behind: that is free again |
//! | [`Engine::putback`], in place of the two | held | free again |
//!
//! None of them needs metadata.

use super::head::Head;
use super::runs::Run;
use super::{Backend, Engine, Garbage, CHUNK_PAGES};
use core::ops::Range;

/// The most extents that one call looks at.
const EXTENTS: u32 = 256;

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
    /// A range that was just reserved.
    pub(super) fn new(page: u32, pages: u32) -> Self {
        Self { page, pages }
    }

    /// The first page.
    #[allow(dead_code)]
    pub fn page(&self) -> u32 {
        self.page
    }

    /// How many pages it has.
    #[allow(dead_code)]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Its page numbers.
    pub fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Isolates at most `most` free pages with memory, side by side: the last of the run that is missed
    /// least. `None` when there is none, or `most` is 0.
    ///
    /// What is on quick lists is in no run: [`Engine::drain`] them first.
    pub fn isolate(&mut self, most: u32) -> Option<Isolated> {
        if most == 0 {
            return None;
        }
        let run = self.run_at(self.lists.find_reclaimable()?)?;
        let pages = run.pages.min(most);
        Some(self.isolate_part(run, run.end() - pages, run.end()))
    }

    /// Isolates at most `most` free pages with memory that lie side by side below page number
    /// `cursor`, the last there are, and moves `cursor` to where they begin. Where that is not the
    /// beginning of their run it is a multiple of `align`, a power of 2, if one is among them.
    ///
    /// `None`: of [`EXTENTS`] extents none was such a run; unless `cursor` is 0 now, the call is to be
    /// made again. What is on quick lists is in no run.
    pub fn isolate_below(&mut self, cursor: &mut u32, most: u32, align: u32) -> Option<Isolated> {
        if most == 0 {
            *cursor = 0;
            return None;
        }
        let mut end = (*cursor).min(self.frontier);
        for _ in 0..EXTENTS {
            let Some(start) = end
                .checked_sub(1)
                .and_then(|last| self.directory.start_of(last))
            else {
                end = 0;
                break;
            };
            if let Some(run) = self.run_at(start).filter(|run| run.is_backed) {
                let last = run.end().min(end);
                let lowest = last.saturating_sub(most).max(start);
                let aligned = lowest.checked_next_multiple_of(align);
                let first = match aligned.filter(|aligned| lowest > start && *aligned < last) {
                    Some(aligned) => aligned,
                    None => lowest,
                };
                *cursor = first;
                return Some(self.isolate_part(run, first, last));
            }
            end = start;
        }
        *cursor = end;
        None
    }

    /// Isolates the pages `first..end` of a run.
    fn isolate_part(&mut self, run: Run, first: u32, end: u32) -> Isolated {
        self.remove(run);
        // No longer a neighbour of what is beside it, so that nothing joins.
        self.put_reserved(first, end - first, end - first);
        if first > run.page {
            self.release_pages(run.page, first - run.page, true);
        }
        if run.end() > end {
            self.release_pages(end, run.end() - end, true);
        }
        Isolated::new(first, end - first)
    }

    /// Isolates at most `most` pages of a run, from its beginning.
    pub(super) fn isolate_start(&mut self, run: Run, most: u32) -> Isolated {
        self.isolate_part(run, run.page, run.page + run.pages.min(most))
    }

    /// The memory of an isolated range has left, but for the pages that stayed: `stayed` is asked for
    /// the first of these at or behind a page number, as many as lie side by side, and they are free
    /// again, with old bytes. Returns how many left. Some of the range at a time, from its end, at most
    /// [`CHUNK_PAGES`]: until what is returned beside that is `None`, the call is to be made again with
    /// it.
    pub fn remove_isolated(
        &mut self,
        isolated: Isolated,
        garbage: &mut Garbage<B, PAGE_KIB>,
        stayed: &mut impl FnMut(u32) -> Option<Range<u32>>,
    ) -> (u32, Option<Isolated>) {
        let Range { start, end } = isolated.range();
        let first = start.max((end - 1) & !(CHUNK_PAGES as u32 - 1));
        if first > start {
            if let Some(Head::Reserved { pages, backed, .. }) = self.directory.head_mut(start) {
                (*pages, *backed) = (first - start, first - start);
            }
        } else {
            self.directory.take_head(start);
        }
        let mut page = first;
        let mut left = 0;
        while page < end {
            let stays = stayed(page).filter(|range| range.start < end);
            let stays = stays.unwrap_or(end..end);
            let (from, to) = (stays.start.max(page), stays.end.min(end));
            if from > page {
                let gone = from - page;
                let had = self.directory.set_backed(page..from, false);
                self.holes -= gone - had;
                left += had;
                self.release_pages(page, gone, false);
            }
            if to > from {
                self.release_block(from, to - from);
            }
            page = to;
        }
        self.held_bytes -= u64::from(left) << Self::PAGE_SHIFT;
        // What joined it may begin there no more.
        for page in [first, end - 1, end] {
            self.directory.give_chunk(page, garbage);
        }
        let rest = (first > start).then(|| Isolated::new(start, first - start));
        (left, rest)
    }

    /// The memory of an isolated range stays: it is free again.
    pub fn putback(&mut self, isolated: Isolated) {
        self.release_reserved(isolated.page, isolated.pages);
    }
}
