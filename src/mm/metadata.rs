// SPDX-License-Identifier: GPL-2.0-only

//! Memory for metadata, charged like everything else: a slab cache for trees, whole pages for tables; and
//! buffers of calls.

use crate::ffi::raw;
use core::{
    alloc::Layout,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    alloc::{
        allocator::{
            Kmalloc,
            Vmalloc, //
        },
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

/// An allocator of the kernel crate, asked for memory in a way that calls no OOM killer and warns of
/// nothing.
///
/// # Safety
///
/// [`Source::provide`] answers null, or a pointer as [`Allocator::realloc`] of `Self` answers for as many
/// bytes, aligned to its `MIN_ALIGN`.
pub(crate) unsafe trait Source: Allocator {
    /// Returns so many bytes, or null. May sleep.
    fn provide(bytes: usize) -> *mut u8;
}

// SAFETY: It is memory of vmalloc(), whole pages.
unsafe impl Source for Vmalloc {
    fn provide(bytes: usize) -> *mut u8 {
        // SAFETY: May be called where sleeping is allowed.
        unsafe { raw::freelist_table_alloc(bytes) }.cast()
    }
}

// SAFETY: It is memory of kmalloc().
unsafe impl Source for Kmalloc {
    fn provide(bytes: usize) -> *mut u8 {
        // SAFETY: May be called where sleeping is allowed.
        unsafe { raw::freelist_buffer_alloc(bytes) }.cast()
    }
}

/// Charged memory of a [`Source`]: no OOM killer is called for it. What is made with it stays of the size
/// that it is made with.
pub(crate) struct Quiet<S>(PhantomData<fn(&S)>);

/// Tables, in whole pages, behind which nothing is mapped: whatever goes wrong with one is seen there too.
pub(crate) type Tables = Quiet<Vmalloc>;
/// Buffers that live as long as a call.
pub(crate) type Buffer<T> = Vec<T, Quiet<Kmalloc>>;

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

// SAFETY: Memory comes from the source, which has it that it is as that of its allocator, which also frees
// and reallocates it, by the same rules.
unsafe impl<S: Source> Allocator for Quiet<S> {
    const MIN_ALIGN: usize = S::MIN_ALIGN;

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
            return unsafe { S::realloc(ptr, layout, old_layout, flags, nid) };
        }
        let memory = NonNull::new(S::provide(layout.size())).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(memory, layout.size()))
    }
}
