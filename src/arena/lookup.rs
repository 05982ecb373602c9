// SPDX-License-Identifier: GPL-2.0

//! The pages of live blocks, to be mapped.

use super::Arena;
use crate::{
    engine::{
        BATCH,
        MAX_PAGES, //
    },
    ffi::nospec,
    mm::address_space::PageBatch, //
};
use core::ops::Range;

impl Arena {
    /// Finds pages that can be mapped: those of `window` that the live block has in which page
    /// number `index` lies, as many as there is room for in `found`, which is empty. Gives the number
    /// of the first. Whoever maps them holds the guard.
    pub(crate) fn live_pages(
        &self,
        index: u64,
        window: Range<u64>,
        found: &mut PageBatch<'_>,
    ) -> Option<u64> {
        let index = nospec::index_nospec(index, MAX_PAGES)?;
        let state = self.state.lock();
        let extent = state.engine.live_extent(index)?;
        let first = window.start.max(extent.start.into()) as u32;
        let end = window.end.min(extent.end.into()) as u32;
        let most = end.saturating_sub(first).min(BATCH);
        let mut count = 0;
        while count < most {
            let before = count;
            for page in state.engine.pages(first + count, most - count) {
                found.push(page);
                count += 1;
            }
            // A live block has all of its pages.
            if count == before {
                return None;
            }
        }
        Some(first.into())
    }

    /// The page behind page number `index`, with a reference, if a live block lies in it.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn live_page(&self, index: u64) -> Option<crate::mm::page::Page> {
        let index = nospec::index_nospec(index, MAX_PAGES)?;
        let state = self.state.lock();
        state.engine.live_extent(index)?;
        state.engine.page(index).cloned()
    }
}
