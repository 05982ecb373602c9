// SPDX-License-Identifier: GPL-2.0-only

//! The contents of a block that its caller gets: zeros, a header, contiguous pages.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_contents)]
mod tests {
    use crate::{
        arena::{
            counters::Snapshot,
            request::AllocOptions,
            Arena, //
        },
        engine::Policy,
        ffi::errno::edquot,
        kunit::{
            held_bytes,
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

    /// Allocates a block. Returns its offset and its bytes.
    fn alloc(arena: &Arena, options: &AllocOptions) -> Result<(u64, u64)> {
        let mut block = (0, 0);
        arena.alloc(options, |_, at, bytes| {
            block = (at, bytes);
            Ok(())
        })?;
        Ok(block)
    }

    /// No byte of an earlier block can be read.
    ///
    /// Prior art: kasan kmalloc_oob_in_memset, kmalloc_oob_memset_2, kmalloc_oob_memset_4,
    /// kmalloc_oob_memset_8, kmalloc_oob_memset_16.
    #[test]
    fn zeroing_clears_the_block_and_no_byte_beside_it() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let mut bytes = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        for size in [32, 100, PAGE / 2, PAGE, 3 * PAGE, 200 * PAGE] {
            let (first, len) = alloc(&arena, &request(size))?;
            // Keeps the page of a subpage block divided, and must not be zeroed.
            let (beside, beside_len) = alloc(&arena, &request(size))?;
            for (offset, len) in [(first, len), (beside, beside_len)] {
                for at in (offset..offset + len).step_by(16) {
                    let page = arena.live_page(at / PAGE).ok_or(EFAULT)?;
                    page.write((at % PAGE) as usize, &[0xa5; 16]);
                }
            }
            arena.free(first)?;
            let mut options = request(size);
            options.zero = true;
            assert_eq!(alloc(&arena, &options)?, (first, len));
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

    /// A release with an overwritten header fails once, and harms no other block.
    ///
    /// Prior art: slub_kunit test_next_pointer, test_first_word.
    #[test]
    fn an_overwritten_header_is_found_and_the_block_released() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let overwritten = Err(Error::from_errno(-117));
        for size in [1, 29, 1000, PAGE, 3 * PAGE] {
            let mut options = request(size);
            options.request.headed = true;
            // The caller may write all bytes of the block.
            let (offset, bytes) = alloc(&arena, &options)?;
            for at in [offset, offset + bytes - 16] {
                let page = arena.live_page(at / PAGE).ok_or(EFAULT)?;
                page.write((at % PAGE) as usize, &[0xa5; 16]);
            }
            assert_eq!(arena.free(offset), Ok(()));
            for byte in 0..16 {
                let (offset, _) = alloc(&arena, &options)?;
                let page = arena.live_page(offset / PAGE).ok_or(EFAULT)?;
                let at = (offset % PAGE) as usize - 16 + byte;
                let mut old = [0];
                page.read(at, &mut old);
                page.write(at, &[!old[0]]);
                assert_eq!(arena.free(offset), overwritten);
                assert_eq!(arena.free(offset), Err(ENOENT));
            }
            // The header of another block is not accepted, either.
            let (one, _) = alloc(&arena, &options)?;
            let (two, _) = alloc(&arena, &options)?;
            let mut header = [0; 16];
            let page = |offset: u64| arena.live_page(offset / PAGE).ok_or(EFAULT);
            page(one)?.read((one % PAGE) as usize - 16, &mut header);
            page(two)?.write((two % PAGE) as usize - 16, &header);
            assert_eq!(arena.free(two), overwritten);
            assert_eq!(arena.free(one), Ok(()));
            assert_eq!(arena.check(), Ok(()));
        }
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn an_overwritten_header_in_a_bulk_is_counted_and_the_rest_freed() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
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

    /// Prior art: gpu_buddy gpu_test_buddy_alloc_contiguous.
    #[test]
    fn a_contiguous_block_is_new_and_physically_contiguous() -> Result {
        let registry = registry_with(100 * PAGE, 100 * PAGE)?;
        let arena = registry.open(Memcg::of_caller())?;
        let max_pages = 1 << arena.address_space().max_order();
        let held = || held_bytes(&arena);
        let contiguous = |size| {
            let mut options = request(size);
            options.request.policy = Policy::Contiguous;
            options
        };
        for size in [1, 3000, PAGE, 3 * PAGE - 5, 33 * PAGE] {
            // The pages of the folio beyond the size belong to the block.
            let pages = size.div_ceil(PAGE).next_power_of_two();
            // A free block does not serve, even of the same size.
            arena.free(alloc(&arena, &request(size))?.0)?;
            let before = held();
            let block = alloc(&arena, &contiguous(size))?;
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
        // Free memory is dropped if the limit forbids growth.
        alloc(&arena, &request(36 * PAGE))?;
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
        for (pages, error) in [
            (101, edquot()),
            (max_pages, edquot()),
            (max_pages + 1, E2BIG),
        ] {
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
