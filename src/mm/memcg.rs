// SPDX-License-Identifier: GPL-2.0-only

//! Who pays for an arena: the memory cgroup of its opener, whoever makes it grow.
//!
//! Where that cgroup is full a request fails; nothing here calls the OOM killer, as
//! `GFP_KERNEL_ACCOUNT` would.

use crate::ffi::raw;

/// A memory cgroup that can be charged.
///
/// # Invariants
///
/// `0` is null, where there are no memory cgroups, or one on which this object holds a reference.
pub(crate) struct Memcg(*mut raw::mem_cgroup);

// SAFETY: A reference to a cgroup belongs to no thread.
unsafe impl Send for Memcg {}
// SAFETY: A cgroup can be charged by any number of threads.
unsafe impl Sync for Memcg {}

impl Memcg {
    /// The memory cgroup of the caller.
    pub(crate) fn of_caller() -> Self {
        // SAFETY: Called in the context of a task.
        // INVARIANT: The reference was just taken.
        Self(unsafe { raw::freelist_memcg_get() })
    }

    /// The cgroup, which is there as long as this.
    pub(crate) fn as_ptr(&self) -> *mut raw::mem_cgroup {
        self.0
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

impl Drop for Memcg {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours to give back, or there is none.
        unsafe { raw::freelist_memcg_put(self.0) };
    }
}
