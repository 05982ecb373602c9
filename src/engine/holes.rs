// SPDX-License-Identifier: GPL-2.0-only

//! Blocks with holes: pages without memory, as they were not touched yet, discarded, or lost.
//!
//! The bits of [`directory`](super::directory) say which pages have memory. A block with holes is freed
//! in bounded steps ([`Engine::release_holed`]); its holes become unbacked free pages.

use super::head::Memory;
use super::transit::{Kind, Transit};
use super::{Backend, Engine, Garbage};
use core::ops::Range;

/// The most stretches of alike pages that one step of a release visits.
const RUNS: u32 = 64;

/// Pages of a block that was freed, or of its tail, with holes. They stay reserved until they are
/// passed to [`Engine::release_holed`].
#[must_use = "pages that are not released are lost until the arena ends"]
#[derive(Debug)]
pub struct Holed {
    page: u32,
    pages: u32,
    /// The holes count against the limits.
    owed: bool,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Returns whether any block may have holes or a range in transit.
    #[inline(always)]
    pub(super) fn may_have_holes(&self) -> bool {
        self.holes > 0 || !self.transits.is_empty()
    }

    /// Returns whether some pages of a block are holes or in transit.
    pub(super) fn has_holes(&self, first: u32, pages: u32) -> bool {
        let range = first..first + pages;
        self.holes > 0 && self.directory.count_backed(range.clone()) < pages
            || self.transits.first_in(range).is_some()
    }

    /// Gives up the claim of a block on pages. Returns the pages if they have holes.
    pub(super) fn take_holed(&mut self, page: u32, pages: u32, memory: Memory) -> Option<Holed> {
        let owed = memory != Memory::Whole;
        let has_holes = self.may_have_holes() && self.has_holes(page, pages);
        let claimed = match owed && has_holes {
            true => self.directory.count_backed(page..page + pages),
            false => pages,
        };
        self.claimed -= u64::from(claimed) << Self::PAGE_SHIFT;
        has_holes.then_some(Holed { page, pages, owed })
    }

    /// Releases the leading pages of what [`Engine::free`] or [`Engine::resize`] returned, in one
    /// bounded step. Needs no metadata.
    ///
    /// Returns how many pages no longer count against the limits, and the rest for the next call.
    pub fn release_holed(
        &mut self,
        Holed { page, pages, owed }: Holed,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> (u32, Option<Holed>) {
        let (first, end) = (page, page + pages);
        let mut page = page;
        let mut headroom = 0;
        self.directory.take_head(page);
        for _ in 0..RUNS {
            if page == end {
                break;
            }
            let transit = self.transits.first_in(page..end);
            let stop = transit.map_or(end, |(_, transit)| transit.page);
            let gone = match transit.filter(|_| stop == page) {
                Some((slot, transit)) => {
                    page = transit.range().end;
                    self.orphan(slot, transit)
                }
                None => {
                    let (has, count) = self.directory.alike(page, stop);
                    let gone = u32::from(!has) * count;
                    self.holes -= gone;
                    self.release_pages(page, count, has);
                    page += count;
                    gone
                }
            };
            if owed {
                self.owed -= gone;
                headroom += gone;
            }
        }
        for end in [first, page] {
            self.directory.release_chunk(end, garbage);
        }
        let pages = end - page;
        if pages > 0 {
            self.put_reserved(page, pages, pages);
        }
        (headroom, (pages > 0).then_some(Holed { page, pages, owed }))
    }

    /// Returns whether the first range in transit that overlaps `range` is an orphan: its pages become
    /// free soon.
    pub(super) fn has_orphan(&self, range: Range<u32>) -> bool {
        let transit = self.transits.first_in(range);
        transit.is_some_and(|(_, transit)| transit.is_orphan)
    }

    /// Makes a range in transit, whose block is gone, an extent of its own. Returns how many of its
    /// pages have no memory.
    fn orphan(&mut self, slot: usize, transit: Transit) -> u32 {
        self.transits.orphan(slot);
        let (page, pages) = (transit.page, transit.pages);
        match transit.kind {
            Kind::Comes => {
                self.put_reserved(page, pages, 0);
                self.holes -= pages;
                pages
            }
            // Pages that were lost meanwhile stay holes, of the new extent.
            Kind::Goes => {
                self.put_reserved(page, pages, pages);
                pages - self.directory.count_backed(page..page + pages)
            }
        }
    }

    /// Frees pages of a block that had memory; lost pages become unbacked. Takes a step for each hole:
    /// for ranges with few holes and no range in transit.
    pub(super) fn release_block(&mut self, first: u32, pages: u32) {
        let end = first + pages;
        let mut page = first;
        while page < end {
            let (has, count) = match self.holes {
                0 => (true, end - page),
                _ => self.directory.alike(page, end),
            };
            if !has {
                self.holes -= count;
            }
            self.release_pages(page, count, has);
            page += count;
        }
    }
}
