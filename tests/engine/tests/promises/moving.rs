// SPDX-License-Identifier: GPL-2.0

//! Free pages in pieces, which move to a request that fits none of them.

use freelist_engine::engine::{Policy, Refusal, Request};
use freelist_engine::host::Arena;

use super::{comb, request, DEFAULT, GROW, LARGER};

at_every_page_size! {
    /// Prior art: gpu_buddy gpu_test_buddy_alloc_contiguous.
    free_pages_in_pieces_serve_a_large_request_without_growing;
    scattered_free_pages_are_used_up_before_a_full_arena_refuses;
    a_request_that_fits_nowhere_changes_nothing;
    a_contiguous_block_takes_no_free_memory;
}

mod generic {
    use super::*;

    pub fn free_pages_in_pieces_serve_a_large_request_without_growing<const KIB: usize>() {
        for flags in [LARGER, GROW, DEFAULT] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let page = Arena::<KIB>::PAGE;
            comb(&mut arena, 400);
            let (offset, bytes) = arena.alloc(request(200 * page, flags)).unwrap();
            assert_eq!(bytes, 200 * page);
            // At most 5 % more than the peak of live bytes.
            assert!(arena.counters().held_bytes <= 420 * page);
            assert!(flags != LARGER || arena.counters().free_bytes == 0);
            for index in [0, 1, 100, 199] {
                let at = (offset / page) as u32 + index;
                assert!(arena.live_page(at).is_some());
            }
            arena.end();
        }
    }

    pub fn scattered_free_pages_are_used_up_before_a_full_arena_refuses<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        arena.limit = 100;
        comb(&mut arena, 80);
        // 40 pages are free, and 20 more may be allocated: a request for 61 fails, and changes nothing.
        for flags in [DEFAULT, GROW] {
            assert_eq!(arena.alloc(request(61 * page, flags)), Err(Refusal::Empty));
            assert_eq!(arena.counters().live_bytes, 40 * page);
        }
        arena.alloc(request(60 * page, DEFAULT)).unwrap();
        assert_eq!(arena.counters().held_bytes, 100 * page);
        assert_eq!(arena.alloc(request(1, DEFAULT)), Err(Refusal::Empty));
    }

    pub fn a_request_that_fits_nowhere_changes_nothing<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        comb(&mut arena, 64);
        let before = arena.counters();
        assert_eq!(arena.alloc(request(33 * page, LARGER)), Err(Refusal::Empty));
        assert_eq!(arena.counters(), before);
        arena.alloc(request(32 * page, LARGER)).unwrap();
    }

    pub fn a_contiguous_block_takes_no_free_memory<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (old, _) = arena.alloc(request(5 * page, GROW)).unwrap();
        arena.free(old).unwrap();
        arena.alloc(request(64, GROW)).unwrap();
        let contiguous = |size| Request {
            policy: Policy::Contiguous,
            ..request(size, DEFAULT)
        };
        // A power of 2 pages, and so aligned.
        for (size, missing) in [(32, 1), (page, 1), (5 * page, 8), (8 * page, 8)] {
            let mut pending = arena.reserve(contiguous(size)).unwrap();
            assert_eq!(pending.first_page() % missing, 0);
            assert_eq!(pending.missing(), missing);
            let first = pending.first_page();
            arena.back(&mut pending, u32::MAX);
            let block = pending.offset();
            arena.commit(pending);
            // Live, and of whole pages: its memory must stay in one piece.
            let is_whole = arena.engine.is_contiguous(first);
            assert_eq!(is_whole, size >= page, "{size}");
            assert!(missing == 1 || !arena.engine.is_contiguous(first + 1));
            arena.free(block).unwrap();
            assert!(!arena.engine.is_contiguous(first));
        }
    }
}
