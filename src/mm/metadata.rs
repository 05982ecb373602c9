// SPDX-License-Identifier: GPL-2.0

//! Memory for metadata, charged like everything else: a slab cache for trees, whole pages for tables.

use crate::ffi::raw;
use core::{
    alloc::Layout,
    ptr::NonNull, //
};
use kernel::{
    alloc::{
        allocator::Vmalloc,
        AllocError,
        Allocator,
        Flags,
        NumaNode,
        Vec, //
    },
    error::to_result,
    prelude::*, //
};

/// The cache that trees of divided pages are in, until it is dropped: slab objects of their own, so
/// that whatever goes wrong with one (a use after it was freed, a leak) is seen, and by its name.
///
/// # Invariants
///
/// It is there, and the only one.
pub(crate) struct TreeCache(());

impl TreeCache {
    /// Makes the cache. `ENOMEM` when memory is short.
    ///
    /// # Safety
    ///
    /// There is none yet. Trees are made and freed only as long as this lives.
    pub(crate) unsafe fn create<T>() -> Result<Self> {
        const { assert!(align_of::<T>() <= Trees::MIN_ALIGN) };
        // SAFETY: By the caller's promise.
        to_result(unsafe { raw::freelist_trees_create(size_of::<T>() as u32) })?;
        // INVARIANT: It was just made.
        Ok(Self(()))
    }
}

impl Drop for TreeCache {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is there, and by `create`'s condition nobody uses it after this.
        unsafe { raw::freelist_trees_destroy() };
    }
}

/// Charged memory for trees, from their cache. Allocated without a call of the OOM killer and without
/// a warning where there is none.
pub(crate) struct Trees;

// SAFETY: Memory comes from the cache, which answers null or a valid object of the size that it was
// asked for, aligned to `MIN_ALIGN`, which is there until it is given back. Nothing is ever made
// larger or smaller.
unsafe impl Allocator for Trees {
    const MIN_ALIGN: usize = align_of::<u64>();

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        _flags: Flags,
        _nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // Where the old one is of no size the pointer is to nothing.
        let old = ptr.filter(|_| old_layout.size() > 0);
        if layout.align() > Self::MIN_ALIGN || (old.is_some() && layout.size() > 0) {
            return Err(AllocError);
        }
        let new = if layout.size() > 0 {
            // SAFETY: May be called where sleeping is allowed; `TreeCache::create` has it that the
            // cache is there.
            NonNull::new(unsafe { raw::freelist_tree_alloc(layout.size()) }.cast())
        } else {
            if let Some(old) = old {
                // SAFETY: By the caller's promise it is an object of the cache, and not used after
                // this.
                unsafe { raw::freelist_tree_free(old.as_ptr().cast()) };
            }
            Some(NonNull::<u64>::dangling().cast())
        };
        let new = new.ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(new, layout.size()))
    }
}

/// Charged tables, in whole pages, behind which nothing is mapped: whatever goes wrong with one is
/// seen there too. Allocated without a call of the OOM killer and without a warning where there is no
/// memory. They are of the size that they are made with.
pub(crate) struct Tables;

impl Tables {
    /// A table of `len` default values, built in place: it may be larger than the stack. May sleep.
    pub(crate) fn table<T: Default>(len: usize) -> Result<Vec<T, Self>> {
        let mut table = Vec::with_capacity(len, GFP_KERNEL_ACCOUNT)?;
        for place in table.spare_capacity_mut().iter_mut().take(len) {
            place.write(T::default());
        }
        // SAFETY: There is room for so many, and they were just written.
        unsafe { table.inc_len(len) };
        Ok(table)
    }
}

// SAFETY: Memory comes from the C function, which answers null or as many valid bytes as it was asked
// for, aligned as the kernel crate's allocator of this kind is, which also frees and reallocates what
// that function gave, by the same rules.
unsafe impl Allocator for Tables {
    const MIN_ALIGN: usize = Vmalloc::MIN_ALIGN;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
        nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // A vector that is empty gives a pointer too, to nothing.
        let has = ptr.is_some() && old_layout.size() > 0;
        if !has && layout.size() == 0 {
            // Nothing leaves: that may happen under a spin lock.
            return Ok(NonNull::slice_from_raw_parts(
                NonNull::<u64>::dangling().cast(),
                0,
            ));
        }
        if has || layout.align() > Self::MIN_ALIGN {
            // SAFETY: The caller's promises are those that are wanted here.
            return unsafe { Vmalloc::realloc(ptr, layout, old_layout, flags, nid) };
        }
        // SAFETY: May be called where sleeping is allowed.
        let memory = unsafe { raw::freelist_table_alloc(layout.size()) };
        let memory = NonNull::new(memory.cast()).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(memory, layout.size()))
    }
}
