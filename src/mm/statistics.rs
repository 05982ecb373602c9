// SPDX-License-Identifier: GPL-2.0-only

//! What the kernel's statistics of memory say of us.

use crate::ffi::raw;

/// The machine's memory, in bytes.
pub(crate) fn ram_bytes() -> u64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_ram_bytes() }
}

/// A node of memory.
///
/// # Invariants
///
/// There is a node of that number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node(i32);

impl Node {
    /// A node of the kernel.
    ///
    /// # Safety
    ///
    /// There is a node of that number.
    pub(super) unsafe fn from_raw(node: i32) -> Self {
        // INVARIANT: By the caller's promise.
        Self(node)
    }

    /// Numbers of nodes are below that.
    pub(super) fn count() -> usize {
        // SAFETY: May be called at any time.
        unsafe { raw::freelist_nodes() as usize }
    }

    /// Its number.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// The node that the caller runs on.
    pub(crate) fn of_caller() -> Self {
        // SAFETY: May be called at any time.
        // INVARIANT: The kernel has the node.
        Self(unsafe { raw::freelist_node() })
    }

    /// So many pages more, or less, can be had back at any time (`KReclaimable` in `/proc/meminfo`, a
    /// part of `MemAvailable`).
    pub(crate) fn add_reclaimable(self, pages: i64) {
        // SAFETY: By the invariant the node is there. May be called in any context.
        unsafe { raw::freelist_add_reclaimable(self.0, pages) };
    }
}
