// SPDX-License-Identifier: GPL-2.0

//! Size classes: what a request of so many bytes gets, and what is counted.

use super::{Refusal, Request};
use core::ops::Range;

/// The smallest size class is `1 << MIN_SHIFT` bytes.
pub const MIN_SHIFT: u32 = 5;
/// The largest size class is `1 << MAX_SHIFT` bytes.
pub const MAX_SHIFT: u32 = 30;
/// The number of size classes.
pub(super) const COUNT: usize = (MAX_SHIFT - MIN_SHIFT + 1) as usize;

/// The shift of a page of `kib` KiB.
pub(super) const fn page_shift(kib: usize) -> u32 {
    assert!(kib.is_power_of_two() && kib >= 4 && kib <= 64);
    10 + kib.trailing_zeros()
}

/// The smallest `k` with `n <= 1 << k`.
pub(super) const fn ceil_log2(n: u32) -> u32 {
    n.next_power_of_two().trailing_zeros()
}

/// A block is a part of a page or some whole pages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Part { shift: u32 },
    Pages { pages: u32, order: u8 },
}

/// The size class of a block, with its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    shape: Shape,
    page_shift: u32,
}

impl Class {
    /// The class that a request gets: a power of 2 up to half a page, whole pages in a slot of a
    /// power of 2 above.
    pub(super) fn of(request: &Request, page_shift: u32) -> Result<Self, Refusal> {
        if request.size == 0 {
            return Err(Refusal::Zero);
        }
        let size = request.bytes();
        if size > 1 << MAX_SHIFT {
            return Err(Refusal::TooBig);
        }
        if size <= 1 << (page_shift - 1) {
            let shift = ceil_log2(size as u32).max(MIN_SHIFT);
            return Ok(Self {
                shape: Shape::Part { shift },
                page_shift,
            });
        }
        Ok(Self::of_pages(
            size.div_ceil(1 << page_shift) as u32,
            page_shift,
        ))
    }

    pub(super) fn of_pages(pages: u32, page_shift: u32) -> Self {
        let order = ceil_log2(pages) as u8;
        Self {
            shape: Shape::Pages { pages, order },
            page_shift,
        }
    }

    /// The class of blocks of `1 << shift` bytes, smaller than a page.
    pub(super) fn of_part(shift: u32, page_shift: u32) -> Self {
        Self {
            shape: Shape::Part { shift },
            page_shift,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Pages that the block lies in.
    pub(super) fn pages(&self) -> u32 {
        match self.shape {
            Shape::Part { .. } => 1,
            Shape::Pages { pages, .. } => pages,
        }
    }

    /// Bytes that belong to the block.
    pub(super) fn block_bytes(&self) -> u64 {
        match self.shape {
            Shape::Part { shift } => 1 << shift,
            Shape::Pages { pages, .. } => u64::from(pages) << self.page_shift,
        }
    }

    /// The bytes of each page of a block at `offset` that are the block's.
    pub(super) fn within(&self, offset: u64) -> Range<usize> {
        match self.shape {
            Shape::Part { shift } => {
                let start = (offset & ((1 << self.page_shift) - 1)) as usize;
                start..start + (1 << shift)
            }
            Shape::Pages { .. } => 0..1 << self.page_shift,
        }
    }

    /// The class's place in a table of [`COUNT`] classes.
    pub(super) fn index(&self) -> usize {
        let shift = match self.shape {
            Shape::Part { shift } => shift,
            Shape::Pages { order, .. } => self.page_shift + u32::from(order),
        };
        (shift - MIN_SHIFT) as usize
    }
}

/// What an arena counts. Bytes unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks that are live now.
    pub live_blocks: u64,
    /// In live blocks.
    pub live_bytes: u64,
    /// Held, and neither live nor pending.
    pub free_bytes: u64,
    /// Held for blocks that are reserved and not live yet.
    pub pending_bytes: u64,
    /// In all pages that the arena has.
    pub held_bytes: u64,
    /// The most that were live or reserved at a time so far.
    pub peak_bytes: u64,
    /// Asked for by all allocations so far.
    pub requested_bytes: u64,
    /// Blocks that became live so far.
    pub allocs: u64,
    /// Blocks that were freed so far.
    pub frees: u64,
    /// Allocations so far that took new pages.
    pub grows: u64,
    /// Free blocks with memory in both halves that were halved so far.
    pub splits: u64,
    /// Pairs of free halves with memory that were joined so far.
    pub merges: u64,
    /// Parts of the directory, of [`super::PART_LEN`] entries.
    pub parts: u64,
    /// Chunks of [`super::CHUNK_PAGES`] page records.
    pub chunks: u64,
    /// Trees of broken pages.
    pub trees: u64,
}

/// What is counted for one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Blocks that are live now.
    pub live: u64,
    /// Free blocks with memory now.
    pub free: u64,
    /// Bytes held in both.
    pub held: u64,
    /// Blocks of this class that were halved so far.
    pub splits: u64,
    /// Blocks of this class that were made by joining halves so far.
    pub merges: u64,
    /// Allocations of this class so far that took new pages.
    pub grows: u64,
    /// Allocations of this class so far that slept.
    pub waits: u64,
    /// Bytes of the largest request that this class's freelist can serve as it is.
    pub largest: u64,
}
