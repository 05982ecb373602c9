// SPDX-License-Identifier: GPL-2.0-only

//! Tables of functions that the kernel calls, and whose they are.

use crate::ffi::raw;
use kernel::bindings;

/// This module, as the owner of what the kernel calls of it.
pub(crate) const fn this_module() -> *mut kernel::bindings::module {
    (&raw const raw::__this_module).cast_mut().cast()
}

/// A table of functions that the kernel calls.
///
/// # Safety
///
/// It is nothing but functions, numbers and the module that they are of: it is there for good, and any
/// thread may read it.
pub(crate) unsafe trait Functions {}

// SAFETY: By the declaration of the structure.
unsafe impl Functions for bindings::file_operations {}
// SAFETY: By the declaration of the structure.
unsafe impl Functions for bindings::address_space_operations {}
// SAFETY: By the declaration of the structure.
unsafe impl Functions for bindings::vm_operations_struct {}

/// A table of functions for the kernel, which nobody changes.
pub(crate) struct Table<T: Functions>(pub(crate) T);

// SAFETY: It is only read, which `T` allows to any thread.
unsafe impl<T: Functions> Sync for Table<T> {}
