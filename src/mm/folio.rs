// SPDX-License-Identifier: GPL-2.0-only

//! Folios: pieces of memory that the page cache has as one.

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

/// A reference to a folio that was in the page cache of an arena when it was looked up. It may have
/// left since.
///
/// # Invariants
///
/// `0` points to a folio on which this object holds a reference.
pub(crate) struct Folio(NonNull<raw::folio>);

impl Folio {
    /// A folio that was looked up, if it was found.
    ///
    /// # Safety
    ///
    /// `folio` is null, or the caller holds a reference to it, and gives it up.
    pub(super) unsafe fn from_raw(folio: *mut raw::folio) -> Option<Self> {
        // INVARIANT: By the caller's promise.
        NonNull::new(folio).map(Self)
    }

    /// Its page numbers in the arena. While it is in the page cache they stay as they are, unless it
    /// is split.
    pub(crate) fn range(&self) -> Range<u32> {
        // SAFETY: By the invariant the folio is there. An arena has at most 2^24 pages.
        let (first, order) = unsafe {
            let folio = self.0.as_ptr();
            (
                raw::freelist_folio_index(folio) as u32,
                raw::freelist_folio_order(folio),
            )
        };
        first..first.saturating_add(1 << order)
    }

    /// It has `1 << order` pages.
    pub(crate) fn order(&self) -> u32 {
        // SAFETY: By the invariant the folio is there.
        unsafe { raw::freelist_folio_order(self.0.as_ptr()) }
    }

    /// The node of memory that it lies on.
    pub(super) fn node(&self) -> Node {
        // SAFETY: By the invariant the folio is there, on a node that there is.
        unsafe { Node::from_raw(raw::freelist_folio_node(self.0.as_ptr())) }
    }

    /// The address of a page of it that has these bytes, and their number as far as they lie in a
    /// page.
    fn within(&self, page: u32, at: usize, len: usize) -> Option<usize> {
        let inside = self.range().contains(&page);
        inside.then(|| len.min(PAGE_SIZE.saturating_sub(at)))
    }

    pub(super) fn as_ptr(&self) -> *mut raw::folio {
        self.0.as_ptr()
    }

    /// Zeroes these bytes of page number `page`, as far as it has them.
    pub(crate) fn zero(&self, page: u32, bytes: Range<usize>) {
        let len = bytes.end.saturating_sub(bytes.start);
        if let Some(len) = self.within(page, bytes.start, len) {
            // SAFETY: By the invariant the folio is there, and the bytes lie in a page of it. Other
            // users of them are user space, which may find any bytes there.
            unsafe { raw::freelist_folio_zero(self.0.as_ptr(), page.into(), bytes.start, len) };
        }
    }

    /// Copies `from` to `at` bytes behind the beginning of page number `page`, as far as it has room.
    pub(crate) fn write(&self, page: u32, at: usize, from: &[u8]) {
        if let Some(len) = self.within(page, at, from.len()) {
            // SAFETY: By the invariant the folio is there; the bytes lie in a page of it, and in
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

    /// Copies to `to` what lies `at` bytes behind the beginning of page number `page`, as far as it
    /// goes.
    pub(crate) fn read(&self, page: u32, at: usize, to: &mut [u8]) {
        if let Some(len) = self.within(page, at, to.len()) {
            // SAFETY: By the invariant the folio is there; the bytes lie in a page of it, and in
            // `to`. User space may change them meanwhile: any bytes will do.
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

    /// Where page number `page` of it lies in physical memory, in pages.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn frame(&self, page: u32) -> Option<usize> {
        self.within(page, 0, 0)?;
        // SAFETY: By the invariant the folio is there, and it has the page.
        Some(unsafe { raw::freelist_folio_frame(self.0.as_ptr(), page.into()) })
    }

    /// Locks it, unless another thread has.
    pub(super) fn try_lock(self) -> Option<LockedFolio> {
        // SAFETY: By the invariant the folio is there.
        let locked = unsafe { raw::freelist_folio_trylock(self.0.as_ptr()) };
        // INVARIANT: It was just locked.
        locked.then(|| LockedFolio(self))
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours to give back.
        unsafe { raw::freelist_folio_put(self.0.as_ptr()) };
    }
}

/// A folio that is locked until this is dropped: it neither leaves the page cache nor comes there, nor
/// is it mapped or split by others.
///
/// # Invariants
///
/// The folio is locked, and to be unlocked by the owner of this object.
pub(crate) struct LockedFolio(Folio);

impl LockedFolio {
    /// A folio that was looked up and locked, if it was found.
    ///
    /// # Safety
    ///
    /// `folio` is null, or the caller holds a reference to it and its lock, and gives both up.
    pub(super) unsafe fn from_raw(folio: *mut raw::folio) -> Option<Self> {
        // SAFETY: By the caller's promise.
        // INVARIANT: By the caller's promise.
        unsafe { Folio::from_raw(folio) }.map(Self)
    }

    /// The folio, with its reference and its lock, which the caller has from now on.
    pub(crate) fn into_raw(self) -> *mut raw::folio {
        ManuallyDrop::new(self).0 .0.as_ptr()
    }

    /// Whether it is mapped anywhere.
    pub(super) fn is_mapped(&self) -> bool {
        // SAFETY: By the invariant the folio is there.
        unsafe { raw::freelist_folio_is_mapped(self.as_ptr()) }
    }

    /// Whether a folio that is mapped nowhere is referred to all the same: by a pipe, by I/O, by a
    /// system call that is looking at it.
    pub(super) fn is_pinned(&self) -> bool {
        // SAFETY: By the invariant the folio is there.
        unsafe { raw::freelist_folio_is_pinned(self.as_ptr()) }
    }

    /// Whether it is pinned for I/O: what a device or another thread writes there must not go astray.
    pub(super) fn is_dma_pinned(&self) -> bool {
        // SAFETY: By the invariant the folio is there.
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
        // SAFETY: By the invariant it is locked, and ours to unlock.
        unsafe { raw::freelist_folio_unlock(self.as_ptr()) };
    }
}
