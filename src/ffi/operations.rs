// SPDX-License-Identifier: GPL-2.0

//! Tables of functions that the kernel calls, and whose they are.

use crate::ffi::raw;

/// This module, as the owner of what the kernel calls of it.
pub(crate) const fn this_module() -> *mut kernel::bindings::module {
    (&raw const raw::__this_module).cast_mut().cast()
}

/// A table of functions for the kernel.
pub(crate) struct Table<T>(pub(crate) T);

// SAFETY: It is never changed, and what it points to is there as long as the module.
unsafe impl<T> Sync for Table<T> {}
