// SPDX-License-Identifier: GPL-2.0-only

//! Charged memory for metadata: a slab cache for trees, whole pages for tables, and buffers that live as
//! long as a call.

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

/// The slab cache of the trees of divided pages, destroyed on drop. It is never merged with another
/// cache, so that a leak or a use after free is reported, with the name of the cache.
///
/// # Invariants
///
/// The cache exists, and is the only one.
pub(crate) struct TreeCache(());

impl TreeCache {
    /// Creates the cache. Fails with `ENOMEM` when memory is short. May sleep.
    ///
    /// # Safety
    ///
    /// The cache does not exist yet. Trees are allocated and freed only during the life of the returned
    /// object.
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
        // SAFETY: By the invariant it exists, and by the promise of `create`'s caller no tree is left.
        unsafe { raw::freelist_trees_destroy() };
    }
}

/// The allocator of trees, from [`TreeCache`]. A failed allocation neither calls the OOM killer nor warns.
pub(crate) struct Trees;

// SAFETY: The cache returns null or a valid object of the requested size, aligned to `MIN_ALIGN`, which
// is valid until it is freed. No object is ever resized.
unsafe impl Allocator for Trees {
    const MIN_ALIGN: usize = align_of::<u64>();

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        _flags: Flags,
        _nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // With an old size of 0 the pointer is dangling.
        let old = ptr.filter(|_| old_layout.size() > 0);
        if layout.align() > Self::MIN_ALIGN || (old.is_some() && layout.size() > 0) {
            return Err(AllocError);
        }
        let new = if layout.size() > 0 {
            // SAFETY: May be called where sleeping is allowed; by the promise of `TreeCache::create`'s
            // caller the cache exists.
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

/// An allocator of the kernel crate with an allocation that neither calls the OOM killer nor warns.
///
/// # Safety
///
/// [`Source::provide`] returns null, or a pointer as [`Allocator::realloc`] of `Self` returns for as many
/// bytes, aligned to its `MIN_ALIGN`.
pub(crate) unsafe trait Source: Allocator {
    /// Allocates `bytes` bytes. Returns null when memory is short. May sleep.
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

/// The allocator of charged memory of a [`Source`], without a call of the OOM killer. Its callers never
/// grow an allocation.
pub(crate) struct Quiet<S>(PhantomData<fn(&S)>);

/// The allocator of tables: whole pages, with an unmapped page after them, so that an overrun faults.
pub(crate) type Tables = Quiet<Vmalloc>;
/// Buffers that live as long as a call.
pub(crate) type Buffer<T> = Vec<T, Quiet<Kmalloc>>;

impl Tables {
    /// Allocates a table of `len` default values, built in place, as it may be larger than the stack.
    /// Fails with `ENOMEM` when memory is short. May sleep.
    pub(crate) fn table<T: Default>(len: usize) -> Result<Vec<T, Self>> {
        let mut table = Vec::with_capacity(len, GFP_KERNEL_ACCOUNT)?;
        for place in table.spare_capacity_mut().iter_mut().take(len) {
            place.write(T::default());
        }
        // SAFETY: The capacity is `len`, and the values were just written.
        unsafe { table.inc_len(len) };
        Ok(table)
    }
}

// SAFETY: By the promise of `Source` its memory is as that of its allocator, which also frees and
// reallocates it, by the same rules.
unsafe impl<S: Source> Allocator for Quiet<S> {
    const MIN_ALIGN: usize = S::MIN_ALIGN;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
        nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // An empty vector passes a dangling pointer.
        let has = ptr.is_some() && old_layout.size() > 0;
        if !has && layout.size() == 0 {
            // There is nothing to free: this may be called under a spin lock.
            return Ok(NonNull::slice_from_raw_parts(
                NonNull::<u64>::dangling().cast(),
                0,
            ));
        }
        if has || layout.align() > Self::MIN_ALIGN {
            // SAFETY: By the caller's promises, which are the same for `S`.
            return unsafe { S::realloc(ptr, layout, old_layout, flags, nid) };
        }
        let memory = NonNull::new(S::provide(layout.size())).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(memory, layout.size()))
    }
}
