// SPDX-License-Identifier: GPL-2.0

//! Whoever polls open files.

use crate::ffi::raw;
use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*, //
};

/// Those who poll an open file, or one of many.
///
/// # Invariants
///
/// `0` is a wait queue that was made for this object and is freed when it is dropped.
pub(crate) struct PollQueue(NonNull<raw::wait_queue_head>);

// SAFETY: A wait queue belongs to no thread.
unsafe impl Send for PollQueue {}
// SAFETY: A wait queue has a lock of its own.
unsafe impl Sync for PollQueue {}

impl PollQueue {
    /// Nobody. `ENOMEM` when memory is short.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May be called where sleeping is allowed.
        let queue = unsafe { raw::freelist_poll_new() };
        // INVARIANT: It was just made.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Adds whoever polls a file now: `table` is what the kernel has given for that.
    ///
    /// # Safety
    ///
    /// `file` and `table` are those that the file's `poll` was called with, and the file is closed
    /// before this is dropped.
    pub(crate) unsafe fn register(
        &self,
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) {
        // SAFETY: By the invariant and by the caller's promise.
        unsafe { raw::freelist_poll_register(self.0.as_ptr(), file.cast(), table.cast()) };
    }

    /// Whether nobody polls. Who begins to at this moment looks after that.
    pub(crate) fn is_idle(&self) -> bool {
        // SAFETY: By the invariant the queue is there.
        unsafe { raw::freelist_poll_is_idle(self.0.as_ptr()) }
    }

    /// Wakes all of them: they poll again.
    pub(crate) fn wake(&self) {
        // SAFETY: By the invariant the queue is there.
        unsafe { raw::freelist_poll_wake(self.0.as_ptr()) };
    }
}

impl Drop for PollQueue {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is ours. Whoever polled the file was removed when that was
        // closed.
        unsafe { raw::freelist_poll_free(self.0.as_ptr()) };
    }
}
