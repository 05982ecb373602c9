// SPDX-License-Identifier: GPL-2.0

//! Blocks that shrink and grow in place.

use freelist_engine::engine::{Admission, FreeError, Policy, Request, ResizeError, Resized};
use freelist_engine::host::Arena;

use super::{headed, largest, request, DEFAULT, LARGER};

at_every_page_size! {
    a_shrunk_block_frees_its_tail_at_once;
    a_growing_block_takes_free_memory_and_address_space_after_it;
    a_block_does_not_grow_into_pages_in_use;
    a_longer_block_takes_nothing_that_is_set_aside;
    a_block_that_cannot_be_resized_stays_unchanged;
    a_growth_whose_block_is_freed_is_undone;
}

mod generic {
    use super::*;

    pub fn a_shrunk_block_frees_its_tail_at_once<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (block, _) = arena.alloc(request(100 * page, DEFAULT)).unwrap();
        for (size, pages) in [
            (100 * page, 100),
            (99 * page + 1, 100),
            (33 * page, 33),
            (1, 1),
        ] {
            assert_eq!(arena.resize(block, size), Ok(pages * page));
            let counters = arena.counters();
            assert_eq!(counters.live_bytes, pages * page);
            assert_eq!(counters.free_bytes, (100 - pages) * page);
            assert_eq!(counters.live_blocks, 1);
            let shift = (pages * page).next_power_of_two().ilog2();
            assert_eq!(arena.engine.class(shift).live, 1);
        }
        assert!(arena.live_page((block / page) as u32 + 1).is_none());
        let (other, _) = arena.alloc(request(64 * page, LARGER)).unwrap();
        assert_eq!(arena.counters().held_bytes, 100 * page);
        for offset in [other, block] {
            arena.free(offset).unwrap();
        }
        arena.drain();
        assert_eq!(arena.engine.free_pages(), 100);
        arena.end();
    }

    pub fn a_growing_block_takes_free_memory_and_address_space_after_it<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (block, _) = arena.alloc(request(100 * page, DEFAULT)).unwrap();
        arena.resize(block, 10 * page).unwrap();
        let grows = arena.counters().grows;
        assert_eq!(arena.resize(block, 60 * page), Ok(60 * page));
        assert_eq!(arena.counters().grows, grows);
        assert_eq!(arena.counters().held_bytes, 100 * page);
        assert_eq!(arena.resize(block, 300 * page), Ok(300 * page));
        assert_eq!(arena.counters().grows, grows + 1);
        let counters = arena.counters();
        assert_eq!((counters.held_bytes, counters.free_bytes), (300 * page, 0));
        assert!(arena.live_page((block / page) as u32 + 299).is_some());
        arena.free(block).unwrap();
        assert_eq!(arena.engine.free_pages(), 300);
        arena.end();
    }

    pub fn a_block_does_not_grow_into_pages_in_use<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(64);
        let (block, _) = arena.alloc(request(16 * page, DEFAULT)).unwrap();
        let (next, _) = arena.alloc(request(16 * page, DEFAULT)).unwrap();
        assert_eq!(next, block + 16 * page);
        let before = arena.counters();
        assert_eq!(arena.resize(block, 17 * page), Err(ResizeError::InUse));
        arena.free(next).unwrap();
        arena.drain();
        assert_eq!(arena.resize(block, 65 * page), Err(ResizeError::InUse));
        assert_eq!(arena.counters().held_bytes, before.held_bytes);
        assert_eq!(arena.resize(block, 64 * page), Ok(64 * page));
        // While it grows, no other block gets the pages after it.
        arena.resize(block, page).unwrap();
        let Ok(Resized::Growing(growth)) = arena.start_resize(block, 9 * page) else {
            panic!("it does not grow");
        };
        assert_eq!(growth.extent(), block + page..block + 9 * page);
        assert_eq!(arena.resize(block, 2 * page), Err(ResizeError::InUse));
        assert_eq!(arena.free(block + page), Err(FreeError::NotLive));
        arena.cancel(growth.into_reservation());
        assert_eq!(arena.counters().live_bytes, page);
        arena.end();
    }

    pub fn a_longer_block_takes_nothing_that_is_set_aside<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for admission in [Admission::SubpageOrGrow, Admission::SubpageOnly] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let (block, _) = arena.alloc(request(64 * page, DEFAULT)).unwrap();
            arena.resize(block, 16 * page).unwrap();
            let before = arena.counters();
            // After the block come 48 free pages, and then address space.
            for pages in [17, 64, 80] {
                let refused = arena.start_resize_as(block, pages * page, false, admission);
                assert!(matches!(refused, Err(ResizeError::InUse)), "{pages}");
                assert_eq!(arena.counters(), before);
            }
            // A block that shrinks takes nothing from the waiter.
            arena
                .start_resize_as(block, page, false, admission)
                .unwrap();
            assert_eq!(arena.engine.free_pages(), 63);
            arena.end();
        }
    }

    pub fn a_block_that_cannot_be_resized_stays_unchanged<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (block, _) = arena.alloc(request(3 * page, DEFAULT)).unwrap();
        let (small, _) = arena.alloc(request(page / 2, DEFAULT)).unwrap();
        let (with_header, _) = arena.alloc(headed(3 * page, DEFAULT)).unwrap();
        let side_by_side = Request {
            policy: Policy::Contiguous,
            ..request(3 * page, DEFAULT)
        };
        let (contiguous, _) = arena.alloc(side_by_side).unwrap();
        let end = arena.engine.span_bytes();
        let before = arena.counters();
        for (offset, size, error) in [
            (block, 0, ResizeError::Zero),
            (block, largest::<KIB>() + 1, ResizeError::TooBig),
            (block, u64::MAX, ResizeError::TooBig),
            (block + 1, page, ResizeError::Offset(FreeError::Misaligned)),
            (block + 16, page, ResizeError::Offset(FreeError::Inside)),
            (block + page, page, ResizeError::Offset(FreeError::Inside)),
            (end, page, ResizeError::Offset(FreeError::Beyond)),
            (end - 16, page, ResizeError::Offset(FreeError::NotLive)),
            (small, page, ResizeError::Unsuited),
            (with_header, page, ResizeError::Unsuited),
            (contiguous, page, ResizeError::Unsuited),
        ] {
            let refused = arena.resize(offset, size);
            assert_eq!(refused, Err(error), "{offset:#x}, {size}");
            assert_eq!(arena.counters(), before);
        }
    }

    pub fn a_growth_whose_block_is_freed_is_undone<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let size = |pages| request(pages * page, DEFAULT);
        // Freed; another of its length at its place; made shorter.
        for what in 0..3 {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let (block, _) = arena.alloc(size(32)).unwrap();
            let Ok(Resized::Growing(mut growth)) = arena.start_resize(block, 64 * page) else {
                panic!("it does not grow");
            };
            assert!(arena.fill_growth(&mut growth));
            let left = match what {
                0 => {
                    arena.free(block).unwrap();
                    0
                }
                1 => {
                    arena.free(block).unwrap();
                    assert_eq!(arena.alloc(size(32)).unwrap().0, block);
                    32
                }
                _ => arena.resize(block, 20 * page).unwrap() / page,
            };
            assert!(!arena.commit_growth(growth), "{what}");
            let counters = arena.counters();
            assert_eq!(counters.live_bytes, left * page, "{what}");
            assert_eq!(counters.held_bytes, 32 * page, "{what}");
            arena.end();
        }
    }
}
