// SPDX-License-Identifier: GPL-2.0-only

//! Resize in place: a live block of whole pages becomes longer or shorter at its offset.
//!
//! The tail of a shortened block is free at once. The pages after a growing block are a reservation of
//! their own until they join the block, which stays live all the time.

use super::class::Class;
use super::head::{Head, Memory};
use super::holes::Holed;
use super::request::{Admission, FreeError, Refusal, Request, Reservation};
use super::{Backend, Engine, Garbage, Isolated, Metadata, Prealloc, CHUNK_PAGES};
use core::ops::Range;

/// The most runs after a block that one call visits.
const MAX_RUNS: u32 = 256;

/// Why a block was not resized. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeError {
    /// Metadata is lacked: allocate one of these, add it to the prealloc, call again.
    Need(Metadata),
    /// No live block begins there.
    Offset(FreeError),
    /// The size is 0.
    Zero,
    /// The size exceeds the largest block.
    TooBig,
    /// The block has a header, is contiguous in physical memory, or lies in a divided page.
    Unsuited,
    /// The pages after the block are in use, or beyond the address space.
    InUse,
    /// A range in transit crosses the new end, or an orphan lies after the block: call again later.
    Busy,
}

impl From<Metadata> for ResizeError {
    fn from(metadata: Metadata) -> Self {
        Self::Need(metadata)
    }
}

/// The reserved pages after a block that is to become longer.
///
/// It has to be passed to [`Engine::commit_growth`], or its reservation to [`Engine::cancel`].
#[must_use = "a growth that is neither committed nor cancelled is lost"]
#[derive(Debug)]
pub struct Growth {
    /// The page number of the block's first page, and how many pages it had.
    page: u32,
    pages: u32,
    reservation: Reservation,
}

impl Growth {
    /// Returns the reserved pages, in bytes from the beginning of the arena.
    pub fn extent(&self) -> Range<u64> {
        self.reservation.extent()
    }

    /// Returns the reservation, to be backed.
    pub fn reservation(&mut self) -> &mut Reservation {
        &mut self.reservation
    }

    /// Returns the reservation, to be cancelled.
    pub fn into_reservation(self) -> Reservation {
        self.reservation
    }
}

/// The result of [`Engine::resize`].
#[derive(Debug)]
pub enum Resized {
    /// The block has the requested length.
    Done,
    /// The block has the requested length. Pass its tail to [`Engine::release_holed`].
    Shrunk(Holed),
    /// A backed run lies after unbacked free pages that the block needs. Drop the memory of this part
    /// of the run ([`Engine::remove_isolated`]), then call again.
    InTheWay(Isolated),
    /// The pages after the block are reserved. Back them, then call [`Engine::commit_growth`].
    Growing(Growth),
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Resizes the live block at `offset` to `size` bytes, rounded up to whole pages.
    ///
    /// `lazy`: new pages without memory get it when they are touched. Backed free pages that are set
    /// aside for a waiter count as in use.
    pub fn resize(
        &mut self,
        offset: u64,
        size: u64,
        lazy: bool,
        admission: Admission,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Resized, ResizeError> {
        let request = Request {
            size,
            align_shift: Self::PAGE_SHIFT,
            ..Request::default()
        };
        let class = Class::of(&request, Self::PAGE_SHIFT).map_err(|refusal| match refusal {
            Refusal::Zero => ResizeError::Zero,
            _ => ResizeError::TooBig,
        })?;
        let (page, had, memory) = self.resizable(offset)?;
        self.merge_deferred();
        let pages = class.pages();
        if pages > had {
            // A lost page must not pass for one that was never touched.
            let lazy = lazy && (memory != Memory::Whole || !self.has_holes(page, had));
            let after = page + had..page + pages;
            return match self.reserve_growth(page, had, pages - had, admission, prealloc) {
                Ok(Resized::Growing(mut growth)) => {
                    growth.reservation.lazy = lazy;
                    Ok(Resized::Growing(growth))
                }
                // The pages of an orphan become free soon.
                Err(ResizeError::InUse) if self.has_orphan(after) => Err(ResizeError::Busy),
                result => result,
            };
        }
        if pages < had {
            let tail = page + pages;
            let across = self.transits.first_in(tail..tail + 1);
            if across.is_some_and(|(_, transit)| transit.page < tail) {
                return Err(ResizeError::Busy);
            }
            if memory != Memory::Whole {
                // Without memory there may be no records either.
                self.directory.ensure_places([Some(tail), None], prealloc)?;
            }
            self.set_live_pages(page, had, pages, memory);
            let holed = self.take_tail(tail, had - pages, memory);
            return Ok(holed.map_or(Resized::Done, Resized::Shrunk));
        }
        Ok(Resized::Done)
    }

    /// Returns the first page, the pages and the memory of the block at `offset`, if it can be resized.
    fn resizable(&self, offset: u64) -> Result<(u32, u32, Memory), ResizeError> {
        if offset % 16 != 0 {
            return Err(ResizeError::Offset(FreeError::Misaligned));
        }
        if offset >= self.span_bytes() {
            return Err(ResizeError::Offset(FreeError::Beyond));
        }
        let page = (offset >> Self::PAGE_SHIFT) as u32;
        match self.directory.head(page) {
            Some(
                Head::Live { headed: true, .. }
                | Head::Live {
                    contiguous: true, ..
                }
                | Head::Subpage(..),
            ) => Err(ResizeError::Unsuited),
            Some(Head::Live { .. }) if offset & (Self::PAGE_BYTES - 1) != 0 => {
                Err(ResizeError::Offset(FreeError::Inside))
            }
            Some(Head::Live { pages, memory, .. }) => Ok((page, *pages, *memory)),
            _ => Err(ResizeError::Offset(self.why_not(page))),
        }
    }

    /// Frees the tail of a block that became shorter. Returns it instead if it has holes.
    fn take_tail(&mut self, page: u32, pages: u32, memory: Memory) -> Option<Holed> {
        let holed = self.take_holed(page, pages, memory);
        if holed.is_some() {
            self.put_reserved(page, pages, pages);
        } else {
            self.release_pages(page, pages, true);
        }
        holed
    }

    /// Sets the length of a live block to `has` pages, and moves it to another class if need be.
    fn set_live_pages(&mut self, page: u32, had: u32, has: u32, memory: Memory) {
        for (pages, sign) in [(had, u64::MAX), (has, 1)] {
            let class = Class::of_pages(pages, Self::PAGE_SHIFT);
            let stats = &mut self.stats[class.index()];
            stats.resized = stats.resized.wrapping_add(sign);
            let change = u64::from(pages).wrapping_mul(sign);
            stats.live_pages = stats.live_pages.wrapping_add(change);
        }
        if let Some(head @ Head::Live { .. }) = self.directory.head_mut(page) {
            *head = Head::Live {
                pages: has,
                memory,
                headed: false,
                growing: false,
                contiguous: false,
            };
        }
    }

    /// Reserves `more` pages after a block: of a backed run, and of unbacked pages after that.
    fn reserve_growth(
        &mut self,
        page: u32,
        pages: u32,
        more: u32,
        admission: Admission,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Resized, ResizeError> {
        let after = page + pages;
        let run = self.run_at(after).filter(|run| run.is_backed);
        let backed = run.map_or(0, |run| run.pages.min(more));
        let missing = more - backed;
        let set_aside = backed > 0 && admission != Admission::Full;
        let unbacked = self.unbacked_from(after + backed);
        if set_aside || (missing > unbacked && !self.is_free(after + backed, after + more)) {
            return Err(ResizeError::InUse);
        }
        if missing > unbacked {
            // A reservation is backed from its front, so its last pages may not have memory.
            let run = self.run_at(after + backed + unbacked);
            return match run.filter(|_| admission == Admission::Full) {
                Some(run) => Ok(Resized::InTheWay(
                    self.isolate_start(run, CHUNK_PAGES as u32),
                )),
                None => Err(ResizeError::InUse),
            };
        }
        if missing > 0 {
            let claimed = self.claim_space(after + backed, missing, prealloc);
            claimed.map_err(|refusal| match refusal {
                Refusal::Need(metadata) => ResizeError::Need(metadata),
                _ => ResizeError::InUse,
            })?;
        }
        if let Some(run) = run {
            self.carve(run, after..after + backed);
        }
        self.put_reserved(after, more, backed);
        if let Some(Head::Live { growing, .. }) = self.directory.head_mut(page) {
            *growing = true;
        }
        let class = Class::of_pages(more, Self::PAGE_SHIFT);
        self.claimed += class.block_bytes();
        Ok(Resized::Growing(Growth {
            page,
            pages,
            reservation: Reservation {
                had: backed,
                stale: backed,
                missing,
                movable: admission == Admission::Full,
                ..Reservation::ready(u64::from(after) << Self::PAGE_SHIFT, class, 0)
            },
        }))
    }

    /// Returns whether `page..end` is free. Visits at most [`MAX_RUNS`] runs and takes the rest for
    /// free.
    fn is_free(&self, mut page: u32, end: u32) -> bool {
        for _ in 0..MAX_RUNS {
            if page >= end || page == self.frontier {
                return end <= self.span;
            }
            match self.run_at(page) {
                Some(run) => page = run.end(),
                None => return false,
            }
        }
        true
    }

    /// Joins the backed or owed pages of a growth to their block. Returns the new length of the block
    /// in bytes. If the block was freed or resized meanwhile, returns the growth, to be cancelled.
    pub fn commit_growth(
        &mut self,
        growth: Growth,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> Result<u64, Growth> {
        let missing = growth.reservation.missing;
        debug_assert!(missing <= growth.reservation.owed);
        let memory = match self.directory.head(growth.page) {
            Some(Head::Live {
                pages,
                memory,
                growing: true,
                ..
            }) if *pages == growth.pages => *memory,
            _ => return Err(growth),
        };
        let memory = match memory {
            Memory::Whole if missing > 0 => Memory::Lazy,
            memory => memory,
        };
        self.holes += missing;
        let more = growth.reservation.class.pages();
        self.directory.take_head(growth.page + growth.pages);
        let pages = growth.pages + more;
        self.set_live_pages(growth.page, growth.pages, pages, memory);
        // Nothing begins there now, and lazy pages have no memory yet: the records may go.
        self.directory
            .release_chunk(growth.page + growth.pages, garbage);
        self.peak_bytes = self.peak_bytes.max(self.claimed);
        if growth.reservation.had + missing < more {
            let class = Class::of_pages(pages, Self::PAGE_SHIFT);
            let grows = &mut self.stats[class.index()].grows;
            *grows = grows.wrapping_add(1);
        }
        Ok(u64::from(pages) << Self::PAGE_SHIFT)
    }
}
