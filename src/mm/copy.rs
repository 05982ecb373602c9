// SPDX-License-Identifier: GPL-2.0-only

//! Copies of folios from one address space to another.
//!
//! A new folio gets its bytes before it is added to an address space, so that no thread sees a folio
//! whose copy failed.

use crate::{
    ffi::raw,
    mm::{
        address_space::AddressSpace,
        folio::Folio,
        statistics::Node, //
    },
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// A new folio that is in no address space yet.
///
/// # Invariants
///
/// `0` points to a folio of `1 << order` pages on which this object holds a reference.
struct NewFolio(NonNull<raw::folio>);

impl NewFolio {
    /// Allocates a folio, whose bytes are not set. May sleep.
    ///
    /// Fails with `ENOMEM` when memory is short: a folio of more than one page reclaims little, and none
    /// calls the OOM killer.
    fn alloc(order: u32) -> Result<Self> {
        // SAFETY: Called where sleeping is allowed.
        let folio = unsafe { raw::freelist_folio_new(order) };
        // INVARIANT: The new object owns the reference.
        Ok(Self(NonNull::new(folio).ok_or(ENOMEM)?))
    }

    /// Copies `pages` pages of `from`, from page number `page` on, to the pages of this folio from index
    /// `at` on. Returns how many were copied: fewer than all where a page is bad. May sleep.
    ///
    /// # Safety
    ///
    /// Both folios have all these pages.
    unsafe fn copy(&self, at: u32, from: &Folio, page: u32, pages: u32) -> u32 {
        // SAFETY: By their invariants both folios exist; by the caller's promise both have the pages.
        // User space may write to the pages of `from` meanwhile: any bytes are valid.
        let copied = unsafe {
            raw::freelist_folio_copy(
                self.0.as_ptr(),
                at as usize,
                from.as_ptr(),
                page.into(),
                pages as usize,
            )
        };
        copied as u32
    }
}

impl Drop for NewFolio {
    fn drop(&mut self) {
        // SAFETY: By the invariant this object owns the reference.
        unsafe { raw::freelist_folio_put(self.0.as_ptr()) };
    }
}

impl AddressSpace {
    /// Adds a folio as [`AddressSpace::add`] does, with a copy of the pages of `from` at the same page
    /// numbers. May sleep.
    ///
    /// Returns how many pages were copied. If these are fewer than `1 << order`, the next page of `from`
    /// has no memory or is bad, and no folio was added.
    pub(crate) fn add_copy(&self, page: u32, order: u32, from: &Self) -> Result<u32> {
        let pages = 1 << order;
        let new = NewFolio::alloc(order)?;
        let mut copied = 0;
        while copied < pages {
            let Some(folio) = from.folio(page + copied) else {
                return Ok(copied);
            };
            let of = folio.range();
            if !of.contains(&(page + copied)) {
                return Ok(copied);
            }
            let some = (of.end - page - copied).min(pages - copied);
            // SAFETY: `from`'s folio has the pages up to its end, and the new one those up to `pages`.
            let done = unsafe { new.copy(copied, &folio, page + copied, some) };
            copied += done;
            if done < some {
                return Ok(copied);
            }
        }
        // SAFETY: By the invariant the folio exists, on a valid node.
        let node = unsafe { Node::from_raw(raw::freelist_folio_node(new.0.as_ptr())) };
        let urge = raw::freelist_urge_FREELIST_URGE_RECLAIM;
        // SAFETY: By the invariants both exist; called where sleeping is allowed. All bytes of the
        // folio were set.
        to_result(unsafe {
            raw::freelist_folio_insert(self.as_ptr(), new.0.as_ptr(), page.into(), urge)
        })?;
        // SAFETY: It was added, which has locked it for this thread.
        unsafe { raw::freelist_folio_unlock(new.0.as_ptr()) };
        self.count_added(node, order);
        Ok(copied)
    }
}
