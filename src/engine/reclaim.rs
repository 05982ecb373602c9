// SPDX-License-Identifier: GPL-2.0-only

//! Reclaim: the caller drops the memory of free pages.
//!
//! | step | lock | the range is |
//! | --- | --- | --- |
//! | [`Engine::isolate`] | held | isolated: no request gets it |
//! | the caller drops its memory, as far as it can | not held | isolated |
//! | [`Engine::remove_isolated`] | held | unbacked; pages that kept their memory are free again |
//! | [`Engine::putback`], instead of the last two | held | free again |
//!
//! No step needs metadata.

use super::head::Head;
use super::runs::Run;
use super::{Backend, Engine, Garbage, CHUNK_PAGES};
use core::ops::Range;

/// The most extents that one call visits.
const EXTENTS: u32 = 256;

/// Free pages whose memory is about to be dropped: no request can get them.
///
/// It has to be passed to [`Engine::remove_isolated`] or [`Engine::putback`]. The pages of a dropped
/// one are lost until the arena ends.
#[must_use = "a range that is neither removed nor put back is lost"]
#[derive(Debug)]
pub struct Isolated {
    page: u32,
    pages: u32,
}

impl Isolated {
    /// Wraps a range that was just reserved.
    pub(super) fn new(page: u32, pages: u32) -> Self {
        Self { page, pages }
    }

    /// Returns the page number of the first page.
    #[allow(dead_code)]
    pub fn page(&self) -> u32 {
        self.page
    }

    /// Returns how many pages it has.
    #[allow(dead_code)]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Returns its page numbers.
    pub fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Isolates at most `max_pages` adjacent backed free pages, at the end of a run, so that a block that
    /// misses `missing` pages can be backed. Returns `None` when there is no run or `max_pages` is 0.
    ///
    /// Blocks on quick lists are in no run: call [`Engine::drain`] first.
    pub fn isolate(&mut self, max_pages: u32, missing: u32) -> Option<Isolated> {
        if max_pages == 0 {
            return None;
        }
        self.merge_deferred();
        let run = self.run_at(self.lists.find_vacated(missing)?)?;
        let pages = run.pages.min(max_pages);
        Some(self.isolate_part(run, run.end() - pages, run.end()))
    }

    /// Isolates at most `max_pages` adjacent backed free pages below page number `cursor`, the highest
    /// there are, and moves `cursor` to their first page. Unless they begin where their run begins,
    /// they begin at a multiple of `align`, a power of 2, if one is among them.
    ///
    /// Returns `None` when none of the [`EXTENTS`] extents below `cursor` is such a run. Unless
    /// `cursor` is 0 then, call again. Blocks on quick lists are in no run.
    pub fn isolate_below(
        &mut self,
        cursor: &mut u32,
        max_pages: u32,
        align: u32,
    ) -> Option<Isolated> {
        if max_pages == 0 {
            *cursor = 0;
            return None;
        }
        self.merge_deferred();
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
                let lowest = last.saturating_sub(max_pages).max(start);
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
        // Reserved first, so that the rest on its two sides does not join over it.
        self.put_reserved(first, end - first, end - first);
        if first > run.page {
            self.release_pages(run.page, first - run.page, true);
        }
        if run.end() > end {
            self.release_pages(end, run.end() - end, true);
        }
        Isolated::new(first, end - first)
    }

    /// Isolates at most `max_pages` pages of a run, from its beginning.
    pub(super) fn isolate_start(&mut self, run: Run, max_pages: u32) -> Isolated {
        self.isolate_part(run, run.page, run.page + run.pages.min(max_pages))
    }

    /// Makes the pages of an isolated range, whose memory was dropped, unbacked. Pages that kept their
    /// memory become free again, with old bytes.
    ///
    /// `stayed(page)` returns the first adjacent pages at or after `page` that kept their memory. One
    /// call processes the last pages of the range, at most [`CHUNK_PAGES`]. Returns how many pages lost
    /// their memory, and the rest of the range for the next call.
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
        // Runs that joined it no longer begin there.
        for page in [first, end - 1, end] {
            self.directory.release_chunk(page, garbage);
        }
        let rest = (first > start).then(|| Isolated::new(start, first - start));
        (left, rest)
    }

    /// Makes an isolated range free again, with its memory.
    pub fn putback(&mut self, isolated: Isolated) {
        self.release_reserved(isolated.page, isolated.pages);
    }
}
