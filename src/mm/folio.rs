// SPDX-License-Identifier: GPL-2.0-only

//! Folios of the page cache.

use crate::{
    ffi::raw,
    mm::statistics::Node, //
};
use core::{
    mem::ManuallyDrop,
    ops::{
        Deref,
        Range, //
    },
    ptr::NonNull, //
};
use kernel::page::PAGE_SIZE;

/// A reference to a folio that was in the page cache of an arena when it was looked up. It may have been
/// removed since.
///
/// # Invariants
///
/// `0` points to a folio on which this object holds a reference.
pub(crate) struct Folio(NonNull<raw::folio>);

impl Folio {
    /// Wraps the result of a look-up.
    ///
    /// # Safety
    ///
    /// `folio` is null, or the caller passes on a reference to it.
    pub(super) unsafe fn from_raw(folio: *mut raw::folio) -> Option<Self> {
        // INVARIANT: By the caller's promise.
        NonNull::new(folio).map(Self)
    }

    /// Returns its page numbers in the arena. They change only by a split while it is in the page cache.
    pub(crate) fn range(&self) -> Range<u32> {
        // SAFETY: By the invariant the folio exists. An arena has at most 2^24 pages.
        let (first, order) = unsafe {
            let folio = self.0.as_ptr();
            (
                raw::freelist_folio_index(folio) as u32,
                raw::freelist_folio_order(folio),
            )
        };
        first..first.saturating_add(1 << order)
    }

    /// Returns its order: it has `1 << order` pages.
    pub(crate) fn order(&self) -> u32 {
        // SAFETY: By the invariant the folio exists.
        unsafe { raw::freelist_folio_order(self.0.as_ptr()) }
    }

    /// Returns the NUMA node that it lies on.
    pub(super) fn node(&self) -> Node {
        // SAFETY: By the invariant the folio exists, on a valid node.
        unsafe { Node::from_raw(raw::freelist_folio_node(self.0.as_ptr())) }
    }

    /// Returns how many of the `len` bytes from offset `at` on lie in page number `page`; `None` if the
    /// folio does not have the page.
    fn within(&self, page: u32, at: usize, len: usize) -> Option<usize> {
        let inside = self.range().contains(&page);
        inside.then(|| len.min(PAGE_SIZE.saturating_sub(at)))
    }

    pub(super) fn as_ptr(&self) -> *mut raw::folio {
        self.0.as_ptr()
    }

    /// Zeroes these bytes of page number `page`, up to the end of the page. Does nothing if the folio
    /// does not have the page.
    pub(crate) fn zero(&self, page: u32, bytes: Range<usize>) {
        let len = bytes.end.saturating_sub(bytes.start);
        if let Some(len) = self.within(page, bytes.start, len) {
            // SAFETY: By the invariant the folio exists, and the bytes lie in a page of it. Other
            // users of them are user space, which may find any bytes there.
            unsafe { raw::freelist_folio_zero(self.0.as_ptr(), page.into(), bytes.start, len) };
        }
    }

    /// Copies `from` to page number `page`, from offset `at` on, up to the end of the page. Does nothing
    /// if the folio does not have the page.
    pub(crate) fn write(&self, page: u32, at: usize, from: &[u8]) {
        if let Some(len) = self.within(page, at, from.len()) {
            // SAFETY: By the invariant the folio exists; the bytes lie in a page of it, and in
            // `from`. Other users of them are user space, which may find any bytes there.
            unsafe {
                raw::freelist_folio_write(
                    self.0.as_ptr(),
                    page.into(),
                    at,
                    from.as_ptr().cast(),
                    len,
                )
            };
        }
    }

    /// Copies the bytes of page number `page`, from offset `at` on, to `to`, up to the end of the page.
    /// Does nothing if the folio does not have the page.
    pub(crate) fn read(&self, page: u32, at: usize, to: &mut [u8]) {
        if let Some(len) = self.within(page, at, to.len()) {
            // SAFETY: By the invariant the folio exists; the bytes lie in a page of it, and in
            // `to`. User space may change them meanwhile: any bytes are valid.
            unsafe {
                raw::freelist_folio_read(
                    self.0.as_ptr(),
                    page.into(),
                    at,
                    to.as_mut_ptr().cast(),
                    len,
                )
            };
        }
    }

    /// Returns the page frame number of page number `page`; `None` if the folio does not have the page.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn frame(&self, page: u32) -> Option<usize> {
        self.within(page, 0, 0)?;
        // SAFETY: By the invariant the folio exists, and it has the page.
        Some(unsafe { raw::freelist_folio_frame(self.0.as_ptr(), page.into()) })
    }

    /// Locks the folio. Returns `None` if another thread holds the lock.
    pub(super) fn try_lock(self) -> Option<LockedFolio> {
        // SAFETY: By the invariant the folio exists.
        let locked = unsafe { raw::freelist_folio_trylock(self.0.as_ptr()) };
        // INVARIANT: It was just locked.
        locked.then(|| LockedFolio(self))
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        // SAFETY: By the invariant this object owns the reference.
        unsafe { raw::freelist_folio_put(self.0.as_ptr()) };
    }
}

/// A locked folio, unlocked on drop. No other thread adds it to the page cache, removes, maps or splits
/// it meanwhile.
///
/// # Invariants
///
/// The folio is locked, and this object owns the lock.
pub(crate) struct LockedFolio(Folio);

impl LockedFolio {
    /// Wraps the result of a look-up that locks.
    ///
    /// # Safety
    ///
    /// `folio` is null, or the caller passes on a reference to it and its lock.
    pub(super) unsafe fn from_raw(folio: *mut raw::folio) -> Option<Self> {
        // SAFETY: By the caller's promise.
        // INVARIANT: By the caller's promise.
        unsafe { Folio::from_raw(folio) }.map(Self)
    }

    /// Returns the folio. The caller owns its reference and its lock from now on.
    pub(crate) fn into_raw(self) -> *mut raw::folio {
        ManuallyDrop::new(self).0 .0.as_ptr()
    }

    /// Returns whether any process maps it.
    pub(super) fn is_mapped(&self) -> bool {
        // SAFETY: By the invariant the folio exists.
        unsafe { raw::freelist_folio_is_mapped(self.as_ptr()) }
    }

    /// Returns whether a folio that is mapped nowhere has references beside those of the page cache and
    /// of this object: of a pipe, of I/O, or of a system call.
    pub(super) fn is_pinned(&self) -> bool {
        // SAFETY: By the invariant the folio exists.
        unsafe { raw::freelist_folio_is_pinned(self.as_ptr()) }
    }

    /// Returns whether it is pinned for I/O, so that a device or another thread may write to it.
    pub(super) fn is_dma_pinned(&self) -> bool {
        // SAFETY: By the invariant the folio exists.
        unsafe { raw::freelist_folio_is_dma_pinned(self.as_ptr()) }
    }
}

impl Deref for LockedFolio {
    type Target = Folio;

    fn deref(&self) -> &Folio {
        &self.0
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is locked, and this object owns the lock.
        unsafe { raw::freelist_folio_unlock(self.as_ptr()) };
    }
}
