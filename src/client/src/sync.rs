// SPDX-License-Identifier: MIT OR Apache-2.0

//! Atomics and barriers. `tests/heap` builds the files that use this module with loom's types instead, and
//! runs them in every order of threads.

pub(crate) use core::sync::atomic;
#[cfg(feature = "std")]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// The core library's cell, with the methods of loom's.
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// Makes a cell with this value.
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Calls `access` with a pointer to read through.
    pub(crate) fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
        access(self.0.get())
    }

    /// Calls `access` with a pointer to write through.
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

/// Keeps the compiler from moving accesses across it; together with a [`heavy_barrier`] of another thread it
/// keeps the processor from that too.
#[cfg(feature = "std")]
#[inline]
pub(crate) fn light_barrier() {
    core::sync::atomic::compiler_fence(atomic::Ordering::SeqCst);
}

/// Makes every thread of this process pass a barrier before it returns: accesses on either side of a
/// [`light_barrier`] are seen in their order, or come after it. Returns `false` if the system has no such
/// barrier. See membarrier(2).
#[cfg(feature = "std")]
pub(crate) fn heavy_barrier() -> bool {
    use rustix::thread::{membarrier, MembarrierCommand};
    membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}

/// Prepares the system for [`heavy_barrier`] in this process. Returns whether it has that barrier.
#[cfg(feature = "std")]
pub(crate) fn can_heavy_barrier() -> bool {
    use rustix::thread::{membarrier, MembarrierCommand};
    membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
}
