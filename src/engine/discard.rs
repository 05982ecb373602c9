// SPDX-License-Identifier: GPL-2.0-only

//! Pages of live blocks that lose their memory at their owner's wish: they read as zero, and get
//! memory when they are touched, as those of a lazy block.

use super::head::{Head, Memory};
use super::transit::Kind;
use super::{Backend, Engine, Garbage, Isolated, CHUNK_PAGES};
use core::ops::Range;

/// The most blocks that one call looks at.
const BLOCKS: u32 = 64;

/// A range of a live block whose memory leaves, or is zeroed.
///
/// It has to be given to [`Engine::finish_discard`]; dropped, it stays in transit until the arena ends.
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

    /// Returns whether the memory is to be zeroed, and stays: its block has lost pages, and would get
    /// none again.
    pub fn keeps_memory(&self) -> bool {
        self.keeps
    }
}

/// What is to be done next.
#[derive(Debug)]
pub enum Discarding {
    /// The memory of this range leaves; call again from its end on.
    Range(Discard),
    /// There is nothing to do before this page number; call again from there on.
    Next(u32),
    /// Another thread brings or drops memory there, or too many do elsewhere: call again later.
    Busy,
}

/// Why a range cannot be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardError {
    /// Some of it lies in no live block.
    NotLive,
    /// Some of it lies in a block with a header, one that is contiguous in physical memory, or one
    /// below a page.
    Unsuited,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Checks that the pages `page..end` lie in live blocks that can be discarded, as far as one hold of
    /// the lock goes. Returns the page number up to which they do.
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

    /// Returns the page numbers and the memory of the block in which a page lies.
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
            Some((_, Head::Subpage(tree))) if tree.has_live() => Err(DiscardError::Unsuited),
            _ => Err(DiscardError::NotLive),
        }
    }

    /// Takes the first pages of `page..end` that have memory, to be discarded: at most those of one
    /// block and one chunk. What was freed since [`Engine::check_discard`] looked is left alone.
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

    /// Notes that the memory of a range has left, but for the pages that stayed: `stayed` is asked for
    /// the first of these at or behind a page number, as many as lie side by side. The room of what
    /// left is owed to the block.
    ///
    /// Returns the range where its block went meanwhile: it is isolated, and goes to
    /// [`Engine::remove_isolated`].
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
            // What was lost meanwhile is a hole already.
            let left = self.directory.set_backed(gone, false);
            let bytes = u64::from(left) << Self::PAGE_SHIFT;
            self.holes += left;
            self.owed += left;
            self.held_bytes -= bytes;
            // A block that is being released claims nothing any more.
            if self.is_live(start) {
                self.claimed -= bytes;
            }
            page = stays.end.max(page + 1);
        }
        self.directory.give_chunk(start, garbage);
        None
    }
}
