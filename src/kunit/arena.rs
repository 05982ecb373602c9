// SPDX-License-Identifier: GPL-2.0

//! Arenas, and what they are made of.

use crate::{
    arena::request::Want,
    engine::Request, //
};
use kernel::macros::kunit_tests;

/// A request for `size` bytes with `FREELIST_DEFAULT`.
fn request(size: u64) -> Want {
    Want {
        request: Request {
            size,
            larger: true,
            grow: true,
            ..Request::default()
        },
        ..Want::default()
    }
}

/// The engine with the kernel's pages and metadata, in random order.
#[kunit_tests(freelist_engine)]
mod engine {
    use super::request;
    use crate::{
        arena::{
            registry::Registry,
            Arena, //
        },
        engine::FreeError, //
    };
    use kernel::prelude::*;

    /// Numbers that are always the same (xorshift64, Marsaglia, 2003).
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }
    }

    /// A size in bytes: small ones often, up to 1 MiB.
    fn size(random: &mut Random) -> u64 {
        let shift = random.below(21);
        1 + random.below(1 << shift)
    }

    fn alloc(arena: &Arena, size: u64) -> Result<(u64, u64)> {
        let mut block = (0, 0);
        arena.alloc(&request(size), |offset, bytes| {
            block = (offset, bytes);
            Ok(())
        })?;
        Ok(block)
    }

    #[test]
    fn random_blocks_never_overlap_and_all_is_conserved() -> Result {
        const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
        let registry = Registry::new()?;
        let arena = registry.open()?;
        let mut random = Random(SEED);
        let mut live: KVec<(u64, u64)> = KVec::new();
        for step in 0..1500 {
            if live.len() < 200 && random.below(5) < 3 {
                let size = size(&mut random);
                let (offset, bytes) = alloc(&arena, size)?;
                assert!(bytes >= size);
                assert_eq!(offset % bytes.next_power_of_two(), 0);
                assert!(!live
                    .iter()
                    .any(|(at, len)| offset < at + len && *at < offset + bytes));
                live.push((offset, bytes), GFP_KERNEL)?;
            } else if !live.is_empty() {
                let index = random.below(live.len() as u64) as usize;
                let (offset, bytes) = live[index];
                let last = live.pop().unwrap_or_default();
                if let Some(place) = live.get_mut(index) {
                    *place = last;
                }
                assert_eq!(arena.free(offset + bytes - 1), Err(EINVAL));
                assert_eq!(arena.free(offset), Ok(()));
                assert_eq!(arena.free(offset), Err(FreeError::NotLive.into()));
            }
            if step % 10 == 0 {
                assert_eq!(arena.check(), Ok(()));
            }
        }
        for (offset, _) in &live {
            arena.free(*offset)?;
        }
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn pages_of_small_blocks_serve_a_large_one_when_all_is_free() -> Result {
        const FILL: u64 = 1 << 20;
        let registry = Registry::new()?;
        let arena = registry.open()?;
        let mut blocks: KVVec<u64> = KVVec::new();
        for _ in 0..FILL / 64 {
            blocks.push(alloc(&arena, 64)?.0, GFP_KERNEL)?;
        }
        for offset in &blocks {
            arena.free(*offset)?;
        }
        let mut want = request(FILL);
        want.request.grow = false;
        assert_eq!(arena.alloc(&want, |_, _| Ok(())), Ok(()));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }
}

/// One open file, without the file.
#[kunit_tests(freelist_arena)]
mod arena {
    use super::{
        request,
        Want, //
    };
    use crate::{
        arena::{
            bounds::Bounds,
            counters::Snapshot,
            registry::Registry,
            Arena, //
        },
        engine::{
            Content,
            MAX_PAGES, //
        },
        ffi::errno::edquot,
        mm::contiguous::Adjacent, //
    };
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    const PAGE: u64 = PAGE_SIZE as u64;

    #[test]
    fn an_answer_that_cannot_be_given_undoes_the_block() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        for size in [32, PAGE / 2, PAGE, 3 * PAGE, 200 * PAGE] {
            assert_eq!(arena.alloc(&request(size), |_, _| Err(EFAULT)), Err(EFAULT));
            let mut now = Snapshot::default();
            arena.snapshot(&mut now);
            let stat = now.stat();
            assert_eq!(stat.live_blocks, 0);
            assert_eq!(stat.allocs, 0);
            // At most the page that was broken for a small block stays.
            assert!(stat.held_bytes <= PAGE);
            assert_eq!(arena.check(), Ok(()));
        }
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn a_request_over_the_limit_is_refused_and_takes_nothing() -> Result {
        let registry = Registry::with_limits(100 * PAGE, 100 * PAGE)?;
        let (one, two) = (registry.open()?, registry.open()?);
        let done = |_, _| Ok(());
        assert_eq!(one.alloc(&request(101 * PAGE), done), Err(edquot()));
        assert_eq!(one.alloc(&request(60 * PAGE), done), Ok(()));
        assert_eq!(one.alloc(&request(41 * PAGE), done), Err(edquot()));
        // The limit of all of them together.
        assert_eq!(two.alloc(&request(41 * PAGE), done), Err(edquot()));
        assert_eq!(two.alloc(&request(40 * PAGE), done), Ok(()));
        assert_eq!(two.alloc(&request(32), done), Err(edquot()));
        for arena in [&one, &two] {
            assert_eq!(arena.check(), Ok(()));
        }
        registry.close(&one);
        assert_eq!(two.alloc(&request(60 * PAGE), done), Ok(()));
        registry.close(&two);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn the_limit_of_an_arena_is_its_own() -> Result {
        let registry = Registry::with_limits(100 * PAGE, 50 * PAGE)?;
        let (one, two) = (registry.open()?, registry.open()?);
        let done = |_, _| Ok(());
        assert_eq!(one.bounds().limit, 50 * PAGE);
        assert_eq!(one.alloc(&request(51 * PAGE), done), Err(edquot()));
        assert_eq!(one.alloc(&request(30 * PAGE), done), Ok(()));
        assert_eq!(one.alloc(&request(21 * PAGE), done), Err(edquot()));
        assert_eq!(one.alloc(&request(20 * PAGE), done), Ok(()));
        assert_eq!(one.alloc(&request(1), done), Err(edquot()));
        assert_eq!(two.alloc(&request(50 * PAGE), done), Ok(()));
        registry.close(&one);
        registry.close(&two);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    fn held_bytes(arena: &Arena) -> u64 {
        let mut now = Snapshot::default();
        arena.snapshot(&mut now);
        now.stat().held_bytes
    }

    fn live_blocks(arena: &Arena) -> u64 {
        let mut now = Snapshot::default();
        arena.snapshot(&mut now);
        now.stat().live_blocks
    }

    #[test]
    fn a_bulk_gives_and_takes_blocks_in_batches() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        for size in [32, PAGE, 3 * PAGE] {
            let mut offsets: KVec<u64> = KVec::with_capacity(150, GFP_KERNEL)?;
            let done = arena.alloc_bulk(&request(size), 150, |batch| {
                assert!(batch.len() <= 64);
                // They are not live before the caller has them.
                assert_eq!(live_blocks(&arena), offsets.len() as u64);
                for offset in batch {
                    assert!(!offsets.contains(offset));
                    assert_eq!(arena.free(*offset), Err(ENOENT));
                    let _ = offsets.push(*offset, GFP_KERNEL);
                }
                batch.len()
            });
            assert_eq!(done, Ok(150));
            assert_eq!(offsets.len(), 150);
            assert_eq!(live_blocks(&arena), 150);
            assert_eq!(arena.check(), Ok(()));
            let mut rest = offsets.iter();
            let done = arena.free_bulk(150, |batch| {
                batch
                    .iter_mut()
                    .zip(&mut rest)
                    .map(|(to, from)| *to = *from)
                    .count()
            });
            assert_eq!(done, Ok(150));
            assert_eq!(live_blocks(&arena), 0);
            assert_eq!(arena.check(), Ok(()));
        }
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn what_a_bulk_cannot_store_is_undone() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        for size in [32, PAGE, 3 * PAGE] {
            let none = arena.alloc_bulk(&request(size), 100, |_| 0);
            assert_eq!(none, Err(EFAULT));
            assert_eq!(live_blocks(&arena), 0);
            let mut room = 70;
            let some = arena.alloc_bulk(&request(size), 200, |batch| {
                let stored = batch.len().min(room);
                room -= stored;
                stored
            });
            assert_eq!(some, Ok(70));
            assert_eq!(live_blocks(&arena), 70);
            assert_eq!(arena.check(), Ok(()));
            // All of them, wherever they are.
            for granule in 0..100 * PAGE / 16 {
                let _ = arena.free(granule * 16);
            }
            let _ = (0..1000 * PAGE)
                .step_by(PAGE_SIZE)
                .map(|at| arena.free(at))
                .count();
            assert_eq!(live_blocks(&arena), 0);
        }
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn a_bulk_that_is_refused_says_how_far_it_came() -> Result {
        let registry = Registry::with_limits(100 * PAGE, 100 * PAGE)?;
        let arena = registry.open()?;
        let all = |batch: &[u64]| batch.len();
        assert_eq!(arena.alloc_bulk(&request(PAGE), 150, all), Ok(100));
        assert_eq!(arena.alloc_bulk(&request(PAGE), 50, all), Err(edquot()));
        assert_eq!(live_blocks(&arena), 100);
        // Page 50 twice: the second time it is refused.
        let mut pages = Iterator::chain(0..=50, 50..99);
        let mut load = |batch: &mut [u64]| {
            let pages = batch.iter_mut().zip(&mut pages);
            pages.map(|(to, page)| *to = page * PAGE).count()
        };
        assert_eq!(arena.free_bulk(100, &mut load), Ok(51));
        assert_eq!(live_blocks(&arena), 49);
        assert_eq!(
            arena.free_bulk(1, |batch| {
                batch.fill(50 * PAGE);
                1
            }),
            Err(ENOENT)
        );
        assert_eq!(arena.free_bulk(1, |_| 0), Err(EFAULT));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn a_bulk_uses_free_pages_elsewhere_up_to_the_limit() -> Result {
        let registry = Registry::with_limits(100 * PAGE, 100 * PAGE)?;
        let arena = registry.open()?;
        let mut offsets: KVec<u64> = KVec::with_capacity(50, GFP_KERNEL)?;
        let pairs = arena.alloc_bulk(&request(2 * PAGE), 60, |batch| {
            let _ = offsets.extend_from_slice(batch, GFP_KERNEL);
            batch.len()
        });
        assert_eq!(pairs, Ok(50));
        // Every second one: no run is longer than two pages, and each of the next has three.
        let mut some = offsets.iter().step_by(2);
        let freed = arena.free_bulk(25, |batch| {
            let places = batch.iter_mut().zip(&mut some);
            places.map(|(to, from)| *to = *from).count()
        });
        assert_eq!(freed, Ok(25));
        let all = |batch: &[u64]| batch.len();
        assert_eq!(arena.alloc_bulk(&request(3 * PAGE), 20, all), Ok(16));
        assert_eq!(held_bytes(&arena), 100 * PAGE);
        assert_eq!(live_blocks(&arena), 25 + 16);
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    fn bounds(limit: u64, span: u64) -> Bounds {
        Bounds {
            limit: limit * PAGE,
            span: span * PAGE,
        }
    }

    #[test]
    fn a_lowered_limit_refuses_growth_and_breaks_nothing() -> Result {
        let registry = Registry::with_limits(100 * PAGE, 50 * PAGE)?;
        let arena = registry.open()?;
        let done = |_, _| Ok(());
        assert_eq!(arena.alloc(&request(30 * PAGE), done), Ok(()));
        assert_eq!(arena.set_bounds(Some(20 * PAGE), None, |_| Ok(())), Ok(()));
        assert_eq!(arena.bounds().limit, 20 * PAGE);
        assert_eq!(arena.alloc(&request(PAGE), done), Err(edquot()));
        assert!(arena.live_page(29).is_some());
        // What is free beyond it leaves, and no more than that.
        assert_eq!(arena.free(0), Ok(()));
        assert_eq!(held_bytes(&arena), 30 * PAGE);
        assert_eq!(arena.set_bounds(Some(20 * PAGE), None, |_| Ok(())), Ok(()));
        assert_eq!(held_bytes(&arena), 20 * PAGE);
        assert_eq!(arena.alloc(&request(20 * PAGE), done), Ok(()));
        // Up to the default for everybody.
        assert_eq!(arena.set_bounds(Some(50 * PAGE), None, |_| Ok(())), Ok(()));
        assert_eq!(arena.alloc(&request(30 * PAGE), done), Ok(()));
        assert_eq!(arena.alloc(&request(PAGE), done), Err(edquot()));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn the_address_space_can_be_set_before_the_first_block() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        let set = |span| arena.set_bounds(None, Some(span), |_| Ok(()));
        for wrong in [
            1,
            PAGE - 1,
            PAGE + 1,
            (MAX_PAGES as u64 + 1) * PAGE,
            1 << 63,
        ] {
            assert_eq!(set(wrong), Err(EINVAL));
        }
        assert_eq!(set(u64::from(MAX_PAGES) * PAGE), Ok(()));
        assert_eq!(set(5 * PAGE), Ok(()));
        assert_eq!(arena.bounds().span, 5 * PAGE);
        assert_eq!(arena.alloc(&request(5 * PAGE), |_, _| Ok(())), Err(ENOSPC));
        assert_eq!(arena.alloc(&request(4 * PAGE), |_, _| Ok(())), Ok(()));
        assert_eq!(arena.alloc(&request(PAGE), |_, _| Ok(())), Ok(()));
        assert_eq!(arena.alloc(&request(PAGE), |_, _| Ok(())), Err(ENOSPC));
        assert_eq!(set(6 * PAGE), Err(EINVAL));
        assert_eq!(arena.free(5 * PAGE), Err(EINVAL));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn bounds_that_cannot_be_told_are_not_set() -> Result {
        let registry = Registry::with_limits(100 * PAGE, 50 * PAGE)?;
        let arena = registry.open()?;
        let before = arena.bounds();
        let both = |answer: Result| {
            arena.set_bounds(Some(20 * PAGE), Some(30 * PAGE), |now| {
                assert!(now == bounds(20, 30));
                answer
            })
        };
        assert_eq!(both(Err(EFAULT)), Err(EFAULT));
        assert!(arena.bounds() == before);
        assert_eq!(both(Ok(())), Ok(()));
        assert!(arena.bounds() == bounds(20, 30));
        // Neither is set when one is wrong.
        let wrong = arena.set_bounds(Some(10 * PAGE), Some(1), |_| Ok(()));
        assert_eq!(wrong, Err(EINVAL));
        assert!(arena.bounds() == bounds(20, 30));
        registry.close(&arena);
        Ok(())
    }

    /// Blocks of one page each, of which every second is freed again.
    fn comb(arena: &Arena, pages: u64) -> Result {
        let mut blocks: KVec<u64> = KVec::new();
        for _ in 0..pages {
            arena.alloc(&request(PAGE), |offset, _| {
                Ok(blocks.push(offset, GFP_KERNEL)?)
            })?;
        }
        for offset in blocks.iter().skip(1).step_by(2) {
            arena.free(*offset)?;
        }
        Ok(())
    }

    #[test]
    fn free_pages_elsewhere_serve_a_full_arena() -> Result {
        let registry = Registry::with_limits(400 * PAGE, 300 * PAGE)?;
        let arena = registry.open()?;
        let done = |_, _| Ok(());
        comb(&arena, 300)?;
        assert_eq!(arena.alloc(&request(151 * PAGE), done), Err(edquot()));
        assert_eq!(arena.check(), Ok(()));
        assert_eq!(arena.alloc(&request(150 * PAGE), done), Ok(()));
        assert_eq!(arena.check(), Ok(()));
        // As an answer that fails gives back what was moved.
        let other = registry.open()?;
        comb(&other, 100)?;
        let failed = other.alloc(&request(50 * PAGE), |_, _| Err(EFAULT));
        assert_eq!(failed, Err(EFAULT));
        assert_eq!(other.check(), Ok(()));
        for arena in [&arena, &other] {
            registry.close(arena);
        }
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn free_memory_does_not_use_up_the_address_space() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        arena.set_bounds(None, Some(8 * PAGE), |_| Ok(()))?;
        let mut blocks = [0; 2];
        for (block, pages) in blocks.iter_mut().zip([3, 2]) {
            arena.alloc(&request(pages * PAGE), |offset, _| {
                *block = offset;
                Ok(())
            })?;
        }
        for block in blocks {
            arena.free(block)?;
        }
        // Behind the three pages there is a gap, so they and the two cannot join.
        assert_eq!(arena.alloc(&request(8 * PAGE), |_, _| Ok(())), Ok(()));
        assert_eq!(arena.check(), Ok(()));
        assert_eq!(arena.alloc(&request(1), |_, _| Ok(())), Err(ENOSPC));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn what_is_trimmed_can_be_had_by_another_arena() -> Result {
        let registry = Registry::with_limits(300 * PAGE, 300 * PAGE)?;
        let (one, two) = (registry.open()?, registry.open()?);
        let done = |_, _| Ok(());
        comb(&one, 300)?;
        assert_eq!(two.alloc(&request(PAGE), done), Err(edquot()));
        assert_eq!(one.trim(100 * PAGE), 50 * PAGE);
        assert_eq!(one.trim(100 * PAGE), 0);
        assert_eq!(two.alloc(&request(50 * PAGE), done), Ok(()));
        assert_eq!(one.trim(0), 100 * PAGE);
        assert_eq!(one.trim(0), 0);
        assert_eq!(two.alloc(&request(100 * PAGE), done), Ok(()));
        assert_eq!(two.alloc(&request(PAGE), done), Err(edquot()));
        let mut now = Snapshot::default();
        one.snapshot(&mut now);
        assert_eq!(now.stat().trims, 150);
        for arena in [&one, &two] {
            assert_eq!(arena.check(), Ok(()));
            registry.close(arena);
        }
        assert!(registry.limit().is_unused());
        Ok(())
    }

    /// Nothing old is read.
    /// Peer: kasan kmalloc_oob_in_memset, kmalloc_oob_memset_2, kmalloc_oob_memset_4,
    /// kmalloc_oob_memset_8, kmalloc_oob_memset_16.
    #[test]
    fn a_block_that_shall_be_zero_is_and_nothing_beside_it() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        let mut bytes = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        let alloc = |want: &Want| {
            let mut block = (0, 0);
            arena.alloc(want, |at, bytes| {
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
            let mut want = request(size);
            want.zero = true;
            assert_eq!(alloc(&want)?, (first, len));
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
        let registry = Registry::new()?;
        let arena = registry.open()?;
        let overwritten = Err(Error::from_errno(-117));
        for size in [1, 29, 1000, PAGE, 3 * PAGE] {
            let mut want = request(size);
            want.request.headed = true;
            let alloc = || {
                let mut block = (0, 0);
                arena.alloc(&want, |at, bytes| {
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
        let mut want = request(100);
        want.request.headed = true;
        let mut blocks = [0; 10];
        let done = arena.alloc_bulk(&want, 10, |offsets| {
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

    #[test]
    fn the_map_has_room_for_all_of_an_arena() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        assert!(arena.map()?.is_empty());
        // More than there is room for at first: blocks with address space behind each.
        assert_eq!(
            arena.alloc_bulk(&request(3 * PAGE), 1000, |batch| batch.len()),
            Ok(1000)
        );
        let map = arena.map()?;
        let of = |content| map.iter().filter(move |extent| extent.content == content);
        assert_eq!(of(Content::Live).count(), 1000);
        assert_eq!(
            of(Content::Unbacked)
                .filter(|extent| extent.pages == 1)
                .count(),
            1000
        );
        assert_eq!(
            map.iter().map(|extent| extent.live_bytes).sum::<u64>(),
            3000 * PAGE
        );
        registry.close(&arena);
        Ok(())
    }

    /// Peer: gpu_buddy gpu_test_buddy_alloc_contiguous.
    #[test]
    fn a_contiguous_block_is_new_and_lies_side_by_side() -> Result {
        let most = u64::from(Adjacent::most());
        let registry = Registry::with_limits((most + 100) * PAGE, 100 * PAGE)?;
        let arena = registry.open()?;
        let held = || {
            let mut now = Snapshot::default();
            arena.snapshot(&mut now);
            now.stat().held_bytes
        };
        let contiguous = |size| {
            let mut want = request(size);
            want.request.fresh = true;
            want
        };
        let mut first = 0;
        for size in [1, 3000, PAGE, 3 * PAGE - 5, 33 * PAGE] {
            let pages = size.div_ceil(PAGE);
            // What is free will not do, be it of the very size.
            arena.alloc(&request(size), |at, _| {
                first = at;
                Ok(())
            })?;
            arena.free(first)?;
            let before = held();
            let mut block = (0, 0);
            arena.alloc(&contiguous(size), |at, bytes| {
                block = (at, bytes);
                Ok(())
            })?;
            // What the order has beyond the block went back.
            assert_eq!(held() - before, pages * PAGE);
            let frame = |index: u64| {
                let page = arena.live_page(block.0 / PAGE + index);
                page.map(|page| page.frame())
            };
            let start = frame(0).ok_or(EFAULT)?;
            for index in 0..pages {
                assert_eq!(frame(index), Some(start + index as usize));
            }
            arena.free(block.0)?;
            assert_eq!(arena.check(), Ok(()));
        }
        // Free memory makes room under the limit for it.
        arena.alloc(&request(20 * PAGE), |at, _| {
            first = at;
            Ok(())
        })?;
        assert_eq!(
            arena.alloc(&contiguous(81 * PAGE), |_, _| Ok(())),
            Err(edquot())
        );
        assert_eq!(arena.alloc(&contiguous(80 * PAGE), |_, _| Ok(())), Ok(()));
        assert_eq!(held(), 100 * PAGE);
        assert_eq!(arena.alloc(&contiguous(1), |_, _| Ok(())), Err(edquot()));
        for (pages, error) in [(101, edquot()), (most, edquot()), (most + 1, E2BIG)] {
            assert_eq!(
                arena.alloc(&contiguous(pages * PAGE), |_, _| Ok(())),
                Err(error)
            );
        }
        assert_eq!(held(), 100 * PAGE);
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn only_pages_with_a_live_block_can_be_mapped() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        let mut offset = u64::MAX;
        assert!(arena.live_page(0).is_none());
        arena.alloc(&request(3 * PAGE), |at, _| {
            offset = at;
            // It is not live before the caller has the answer.
            assert!(arena.live_page(at / PAGE).is_none());
            assert_eq!(arena.free(at), Err(ENOENT));
            Ok(())
        })?;
        for index in 0..4 {
            let page = arena.live_page(offset / PAGE + index);
            assert_eq!(page.is_some(), index < 3);
        }
        assert!(arena.live_page(u64::MAX).is_none());
        arena.free(offset)?;
        assert!(arena.live_page(offset / PAGE).is_none());
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn what_a_closed_arena_has_counted_stays() -> Result {
        let registry = Registry::new()?;
        let arena = registry.open()?;
        arena.alloc(&request(PAGE), |_, _| Ok(()))?;
        registry.close(&arena);
        let (arenas, sum) = registry.snapshot();
        let stat = sum.stat();
        assert_eq!(arenas, 0);
        assert_eq!((stat.allocs, stat.grows), (1, 1));
        assert_eq!((stat.live_blocks, stat.held_bytes), (0, 0));
        assert_eq!(stat.metadata_bytes, 0);
        Ok(())
    }
}

/// The bound that all arenas share.
#[kunit_tests(freelist_limit)]
mod limit {
    use crate::{
        arena::shared_limit::{
            Limit,
            Limits, //
        },
        mm::page, //
    };
    use kernel::prelude::*;

    #[test]
    fn parameters_are_in_mib_and_0_is_the_default() {
        let of = |all, arena| {
            let limits = Limits::from_mib(all, arena);
            (limits.all, limits.arena)
        };
        let half = page::ram_bytes() / 2;
        assert_eq!(of(0, 0), (half, half));
        assert_eq!(of(3, 0), (3 << 20, 3 << 20));
        assert_eq!(of(3, 2), (3 << 20, 2 << 20));
        assert_eq!(of(0, 2), (half, 2 << 20));
        assert_eq!(of(u64::MAX, u64::MAX), (u64::MAX, u64::MAX));
    }

    #[test]
    fn it_gives_exactly_what_it_has() -> Result {
        let limit = Limit::new(100)?;
        assert!(limit.take(60));
        assert!(!limit.take(41));
        assert!(limit.take(40));
        assert!(!limit.take(1));
        assert!(!limit.take(u64::MAX));
        limit.give(60);
        assert!(limit.take(60));
        limit.give(100);
        assert!(limit.is_unused());
        Ok(())
    }
}

/// Pages of the buddy allocator.
#[kunit_tests(freelist_page)]
mod page {
    use crate::mm::{
        contiguous::{
            Adjacent,
            Highest, //
        },
        page::Page, //
    };
    use kernel::prelude::*;

    #[test]
    fn new_pages_come_from_the_highest_order_that_is_there() -> Result {
        for want in [1, 2, 3, 63, 64, 1000] {
            let mut highest = Highest::new();
            let mut pages: KVVec<Page> = KVVec::new();
            let mut last = u32::MAX;
            while pages.len() < want as usize {
                let came = Adjacent::some_of(want - pages.len() as u32, &mut highest)?;
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

/// What user space says, before anything is looked up by it.
#[kunit_tests(freelist_index)]
mod index {
    use crate::ffi::nospec::{
        clamp_nospec,
        index_nospec, //
    };

    /// A processor that runs ahead of the comparison has the clamp's result to go on with.
    ///
    /// Peer: vulnerabilities speculative_indexing.
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
