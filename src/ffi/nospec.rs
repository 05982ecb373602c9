// SPDX-License-Identifier: GPL-2.0-only

//! Bounds checks of indices from user space that also hold under speculation.

use crate::ffi::raw;

/// Returns `index` if it is below `size`, else `None`. A speculative call returns 0 instead of an index
/// out of bounds.
pub(crate) fn index_nospec(index: u64, size: u32) -> Option<u32> {
    if index >= u64::from(size) {
        return None;
    }
    Some(clamp_nospec(index, size))
}

/// Returns `index` if it is below `size`, else 0, without a branch.
pub(crate) fn clamp_nospec(index: u64, size: u32) -> u32 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_index_nospec(index as usize, size as usize) as u32 }
}
