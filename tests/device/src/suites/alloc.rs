// SPDX-License-Identifier: GPL-2.0

//! Allocation: the size, the alignment and the source of a block.

use freelist::Flags;
use nix::errno::Errno;

use crate::harness::{skip, suite};
use crate::kit::{
    alloc, arena, block_bytes_of, free, headroom, largest_block, page, random, random_size, raw,
    refused, scaled, stat, Ledger, DEFAULT, GROW, KIB, LARGER, MIB, SMALLEST,
};

suite!("freelist_alloc":
    every_size_class_up_to_16_mib_is_served,
    every_size_class_that_fits_the_memory_is_served,
    sizes_around_powers_of_two_get_their_own_bytes_and_no_more,
    a_request_of_5_1_mib_gets_5_1_mib,
    pages_after_a_block_of_odd_size_serve_others,
    any_call_may_be_an_arenas_first,
    blocks_of_fixed_sizes_are_allocated_and_freed,
    random_sizes_do_not_overlap,
    a_long_list_of_live_blocks_keeps_its_bytes,
    a_full_arena_of_small_blocks_has_no_gaps,
    the_answer_leaves_the_other_fields,
    low_offsets_are_used_first,
    requested_bytes_are_those_that_were_asked_for,
);

fn every_class_from_to(min: u64, max: u64) {
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    let mut size = min;
    while size <= max {
        let block = ledger.alloc(size, DEFAULT).unwrap();
        assert_eq!(block.bytes, size);
        // A second block of the class is at another offset.
        if size <= MIB {
            ledger.alloc(size, DEFAULT).unwrap();
        }
        let stat = stat(&arena);
        assert_eq!(stat.live_blocks, ledger.len() as u64);
        assert_eq!(stat.live_bytes, ledger.bytes());
        if size > MIB {
            ledger.free(block.offset);
        }
        size *= 2;
    }
    ledger.free_all();
    assert_eq!(stat(&arena).live_bytes, 0);
}

/// Prior art: scudo primary.BasicPrimary, secondary.Basic; snmalloc new.
fn every_size_class_up_to_16_mib_is_served() {
    every_class_from_to(SMALLEST, 16 * MIB);
}

/// Prior art: gpu_buddy gpu_test_buddy_alloc_limit; ttm_pool ttm_pool_alloc_basic.
fn every_size_class_that_fits_the_memory_is_served() {
    let max = headroom().min(largest_block()).ilog2();
    if max < (32 * MIB).ilog2() {
        skip("too little memory for blocks over 16 MiB");
    }
    for shift in (32 * MIB).ilog2()..=max {
        // In a new arena, as a freed block stays held.
        every_class_from_to(1 << shift, 1 << shift);
    }
    eprintln!("up to {} MiB", (1u64 << max) / MIB);
}

/// Prior art: test_vmalloc fix_align_alloc_test, random_size_align_alloc_test; kasan
/// ksize_unpoisons_memory; snmalloc malloc, sizeclass; scudo combined.BasicCombined,
/// secondary.AllocatorCombinations, wrappers_c.SmallAlign, wrappers_c.Memalign,
/// wrappers_c.AlignedAlloc, wrappers_c.OtherAlloc, size_class_map_test.
fn sizes_around_powers_of_two_get_their_own_bytes_and_no_more() {
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    for shift in 0..=22 {
        let power = 1u64 << shift;
        for size in [power - 1, power, power + 1] {
            if size != 0 {
                // The ledger checks block_bytes and alignment.
                ledger.alloc(size, DEFAULT).unwrap();
            }
        }
    }
    ledger.free_all();
}

fn a_request_of_5_1_mib_gets_5_1_mib() {
    let arena = arena();
    let size = 51 * MIB / 10;
    let block = alloc(&arena, size);
    assert_eq!(block.bytes, size.next_multiple_of(page()));
    assert_eq!(block.offset % (8 * MIB), 0);
    let stat = stat(&arena);
    assert_eq!(stat.live_bytes, block.bytes);
    assert!(
        stat.held_bytes < size + size / 50,
        "{} bytes held for {size}",
        stat.held_bytes
    );
}

fn pages_after_a_block_of_odd_size_serve_others() {
    let arena = arena();
    let big = alloc(&arena, 5 * MIB + 1);
    let small = alloc(&arena, 2 * MIB);
    assert!(
        small.offset + small.bytes <= big.offset || small.offset >= big.offset + big.bytes,
        "{small:x?} overlaps {big:x?}"
    );
    free(&arena, big);
    free(&arena, small);
}

/// An arena allocates metadata only when it needs some: each path has to work without any at first.
///
/// Prior art: snmalloc first_operation; scudo combined.ReleaseToOS.
fn any_call_may_be_an_arenas_first() {
    let mut offsets = [0; 3];
    for size in [1, 32, 2 * KIB, 4 * KIB, 5000, 64 * KIB, MIB] {
        let first = arena();
        let block = alloc(&first, size);
        assert_eq!(block.offset, 0);
        free(&first, block);
        let first = arena();
        assert_eq!(first.alloc_bulk(size, DEFAULT, &mut offsets).unwrap(), 3);
        assert_eq!(first.free_bulk(&offsets).unwrap(), 3);
        refused(arena().free(size / 16 * 16), Errno::ENOENT);
        refused(arena().alloc(size, LARGER), Errno::ENOMEM);
        refused(arena().alloc(size, Flags::empty()), Errno::ENOMEM);
        let first = arena();
        assert_eq!(first.trim(size).unwrap(), 0);
        assert_eq!(stat(&first).held_bytes, 0);
        let block = alloc(&first, size);
        free(&first, block);
        assert_eq!(stat(&first).live_blocks, 0);
    }
}

/// Prior art: test_vmalloc fix_size_alloc_test.
fn blocks_of_fixed_sizes_are_allocated_and_freed() {
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    for size in [32, 100, KIB, 4 * KIB, 12 * KIB, 64 * KIB + 1] {
        for _ in 0..scaled(3) {
            for _ in 0..20 {
                ledger.alloc(size, DEFAULT).unwrap();
            }
            ledger.free_all();
        }
        assert_eq!(stat(&arena).live_blocks, 0);
    }
}

/// Prior art: test_vmalloc random_size_alloc_test.
fn random_sizes_do_not_overlap() {
    let mut rng = random();
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    for _ in 0..scaled(400) {
        ledger
            .alloc(random_size(&mut rng, 256 * KIB), DEFAULT)
            .unwrap();
    }
    ledger.free_all();
}

/// Prior art: test_vmalloc long_busy_list_alloc_test.
fn a_long_list_of_live_blocks_keeps_its_bytes() {
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    let count = scaled(3000);
    for i in 0..count {
        ledger.alloc(32 << (i % 3), DEFAULT).unwrap();
    }
    // Other blocks are allocated and freed around them.
    for size in [MIB, 64 * KIB, 4 * KIB] {
        let block = ledger.alloc(size, DEFAULT).unwrap();
        ledger.free(block.offset);
    }
    assert_eq!(ledger.len(), count);
    ledger.free_all();
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// Prior art: gpu_buddy gpu_test_buddy_alloc_pessimistic.
fn a_full_arena_of_small_blocks_has_no_gaps() {
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    let run = arena.alloc(64 * KIB, GROW).unwrap();
    arena.free(run.offset).unwrap();
    let held = stat(&arena).held_bytes;
    while ledger.alloc(SMALLEST, Flags::LARGER).is_ok() {}
    assert_eq!(ledger.bytes(), held, "all held memory is live");
    assert_eq!(stat(&arena).free_bytes, 0);
    ledger.free_all();
    assert_eq!(stat(&arena).held_bytes, held);
}

fn the_answer_leaves_the_other_fields() {
    let arena = arena();
    let request = raw::request(1000);
    let answer = raw::alloc(&arena, request).unwrap();
    assert_eq!(answer.size, request.size);
    assert_eq!(answer.flags, request.flags);
    assert_eq!(answer.align_shift, 0);
    assert_eq!(answer.timeout_ns, 0);
    assert_eq!(answer.block_bytes, block_bytes_of(1000, page()));
}

/// Prior art: scudo primary.MemoryGroup.
fn low_offsets_are_used_first() {
    let arena = arena();
    let blocks: Vec<_> = (0..8).map(|_| alloc(&arena, 64 * KIB)).collect();
    let highest = blocks.iter().map(|block| block.offset).max();
    assert!(highest.unwrap() < 8 * MIB, "{blocks:x?}");
}

/// Prior art: snmalloc memory_usage.
fn requested_bytes_are_those_that_were_asked_for() {
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    for size in [1, 33, 5000, 70_000] {
        ledger.alloc(size, DEFAULT).unwrap();
        assert_eq!(stat(&arena).requested_bytes, ledger.requested());
    }
    let requested = ledger.requested();
    ledger.free_all();
    assert_eq!(stat(&arena).requested_bytes, requested, "in all");
    assert_eq!(stat(&arena).frees, 4);
}
