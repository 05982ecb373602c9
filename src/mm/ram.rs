// SPDX-License-Identifier: GPL-2.0

//! The machine's memory.

use crate::ffi::raw;

/// The machine's memory, in bytes.
pub(crate) fn ram_bytes() -> u64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_ram_bytes() }
}
