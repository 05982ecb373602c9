// SPDX-License-Identifier: GPL-2.0-only

//! Removal of memory from an address space. There are two ways:
//!
//! - [`AddressSpace::remove`] removes exactly a range. It waits for locked folios, and splits folios
//!   that reach beyond the range.
//! - [`AddressSpace::reclaim`] removes whole folios of a range without waiting for any: a thread that
//!   holds a folio's lock may itself wait for memory.
//!
//! Both unmap first. [`AddressSpace::first_in`] finds the folios that stayed. No folio is added to the
//! range meanwhile, as only the owner of a range adds folios to it.

use crate::{
    engine::MAX_PAGES,
    ffi::{
        race_point::RacePoint,
        raw, //
    },
    mm::{
        address_space::{
            huge_page_order,
            AddressSpace, //
        },
        folio::LockedFolio,
        statistics::Node, //
    },
};
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    sync::atomic::Relaxed, //
};

/// How often the removal of a range is tried: a split may fail for lack of memory, or because another
/// thread holds a reference to the folio for a moment.
const TRIES: u32 = 3;

impl AddressSpace {
    /// Removes the mappings of a range. May sleep.
    fn unmap(&self, range: &Range<u32>) {
        // SAFETY: By the invariant the inode exists.
        unsafe { raw::freelist_pages_unmap(self.as_ptr(), range.start.into(), range.len() as u64) };
    }

    /// Removes the folios of a range, after splitting those that cross one of its ends. May sleep.
    fn truncate(&self, range: &Range<u32>) {
        if !range.is_empty() {
            // SAFETY: By the invariant the inode exists.
            unsafe {
                raw::freelist_pages_truncate(self.as_ptr(), range.start.into(), range.len() as u64)
            };
        }
    }

    /// Removes the memory of a range, and none beyond it. May sleep.
    ///
    /// Returns whether a folio stayed: one that reaches beyond the range and cannot be split, because it
    /// is pinned or memory is short. A pinned folio inside the range is removed, and lives until it is
    /// unpinned.
    pub(crate) fn remove(&self, range: Range<u32>) -> bool {
        if range.is_empty() || self.remove_one(&range) {
            return false;
        }
        let huge = self.count_huge(&range);
        self.count_nodes(&range, -1);
        // One call for the range is cheaper than truncation, which unmaps folio by folio.
        self.unmap(&range);
        RacePoint::Removal.reach();
        let mut stays = true;
        for _ in 0..TRIES {
            let inner = self.remove_edges(&range);
            self.truncate(&inner);
            stays = self.has_any(&range);
            if !stays {
                break;
            }
        }
        if stays {
            self.count_nodes(&range, 1);
        }
        self.huge
            .fetch_sub(huge - self.count_huge(&range).min(huge), Relaxed);
        stays
    }

    /// Removes the folio that has exactly the pages of a range. Returns whether it did. May sleep.
    fn remove_one(&self, range: &Range<u32>) -> bool {
        let folio = self.folio(range.start);
        if folio.is_none_or(|folio| folio.range() != *range) {
            return false;
        }
        let Some(folio) = self.lock_folio(range.start.into()) else {
            return false;
        };
        // It may have been split meanwhile.
        if folio.range() != *range {
            return false;
        }
        RacePoint::Removal.reach();
        self.remove_locked(&folio)
    }

    /// Removes all memory. May sleep.
    pub(crate) fn remove_all(&self) {
        self.truncate(&(0..MAX_PAGES));
        self.huge.store(0, Relaxed);
    }

    /// Splits the folios that cross an end of a range, by removing the first and the last page alone.
    /// Returns the range without the pages of folios that could not be split. (Truncation of the whole
    /// range would drop the pages of such a folio beyond it, too.)
    fn remove_edges(&self, range: &Range<u32>) -> Range<u32> {
        let mut inner = range.clone();
        if let Some(stuck) = self.remove_edge(range.start, range) {
            inner.start = stuck.end.min(range.end);
        }
        if let Some(stuck) = self.remove_edge(range.end - 1, &inner) {
            inner.end = stuck.start.max(inner.start);
        }
        inner
    }

    /// Removes page number `page` if its folio reaches beyond the range. Returns the pages of the folio
    /// if that failed.
    fn remove_edge(&self, page: u32, range: &Range<u32>) -> Option<Range<u32>> {
        let of = self.folio(page)?.range();
        if !range.is_empty() && range.start <= of.start && of.end <= range.end {
            return None;
        }
        if range.contains(&page) {
            self.truncate(&(page..page + 1));
        }
        Some(self.folio(page)?.range())
    }

    /// Removes the whole folios of a range that lie on a node and are neither locked nor pinned, without
    /// waiting for a folio's lock. Returns whether a folio stayed. May sleep; may be called under reclaim.
    pub(crate) fn reclaim(&self, range: Range<u32>, node: Node) -> bool {
        // One call is cheaper than one a folio. A fault may map a folio again until it is locked.
        self.unmap(&range);
        let mut stays = false;
        let mut next = range.start;
        while let Some(folio) = self.first_in(next..range.end) {
            let of = folio.range();
            next = of.end.max(next + 1);
            let inside = range.start <= of.start && of.end <= range.end;
            let here = self.on_node.is_empty() || folio.node() == node;
            let gone = inside
                && here
                && folio
                    .try_lock()
                    .is_some_and(|folio| self.try_remove(&folio));
            stays |= !gone;
        }
        stays
    }

    /// Removes the memory of a range of a live block, to which no other thread adds and from which none
    /// removes. Returns whether a page stayed. May sleep.
    ///
    /// A page stays, and is zeroed, if it is pinned for I/O, or part of a folio that reaches beyond the
    /// range and cannot be split.
    pub(crate) fn discard(&self, range: Range<u32>) -> bool {
        self.unmap(&range);
        let mut next = range.start;
        let mut stays = false;
        while let Some(folio) = self.first_in(next..range.end) {
            let of = folio.range();
            let part = of.start.max(next)..of.end.min(range.end);
            drop(folio);
            let Some(gone) = self.discard_part(&of, &part) else {
                // The folio was split meanwhile: go on with its parts.
                continue;
            };
            next = part.end.max(next + 1);
            if !gone {
                self.zero(&part, 0..PAGE_SIZE, || true);
                stays = true;
            }
        }
        stays
    }

    /// Removes the pages `part` of the folio that had the pages `of`. Returns whether they are removed;
    /// `None` if the folio has other pages by now. May sleep.
    fn discard_part(&self, of: &Range<u32>, part: &Range<u32>) -> Option<bool> {
        let folio = self.lock_folio(part.start.into())?;
        if folio.range() != *of {
            return None;
        }
        if folio.is_mapped() {
            self.unmap(of);
        }
        if folio.is_dma_pinned() {
            return Some(false);
        }
        if of == part {
            return Some(self.remove_locked(&folio));
        }
        // The split takes its lock.
        drop(folio);
        Some(!self.remove(part.clone()))
    }

    /// Removes a locked folio if it is not pinned. Returns whether it is no longer here.
    fn try_remove(&self, folio: &LockedFolio) -> bool {
        // SAFETY: The folio is locked, and both exist.
        if !unsafe { raw::freelist_folio_is_of(folio.as_ptr(), self.as_ptr()) } {
            // It was removed meanwhile.
            return true;
        }
        if folio.is_mapped() {
            self.unmap(&folio.range());
        }
        if folio.is_pinned() {
            return false;
        }
        self.remove_locked(folio)
    }

    /// Removes a locked folio, unmapping it where it is mapped. Returns whether it did.
    pub(crate) fn remove_locked(&self, folio: &LockedFolio) -> bool {
        let order = folio.order();
        // SAFETY: The folio is locked, and both exist.
        let gone = unsafe { raw::freelist_folio_remove(self.as_ptr(), folio.as_ptr()) } == 0;
        if gone {
            self.count_on(folio.node(), -1 << order);
            if order >= huge_page_order() {
                self.huge.fetch_sub(1, Relaxed);
            }
        }
        gone
    }
}
