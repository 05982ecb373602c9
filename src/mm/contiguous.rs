// SPDX-License-Identifier: GPL-2.0

//! New pages of the buddy allocator, side by side, high orders first.

use crate::{
    ffi::raw,
    mm::page::Page, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// New pages side by side in physical memory, zeroed and charged to the caller's memory cgroup. What
/// is not taken goes back when this is dropped.
///
/// # Invariants
///
/// The pages `next..end` behind `first` are there, each with a reference that this object holds.
pub(crate) struct Contiguous {
    first: NonNull<raw::page>,
    next: u32,
    end: u32,
}

/// The most bytes that are asked for at once where pages need not lie side by side: zeroing them is
/// well below a millisecond, and more would make a page no cheaper.
const MAX_AT_ONCE: usize = 2 << 20;

/// The highest order that is worth asking for: none above the last one that was there.
#[derive(Clone, Copy)]
pub(crate) struct OrderHint(u32);

impl OrderHint {
    /// Nothing was asked for yet.
    pub(crate) fn new() -> Self {
        Self((MAX_AT_ONCE / PAGE_SIZE).ilog2())
    }
}

impl Contiguous {
    /// The most pages that there can be side by side.
    pub(crate) fn max_pages() -> u32 {
        // SAFETY: May be called at any time.
        1 << unsafe { raw::freelist_page_max_order() }
    }

    /// `pages` pages, at least one and at most [`Contiguous::max_pages`]. What the buddy allocator
    /// gives beyond them, up to the next order, goes back at once. May sleep.
    ///
    /// `ENOMEM` when there are none: beyond a single page nothing is reclaimed for them.
    pub(crate) fn new(pages: u32) -> Result<Self> {
        if pages == 0 || pages > Self::max_pages() {
            return Err(ENOMEM);
        }
        let mut all = Self::of_order(pages.next_power_of_two().ilog2())?;
        // INVARIANT: Only those behind the wanted ones are left.
        all.next = pages;
        all.by_ref().for_each(drop);
        // INVARIANT: Of those none was taken yet.
        (all.next, all.end) = (0, pages);
        Ok(all)
    }

    /// All pages of an order. `ENOMEM` when there are none. May sleep.
    fn of_order(order: u32) -> Result<Self> {
        // SAFETY: May be called where sleeping is allowed.
        let first = unsafe { raw::freelist_page_alloc(order) };
        // INVARIANT: The allocation was split: each of its pages has one reference.
        Ok(Self {
            first: NonNull::new(first).ok_or(ENOMEM)?,
            next: 0,
            end: 1 << order,
        })
    }

    /// As many of `want` pages, which is at least one, as the highest order that is there has. May
    /// sleep.
    ///
    /// `ENOMEM` when there is not even one, after reclaim and without an OOM kill.
    pub(crate) fn some_of(want: u32, hint: &mut OrderHint) -> Result<Self> {
        loop {
            let order = hint.0.min(want.checked_ilog2().unwrap_or(0));
            match Self::of_order(order) {
                Err(_) if order > 0 => hint.0 = order - 1,
                result => return result,
            }
        }
    }
}

impl Iterator for Contiguous {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        if self.next == self.end {
            return None;
        }
        let first = self.first.cast::<bindings::page>();
        // SAFETY: By the invariant it lies within one allocation, whose pages have their structures
        // side by side.
        let page = unsafe { first.add(self.next as usize) };
        self.next += 1;
        // SAFETY: The reference was this object's, which counts it no more.
        Some(unsafe { Page::from_raw(page.cast()) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Contiguous {}

impl Drop for Contiguous {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
