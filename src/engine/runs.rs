// SPDX-License-Identifier: GPL-2.0-only

//! Runs of free pages: how one is found, how pages are taken from it, how neighbours are joined.
//!
//! ```text
//!             run        block     run       unbacked run      frontier
//!  ...|live |backed....|live    |backed...|................|live |(never used)...
//!            ^                   ^         ^
//!            its first page has its length; a bit says that something begins there
//! ```
//!
//! Two neighbouring runs are never both backed or both unbacked. No unbacked run ends at the frontier:
//! the frontier moves back instead.

use super::class::{ceil_log2, Class};
use super::head::{Head, Links};
use super::lists::{Fit, Kind};
use super::stats::ClassStats;
use super::{Backend, Engine, Prealloc, Refusal, MIN_SHIFT};
use core::ops::Range;

/// The largest block, in bytes, that is taken from the end of a run. Larger blocks are taken from the
/// beginning, so that small blocks do not split the space that large ones leave. (Chosen, as the number
/// of sub-lists was, by replaying traces: `tests/engine/tests/linear`.)
const FROM_END_BYTES: u64 = 256 << 10;

/// The reserved pages of a request: the first one, and how many leading pages have memory.
#[derive(Clone, Copy)]
pub(super) struct Reserved {
    pub(super) page: u32,
    pub(super) backed: u32,
}

/// A run of free pages.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) page: u32,
    pub(super) pages: u32,
    pub(super) is_backed: bool,
}

impl Run {
    /// Returns the page number after its last page.
    pub(super) fn end(&self) -> u32 {
        self.page + self.pages
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Returns the run that begins at `page`.
    pub(super) fn run_at(&self, page: u32) -> Option<Run> {
        let (pages, is_backed) = match self.directory.head(page)? {
            Head::Backed { pages, .. } => (*pages, true),
            Head::Unbacked { pages, .. } => (*pages, false),
            _ => return None,
        };
        Some(Run {
            page,
            pages,
            is_backed,
        })
    }

    /// Returns the run whose last page is before `page`.
    fn run_before(&self, page: u32) -> Option<Run> {
        let run = self.run_at(self.directory.start_of(page.checked_sub(1)?)?);
        // While an extent is taken apart, pages without a head may lie in between.
        run.filter(|run| run.end() == page)
    }

    /// Returns how many unbacked free pages begin at `page`.
    pub(super) fn unbacked_from(&self, page: u32) -> u32 {
        if page == self.frontier {
            return self.span - self.frontier;
        }
        match self.run_at(page) {
            Some(run) if !run.is_backed => run.pages,
            _ => 0,
        }
    }

    /// Returns which pages of a run a block of a class takes.
    pub(super) fn fit_of(class: Class, split: bool) -> Fit {
        Fit {
            pages: class.pages(),
            align: class.align_pages(),
            split,
            at_end: class.block_bytes() <= FROM_END_BYTES,
        }
    }

    /// Reserves the pages of a block in a backed run that has all of them. Needs no metadata: backed
    /// pages have records.
    pub(super) fn reserve_backed(&mut self, fit: Fit) -> Result<Reserved, Refusal> {
        let found = self.lists.find_fit(&self.directory, true, fit);
        let run = found.and_then(|page| self.run_at(page));
        let run = run.ok_or(Refusal::Empty)?;
        let page = fit.in_run(run.page, run.pages).ok_or(Refusal::Empty)?;
        let backed = fit.pages;
        if backed == run.pages {
            self.unlist(run);
            if let Some(head) = self.directory.head_mut(page) {
                *head = Head::Reserved {
                    pages: backed,
                    backed,
                    awaits_memory: false,
                };
            }
        } else {
            self.carve(run, page..page + backed);
            self.put_reserved(page, backed, backed);
        }
        Ok(Reserved { page, backed })
    }

    /// Removes pages from a run. The rest on both sides stays free.
    pub(super) fn carve(&mut self, run: Run, taken: Range<u32>) {
        let (before, after) = (taken.start - run.page, run.end() - taken.end);
        match (before, after) {
            (0, 0) => return self.remove(run),
            (0, _) => self.reshape(run, taken.end, after),
            (_, 0) => self.reshape(run, run.page, before),
            _ => {
                self.reshape(run, run.page, before);
                self.insert(taken.end, after, run.is_backed);
            }
        }
        if run.is_backed {
            let splits = &mut self.stats_of_pages(run.pages).splits;
            *splits = splits.wrapping_add(1);
        }
    }

    /// Inserts the two parts of a removed run that loses `page`.
    pub(super) fn insert_parts(&mut self, run: Run, page: u32) {
        if page > run.page {
            self.insert(run.page, page - run.page, run.is_backed);
        }
        if run.end() > page + 1 {
            self.insert(page + 1, run.end() - page - 1, run.is_backed);
        }
    }

    pub(super) fn put_reserved(&mut self, page: u32, pages: u32, backed: u32) {
        let head = Head::Reserved {
            pages,
            backed,
            awaits_memory: false,
        };
        self.directory.put_head(page, head);
    }

    /// Reserves pages of which some or all are unbacked.
    ///
    /// `extend`: takes a backed run that ends at enough unbacked pages, and these; of a few such runs
    /// the longest. Otherwise, or without such a run, takes unbacked pages alone.
    pub(super) fn reserve_space(
        &mut self,
        fit: Fit,
        extend: bool,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Reserved, Refusal> {
        let hole = self.lists.find_fit(
            &self.directory,
            false,
            Fit {
                split: true,
                at_end: false,
                ..fit
            },
        );
        if extend {
            // The run at the frontier, that before the hole, and the longest of all.
            let mut best: Option<(Run, Reserved)> = None;
            let mut consider = |run: Option<Run>| {
                let run = run.filter(|run| run.is_backed)?;
                let reserved = self.extended(run, fit)?;
                if best.is_none_or(|(_, other)| other.backed < reserved.backed) {
                    best = Some((run, reserved));
                }
                Some(())
            };
            consider(self.run_before(self.frontier));
            consider(hole.and_then(|hole| self.run_before(hole)));
            self.lists.for_longest(&self.directory, fit.pages, |page| {
                consider(self.run_at(page));
            });
            if let Some((run, reserved)) = best {
                let missing = fit.pages - reserved.backed;
                if missing > 0 {
                    self.claim_space(run.end(), missing, prealloc)?;
                }
                self.carve(run, reserved.page..run.end().min(reserved.page + fit.pages));
                self.put_reserved(reserved.page, fit.pages, reserved.backed);
                return Ok(reserved);
            }
        }
        let from = hole.unwrap_or(self.frontier);
        let page = fit.aligned(from).ok_or(Refusal::NoSpace)?;
        self.claim_space(page, fit.pages, prealloc)?;
        self.put_reserved(page, fit.pages, 0);
        Ok(Reserved { page, backed: 0 })
    }

    /// Returns the pages that a block would take of a backed run and of the unbacked pages after it.
    /// Returns `None` if they do not suffice, or if the run has all of them but may not be split.
    fn extended(&self, run: Run, fit: Fit) -> Option<Reserved> {
        let page = fit.aligned(run.page)?;
        let backed = run.end().checked_sub(page).filter(|backed| *backed > 0)?;
        if backed >= fit.pages && !fit.split {
            return None;
        }
        let backed = backed.min(fit.pages);
        let missing = fit.pages - backed;
        (missing == 0 || self.unbacked_from(run.end()) >= missing)
            .then_some(Reserved { page, backed })
    }

    /// Takes the unbacked free pages `page..page + pages`, in an unbacked run or beyond the frontier.
    /// No extent begins at `page` yet, but a head can be put there.
    pub(super) fn claim_space(
        &mut self,
        page: u32,
        pages: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<(), Refusal> {
        let end = page.checked_add(pages).ok_or(Refusal::NoSpace)?;
        if page >= self.frontier {
            if end > self.span {
                return Err(Refusal::NoSpace);
            }
            let gap = page - self.frontier;
            let before = (gap > 0).then_some(self.frontier);
            self.directory
                .ensure_places([before, Some(page)], prealloc)?;
            if let Some(before) = before {
                self.insert(before, gap, false);
            }
            self.frontier = end;
            self.is_used = true;
            return Ok(());
        }
        let start = self.directory.start_of(page);
        let run = start.and_then(|start| self.run_at(start));
        let run = run.filter(|run| !run.is_backed && run.end() >= end);
        let run = run.ok_or(Refusal::NoSpace)?;
        let after = (run.end() > end).then_some(end);
        self.directory
            .ensure_places([Some(page), after], prealloc)?;
        self.carve(run, page..end);
        Ok(())
    }

    /// Frees pages of a removed extent and joins them with the neighbouring runs. Needs no metadata: a
    /// head can be put at their first page.
    pub(super) fn release_pages(&mut self, page: u32, pages: u32, is_backed: bool) {
        let (before, after) = self.neighbours(page, pages, is_backed);
        if !is_backed && page + pages == self.frontier {
            if let Some(before) = before {
                self.remove(before);
            }
            self.frontier = before.map_or(page, |before| before.page);
            return;
        }
        self.join(before, page, pages, after, is_backed);
    }

    /// Frees a reserved extent of backed pages, as [`Engine::release_pages`] does. Pages whose memory
    /// was lost become unbacked.
    pub(super) fn release_reserved(&mut self, page: u32, pages: u32) {
        if self.holes > 0 && self.has_holes(page, pages) {
            self.directory.take_head(page);
            self.release_block(page, pages);
            return;
        }
        let (before, after) = self.neighbours(page, pages, true);
        if before.is_some() || after.is_some() {
            self.directory.take_head(page);
            self.join(before, page, pages, after, true);
            return;
        }
        if let Some(head) = self.directory.head_mut(page) {
            debug_assert!(matches!(head, Head::Reserved { .. }));
            let links = Links::NONE;
            *head = Head::Backed { pages, links };
        }
        self.enlist(page, pages, true);
    }

    /// Returns the runs of the given backing right before and right after some pages.
    fn neighbours(&self, page: u32, pages: u32, is_backed: bool) -> (Option<Run>, Option<Run>) {
        let alike = |run: &Run| run.is_backed == is_backed;
        let before = self.run_before(page).filter(alike);
        let after = self.run_at(page + pages).filter(alike);
        (before, after)
    }

    /// Makes one run of the pages of a removed extent and their neighbours.
    fn join(
        &mut self,
        before: Option<Run>,
        page: u32,
        pages: u32,
        after: Option<Run>,
        is_backed: bool,
    ) {
        match (before, after) {
            (None, None) => self.insert(page, pages, is_backed),
            (None, Some(run)) => {
                self.reshape(run, page, pages + run.pages);
                self.count_merge(pages + run.pages, is_backed);
            }
            (Some(run), after) => {
                let mut pages = run.pages + pages;
                self.count_merge(pages, is_backed);
                if let Some(after) = after {
                    self.remove(after);
                    pages += after.pages;
                    self.count_merge(pages, is_backed);
                }
                self.reshape(run, run.page, pages);
            }
        }
    }

    /// Counts that two neighbours were merged into a run of `pages` pages.
    fn count_merge(&mut self, pages: u32, is_backed: bool) {
        if is_backed {
            let merges = &mut self.stats_of_pages(pages).merges;
            *merges = merges.wrapping_add(1);
        }
    }

    /// Counts a change of the runs.
    fn count_run_change(&mut self) {
        self.run_changes = self.run_changes.wrapping_add(1);
    }

    /// Changes a run to the `pages` pages from `page` on, where a head can be put. It keeps its place on
    /// its list if its new length belongs on that list.
    fn reshape(&mut self, run: Run, page: u32, pages: u32) {
        let kind = Kind::of_run(pages, run.is_backed);
        if kind.list() != Kind::of_run(run.pages, run.is_backed).list() {
            self.remove(run);
            self.insert(page, pages, run.is_backed);
            return;
        }
        self.count_run_change();
        if page != run.page {
            if let Some(head) = self.directory.take_head(run.page) {
                self.directory.put_head(page, head);
            }
            self.lists.relocate(&mut self.directory, kind, page);
        }
        if let Some(Head::Backed { pages: now, .. } | Head::Unbacked { pages: now, .. }) =
            self.directory.head_mut(page)
        {
            *now = pages;
        }
        if run.is_backed {
            self.free_pages = self.free_pages - run.pages + pages;
            let listed = &mut self.stats_of_pages(pages).listed_pages;
            *listed = *listed - u64::from(run.pages) + u64::from(pages);
        }
    }

    fn insert(&mut self, page: u32, pages: u32, is_backed: bool) {
        let links = Links::NONE;
        let head = if is_backed {
            Head::Backed { pages, links }
        } else {
            Head::Unbacked { pages, links }
        };
        self.directory.put_head(page, head);
        self.enlist(page, pages, is_backed);
    }

    /// Adds a run whose head is in place to its list.
    fn enlist(&mut self, page: u32, pages: u32, is_backed: bool) {
        self.count_run_change();
        let kind = Kind::of_run(pages, is_backed);
        self.lists.push(&mut self.directory, kind, page);
        if is_backed {
            self.free_pages += pages;
            self.directory.changes.free = true;
            let stats = self.stats_of_pages(pages);
            stats.listed += 1;
            stats.listed_pages += u64::from(pages);
        }
    }

    pub(super) fn remove(&mut self, run: Run) {
        self.unlist(run);
        self.directory.take_head(run.page);
    }

    /// Removes a run from its list. Its head stays.
    fn unlist(&mut self, run: Run) {
        self.count_run_change();
        let kind = Kind::of_run(run.pages, run.is_backed);
        self.lists.remove(&mut self.directory, kind, run.page);
        if run.is_backed {
            self.free_pages -= run.pages;
            self.directory.changes.free = true;
            let stats = self.stats_of_pages(run.pages);
            stats.listed -= 1;
            stats.listed_pages -= u64::from(run.pages);
        }
    }

    /// Returns the pages of the largest request that the freelist of `order` serves without a merge.
    pub(super) fn largest_run(&self, order: u32) -> u32 {
        let largest = self.lists.largest_of(order);
        let run = largest.and_then(|page| self.run_at(page));
        run.map_or(0, |run| run.pages)
    }

    /// Returns the counters of the class of `pages` pages. A run that is longer than the largest block
    /// counts in the class of that block.
    fn stats_of_pages(&mut self, pages: u32) -> &mut ClassStats {
        let shift = (Self::PAGE_SHIFT + ceil_log2(pages.into())).min(Self::MAX_SHIFT);
        &mut self.stats[(shift - MIN_SHIFT) as usize]
    }
}
