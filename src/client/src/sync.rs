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

/// Keeps the compiler from moving accesses across it, and together with a [`heavy_barrier`] of another
/// thread the processor too.
#[cfg(feature = "std")]
#[inline]
pub(crate) fn light_barrier() {
    core::sync::atomic::compiler_fence(atomic::Ordering::SeqCst);
}

/// Has every thread of this process pass a barrier before it returns: accesses on either side of a
/// [`light_barrier`] are seen in their order, or come after it. Returns `false` where the system has none.
/// See membarrier(2).
#[cfg(feature = "std")]
pub(crate) fn heavy_barrier() -> bool {
    use rustix::thread::{membarrier, MembarrierCommand};
    membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}

/// Has the system prepare [`heavy_barrier`] for this process, and returns whether it can.
#[cfg(feature = "std")]
pub(crate) fn can_heavy_barrier() -> bool {
    use rustix::thread::{membarrier, MembarrierCommand};
    membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
}
