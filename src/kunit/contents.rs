// SPDX-License-Identifier: GPL-2.0-only

//! What is in a block when its caller gets it: zeros, a header, contiguous pages.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_contents)]
mod tests {
    use crate::{
        arena::{
            counters::Snapshot,
            request::AllocOptions, //
        },
        engine::Policy,
        ffi::errno::edquot,
        kunit::{
            registry,
            registry_with,
            request,
            PAGE, //
        },
        mm::memcg::Memcg,
    };
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    /// Nothing old is read.
    /// Peer: kasan kmalloc_oob_in_memset, kmalloc_oob_memset_2, kmalloc_oob_memset_4,
    /// kmalloc_oob_memset_8, kmalloc_oob_memset_16.
    #[test]
    fn a_block_that_shall_be_zero_is_and_nothing_beside_it() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let mut bytes = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        let alloc = |options: &AllocOptions| {
            let mut block = (0, 0);
            arena.alloc(options, |_, at, bytes| {
                block = (at, bytes);
                Ok(())
            })?;
            Ok::<_, Error>(block)
        };
        for size in [32, 100, PAGE / 2, PAGE, 3 * PAGE, 200 * PAGE] {
            let (first, len) = alloc(&request(size))?;
            // Keeps the page of a small block, and is not to be touched.
            let (beside, beside_len) = alloc(&request(size))?;
            for (offset, len) in [(first, len), (beside, beside_len)] {
                for at in (offset..offset + len).step_by(16) {
                    let page = arena.live_page(at / PAGE).ok_or(EFAULT)?;
                    page.write((at % PAGE) as usize, &[0xa5; 16]);
                }
            }
            arena.free(first)?;
            let mut options = request(size);
            options.zero = true;
            assert_eq!(alloc(&options)?, (first, len));
            for (offset, len, byte) in [(first, len, 0), (beside, beside_len, 0xa5)] {
                for index in offset / PAGE..(offset + len).div_ceil(PAGE) {
                    let page = arena.live_page(index).ok_or(EFAULT)?;
                    page.read(0, &mut bytes);
                    let within = (index * PAGE).max(offset) % PAGE;
                    let here = &bytes[within as usize..][..len.min(PAGE) as usize];
                    assert!(here.iter().all(|have| *have == byte));
                }
            }
            arena.free(first)?;
            arena.free(beside)?;
        }
        registry.close(&arena);
        Ok(())
    }

    /// What was overwritten is found, and harms nothing.
    /// Peer: slub_kunit test_next_pointer, test_first_word.
    #[test]
    fn a_header_that_was_overwritten_is_found_and_the_block_released() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let overwritten = Err(Error::from_errno(-117));
        for size in [1, 29, 1000, PAGE, 3 * PAGE] {
            let mut options = request(size);
            options.request.headed = true;
            let alloc = || {
                let mut block = (0, 0);
                arena.alloc(&options, |_, at, bytes| {
                    block = (at, bytes);
                    Ok(())
                })?;
                Ok::<_, Error>(block)
            };
            // The block is the caller's from its first byte to its last.
            let (offset, bytes) = alloc()?;
            for at in [offset, offset + bytes - 16] {
                let page = arena.live_page(at / PAGE).ok_or(EFAULT)?;
                page.write((at % PAGE) as usize, &[0xa5; 16]);
            }
            assert_eq!(arena.free(offset), Ok(()));
            for byte in 0..16 {
                let (offset, _) = alloc()?;
                let page = arena.live_page(offset / PAGE).ok_or(EFAULT)?;
                let at = (offset % PAGE) as usize - 16 + byte;
                let mut old = [0];
                page.read(at, &mut old);
                page.write(at, &[!old[0]]);
                assert_eq!(arena.free(offset), overwritten);
                assert_eq!(arena.free(offset), Err(ENOENT));
            }
            // That of another block will not do, nor what an earlier one left.
            let ((one, _), (two, _)) = (alloc()?, alloc()?);
            let mut header = [0; 16];
            let page = |offset: u64| arena.live_page(offset / PAGE).ok_or(EFAULT);
            page(one)?.read((one % PAGE) as usize - 16, &mut header);
            page(two)?.write((two % PAGE) as usize - 16, &header);
            assert_eq!(arena.free(two), overwritten);
            assert_eq!(arena.free(one), Ok(()));
            assert_eq!(arena.check(), Ok(()));
        }
        // With a batch it is counted, and the rest goes on.
        let mut options = request(100);
        options.request.headed = true;
        let mut blocks = [0; 10];
        let done = arena.alloc_bulk(&options, 10, |offsets| {
            blocks.copy_from_slice(offsets);
            10
        });
        assert_eq!(done, Ok(10));
        let page = arena.live_page(blocks[4] / PAGE).ok_or(EFAULT)?;
        page.write((blocks[4] % PAGE) as usize - 8, &[0; 8]);
        let failures = || {
            let mut now = Snapshot::default();
            arena.snapshot(&mut now);
            now.stat().failures
        };
        let before = failures();
        let done = arena.free_bulk(10, |offsets| {
            offsets.copy_from_slice(&blocks);
            10
        });
        assert_eq!(done, Ok(10));
        assert_eq!(failures(), before + 1);
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        Ok(())
    }

    /// Peer: gpu_buddy gpu_test_buddy_alloc_contiguous.
    #[test]
    fn a_contiguous_block_is_new_and_lies_side_by_side() -> Result {
        let registry = registry_with(100 * PAGE, 100 * PAGE)?;
        let arena = registry.open(Memcg::of_caller())?;
        let most = 1 << arena.address_space().max_order();
        let held = || {
            let mut now = Snapshot::default();
            arena.snapshot(&mut now);
            now.stat().held_bytes
        };
        let contiguous = |size| {
            let mut options = request(size);
            options.request.policy = Policy::Contiguous;
            options
        };
        let mut first = 0;
        for size in [1, 3000, PAGE, 3 * PAGE - 5, 33 * PAGE] {
            // What the folio has beyond the block is the block's.
            let pages = size.div_ceil(PAGE).next_power_of_two();
            // What is free will not do, be it of the very size.
            arena.alloc(&request(size), |_, at, _| {
                first = at;
                Ok(())
            })?;
            arena.free(first)?;
            let before = held();
            let mut block = (0, 0);
            arena.alloc(&contiguous(size), |_, at, bytes| {
                block = (at, bytes);
                Ok(())
            })?;
            assert_eq!(held() - before, pages * PAGE);
            assert_eq!(block.0 % block.1, 0);
            let frame = |index: u64| {
                let page = arena.live_page(block.0 / PAGE + index)?;
                page.frame()
            };
            let start = frame(0).ok_or(EFAULT)?;
            for index in 0..pages {
                assert_eq!(frame(index), Some(start + index as usize));
            }
            arena.free(block.0)?;
            assert_eq!(arena.check(), Ok(()));
        }
        // Free memory makes room under the limit for it.
        arena.alloc(&request(36 * PAGE), |_, at, _| {
            first = at;
            Ok(())
        })?;
        assert_eq!(
            arena.alloc(&contiguous(65 * PAGE), |_, _, _| Ok(())),
            Err(edquot())
        );
        assert_eq!(
            arena.alloc(&contiguous(64 * PAGE), |_, _, _| Ok(())),
            Ok(())
        );
        assert_eq!(held(), 100 * PAGE);
        assert_eq!(arena.alloc(&contiguous(1), |_, _, _| Ok(())), Err(edquot()));
        for (pages, error) in [(101, edquot()), (most, edquot()), (most + 1, E2BIG)] {
            assert_eq!(
                arena.alloc(&contiguous(pages * PAGE), |_, _, _| Ok(())),
                Err(error)
            );
        }
        assert_eq!(held(), 100 * PAGE);
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }
}
