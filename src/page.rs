// SPDX-License-Identifier: GPL-2.0

//! Pages of the buddy allocator.

use crate::ffi::raw;
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

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

/// The highest order that is asked for: 64 pages, a batch.
const MAX_ORDER: u32 = crate::engine::BATCH.ilog2();

/// Pages on their way, at most a batch. What is not taken goes back when this is dropped.
pub(crate) struct Supply {
    pages: [Option<Page>; crate::engine::BATCH as usize],
    next: usize,
    len: usize,
}

impl Supply {
    /// An empty supply.
    pub(crate) fn new() -> Self {
        Self {
            pages: [const { None }; crate::engine::BATCH as usize],
            next: 0,
            len: 0,
        }
    }

    /// Fills an empty supply with at most `want` pages, at least one: zeroed ones, charged to the
    /// caller's memory cgroup, from the highest orders that are there, which are split. May sleep.
    ///
    /// `ENOMEM` when there is not even one, after reclaim and without an OOM kill.
    pub(crate) fn fill(&mut self, want: u32) -> Result {
        (self.next, self.len) = (0, 0);
        let want = (want as usize).min(self.pages.len());
        let mut order = MAX_ORDER;
        while self.len < want {
            order = order.min((want - self.len).checked_ilog2().unwrap_or(0));
            // SAFETY: May be called where sleeping is allowed.
            let Some(first) = NonNull::new(unsafe { raw::freelist_page_alloc(order) }) else {
                if order > 0 {
                    order -= 1;
                    continue;
                }
                break;
            };
            for (n, place) in self
                .pages
                .iter_mut()
                .skip(self.len)
                .take(1 << order)
                .enumerate()
            {
                // SAFETY: `n` is within the `1 << order` pages that were allocated.
                let page = unsafe { raw::freelist_page_nth(first.as_ptr(), n) };
                // INVARIANT: The allocation was split: each of its pages has one reference.
                *place = NonNull::new(page).map(Page);
            }
            self.len += 1 << order;
        }
        if self.len == 0 {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Adds a page, as long as there is room: else it is dropped.
    pub(crate) fn put(&mut self, page: Page) {
        debug_assert!(self.len < self.pages.len());
        if let Some(place) = self.pages.get_mut(self.len) {
            *place = Some(page);
            self.len += 1;
        }
    }

    /// Drops the pages that somebody else refers to. None of them is mapped.
    pub(crate) fn keep_sole(&mut self) {
        let mut kept = 0;
        for index in self.next..self.len {
            let page = self.pages.get_mut(index).and_then(Option::take);
            if let Some(page) = page.filter(Page::is_sole) {
                self.pages[kept] = Some(page);
                kept += 1;
            }
        }
        (self.next, self.len) = (0, kept);
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.len
    }
}

/// Pages side by side in physical memory, zeroed and charged to the caller's memory cgroup. What is
/// not taken goes back when this is dropped.
///
/// # Invariants
///
/// The pages `next..end` behind `first` are there, each with a reference that this object holds.
pub(crate) struct Adjacent {
    first: NonNull<raw::page>,
    next: u32,
    end: u32,
}

impl Adjacent {
    /// The most pages that there can be side by side.
    pub(crate) fn most() -> u32 {
        // SAFETY: May be called at any time.
        1 << unsafe { raw::freelist_page_max_order() }
    }

    /// `pages` pages, at least one and at most [`Adjacent::most`]. What the buddy allocator gives
    /// beyond them, up to the next order, goes back at once. May sleep.
    ///
    /// `ENOMEM` when there are none: beyond a single page nothing is reclaimed for them.
    pub(crate) fn new(pages: u32) -> Result<Self> {
        let order = pages.next_power_of_two().ilog2();
        if pages == 0 || pages > Self::most() {
            return Err(ENOMEM);
        }
        // SAFETY: May be called where sleeping is allowed.
        let first = unsafe { raw::freelist_page_alloc(order) };
        // INVARIANT: The allocation was split: each of its pages has one reference.
        let mut all = Self {
            first: NonNull::new(first).ok_or(ENOMEM)?,
            next: pages,
            end: 1 << order,
        };
        all.by_ref().for_each(drop);
        // INVARIANT: Of those none was taken yet.
        (all.next, all.end) = (0, pages);
        Ok(all)
    }
}

impl Iterator for Adjacent {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: By the invariant it lies within one allocation.
        let page = unsafe { raw::freelist_page_nth(self.first.as_ptr(), self.next as usize) };
        self.next += 1;
        // INVARIANT: The reference was this object's, which counts it no more.
        NonNull::new(page).map(Page)
    }
}

impl Drop for Adjacent {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl Iterator for Supply {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        let page = self.pages.get_mut(self.next)?.take()?;
        self.next += 1;
        Some(page)
    }
}
