// SPDX-License-Identifier: MIT OR Apache-2.0

//! `fork()`, which fails where there is no memory for a copy of the large blocks.

use core::ffi::c_int;

use crate::family::set_enomem;
use crate::next;
use freelist::malloc::LARGE;

/// Makes a child process.
///
/// # Safety
///
/// As the C library says of it.
#[no_mangle]
pub unsafe extern "C" fn fork() -> c_int {
    // SAFETY: The caller's promise.
    let child = LARGE.fork(|| unsafe { next::fork() });
    child.unwrap_or_else(|| {
        set_enomem();
        -1
    })
}
