// SPDX-License-Identifier: GPL-2.0-only

//! Look-ups by offset and by page number.

use super::head::Head;
use super::{Backend, Engine};
use core::ops::Range;

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Returns the bytes of the live block that begins at `offset`, with its header if it has one; 0
    /// where none begins.
    pub fn live_bytes(&self, offset: u64) -> u64 {
        let page = (offset >> Self::PAGE_SHIFT) as u32;
        let within = offset & (Self::PAGE_BYTES - 1);
        match self.directory.head(page) {
            Some(Head::Subpage(tree, ..)) => match tree.live_shift(within) {
                Some(shift) if within % (1 << shift) == 0 => 1 << shift,
                _ => 0,
            },
            Some(Head::Live { pages, .. }) if within == 0 => u64::from(*pages) << Self::PAGE_SHIFT,
            _ => 0,
        }
    }

    /// Returns the page numbers of the live block in which `page` lies, or `page` alone if live
    /// subpage blocks lie in it.
    #[allow(dead_code)]
    pub fn live_extent(&self, page: u32) -> Option<Range<u32>> {
        match self.directory.extent_of(page)? {
            (first, Head::Live { pages, .. }) => Some(first..first + pages),
            (first, Head::Subpage(tree, ..)) if tree.has_live() => Some(first..first + 1),
            _ => None,
        }
    }

    /// Returns whether a live block whose pages are contiguous in physical memory begins at page number
    /// `page`.
    pub fn is_contiguous(&self, page: u32) -> bool {
        let head = self.directory.head(page);
        matches!(head, Some(Head::Live { contiguous, .. }) if *contiguous)
    }

    /// Returns whether page number `page` has memory.
    #[allow(dead_code)]
    pub fn is_backed(&self, page: u32) -> bool {
        self.directory.is_backed(page)
    }
}
