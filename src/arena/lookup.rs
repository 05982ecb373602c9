// SPDX-License-Identifier: GPL-2.0-only

//! Access to the memory of live blocks, for tests.

use super::Arena;
use crate::{
    engine::MAX_PAGES,
    ffi::nospec,
    mm::folio::Folio, //
};

/// A page in which a live block lies.
pub(crate) struct LivePage {
    folio: Folio,
    page: u32,
}

impl LivePage {
    /// Returns its page frame number.
    pub(crate) fn frame(&self) -> Option<usize> {
        self.folio.frame(self.page)
    }

    /// Copies from byte `at` of the page to `to`.
    pub(crate) fn read(&self, at: usize, to: &mut [u8]) {
        self.folio.read(self.page, at, to);
    }

    /// Copies `from` to byte `at` of the page.
    pub(crate) fn write(&self, at: usize, from: &[u8]) {
        self.folio.write(self.page, at, from);
    }
}

impl Arena {
    /// Returns page number `index` if a live block lies in it.
    pub(crate) fn live_page(&self, index: u64) -> Option<LivePage> {
        let page = nospec::index_nospec(index, MAX_PAGES)?;
        self.lock().engine.live_extent(page)?;
        let folio = self.address_space.folio(page)?;
        Some(LivePage { folio, page })
    }
}
