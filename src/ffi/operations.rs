// SPDX-License-Identifier: GPL-2.0-only

//! Tables of functions that the kernel calls, and their owner.

use crate::ffi::raw;
use kernel::bindings;

/// Returns this module, the owner of its functions that the kernel calls.
pub(crate) const fn this_module() -> *mut kernel::bindings::module {
    (&raw const raw::__this_module).cast_mut().cast()
}

/// A table of functions that the kernel calls.
///
/// # Safety
///
/// The structure has only functions, numbers and a pointer to their module, so that any thread may read
/// it.
pub(crate) unsafe trait Functions {}

// SAFETY: By the declaration of the structure.
unsafe impl Functions for bindings::file_operations {}
// SAFETY: By the declaration of the structure.
unsafe impl Functions for bindings::address_space_operations {}
// SAFETY: By the declaration of the structure.
unsafe impl Functions for bindings::vm_operations_struct {}

/// A static table of functions for the kernel, which is never changed.
pub(crate) struct Table<T: Functions>(pub(crate) T);

// SAFETY: It is only read, which `T` allows to any thread.
unsafe impl<T: Functions> Sync for Table<T> {}
