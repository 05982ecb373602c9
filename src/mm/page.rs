// SPDX-License-Identifier: GPL-2.0

//! Pages of the buddy allocator.

use crate::{
    engine::BATCH,
    ffi::raw, //
};
use core::{
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ops::Range,
    ptr::NonNull, //
};
use kernel::page::PAGE_SIZE;

/// The machine's memory, in bytes.
pub(crate) fn ram_bytes() -> u64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_ram_bytes() }
}

/// Bytes of a huge page.
pub(crate) fn huge_page_bytes() -> usize {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_huge_page_bytes() as usize }
}

/// A reference to one page, which is given back when the last one is dropped. Page table entries
/// hold references of their own.
///
/// # Invariants
///
/// `0` points to a page on which this object holds a reference.
pub(crate) struct Page(NonNull<raw::page>);

// SAFETY: A page reference belongs to no thread.
unsafe impl Send for Page {}
// SAFETY: What is done through a shared `Page` (getting a reference, mapping it) is atomic.
unsafe impl Sync for Page {}

impl Page {
    pub(crate) fn as_ptr(&self) -> *mut raw::page {
        self.0.as_ptr()
    }

    /// A page of the kernel, whose reference is this object's from here on.
    ///
    /// # Safety
    ///
    /// The caller holds a reference to it, and gives it up.
    #[inline]
    pub(super) unsafe fn from_raw(page: NonNull<raw::page>) -> Self {
        // INVARIANT: By the caller's promise.
        Self(page)
    }

    /// Where it lies in physical memory, in pages.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn frame(&self) -> usize {
        // SAFETY: By the invariant the page is there.
        unsafe { raw::freelist_page_frame(self.as_ptr()) }
    }

    /// Zeroes these bytes of it, as far as it has them.
    pub(crate) fn zero(&self, bytes: Range<usize>) {
        let end = bytes.end.min(PAGE_SIZE);
        let start = bytes.start.min(end);
        // SAFETY: By the invariant the page is there, and the bytes lie in it. Whoever else has it
        // mapped is user space, which may find any bytes there.
        unsafe { raw::freelist_page_zero(self.as_ptr(), start, end - start) };
    }

    /// Copies `from` to `at` bytes behind its beginning, as far as it has room.
    pub(crate) fn write(&self, at: usize, from: &[u8]) {
        let len = from.len().min(PAGE_SIZE.saturating_sub(at));
        // SAFETY: By the invariant the page is there, and the bytes lie in it and in `from`. Whoever
        // else has it mapped is user space, which may find any bytes there.
        unsafe { raw::freelist_page_write(self.as_ptr(), at, from.as_ptr().cast(), len) };
    }

    /// Copies to `to` what lies `at` bytes behind its beginning, as far as it goes.
    pub(crate) fn read(&self, at: usize, to: &mut [u8]) {
        let len = to.len().min(PAGE_SIZE.saturating_sub(at));
        // SAFETY: By the invariant the page is there, and the bytes lie in it and in `to`. User
        // space may change them meanwhile: any bytes will do.
        unsafe { raw::freelist_page_read(self.as_ptr(), at, to.as_mut_ptr().cast(), len) };
    }

    /// Whether nobody else refers to the page, which is mapped nowhere: then nobody will.
    fn is_sole(&self) -> bool {
        // SAFETY: By the invariant the page is there, with a reference.
        unsafe { raw::freelist_page_is_sole(self.as_ptr()) }
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        // SAFETY: By the invariant the page is there, with a reference.
        unsafe { raw::freelist_page_get(self.as_ptr()) };
        // INVARIANT: The reference was just taken.
        Self(self.0)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours to give back.
        unsafe { raw::freelist_page_put(self.as_ptr()) };
    }
}

/// Pages on their way from one place to another, at most a batch. What is not taken goes back when
/// this is dropped.
///
/// # Invariants
///
/// Of `pages` those of `next..len` have been written: pages, each with a reference that this object
/// holds.
pub(crate) struct Supply {
    pages: [MaybeUninit<*mut raw::page>; BATCH as usize],
    next: usize,
    len: usize,
}

impl Supply {
    /// An empty supply.
    pub(crate) fn new() -> Self {
        // INVARIANT: There is none.
        Self {
            pages: [const { MaybeUninit::uninit() }; BATCH as usize],
            next: 0,
            len: 0,
        }
    }

    /// Adds a page, as long as there is room: else it is dropped.
    pub(crate) fn put(&mut self, page: Page) {
        debug_assert!(self.len < self.pages.len());
        if let Some(place) = self.pages.get_mut(self.len) {
            place.write(ManuallyDrop::new(page).as_ptr());
            // INVARIANT: It was just written, and the reference is this object's now.
            self.len += 1;
        }
    }

    /// Drops the pages that somebody else refers to. None of them is mapped.
    pub(crate) fn keep_sole(&mut self) {
        let mut kept = Self::new();
        for page in self.by_ref().filter(Page::is_sole) {
            kept.put(page);
        }
        *self = kept;
    }
}

impl Iterator for Supply {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        if self.next == self.len {
            return None;
        }
        // SAFETY: By the invariant it has been written.
        let page = unsafe { self.pages.get(self.next)?.assume_init() };
        self.next += 1;
        // INVARIANT: The reference was this object's, which counts it no more.
        NonNull::new(page).map(Page)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.len - self.next;
        (left, Some(left))
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        let left = self.pages.get_mut(self.next..self.len).unwrap_or_default();
        if !left.is_empty() {
            // SAFETY: By the invariant all of these have been written, and their references are this
            // object's to give back. A `MaybeUninit` has the layout of what it may have.
            unsafe { raw::freelist_pages_put(left.as_mut_ptr().cast(), left.len() as u32) };
        }
    }
}

impl ExactSizeIterator for Supply {}
