// SPDX-License-Identifier: GPL-2.0

//! Pages of the buddy allocator.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_page)]
mod tests {
    use crate::mm::{
        contiguous::{
            Contiguous,
            OrderHint, //
        },
        page::Page, //
    };
    use kernel::prelude::*;

    #[test]
    fn new_pages_come_from_the_highest_order_that_is_there() -> Result {
        for want in [1, 2, 3, 63, 64, 1000] {
            let mut hint = OrderHint::new();
            let mut pages: KVVec<Page> = KVVec::new();
            let mut last = u32::MAX;
            while pages.len() < want as usize {
                let came = Contiguous::some_of(want - pages.len() as u32, &mut hint)?;
                assert!(came.len().is_power_of_two() && came.len() as u32 <= last);
                last = came.len() as u32;
                for page in came {
                    assert!(!pages.iter().any(|other| other.as_ptr() == page.as_ptr()));
                    pages.push(page, GFP_KERNEL)?;
                }
            }
            assert_eq!(pages.len(), want as usize);
        }
        Ok(())
    }
}
