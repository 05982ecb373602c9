// SPDX-License-Identifier: GPL-2.0-only

//! The kernel's own allocators, for comparison: slab caches and the buddy allocator. In the build for
//! benchmarks only.

use crate::ffi::raw;
use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::prelude::*;

/// Returns `ENOMEM` if a benchmark found no memory.
fn served(served: bool) -> Result {
    served.then_some(()).ok_or(ENOMEM)
}

/// Takes and releases an uncontended spin lock `count` times.
pub(crate) fn lock_pairs(count: u32) -> Result {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_bench_lock(count) };
    Ok(())
}

/// Allocates and frees `size` bytes of kmalloc() `count` times. May sleep.
pub(crate) fn kmalloc_pairs(size: usize, count: u32) -> Result {
    // SAFETY: Called where sleeping is allowed.
    served(unsafe { raw::freelist_bench_kmalloc_pairs(size, count) })
}

/// Allocates and frees a zeroed page of the buddy allocator `count` times. May sleep.
pub(crate) fn page_pairs(count: u32) -> Result {
    // SAFETY: Called where sleeping is allowed.
    served(unsafe { raw::freelist_bench_page_pairs(count) })
}

/// A slab cache of its own.
///
/// # Invariants
///
/// The cache exists, and all of its objects are free.
pub(crate) struct Cache(NonNull<raw::kmem_cache>);

impl Cache {
    /// Creates a cache for objects of `size` bytes. Fails with `ENOMEM` when memory is short. May sleep.
    pub(crate) fn new(size: u32) -> Result<Self> {
        // SAFETY: Called where sleeping is allowed.
        let cache = unsafe { raw::freelist_bench_cache_create(size) };
        // INVARIANT: It was just made.
        NonNull::new(cache).map(Self).ok_or(ENOMEM)
    }

    /// Allocates and frees an object `count` times. May sleep.
    pub(crate) fn pairs(&self, count: u32) -> Result {
        // SAFETY: By the invariant it exists; called where sleeping is allowed.
        served(unsafe { raw::freelist_bench_cache_pairs(self.0.as_ptr(), count) })
    }

    /// Allocates and frees `N` objects at a time, `count` times. May sleep.
    pub(crate) fn batches<const N: usize>(&self, count: u32) -> Result {
        let mut objects = [null_mut(); N];
        // SAFETY: By the invariant it exists, and the array has room for as many; called where
        // sleeping is allowed.
        served(unsafe {
            raw::freelist_bench_cache_bulk(self.0.as_ptr(), objects.as_mut_ptr(), N as u32, count)
        })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: By the invariant it exists, and all of its objects are free.
        unsafe { raw::freelist_bench_cache_destroy(self.0.as_ptr()) };
    }
}

/// Pages of the buddy allocator, one by one.
///
/// # Invariants
///
/// The first `len` of `pages` are allocated, and owned by this object.
pub(crate) struct Pages<const N: usize> {
    pages: [*mut raw::page; N],
    len: u32,
}

impl<const N: usize> Pages<N> {
    /// Makes an object without pages.
    pub(crate) fn new() -> Self {
        // INVARIANT: There is none.
        Self {
            pages: [null_mut(); N],
            len: 0,
        }
    }

    /// Allocates all `N` pages, zeroed, if it has none. Fails with `ENOMEM` when memory is short. May
    /// sleep.
    pub(crate) fn take(&mut self) -> Result {
        if self.len == 0 {
            // SAFETY: There is room for as many; called where sleeping is allowed.
            // INVARIANT: That many were just allocated.
            self.len = unsafe { raw::freelist_bench_pages_take(self.pages.as_mut_ptr(), N as u32) };
        }
        served(self.len as usize == N)
    }

    /// Frees all pages.
    pub(crate) fn free(&mut self) {
        // SAFETY: By the invariant this object owns them.
        unsafe { raw::freelist_bench_pages_give(self.pages.as_mut_ptr(), self.len) };
        // INVARIANT: There is none any more.
        self.len = 0;
    }
}

impl<const N: usize> Drop for Pages<N> {
    fn drop(&mut self) {
        self.free();
    }
}
