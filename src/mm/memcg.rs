// SPDX-License-Identifier: GPL-2.0-only

//! The memory cgroup that an arena is charged to: that of its opener, whichever task makes it grow.
//!
//! A request fails where that cgroup is full. No allocation calls the OOM killer, as
//! `GFP_KERNEL_ACCOUNT` alone would.

use crate::ffi::raw;

/// A memory cgroup that can be charged.
///
/// # Invariants
///
/// `0` is null, without memory cgroups, or points to a cgroup on which this object holds a reference.
pub(crate) struct Memcg(*mut raw::mem_cgroup);

// SAFETY: A reference to a cgroup belongs to no thread.
unsafe impl Send for Memcg {}
// SAFETY: A cgroup can be charged by any number of threads.
unsafe impl Sync for Memcg {}

impl Memcg {
    /// Returns the memory cgroup of the caller.
    pub(crate) fn of_caller() -> Self {
        // SAFETY: Called in the context of a task.
        // INVARIANT: The reference was just taken.
        Self(unsafe { raw::freelist_memcg_get() })
    }

    /// Returns the cgroup, which is valid as long as `self`.
    pub(crate) fn as_ptr(&self) -> *mut raw::mem_cgroup {
        self.0
    }

    /// Runs `work` with its accounted allocations charged to this cgroup.
    pub(crate) fn charge<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: By the invariant the cgroup is valid until the next call replaces it.
        let before = unsafe { raw::freelist_memcg_enter(self.0) };
        let result = work();
        // SAFETY: The caller that set `before` keeps it valid: this call is nested in that one.
        unsafe { raw::freelist_memcg_enter(before) };
        result
    }
}

impl Drop for Memcg {
    fn drop(&mut self) {
        // SAFETY: By the invariant this object owns the reference, or there is none.
        unsafe { raw::freelist_memcg_put(self.0) };
    }
}
