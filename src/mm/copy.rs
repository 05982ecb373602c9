// SPDX-License-Identifier: GPL-2.0-only

//! Folios with a copy of what another address space has.
//!
//! A new folio gets its bytes before it is in an address space: where that fails nobody has seen it.

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

/// A new folio that is in no address space.
///
/// # Invariants
///
/// `0` points to a folio of `1 << order` pages on which this object holds a reference.
struct NewFolio(NonNull<raw::folio>);

impl NewFolio {
    /// Allocates one, whose bytes are not set. `ENOMEM` when there is none: beyond a single page
    /// little is reclaimed for it, and no OOM killer is called for any. May sleep.
    fn alloc(order: u32) -> Result<Self> {
        // SAFETY: Called where sleeping is allowed.
        let folio = unsafe { raw::freelist_folio_new(order) };
        // INVARIANT: The reference is the new object's.
        Ok(Self(NonNull::new(folio).ok_or(ENOMEM)?))
    }

    /// Copies pages that `from` has, from page number `page` on, to those from its page `at` on.
    /// Returns how many were copied, fewer than all where one is bad. May sleep.
    ///
    /// # Safety
    ///
    /// Both folios have as many pages there.
    unsafe fn copy(&self, at: u32, from: &Folio, page: u32, pages: u32) -> u32 {
        // SAFETY: By the invariant the folio is there, and so is `from`; both have the pages, says
        // the caller. User space may write to those of `from` meanwhile: any bytes will do.
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
        // SAFETY: By the invariant the reference is ours to give back.
        unsafe { raw::freelist_folio_put(self.0.as_ptr()) };
    }
}

impl AddressSpace {
    /// Adds a folio as [`AddressSpace::add`] does, with a copy of what `from` has at the same page
    /// numbers. Returns how many pages were copied: if these are fewer than `1 << order`, `from` has
    /// no memory for the page after them, and nothing was added. May sleep.
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
        // SAFETY: By the invariant the folio is there, on a node that there is.
        let node = unsafe { Node::from_raw(raw::freelist_folio_node(new.0.as_ptr())) };
        let urge = raw::freelist_urge_FREELIST_URGE_RECLAIM;
        // SAFETY: By the invariants both are there; called where sleeping is allowed. All bytes of the
        // folio were set.
        to_result(unsafe {
            raw::freelist_folio_insert(self.as_ptr(), new.0.as_ptr(), page.into(), urge)
        })?;
        // SAFETY: It was added, and is locked with that for us.
        unsafe { raw::freelist_folio_unlock(new.0.as_ptr()) };
        self.count_added(node, order);
        Ok(copied)
    }
}
