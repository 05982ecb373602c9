// SPDX-License-Identifier: GPL-2.0-only

//! Size classes: the length and alignment of the block that a request gets.

use super::{Policy, Refusal, Request, MAX_PAGES};
use core::ops::Range;

/// The smallest size class is `1 << MIN_SHIFT` bytes.
pub const MIN_SHIFT: u32 = 5;
/// Blocks are aligned to their size class, but to no more than `1 << ALIGN_SHIFT` bytes unless the
/// request asks for more.
pub const ALIGN_SHIFT: u32 = 16;
/// The largest alignment that a request may ask for, as a shift.
pub const MAX_ALIGN_SHIFT: u32 = 30;
/// The largest block, in pages, as a shift: half of what an arena may span.
const MAX_ORDER: u32 = MAX_PAGES.ilog2() - 1;
/// The number of size classes with pages of 64 KiB, the most there are.
pub(super) const CLASSES: usize = (max_shift(64) - MIN_SHIFT + 1) as usize;

/// Returns the shift of the largest size class with pages of `kib` KiB.
pub const fn max_shift(kib: usize) -> u32 {
    MAX_ORDER + page_shift(kib)
}

/// Returns the shift of a page of `kib` KiB.
pub(super) const fn page_shift(kib: usize) -> u32 {
    assert!(kib.is_power_of_two() && kib >= 4 && kib <= 64);
    10 + kib.trailing_zeros()
}

/// Returns the smallest `k` with `n <= 1 << k`, for `n` of at least 1.
pub(super) const fn ceil_log2(n: u64) -> u32 {
    u64::BITS - n.saturating_sub(1).leading_zeros()
}

/// Whether a block is a part of a page or whole pages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Subpage { shift: u32 },
    Pages { pages: u32 },
}

/// The size class of a block, with its length and alignment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// Bytes that belong to the block.
    bytes: u64,
    shift: u8,
    page_shift: u8,
    align_shift: u8,
}

impl Class {
    /// Returns the class of the block that a request gets.
    ///
    /// Its length is a power of 2 up to half a page and whole pages above. A contiguous block of whole
    /// pages is a power of 2 of pages, aligned to its length.
    #[inline]
    pub(super) fn of(request: &Request, page_shift: u32) -> Result<Self, Refusal> {
        if request.size == 0 {
            return Err(Refusal::Zero);
        }
        if request.align_shift > MAX_ALIGN_SHIFT {
            return Err(Refusal::Alignment);
        }
        let size = request.bytes();
        if size > 1 << (MAX_ORDER + page_shift) {
            return Err(Refusal::TooBig);
        }
        // A subpage block is aligned to its class: a larger alignment takes a larger class.
        let shift = ceil_log2(size)
            .max(MIN_SHIFT)
            .max(request.align_shift.min(page_shift));
        if shift < page_shift {
            return Ok(Self::of_subpage(shift, page_shift));
        }
        let contiguous = request.policy == Policy::Contiguous;
        let mut pages = size.div_ceil(1 << page_shift) as u32;
        if contiguous {
            // One naturally aligned folio: the pages beyond the size belong to the block.
            pages = pages.next_power_of_two();
        }
        let mut class = Self::of_pages(pages, page_shift);
        if contiguous {
            class.align_shift = class.shift;
        }
        class.align_shift = class.align_shift.max(request.align_shift as u8);
        Ok(class)
    }

    /// Returns the class of blocks of `pages` pages.
    pub(super) fn of_pages(pages: u32, page_shift: u32) -> Self {
        let shift = page_shift + ceil_log2(pages.into());
        Self {
            bytes: u64::from(pages) << page_shift,
            shift: shift as u8,
            page_shift: page_shift as u8,
            align_shift: shift.min(ALIGN_SHIFT).max(page_shift) as u8,
        }
    }

    /// Returns the class of subpage blocks of `1 << shift` bytes.
    pub(super) fn of_subpage(shift: u32, page_shift: u32) -> Self {
        Self {
            bytes: 1 << shift,
            shift: shift as u8,
            page_shift: page_shift as u8,
            align_shift: shift as u8,
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
            }
        }
    }

    /// Returns the shift of the class: its blocks have at most `1 << shift` bytes.
    pub(super) fn shift(&self) -> u32 {
        self.shift.into()
    }

    /// Returns whether the block is smaller than a page.
    pub(super) fn is_subpage(&self) -> bool {
        self.shift < self.page_shift
    }

    /// Returns in how many pages the block lies.
    pub(super) fn pages(&self) -> u32 {
        ((self.bytes >> self.page_shift) as u32).max(1)
    }

    /// Returns the number of the page in which the offset `start` lies.
    pub(super) fn page_of(&self, start: u64) -> u32 {
        (start >> self.page_shift) as u32
    }

    /// Returns the bytes of the block.
    pub(super) fn block_bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the alignment of a block of whole pages, in pages.
    pub(super) fn align_pages(&self) -> u32 {
        1 << self.align_shift.saturating_sub(self.page_shift)
    }

    /// Returns whether a block at the offset `start` has the alignment of the class.
    pub(super) fn is_aligned(&self, start: u64) -> bool {
        start & ((1 << self.align_shift) - 1) == 0
    }

    /// Returns which bytes of each of its pages belong to a block at `offset`.
    pub(super) fn within(&self, offset: u64) -> Range<usize> {
        let page = 1 << self.page_shift;
        let start = (offset & (page - 1)) as usize;
        start..start + self.bytes.min(page) as usize
    }

    /// Returns the index of the class in a table of [`CLASSES`] classes.
    pub(super) fn index(&self) -> usize {
        usize::from(self.shift) - MIN_SHIFT as usize
    }
}
