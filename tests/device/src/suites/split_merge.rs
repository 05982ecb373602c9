// SPDX-License-Identifier: GPL-2.0

//! Free blocks are split and merged, so that held memory serves any request.

use freelist::{Arena, Block, Flags};
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::{
    alloc, arena, free, page, random, refused, stat, DEFAULT, GROW, KIB, LARGER, MIB, SMALLEST,
};

suite!("freelist_split_merge":
    without_flags_an_empty_list_is_enomem,
    larger_takes_from_a_larger_free_block,
    larger_takes_no_pages,
    grow_without_larger_allocates_pages,
    the_same_size_again_is_served_without_growing,
    the_block_freed_last_is_allocated_first_and_none_is_lost,
    free_halves_join_below_a_page,
    free_halves_join_across_pages,
    halves_join_in_any_order_of_release,
    one_block_becomes_one_of_every_smaller_class,
    a_hole_serves_requests_up_to_its_size,
    the_rest_of_a_split_block_stays_free,
    phases_of_small_then_large_blocks_reuse_the_pages,
    phases_of_large_then_small_blocks_reuse_the_pages,
    a_block_of_odd_size_is_served_from_held_memory,
    splits_and_merges_are_counted,
);

/// Returns an arena that holds one free run of `size` bytes and nothing else.
#[track_caller]
fn holding(size: u64) -> (Arena, u64) {
    let arena = arena();
    let run = arena.alloc(size, GROW).expect("there is room for it");
    free(&arena, run);
    let held = stat(&arena).held_bytes;
    assert!(held >= size);
    (arena, held)
}

/// Allocates as many blocks of `size` bytes as the held memory has.
#[track_caller]
fn exhaust(arena: &Arena, size: u64) -> Vec<Block> {
    let mut blocks = Vec::new();
    loop {
        match arena.alloc(size, LARGER) {
            Ok(block) => blocks.push(block),
            Err(error) => {
                assert_eq!(error.errno(), Some(Errno::ENOMEM), "{error}");
                return blocks;
            }
        }
    }
}

#[track_caller]
fn free_all(arena: &Arena, blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        free(arena, block);
    }
}

/// Prior art: ttm_pool ttm_pool_alloc_order_mismatch.
fn without_flags_an_empty_list_is_enomem() {
    for size in [32, 64, 2 * KIB, 4 * KIB, 64 * KIB, MIB] {
        refused(arena().alloc(size, Flags::empty()), Errno::ENOMEM);
    }
    // The free memory is of another class.
    let (arena, held) = holding(MIB);
    for size in [32, 2 * KIB, 4 * KIB, 64 * KIB] {
        refused(arena.alloc(size, Flags::empty()), Errno::ENOMEM);
    }
    assert_eq!(stat(&arena).held_bytes, held);
}

/// Prior art: scudo combined.FullRegion, secondary.AllocatorCachePartialChunkHeuristicRetrievalTest.
fn larger_takes_from_a_larger_free_block() {
    for size in [32, 64, 2 * KIB, 4 * KIB, 64 * KIB, 512 * KIB] {
        let (arena, held) = holding(MIB);
        let block = arena.alloc(size, LARGER).unwrap();
        assert_eq!(block.bytes, size);
        assert_eq!(stat(&arena).held_bytes, held, "after {size} bytes");
    }
}

fn larger_takes_no_pages() {
    refused(arena().alloc(64, LARGER), Errno::ENOMEM);
    let (arena, held) = holding(64 * KIB);
    refused(arena.alloc(128 * KIB, LARGER), Errno::ENOMEM);
    assert_eq!(stat(&arena).held_bytes, held);
}

fn grow_without_larger_allocates_pages() {
    for size in [32, 2 * KIB, 4 * KIB, 5000, 64 * KIB, MIB] {
        let arena = arena();
        arena.alloc(size, GROW).unwrap();
        let stat = stat(&arena);
        assert!(stat.held_bytes >= stat.live_bytes);
        assert_eq!(stat.grows, 1, "for {size} bytes");
    }
}

/// Prior art: ttm_pool ttm_pool_alloc_order_caching_match, ttm_pool_free_dma_alloc; test_vmalloc
/// full_fit_alloc_test; scudo combined.BlockReuse.
fn the_same_size_again_is_served_without_growing() {
    for size in [32, 100, 2 * KIB, 4 * KIB, 5 * page(), 64 * KIB, 3 * MIB] {
        let arena = arena();
        let block = alloc(&arena, size);
        let held = stat(&arena).held_bytes;
        for _ in 0..4 {
            free(&arena, block);
            let again = arena.alloc(size, LARGER).unwrap();
            assert_eq!(again, block, "low offsets are used first");
        }
        assert_eq!(stat(&arena).held_bytes, held);
        assert_eq!(stat(&arena).grows, 1);
    }
}

/// The quick list of a class is a short stack; a full one releases its oldest block, which is merged.
///
/// Prior art: scudo secondary.AllocatorCacheEntryOrder, secondary.AllocatorCacheMemoryLeakTest.
fn the_block_freed_last_is_allocated_first_and_none_is_lost() {
    /// The most blocks on a list.
    const LISTED: usize = 8;
    let mut rng = random();
    for size in [32, 100, 2 * KIB, 4 * KIB, 16 * KIB] {
        for count in [2, LISTED, 3 * LISTED] {
            let arena = arena();
            let mut blocks: Vec<Block> = (0..count).map(|_| alloc(&arena, size)).collect();
            let held = stat(&arena).held_bytes;
            rng.shuffle(&mut blocks);
            blocks.iter().for_each(|block| free(&arena, *block));
            let mut again: Vec<Block> = (0..count)
                .map(|_| arena.alloc(size, LARGER).expect("it was free"))
                .collect();
            let listed = count.min(LISTED);
            let newest: Vec<Block> = blocks.iter().rev().take(listed).copied().collect();
            assert_eq!(again[..listed], newest, "{count} of {size} bytes");
            again.sort_by_key(|block| block.offset);
            blocks.sort_by_key(|block| block.offset);
            assert_eq!(again, blocks, "{count} of {size} bytes");
            assert_eq!(stat(&arena).held_bytes, held);
        }
    }
}

fn free_halves_join_below_a_page() {
    let (arena, held) = holding(16 * page());
    for size in [32, 128, page() / 2] {
        let blocks = exhaust(&arena, size);
        assert_eq!(blocks.len() as u64, held / size, "of {size} bytes");
        free_all(&arena, blocks);
        let whole = arena.alloc(16 * page(), LARGER);
        free(&arena, whole.expect("the halves joined"));
        assert_eq!(stat(&arena).held_bytes, held);
    }
}

fn free_halves_join_across_pages() {
    let (arena, held) = holding(4 * MIB);
    for size in [page(), 4 * page(), 256 * KIB, 2 * MIB] {
        let blocks = exhaust(&arena, size);
        assert_eq!(blocks.len() as u64, held / size, "of {size} bytes");
        free_all(&arena, blocks);
        let whole = arena.alloc(4 * MIB, LARGER);
        free(&arena, whole.expect("the halves joined"));
        assert_eq!(stat(&arena).held_bytes, held);
    }
}

fn halves_join_in_any_order_of_release() {
    let mut rng = random();
    let (arena, held) = holding(16 * page());
    for size in [64, 512, page(), 2 * page()] {
        let mut blocks = exhaust(&arena, size);
        rng.shuffle(&mut blocks);
        free_all(&arena, blocks);
        let whole = arena.alloc(16 * page(), LARGER);
        free(&arena, whole.expect("the halves joined"));
        assert_eq!(stat(&arena).held_bytes, held);
    }
}

fn one_block_becomes_one_of_every_smaller_class() {
    let (arena, held) = holding(MIB);
    let mut blocks = Vec::new();
    let mut size = held.min(MIB) / 2;
    while size >= SMALLEST {
        blocks.push(arena.alloc(size, LARGER).unwrap());
        size /= 2;
    }
    // The smallest class is left once more.
    blocks.push(arena.alloc(SMALLEST, LARGER).unwrap());
    assert_eq!(stat(&arena).free_bytes, held - MIB);
    if held == MIB {
        refused(arena.alloc(SMALLEST, LARGER), Errno::ENOMEM);
    }
    free_all(&arena, blocks);
    arena.alloc(MIB, LARGER).expect("the halves joined");
}

fn a_hole_serves_requests_up_to_its_size() {
    for (run, size) in [(16 * page(), 32), (16 * page(), page() / 2), (MIB, page())] {
        let (arena, _) = holding(run);
        let mut blocks = exhaust(&arena, size);
        blocks.sort_by_key(|block| block.offset);
        // Every other block is freed: half is free, in pieces of one block. Pieces of whole
        // pages may be gathered, subpages cannot.
        let (gone, kept): (Vec<_>, Vec<_>) = blocks
            .into_iter()
            .partition(|block| block.offset / block.bytes % 2 == 0);
        free_all(&arena, gone.iter().copied());
        assert_eq!(stat(&arena).free_bytes, gone.len() as u64 * size);
        if size < page() {
            refused(arena.alloc(2 * size, LARGER), Errno::ENOMEM);
        }
        let again = exhaust(&arena, size);
        assert_eq!(again.len(), gone.len(), "of {size} bytes");
        free_all(&arena, again);
        free_all(&arena, kept);
        arena.alloc(run, LARGER).expect("all is free and joined");
    }
}

fn the_rest_of_a_split_block_stays_free() {
    let (arena, held) = holding(64 * KIB);
    let small = arena.alloc(32, LARGER).unwrap();
    let stat_then = stat(&arena);
    assert_eq!(stat_then.live_bytes, 32);
    assert_eq!(stat_then.free_bytes, held - 32);
    let half = arena.alloc(32 * KIB, LARGER).unwrap();
    free(&arena, half);
    free(&arena, small);
}

fn phases_of_small_then_large_blocks_reuse_the_pages() {
    let arena = arena();
    let small: Vec<Block> = (0..64).map(|_| alloc(&arena, 64 * KIB)).collect();
    free_all(&arena, small);
    let held = stat(&arena).held_bytes;
    let large = arena.alloc(4 * MIB, LARGER);
    large.expect("64 blocks of 64 KiB became one of 4 MiB");
    assert_eq!(stat(&arena).held_bytes, held);
}

fn phases_of_large_then_small_blocks_reuse_the_pages() {
    let arena = arena();
    let large = alloc(&arena, MIB);
    free(&arena, large);
    let held = stat(&arena).held_bytes;
    let sizes = [32, 100, 700, 2 * KIB, 4 * KIB, 9000];
    let small: Vec<Block> = sizes
        .iter()
        .cycle()
        .take(240)
        .map(|size| alloc(&arena, *size))
        .collect();
    assert_eq!(stat(&arena).held_bytes, held);
    free_all(&arena, small);
    arena.alloc(MIB, LARGER).expect("and back");
}

fn a_block_of_odd_size_is_served_from_held_memory() {
    let (arena, held) = holding(MIB);
    let odd = arena.alloc(11 * page() - 5, LARGER).unwrap();
    assert_eq!(odd.bytes, 11 * page());
    assert_eq!(stat(&arena).free_bytes, held - odd.bytes);
    // The rest of the 16 pages of its alignment serves others.
    let rest = exhaust(&arena, page());
    assert_eq!(rest.len() as u64, (held - odd.bytes) / page());
    free(&arena, odd);
    free_all(&arena, rest);
    arena.alloc(MIB, LARGER).expect("all is free and joined");
}

fn splits_and_merges_are_counted() {
    let (arena, _) = holding(64 * KIB);
    let before = stat(&arena);
    let small = arena.alloc(32, DEFAULT).unwrap();
    let split = stat(&arena);
    assert!(split.splits > before.splits, "{split:?}");
    free(&arena, small);
    arena.alloc(64 * KIB, LARGER).expect("the halves joined");
    let merged = stat(&arena);
    assert!(merged.merges > before.merges, "{merged:?}");
    assert_eq!(merged.grows, before.grows);
}
