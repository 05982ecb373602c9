// SPDX-License-Identifier: GPL-2.0-only

//! Bulk calls on the fast path: many blocks of one size class, for which shared work is done once.

use super::alloc::Live;
use super::class::{Class, MIN_SHIFT};
use super::head::Head;
use super::request::{Admission, Request, Reservation};
use super::{Backend, Engine};

/// Reserved blocks of one class, without headers and with all their memory, from the quick list.
///
/// It has to be passed to [`Engine::commit_batch`], or its blocks ([`Batch::pop`]) to
/// [`Engine::cancel`]. The blocks of a dropped batch are lost until the arena ends.
pub struct Batch<'a> {
    class: Class,
    requested: u64,
    starts: &'a mut [u64],
    len: usize,
}

impl<'a> Batch<'a> {
    /// Makes an empty batch of at most as many blocks as `starts` has entries, whose values do not matter.
    pub fn new(starts: &'a mut [u64]) -> Self {
        Self {
            class: Class::of_subpage(MIN_SHIFT, MIN_SHIFT + 1),
            requested: 0,
            starts,
            len: 0,
        }
    }

    /// Returns the offsets of the blocks, in bytes from the beginning of the arena.
    pub fn offsets(&self) -> &[u64] {
        self.starts.get(..self.len).unwrap_or_default()
    }

    /// Returns the bytes of each block.
    pub fn block_bytes(&self) -> u64 {
        self.class.block_bytes()
    }

    /// Removes and returns the last block, to be cancelled.
    pub fn pop(&mut self) -> Option<Reservation> {
        self.len = self.len.checked_sub(1)?;
        let start = *self.starts.get(self.len)?;
        Some(Reservation::ready(start, self.class, self.requested))
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Reserves blocks of `size` bytes from their quick list into an empty batch: at most
    /// `max_blocks`, and at most as many as the batch may have. Returns whether it reserved any.
    ///
    /// For requests that reuse memory, are admitted in full and ask for no header.
    pub fn reserve_batch(&mut self, size: u64, max_blocks: usize, batch: &mut Batch<'_>) -> bool {
        let request = Request {
            size,
            ..Request::default()
        };
        let Ok(class) = Class::of(&request, Self::PAGE_SHIFT) else {
            return false;
        };
        batch.class = class;
        batch.requested = size;
        for place in batch.starts.iter_mut().take(max_blocks) {
            let Some(start) = self.pop_quick(Admission::Full, class) else {
                break;
            };
            *place = start;
            batch.len += 1;
        }
        self.claimed += batch.len as u64 * class.block_bytes();
        batch.len > 0
    }

    /// Makes all blocks of a batch live, after their offsets were copied to the caller. Leaves the
    /// batch empty.
    pub fn commit_batch(&mut self, batch: &mut Batch<'_>) {
        let count = batch.len as u64;
        let class = batch.class;
        self.count_allocs(class, count, batch.requested.wrapping_mul(count));
        let mut starts = batch.offsets();
        while let [first, rest @ ..] = starts {
            let page = (first >> Self::PAGE_SHIFT) as u32;
            let Some(Head::Subpage(tree, ..)) = self.directory.head_mut(page) else {
                self.enliven(*first, class, Live::PLAIN);
                starts = rest;
                continue;
            };
            // One look-up serves all blocks of a page.
            while let [start, rest @ ..] = starts {
                if (start >> Self::PAGE_SHIFT) as u32 != page {
                    break;
                }
                tree.set_live(Self::node(*start, class.shift()), false);
                starts = rest;
            }
        }
        batch.len = 0;
    }

    /// Frees the leading blocks of `offsets` that can be freed together: those in the page of the
    /// first block and of its class, without headers, as long as their quick list has room.
    ///
    /// Returns how many it freed. The next one is for [`Engine::free`], which also returns the error
    /// of an offset that cannot be freed.
    pub fn free_alike(&mut self, offsets: &[u64]) -> usize {
        let Some(first) = offsets.first().filter(|first| **first < self.span_bytes()) else {
            return 0;
        };
        let page = first >> Self::PAGE_SHIFT;
        let within = |offset: u64| offset & (Self::PAGE_BYTES - 1);
        let Some(Head::Subpage(tree, ..)) = self.directory.head_mut(page as u32) else {
            return 0;
        };
        if tree.is_lost() {
            return 0;
        }
        let Some(shift) = tree.live_shift(within(*first)) else {
            return 0;
        };
        let class = Class::of_subpage(shift, Self::PAGE_SHIFT);
        let mut count = 0;
        for offset in offsets {
            if offset >> Self::PAGE_SHIFT != page
                || !self.quick.has_room::<PAGE_KIB>(class)
                || !tree.end_plain(within(*offset), shift)
            {
                break;
            }
            let more = self.quick.put::<PAGE_KIB>(*offset, class);
            debug_assert!(more.is_none());
            count += 1;
        }
        let frees = &mut self.stats[class.index()].frees;
        *frees = frees.wrapping_add(count as u64);
        self.claimed -= (count as u64) << shift;
        count
    }
}
