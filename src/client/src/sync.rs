// SPDX-License-Identifier: MIT OR Apache-2.0

//! What threads share state through. `tests/heap` has the files that use it take loom's
//! instead, to look at every order of threads.

pub(crate) use core::sync::atomic;
#[cfg(feature = "std")]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// The core library's, with the accesses that loom's has.
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// Returns a cell with this value.
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
