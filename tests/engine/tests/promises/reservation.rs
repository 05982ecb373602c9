// SPDX-License-Identifier: GPL-2.0

//! Reservations: the pages that may have old bytes, and the state after a cancellation.

use freelist_engine::host::Arena;

use super::{request, DEFAULT, GROW, NONE};

at_every_page_size! {
    /// Clear pages and pages with old bytes are distinguished.
    /// Prior art: gpu_buddy gpu_test_buddy_alloc_clear.
    only_pages_that_may_have_old_bytes_are_stale;
    a_cancelled_block_releases_the_pages_it_grew;
    a_cancelled_block_merges_no_backed_with_unbacked_pages;
    a_cancelled_subpage_leaves_nothing;
}

mod generic {
    use super::*;

    pub fn only_pages_that_may_have_old_bytes_are_stale<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        // New pages first, also for a subpage of one.
        for size in [64, 20 * page] {
            let mut pending = arena.reserve(request(size, DEFAULT)).unwrap();
            arena.back(&mut pending, u32::MAX);
            assert_eq!(pending.stale(), 0);
            arena.commit(pending);
        }
        // Another subpage of a divided page.
        let pending = arena.reserve(request(96, DEFAULT)).unwrap();
        assert_eq!(pending.stale(), 1);
        let start = (pending.offset() % page) as usize;
        assert_eq!(pending.within(), start..start + 128);
        arena.cancel(pending);
        // A freed block, whole and with its missing pages.
        let (short, _) = arena.alloc(request(9 * page, GROW)).unwrap();
        arena.free(short).unwrap();
        for (pages, stale) in [(9, 9), (12, 9), (5, 5)] {
            let mut pending = arena.reserve(request(pages * page, DEFAULT)).unwrap();
            assert!((short..=short + 4 * page).contains(&pending.offset()));
            arena.back(&mut pending, u32::MAX);
            assert_eq!(pending.stale(), stale);
            assert_eq!(pending.within(), 0..page as usize);
            arena.cancel(pending);
        }
        // Memory that is moved from another place in the arena is new.
        let mut pending = arena.reserve(request(12 * page, DEFAULT)).unwrap();
        assert_eq!((pending.stale(), pending.missing()), (9, 3));
        arena.back(&mut pending, 1);
        assert_eq!(pending.missing(), 2);
        arena.back(&mut pending, 2);
        assert_eq!(pending.stale(), 9);
        arena.commit(pending);
    }

    pub fn a_cancelled_block_releases_the_pages_it_grew<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (offset, _) = arena.alloc(request(130 * page, GROW)).unwrap();
        arena.free(offset).unwrap();
        let before = arena.counters();
        for backed in [0, 1, 63, 64, 65, 100, u32::MAX] {
            let mut pending = arena.reserve(request(250 * page, DEFAULT)).unwrap();
            assert_eq!(pending.offset(), offset);
            assert_eq!(pending.missing(), 120);
            arena.back(&mut pending, backed);
            arena.cancel(pending);
            let after = arena.counters();
            assert_eq!(after.held_bytes, 130 * page);
            assert_eq!(after.free_bytes, before.free_bytes);
            assert_eq!(after.allocs, before.allocs);
        }
        // Memory that was there before has no old bytes.
        assert_eq!(
            arena.alloc(request(130 * page, NONE)),
            Ok((offset, 130 * page))
        );
    }

    /// The memory that a cancelled block had lies between the two pieces of address space.
    pub fn a_cancelled_block_merges_no_backed_with_unbacked_pages<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = (0..3)
            .map(|_| arena.alloc(request(4 * page, GROW)).unwrap().0)
            .collect();
        arena.free(blocks[1]).unwrap();
        assert_eq!(arena.trim(0), 4);
        arena.free(blocks[2]).unwrap();
        let pending = arena.reserve(request(8 * page, DEFAULT)).unwrap();
        assert_eq!((pending.offset(), pending.missing()), (blocks[2], 4));
        arena.cancel(pending);
        for offset in [blocks[2], blocks[1]] {
            assert_eq!(
                arena.alloc(request(4 * page, DEFAULT)),
                Ok((offset, 4 * page))
            );
        }
    }

    pub fn a_cancelled_subpage_leaves_nothing<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let pending = arena.reserve(request(64, DEFAULT)).unwrap();
        arena.cancel(pending);
        assert_eq!(arena.counters().held_bytes, 0);
        assert_eq!(arena.counters().metadata.trees, 0);
        // The page is whole again, and free.
        let mut pending = arena.reserve(request(64, DEFAULT)).unwrap();
        arena.back(&mut pending, 1);
        arena.cancel(pending);
        assert_eq!(arena.counters().metadata.trees, 0);
        assert_eq!(arena.counters().free_bytes, Arena::<KIB>::PAGE);
        arena.alloc(request(Arena::<KIB>::PAGE, NONE)).unwrap();
    }
}
