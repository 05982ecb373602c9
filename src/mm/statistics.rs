// SPDX-License-Identifier: GPL-2.0-only

//! The kernel's memory statistics, as far as the module reads or changes them.

use crate::ffi::raw;

/// Returns the bytes of the machine's memory.
pub(crate) fn ram_bytes() -> u64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_ram_bytes() }
}

/// A NUMA node.
///
/// # Invariants
///
/// The kernel has a node of that number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node(i32);

impl Node {
    /// Wraps the number of a node.
    ///
    /// # Safety
    ///
    /// The kernel has a node of that number.
    pub(super) unsafe fn from_raw(node: i32) -> Self {
        // INVARIANT: By the caller's promise.
        Self(node)
    }

    /// Returns the upper bound of node numbers: all are below it.
    pub(super) fn count() -> usize {
        // SAFETY: May be called at any time.
        unsafe { raw::freelist_nodes() as usize }
    }

    /// Returns the number of the node.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the node that the caller runs on.
    pub(crate) fn of_caller() -> Self {
        // SAFETY: May be called at any time.
        // INVARIANT: The kernel has the node.
        Self(unsafe { raw::freelist_node() })
    }

    /// Adds `pages`, which may be negative, to the node's reclaimable pages (`KReclaimable` in
    /// `/proc/meminfo`, a part of `MemAvailable`). May be called in any context.
    pub(crate) fn add_reclaimable(self, pages: i64) {
        // SAFETY: By the invariant the node exists. May be called in any context.
        unsafe { raw::freelist_add_reclaimable(self.0, pages) };
    }
}
