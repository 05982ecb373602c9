// SPDX-License-Identifier: GPL-2.0-only

//! Runs of free pages: finding one, taking pages of it, joining neighbours.
//!
//! ```text
//!             run        block     run       unbacked run      frontier
//!  ...|live |backed....|live    |backed...|................|live |(never used)...
//!            ^                   ^         ^
//!            its first page has its length; a bit says that something begins there
//! ```
//!
//! Two neighbouring runs are never of the same backing, and an unbacked run never ends at the
//! frontier: that moves back instead.

use super::class::{ceil_log2, Class};
use super::head::{Head, Links};
use super::lists::{Fit, Kind};
use super::stats::ClassStats;
use super::{Backend, Engine, Prealloc, Refusal, MIN_SHIFT};
use core::ops::Range;

/// Blocks of at most so many bytes are taken from the end of a run, larger ones from its beginning:
/// so the small ones do not stand in the middle of what the large ones leave. (Settled, as the number
/// of sub-lists, by replaying traces: `tests/engine/tests/linear`.)
const FROM_END_BYTES: u64 = 256 << 10;

/// Pages that a request has got: the first, and how many of them have memory.
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
    /// The page number behind it.
    pub(super) fn end(&self) -> u32 {
        self.page + self.pages
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// The run that begins at `page`.
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

    /// The run that ends at `page`, which is not part of it.
    fn run_before(&self, page: u32) -> Option<Run> {
        let run = self.run_at(self.directory.start_of(page.checked_sub(1)?)?);
        // Where an extent is just being taken apart, there may be something in between.
        run.filter(|run| run.end() == page)
    }

    /// Pages without memory that are free from `page` on.
    pub(super) fn unbacked_from(&self, page: u32) -> u32 {
        if page == self.frontier {
            return self.span - self.frontier;
        }
        match self.run_at(page) {
            Some(run) if !run.is_backed => run.pages,
            _ => 0,
        }
    }

    /// What a block of a class needs of a run.
    pub(super) fn fit_of(class: Class, split: bool) -> Fit {
        Fit {
            pages: class.pages(),
            align: class.align_pages(),
            split,
            at_end: class.block_bytes() <= FROM_END_BYTES,
        }
    }

    /// Reserves the pages of a block from a run that has memory for all of them. Takes no metadata:
    /// where memory is there are records.
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

    /// Takes pages out of a run: what is left on both sides stays free.
    pub(super) fn carve(&mut self, run: Run, taken: Range<u32>) {
        let (before, behind) = (taken.start - run.page, run.end() - taken.end);
        match (before, behind) {
            (0, 0) => return self.remove(run),
            (0, _) => self.reshape(run, taken.end, behind),
            (_, 0) => self.reshape(run, run.page, before),
            _ => {
                self.reshape(run, run.page, before);
                self.insert(taken.end, behind, run.is_backed);
            }
        }
        if run.is_backed {
            let splits = &mut self.stats_of_pages(run.pages).splits;
            *splits = splits.wrapping_add(1);
        }
    }

    /// A run was removed that loses a page: what is beside that stays free.
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

    /// Reserves pages where some or all have no memory yet. With `extend`, behind a run with memory
    /// whose end borders on enough address space, of a few such runs the longest; else in address
    /// space alone.
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

    /// What a block would get of a run with memory and of the address space behind it. A run that
    /// has room for all of it is left alone where it may not be split.
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

    /// Takes pages without memory that begin at `page`, in an unbacked run or behind the frontier.
    /// Nothing begins there yet, but there is a place for it.
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
        let behind = (run.end() > end).then_some(end);
        self.directory
            .ensure_places([Some(page), behind], prealloc)?;
        self.carve(run, page..end);
        Ok(())
    }

    /// Frees pages that are on no list and at which nothing begins any more: they join what is free
    /// around them. Needs no metadata: where they begin there is a place.
    pub(super) fn release_pages(&mut self, page: u32, pages: u32, is_backed: bool) {
        let (before, behind) = self.neighbours(page, pages, is_backed);
        if !is_backed && page + pages == self.frontier {
            if let Some(before) = before {
                self.remove(before);
            }
            self.frontier = before.map_or(page, |before| before.page);
            return;
        }
        self.join(before, page, pages, behind, is_backed);
    }

    /// Frees the pages of a reserved extent that had memory for all of them, as
    /// [`Engine::release_pages`] does. Pages whose memory was lost become address space.
    pub(super) fn release_reserved(&mut self, page: u32, pages: u32) {
        if self.holes > 0 && self.has_holes(page, pages) {
            self.directory.take_head(page);
            self.release_block(page, pages);
            return;
        }
        let (before, behind) = self.neighbours(page, pages, true);
        if before.is_some() || behind.is_some() {
            self.directory.take_head(page);
            self.join(before, page, pages, behind, true);
            return;
        }
        if let Some(head) = self.directory.head_mut(page) {
            debug_assert!(matches!(head, Head::Reserved { .. }));
            let links = Links::NONE;
            *head = Head::Backed { pages, links };
        }
        self.enlist(page, pages, true);
    }

    /// The runs of one backing before and behind some pages.
    fn neighbours(&self, page: u32, pages: u32, is_backed: bool) -> (Option<Run>, Option<Run>) {
        let alike = |run: &Run| run.is_backed == is_backed;
        let before = self.run_before(page).filter(alike);
        let behind = self.run_at(page + pages).filter(alike);
        (before, behind)
    }

    /// Makes one run of pages at which nothing begins and of their neighbours.
    fn join(
        &mut self,
        before: Option<Run>,
        page: u32,
        pages: u32,
        behind: Option<Run>,
        is_backed: bool,
    ) {
        match (before, behind) {
            (None, None) => self.insert(page, pages, is_backed),
            (None, Some(run)) => {
                self.reshape(run, page, pages + run.pages);
                self.count_merge(pages + run.pages, is_backed);
            }
            (Some(run), behind) => {
                let mut pages = run.pages + pages;
                self.count_merge(pages, is_backed);
                if let Some(behind) = behind {
                    self.remove(behind);
                    pages += behind.pages;
                    self.count_merge(pages, is_backed);
                }
                self.reshape(run, run.page, pages);
            }
        }
    }

    /// Counts that two neighbours became one run of so many pages.
    fn count_merge(&mut self, pages: u32, is_backed: bool) {
        if is_backed {
            let merges = &mut self.stats_of_pages(pages).merges;
            *merges = merges.wrapping_add(1);
        }
    }

    /// Makes a run one of `pages` pages that begins at `page`, where there is a place. It keeps its
    /// place on the list if it stays on that list.
    fn reshape(&mut self, run: Run, page: u32, pages: u32) {
        let kind = Kind::of_run(pages, run.is_backed);
        if kind.list() != Kind::of_run(run.pages, run.is_backed).list() {
            self.remove(run);
            self.insert(page, pages, run.is_backed);
            return;
        }
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

    /// Puts a run whose head is in place on its list.
    fn enlist(&mut self, page: u32, pages: u32, is_backed: bool) {
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

    /// Takes a run off its list. Its head stays.
    fn unlist(&mut self, run: Run) {
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

    /// Pages of the largest request that the freelist of `order` can serve as it is.
    pub(super) fn largest_run(&self, order: u32) -> u32 {
        let largest = self.lists.largest_of(order);
        let run = largest.and_then(|page| self.run_at(page));
        run.map_or(0, |run| run.pages)
    }

    /// What is counted for the class of a block of so many pages. A run may be longer than the
    /// largest block: it counts with that.
    fn stats_of_pages(&mut self, pages: u32) -> &mut ClassStats {
        let shift = (Self::PAGE_SHIFT + ceil_log2(pages.into())).min(Self::MAX_SHIFT);
        &mut self.stats[(shift - MIN_SHIFT) as usize]
    }
}
