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

/// The smallest `k` with `n <= 1 << k`, for `n` of at least 1.
pub(super) const fn ceil_log2(n: u32) -> u32 {
    u32::BITS - n.saturating_sub(1).leading_zeros()
}

/// A block is a part of a page or some whole pages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Subpage { shift: u32 },
    Pages { pages: u32, order: u8 },
}

/// The size class of a block, with its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// Bytes that belong to the block.
    bytes: u32,
    shift: u8,
    page_shift: u8,
}

impl Class {
    /// The class that a request gets: a power of 2 up to half a page, whole pages in a slot of a
    /// power of 2 above.
    #[inline]
    pub(super) fn of(request: &Request, page_shift: u32) -> Result<Self, Refusal> {
        if request.size == 0 {
            return Err(Refusal::Zero);
        }
        let size = request.bytes();
        if size > 1 << MAX_SHIFT {
            return Err(Refusal::TooBig);
        }
        let size = size as u32;
        let shift = ceil_log2(size).max(MIN_SHIFT);
        if shift < page_shift {
            return Ok(Self::of_subpage(shift, page_shift));
        }
        let rest = (1 << page_shift) - 1;
        Ok(Self {
            bytes: (size + rest) & !rest,
            shift: shift as u8,
            page_shift: page_shift as u8,
        })
    }

    pub(super) fn of_pages(pages: u32, page_shift: u32) -> Self {
        Self {
            bytes: pages << page_shift,
            shift: (page_shift + ceil_log2(pages)) as u8,
            page_shift: page_shift as u8,
        }
    }

    /// The class of blocks of `1 << shift` bytes, smaller than a page.
    pub(super) fn of_subpage(shift: u32, page_shift: u32) -> Self {
        Self {
            bytes: 1 << shift,
            shift: shift as u8,
            page_shift: page_shift as u8,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        if self.is_subpage() {
            Shape::Subpage {
                shift: self.shift.into(),
            }
        } else {
            Shape::Pages {
                pages: self.pages(),
                order: self.shift - self.page_shift,
            }
        }
    }

    /// The slot that it lies in is `1 << shift` bytes.
    pub(super) fn shift(&self) -> u32 {
        self.shift.into()
    }

    /// Whether the block is smaller than a page.
    pub(super) fn is_subpage(&self) -> bool {
        self.shift < self.page_shift
    }

    /// Pages that the block lies in.
    pub(super) fn pages(&self) -> u32 {
        (self.bytes >> self.page_shift).max(1)
    }

    /// Bytes that belong to the block.
    pub(super) fn block_bytes(&self) -> u64 {
        self.bytes.into()
    }

    /// The bytes of each page of a block at `offset` that are the block's.
    pub(super) fn within(&self, offset: u64) -> Range<usize> {
        let page = 1 << self.page_shift;
        let start = (offset & (page - 1)) as usize;
        start..start + self.bytes.min(page as u32) as usize
    }

    /// The class's place in a table of [`COUNT`] classes.
    pub(super) fn index(&self) -> usize {
        usize::from(self.shift) - MIN_SHIFT as usize
    }
}

/// What is kept of one size class. What readers see of it is derived ([`Engine::class`]): an
/// allocation has better things to do.
///
/// [`Engine::class`]: super::Engine::class
#[derive(Clone, Copy, Default)]
pub(super) struct ClassStats {
    /// Blocks that became live so far.
    pub(super) allocs: u64,
    /// Blocks that were freed so far.
    pub(super) frees: u64,
    /// Pages of live blocks; of parts of pages 0.
    pub(super) live_pages: u64,
    /// Free blocks with memory, but those on the quick list.
    pub(super) listed: u64,
    /// Pages of these; of parts of pages 0.
    pub(super) listed_pages: u64,
    pub(super) splits: u64,
    pub(super) merges: u64,
    pub(super) grows: u64,
    pub(super) waits: u64,
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
    /// Trees of divided pages.
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
