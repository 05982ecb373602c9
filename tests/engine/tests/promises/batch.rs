// SPDX-License-Identifier: GPL-2.0

//! Batches, and the quick lists that serve them.

use freelist_engine::engine::{FreeError, BATCH};
use freelist_engine::host::Arena;

use super::{headed, request, DEFAULT, LARGER, NONE};

at_every_page_size! {
    a_freed_batch_serves_the_next_batch;
    a_batch_on_the_fast_path_gets_the_blocks_of_single_requests;
    blocks_of_a_batch_that_are_not_reported_are_free_again;
    blocks_that_are_alike_are_freed_together;
    blocks_are_freed_together_up_to_the_length_of_a_quick_list;
    quick_lists_are_bounded_and_merge_before_the_arena_grows;
}

mod generic {
    use super::*;

    pub fn a_freed_batch_serves_the_next_batch<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [32, 64, 128] {
            let batch = |arena: &mut Arena<KIB>| -> Vec<u64> {
                (0..BATCH)
                    .map(|_| arena.alloc(request(size, DEFAULT)).unwrap().0)
                    .collect()
            };
            let first = batch(&mut arena);
            for offset in first.iter().rev() {
                arena.free(*offset).unwrap();
            }
            let before = arena.counters();
            assert_eq!(batch(&mut arena), first, "{size}");
            let after = arena.counters();
            assert_eq!(
                (after.splits, after.merges, after.grows),
                (before.splits, before.merges, before.grows)
            );
        }
    }

    pub fn a_batch_on_the_fast_path_gets_the_blocks_of_single_requests<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for size in [1, 64, 100, page, (3 * page).min(1 << 16)] {
            let mut one_by_one = Arena::<KIB>::new(1 << 20);
            let mut together = Arena::<KIB>::new(1 << 20);
            for arena in [&mut one_by_one, &mut together] {
                let blocks: Vec<u64> = (0..10)
                    .map(|_| arena.alloc(request(size, DEFAULT)).unwrap().0)
                    .collect();
                for offset in blocks {
                    arena.free(offset).unwrap();
                }
            }
            let batch = together.alloc_batch(size, BATCH as usize, BATCH as usize);
            assert!(!batch.is_empty(), "{size}");
            let single: Vec<u64> = batch
                .iter()
                .map(|_| one_by_one.alloc(request(size, NONE)).unwrap().0)
                .collect();
            assert_eq!(batch, single, "{size}");
            assert_eq!(together.counters(), one_by_one.counters(), "{size}");
            for offset in batch {
                together.free(offset).unwrap();
                assert_eq!(together.free(offset), Err(FreeError::NotLive));
            }
            together.end();
        }
    }

    pub fn blocks_of_a_batch_that_are_not_reported_are_free_again<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let blocks: Vec<u64> = (0..8)
            .map(|_| arena.alloc(request(64, DEFAULT)).unwrap().0)
            .collect();
        for offset in &blocks {
            arena.free(*offset).unwrap();
        }
        let reported = arena.alloc_batch(64, 6, 2);
        assert_eq!(reported, [blocks[7], blocks[6]]);
        assert_eq!(arena.counters().live_blocks, 2);
        assert_eq!(arena.counters().allocs, 10);
        assert_eq!(arena.free(blocks[4]), Err(FreeError::NotLive));
        // Cancelled blocks can be allocated again.
        let held = arena.counters().held_bytes;
        for _ in 0..6 {
            arena.alloc(request(64, LARGER)).unwrap();
        }
        assert_eq!(arena.counters().held_bytes, held);
        assert!(arena.alloc_batch(64, 0, 0).is_empty());
    }

    pub fn blocks_that_are_alike_are_freed_together<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let mut alloc = |request| arena.alloc(request).unwrap().0;
        let alike: Vec<u64> = (0..6).map(|_| alloc(request(64, DEFAULT))).collect();
        let smaller = alloc(request(32, DEFAULT));
        let with_header = alloc(headed(48, DEFAULT));
        let page = alloc(request(Arena::<KIB>::PAGE, DEFAULT));
        let live = arena.counters().live_blocks;
        // Each of these ends a batch that can be freed together, and is unchanged.
        let inside = alike[5] + 32;
        for odd in [
            smaller,
            with_header,
            with_header - 16,
            page,
            inside,
            alike[0],
            u64::MAX,
        ] {
            let offsets = [alike[0], alike[1], odd, alike[2]];
            assert_eq!(arena.free_alike(&offsets), 2, "{odd:#x}");
            assert_eq!(arena.counters().live_blocks, live - 2);
            for offset in [alike[1], alike[0]] {
                assert_eq!(arena.free(offset), Err(FreeError::NotLive));
                assert_eq!(arena.alloc(request(64, NONE)).unwrap().0, offset);
            }
        }
        for none in [with_header, page, inside + 1, u64::MAX] {
            assert_eq!(arena.free_alike(&[none]), 0, "{none:#x}");
        }
        assert_eq!(arena.free_alike(&[]), 0);
        assert_eq!(arena.free_alike(&alike), 6);
        assert_eq!(arena.free_alike(&alike), 0);
    }

    pub fn blocks_are_freed_together_up_to_the_length_of_a_quick_list<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let blocks: Vec<u64> = (0..128)
            .map(|_| arena.alloc(request(32, DEFAULT)).unwrap().0)
            .collect();
        assert_eq!(arena.free_alike(&blocks), BATCH as usize);
        assert_eq!(arena.free_alike(&blocks[BATCH as usize..]), 0);
        arena.free(blocks[127]).unwrap();
    }

    pub fn quick_lists_are_bounded_and_merge_before_the_arena_grows<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [64, page, 1 << 16] {
            let blocks: Vec<u64> = (0..200)
                .map(|_| arena.alloc(request(size, DEFAULT)).unwrap().0)
                .collect();
            let merges = arena.counters().merges;
            for offset in &blocks {
                arena.free(*offset).unwrap();
            }
            // All but a batch have merged with their buddies already.
            assert!(arena.counters().merges - merges >= 100, "{size}");
        }
        let held = arena.counters().held_bytes;
        arena.alloc(request(1 << 20, DEFAULT)).unwrap();
        assert_eq!(arena.counters().held_bytes, held.max(1 << 20));
    }
}
