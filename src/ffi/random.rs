// SPDX-License-Identifier: GPL-2.0-only

//! Random numbers.

use crate::ffi::raw;

/// Returns a random number from the kernel's generator.
pub(crate) fn random() -> u64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_random() }
}
