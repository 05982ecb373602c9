// SPDX-License-Identifier: MIT OR Apache-2.0

//! `fork()`, which fails if there is no memory for a copy of the large blocks.

use core::ffi::c_int;

use crate::family::set_enomem;
use crate::next;
use freelist::malloc::LARGE;

/// Makes a child process.
///
/// # Safety
///
/// That of the C library's function.
#[no_mangle]
pub unsafe extern "C" fn fork() -> c_int {
    // SAFETY: By the caller's contract.
    let child = LARGE.fork(|| unsafe { next::fork() });
    child.unwrap_or_else(|| {
        set_enomem();
        -1
    })
}
