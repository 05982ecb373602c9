// SPDX-License-Identifier: GPL-2.0-only

//! Discards: the caller drops the memory of pages of its live blocks. The pages read as zero and get
//! memory when they are touched, as pages of a lazy block do.

use super::head::{Head, Memory};
use super::transit::Kind;
use super::{Backend, Engine, Garbage, Isolated, CHUNK_PAGES};
use core::ops::Range;

/// The most blocks that one call visits.
const BLOCKS: u32 = 64;

/// A range of a live block whose memory is to be dropped, or zeroed.
///
/// It has to be passed to [`Engine::finish_discard`]. A dropped one stays in transit until the arena
/// ends.
#[must_use = "a discard that is not finished stays in transit"]
#[derive(Debug)]
pub struct Discard {
    slot: usize,
    page: u32,
    pages: u32,
    keeps: bool,
}

impl Discard {
    /// Returns its page numbers, all with memory.
    pub fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }

    /// Returns whether the memory is to be zeroed instead of dropped: the block has lost a page, so
    /// that none of its pages would get memory again.
    pub fn keeps_memory(&self) -> bool {
        self.keeps
    }
}

/// The next step of a discard.
#[derive(Debug)]
pub enum Discarding {
    /// Drop or zero the memory of this range, then call again from its end on.
    Range(Discard),
    /// No page before this page number has memory to be discarded: call again from there on.
    Next(u32),
    /// Another range in transit overlaps, or all slots are in use: call again later.
    Busy,
}

/// Why a range cannot be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardError {
    /// A page of it lies in no live block.
    NotLive,
    /// A page of it lies in a block with a header, in a contiguous block, or in a divided page.
    Unsuited,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Checks that the pages `page..end` lie in live blocks that can be discarded. Visits a bounded
    /// number of blocks. Returns the page number up to which it has checked.
    pub fn check_discard(&self, page: u32, end: u32) -> Result<u32, DiscardError> {
        let mut next = page;
        for _ in 0..BLOCKS {
            if next >= end {
                break;
            }
            next = self.discardable(next)?.0.end;
        }
        Ok(next.min(end))
    }

    /// Returns the page numbers and the memory of the block in which a page lies, if its memory can be
    /// discarded.
    fn discardable(&self, page: u32) -> Result<(Range<u32>, Memory), DiscardError> {
        match self.directory.extent_of(page) {
            Some((
                first,
                Head::Live {
                    pages,
                    memory,
                    headed: false,
                    contiguous: false,
                    ..
                },
            )) => Ok((first..first + pages, *memory)),
            Some((_, Head::Live { .. })) => Err(DiscardError::Unsuited),
            Some((_, Head::Subpage(tree, ..))) if tree.has_live() => Err(DiscardError::Unsuited),
            _ => Err(DiscardError::NotLive),
        }
    }

    /// Begins to discard the first pages of `page..end` that have memory, within one block and one
    /// chunk. Skips blocks that were freed since [`Engine::check_discard`].
    pub fn discard(&mut self, page: u32, end: u32) -> Discarding {
        let Ok((block, memory)) = self.discardable(page) else {
            return match self.directory.extent_of(page) {
                Some((first, head)) => Discarding::Next(first + head.pages()),
                None => Discarding::Next(end),
            };
        };
        let stop = block.end.min(end);
        let transit = self.transits.first_in(page..stop);
        if transit.is_some_and(|(_, transit)| transit.page <= page) {
            return Discarding::Busy;
        }
        let stop = transit.map_or(stop, |(_, transit)| transit.page);
        let (has, count) = self.directory.alike(page, stop);
        if !has {
            return Discarding::Next(page + count);
        }
        let pages = count.min(CHUNK_PAGES as u32 - page % CHUNK_PAGES as u32);
        let lost = memory == Memory::Whole && self.has_holes(block.start, block.end - block.start);
        let keeps = lost || memory == Memory::Damaged;
        let Some(slot) = self.transits.add(page, pages, Kind::Goes) else {
            return Discarding::Busy;
        };
        self.directory.count_transit(page, 1);
        if let Some(Head::Live { memory, .. }) = self.directory.head_mut(block.start) {
            if !keeps {
                *memory = Memory::Lazy;
            }
        }
        Discarding::Range(Discard {
            slot,
            page,
            pages,
            keeps,
        })
    }

    /// Ends a discard after the memory was dropped. The pages that lost it are owed from now on.
    ///
    /// `stayed(page)` returns the first run of pages at or after `page` that kept their memory.
    /// Returns the range if its block was freed or shortened meanwhile: the range is isolated then,
    /// and has to be passed to [`Engine::remove_isolated`].
    pub fn finish_discard(
        &mut self,
        discard: Discard,
        garbage: &mut Garbage<B, PAGE_KIB>,
        stayed: &mut impl FnMut(u32) -> Option<Range<u32>>,
    ) -> Option<Isolated> {
        let Range { start, end } = discard.range();
        let is_orphan = self.transits.is_orphan(discard.slot);
        self.end_transit(discard.slot);
        if is_orphan {
            return Some(Isolated::new(start, end - start));
        }
        if discard.keeps {
            return None;
        }
        let mut page = start;
        while page < end {
            let stays = stayed(page).filter(|range| range.start < end);
            let stays = stays.unwrap_or(end..end);
            let gone = page..stays.start.clamp(page, end);
            // A page that was lost meanwhile is a hole already.
            let left = self.directory.set_backed(gone, false);
            let bytes = u64::from(left) << Self::PAGE_SHIFT;
            self.holes += left;
            self.owed += left;
            self.held_bytes -= bytes;
            // A block that is being released has given up its claim already.
            if self.is_live(start) {
                self.claimed -= bytes;
            }
            page = stays.end.max(page + 1);
        }
        self.directory.release_chunk(start, garbage);
        None
    }
}
