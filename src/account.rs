// SPDX-License-Identifier: GPL-2.0

//! Who pays for an arena: the memory cgroup of its opener, whoever makes it grow.
//!
//! Where that cgroup is full a request fails; nothing here calls the OOM killer, as
//! `GFP_KERNEL_ACCOUNT` would.

use crate::ffi::raw;
use core::{
    alloc::Layout,
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
        NumaNode, //
    },
    prelude::*, //
};

/// A memory cgroup that can be charged.
///
/// # Invariants
///
/// `0` is null, where there are no memory cgroups, or one on which this object holds a reference.
pub(crate) struct Account(*mut raw::mem_cgroup);

// SAFETY: A reference to a cgroup belongs to no thread.
unsafe impl Send for Account {}
// SAFETY: A cgroup can be charged by any number of threads.
unsafe impl Sync for Account {}

impl Account {
    /// The memory cgroup of the caller.
    pub(crate) fn of_caller() -> Self {
        // SAFETY: Called in the context of a task.
        // INVARIANT: The reference was just taken.
        Self(unsafe { raw::freelist_memcg_get() })
    }

    /// Charges all that `work` allocates to this account, as far as it is to be charged.
    pub(crate) fn charge<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: By the invariant the cgroup is there, until the next call replaces it.
        let before = unsafe { raw::freelist_memcg_enter(self.0) };
        let result = work();
        // SAFETY: Whoever set `before` keeps it: this call nests in theirs.
        unsafe { raw::freelist_memcg_enter(before) };
        result
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours to give back, or there is none.
        unsafe { raw::freelist_memcg_put(self.0) };
    }
}

/// Objects and tables in charged memory, allocated without a call of the OOM killer and without a
/// warning where there is none. They are of the size that they are made with.
macro_rules! charged {
    ($(#[$doc:meta])* $name:ident, $kernel:ident, $alloc:ident) => {
        $(#[$doc])*
        pub(crate) struct $name;

        // SAFETY: Memory comes from the C function, which answers null or as many valid bytes as it
        // was asked for, aligned as the kernel crate's allocator of this kind is, which also frees
        // and reallocates what that function gave, by the same rules.
        unsafe impl Allocator for $name {
            const MIN_ALIGN: usize = $kernel::MIN_ALIGN;

            unsafe fn realloc(
                ptr: Option<NonNull<u8>>,
                layout: Layout,
                old_layout: Layout,
                flags: Flags,
                nid: NumaNode,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // A vector that is empty gives a pointer too, to nothing.
                let has = ptr.is_some() && old_layout.size() > 0;
                if has || layout.size() == 0 || layout.align() > Self::MIN_ALIGN {
                    // SAFETY: The caller's promises are those that are wanted here.
                    return unsafe { $kernel::realloc(ptr, layout, old_layout, flags, nid) };
                }
                // SAFETY: May be called where sleeping is allowed.
                let memory = unsafe { raw::$alloc(layout.size()) };
                let memory = NonNull::new(memory.cast()).ok_or(AllocError)?;
                Ok(NonNull::slice_from_raw_parts(memory, layout.size()))
            }
        }
    };
}

charged! {
    /// Small objects.
    Objects, Kmalloc, freelist_object_alloc
}

charged! {
    /// Tables, in whole pages.
    Tables, Vmalloc, freelist_table_alloc
}
