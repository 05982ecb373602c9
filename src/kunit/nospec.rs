// SPDX-License-Identifier: GPL-2.0-only

//! Bounds checks of indices from user space, under speculation too.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_index)]
mod tests {
    use crate::ffi::nospec::{
        clamp_nospec,
        index_nospec, //
    };

    /// A processor that speculates past the comparison uses the clamped index.
    ///
    /// Prior art: vulnerabilities speculative_indexing;
    /// reports dma_heap-CVE-2022-48730.
    #[test]
    fn an_index_out_of_bounds_is_0_under_speculation() {
        for size in [1, 2, 1 << 24, u32::MAX] {
            for index in [0, 1, u64::from(size) - 1] {
                let inside = index < u64::from(size);
                let expected = if inside { index as u32 } else { 0 };
                assert_eq!(clamp_nospec(index, size), expected);
                assert_eq!(index_nospec(index, size), inside.then_some(expected));
            }
            for index in [u64::from(size), u64::from(size) + 1, 1 << 62, u64::MAX] {
                assert_eq!(clamp_nospec(index, size), 0);
                assert_eq!(index_nospec(index, size), None);
            }
        }
    }
}
