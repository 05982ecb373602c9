// SPDX-License-Identifier: GPL-2.0

//! Blocks are split for smaller requests, and merge when they are free.

use freelist_engine::engine::{FreeError, Refusal};
use freelist_engine::host::Arena;

use super::{request, DEFAULT, GROW, LARGER, NONE};

at_every_page_size! {
    all_halves_merge_when_all_is_free;
    a_live_neighbour_keeps_halves_apart;
    a_freed_block_of_odd_length_serves_the_next_of_its_length;
    the_rest_of_a_longer_block_serves_others;
    a_partly_backed_run_grows_by_its_missing_pages;
    a_phase_change_from_small_to_large_needs_no_new_page;
    one_live_block_a_page_leaves_the_rest_to_small_requests;
    a_block_of_the_same_size_is_neither_split_nor_merged_again;
}

mod generic {
    use super::*;

    pub fn all_halves_merge_when_all_is_free<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (large, _) = arena.alloc(request(64 * page, GROW)).unwrap();
        arena.free(large).unwrap();
        let sizes = [32, 96, 1000, page / 2, page, 3 * page, 7 * page];
        let mut live = Vec::new();
        for round in 0.. {
            let size = sizes[round % sizes.len()];
            let Ok(pending) = arena.reserve(request(size, LARGER)) else {
                break;
            };
            if pending.missing() > 0 {
                // Pieces of several runs are not the subject here.
                arena.cancel(pending);
                break;
            }
            live.push(pending.offset());
            arena.commit(pending);
        }
        // In an order that is neither that of allocation nor its reverse.
        while !live.is_empty() {
            let next = live.len() * 7 / 11;
            arena.free(live.swap_remove(next)).unwrap();
        }
        arena.drain();
        assert_eq!(
            arena.alloc(request(64 * page, NONE)),
            Ok((large, 64 * page))
        );
        assert_eq!(arena.counters().held_bytes, 64 * page);
    }

    pub fn a_live_neighbour_keeps_halves_apart<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = (0..32)
            .map(|_| arena.alloc(request(page, DEFAULT)).unwrap().0)
            .collect();
        for offset in &blocks {
            if offset / page % 2 == 0 {
                arena.free(*offset).unwrap();
            }
        }
        arena.drain();
        assert_eq!(arena.alloc(request(2 * page, NONE)), Err(Refusal::Empty));
        assert_eq!(arena.counters().free_bytes, 16 * page);
        for _ in 0..16 {
            arena.alloc(request(page, NONE)).unwrap();
        }
        assert_eq!(arena.counters().free_bytes, 0);
    }

    pub fn a_freed_block_of_odd_length_serves_the_next_of_its_length<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for pages in [3, 5, 1306, 1025] {
            let (first, bytes) = arena.alloc(request(pages * page, GROW)).unwrap();
            assert_eq!(bytes, pages * page);
            let held = arena.counters().held_bytes;
            for _ in 0..3 {
                arena.free(first).unwrap();
                let (again, _) = arena.alloc(request(pages * page, NONE)).unwrap();
                assert_eq!(again, first);
            }
            assert_eq!(arena.counters().held_bytes, held);
        }
    }

    pub fn the_rest_of_a_longer_block_serves_others<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (long, _) = arena.alloc(request(15 * page, GROW)).unwrap();
        arena.free(long).unwrap();
        let (short, _) = arena.alloc(request(9 * page, LARGER)).unwrap();
        assert!((long..=long + 6 * page).contains(&short));
        let rest: Vec<u64> = (0..6)
            .map(|_| arena.alloc(request(page, LARGER)).unwrap().0)
            .collect();
        assert_eq!(arena.alloc(request(1, LARGER)), Err(Refusal::Empty));
        arena.free(short).unwrap();
        for offset in rest {
            arena.free(offset).unwrap();
        }
        assert_eq!(
            arena.alloc(request(15 * page, LARGER)),
            Ok((long, 15 * page))
        );
    }

    pub fn a_partly_backed_run_grows_by_its_missing_pages<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (short, _) = arena.alloc(request(9 * page, GROW)).unwrap();
        arena.free(short).unwrap();
        let (long, _) = arena.alloc(request(12 * page, DEFAULT)).unwrap();
        assert_eq!(long, short);
        assert_eq!(arena.counters().held_bytes, 12 * page);
    }

    pub fn a_phase_change_from_small_to_large_needs_no_new_page<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        let fill = 256 * page;
        let blocks: Vec<u64> = (0..fill / 64)
            .map(|_| arena.alloc(request(64, DEFAULT)).unwrap().0)
            .collect();
        assert_eq!(arena.counters().held_bytes, fill);
        for offset in blocks {
            arena.free(offset).unwrap();
        }
        arena.check();
        for _ in 0..4 {
            arena.alloc(request(fill / 4, LARGER)).unwrap();
        }
        assert_eq!(arena.counters().held_bytes, fill);
        arena.check();
    }

    pub fn one_live_block_a_page_leaves_the_rest_to_small_requests<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = (0..64 * page / 64)
            .map(|_| arena.alloc(request(64, DEFAULT)).unwrap().0)
            .collect();
        let (kept, freed): (Vec<u64>, Vec<u64>) =
            blocks.into_iter().partition(|offset| offset % page == 0);
        assert_eq!(kept.len(), 64);
        for offset in freed {
            arena.free(offset).unwrap();
        }
        arena.check();
        let free = arena.counters().free_bytes;
        let mut small = Vec::new();
        while let Ok((offset, _)) = arena.alloc(request(32, LARGER)) {
            small.push(offset);
        }
        assert_eq!(small.len() as u64 * 32, free);
        for offset in small.into_iter().chain(kept) {
            arena.free(offset).unwrap();
        }
        arena.check();
        assert!(arena.alloc(request(64 * page, LARGER)).is_ok());
    }

    pub fn a_block_of_the_same_size_is_neither_split_nor_merged_again<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [32, 100, Arena::<KIB>::PAGE / 2, Arena::<KIB>::PAGE, 1 << 16] {
            let (first, _) = arena.alloc(request(size, DEFAULT)).unwrap();
            let before = arena.counters();
            for _ in 0..10 {
                arena.free(first).unwrap();
                assert_eq!(arena.free(first), Err(FreeError::NotLive));
                let again = arena.alloc(request(size, NONE));
                assert_eq!(again.map(|(offset, _)| offset), Ok(first));
            }
            let after = arena.counters();
            assert_eq!(
                (after.splits, after.merges, after.metadata.trees),
                (before.splits, before.merges, before.metadata.trees)
            );
        }
    }
}
