// SPDX-License-Identifier: GPL-2.0-only

//! Look-ups by page number, for tests.

use super::head::Head;
use super::{Backend, Engine};
use core::ops::Range;

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Returns the page numbers of the live block in which `page` lies, or `page` alone if live
    /// subpage blocks lie in it.
    #[allow(dead_code)]
    pub fn live_extent(&self, page: u32) -> Option<Range<u32>> {
        match self.directory.extent_of(page)? {
            (first, Head::Live { pages, .. }) => Some(first..first + pages),
            (first, Head::Subpage(tree)) if tree.has_live() => Some(first..first + 1),
            _ => None,
        }
    }

    /// Returns whether page number `page` has memory.
    #[allow(dead_code)]
    pub fn is_backed(&self, page: u32) -> bool {
        self.directory.is_backed(page)
    }
}
