// SPDX-License-Identifier: GPL-2.0-only

//! Indices that user space has said, also under speculation.

use crate::ffi::raw;

/// `index` where it is below `size`, else `None`; 0 under speculation.
pub(crate) fn index_nospec(index: u64, size: u32) -> Option<u32> {
    if index >= u64::from(size) {
        return None;
    }
    Some(clamp_nospec(index, size))
}

/// `index` where it is below `size`, else 0, without a branch.
pub(crate) fn clamp_nospec(index: u64, size: u32) -> u32 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_index_nospec(index as usize, size as usize) as u32 }
}
