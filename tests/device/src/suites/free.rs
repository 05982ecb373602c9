// SPDX-License-Identifier: GPL-2.0

//! Invalid frees.

use freelist::{Arena, Block};
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::{
    alloc, arena, free, info, page, raw, refused, scaled, stat, system_page, View, DEFAULT, KIB,
    MIB, SMALLEST,
};

suite!("freelist_free":
    a_second_free_is_rejected,
    a_second_free_is_rejected_later_too,
    a_second_free_frees_the_new_block_there_whose_own_free_is_rejected,
    free_of_an_address_is_rejected,
    free_of_a_live_neighbour_is_rejected,
    free_inside_of_a_block_is_rejected_at_every_16_bytes,
    free_of_an_unaligned_offset_is_rejected,
    free_beyond_the_arena_is_rejected,
    free_of_an_offset_that_was_never_allocated_is_rejected,
    free_after_a_block_of_odd_size_is_rejected,
    free_of_a_half_that_was_merged_is_rejected,
    free_of_another_arenas_block_is_rejected,
    an_invalid_free_changes_nothing,
    scribbling_over_all_bytes_moves_nothing,
);

const SIZES: [u64; 8] = [32, 64, 1000, 2 * KIB, 4 * KIB, 5000, 64 * KIB, 3 * MIB];

/// Prior art: kasan kmalloc_double_kzfree, kmem_cache_double_free; kfence test_double_free;
/// hardened_malloc double_free_small, double_free_large; mimalloc_security double_free; snmalloc
/// corruption_detection; scudo combined.DeathCombined, wrappers_c.Malloc.
fn a_second_free_is_rejected() {
    for size in SIZES {
        let arena = arena();
        let block = alloc(&arena, size);
        free(&arena, block);
        refused(arena.free(block.offset), Errno::ENOENT);
        assert_eq!(stat(&arena).frees, 1, "of {size} bytes");
    }
}

/// Prior art: kasan mempool_kmalloc_double_free, mempool_kmalloc_large_double_free,
/// mempool_page_alloc_double_free; hardened_malloc double_free_small_delayed,
/// double_free_large_delayed; mimalloc_security double_free_delayed, double_free_interleaved;
/// snmalloc seqset.
fn a_second_free_is_rejected_later_too() {
    for size in SIZES {
        let arena = arena();
        let block = alloc(&arena, size);
        // Neighbours keep the block's page, and no other block gets its place.
        let neighbours = [alloc(&arena, size), alloc(&arena, size)];
        free(&arena, block);
        free(&arena, neighbours[0]);
        let larger = alloc(&arena, 8 * MIB);
        free(&arena, larger);
        refused(arena.free(block.offset), Errno::ENOENT);
        free(&arena, neighbours[1]);
        refused(arena.free(block.offset), Errno::ENOENT);
        assert_eq!(stat(&arena).live_blocks, 0, "of {size} bytes");
    }
}

/// Only the offset names a block, so a stale offset names the block that is there now. That block can be freed
/// once, by either owner.
///
/// Prior art: mimalloc_security double_free_reuse, double_free_single_reuse.
fn a_second_free_frees_the_new_block_there_whose_own_free_is_rejected() {
    for size in SIZES {
        let arena = arena();
        let stale = alloc(&arena, size);
        free(&arena, stale);
        refused(arena.free(stale.offset), Errno::ENOENT);
        for _ in 0..4 {
            let now = alloc(&arena, size);
            assert_eq!(now, stale, "low offsets are used first");
            free(&arena, stale);
            refused(arena.free(now.offset), Errno::ENOENT);
        }
        let stat = stat(&arena);
        assert_eq!((stat.allocs, stat.frees), (5, 5), "of {size} bytes");
        // The next two blocks are whole and adjacent.
        let pair = [alloc(&arena, size), alloc(&arena, size)];
        assert_ne!(pair[0].offset, pair[1].offset);
        pair.into_iter().for_each(|block| free(&arena, block));
    }
}

/// Frees addresses instead of offsets: of the stack, the heap, a mapping, a block itself.
///
/// Prior art: mimalloc_security invalid_free_stack, invalid_free_alloca; hardened_malloc
/// invalid_free_protected, invalid_free_unprotected; scudo combined.IsOwned.
fn free_of_an_address_is_rejected() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let (stack, heap) = (0u64, Box::new(0u64));
    let addresses = [
        &raw const stack as u64,
        &raw const *heap as u64,
        View::anonymous(1).address(0).get() as u64,
        view.address(0).get() as u64,
        view.address(0).get() as u64 + block.bytes,
    ];
    for address in addresses {
        for address in [address, address / 16 * 16] {
            refused(arena.free(address), Errno::EINVAL);
        }
    }
    let stat = stat(&arena);
    assert_eq!((stat.live_blocks, stat.frees), (1, 0));
    free(&arena, block);
}

/// Beside a free block only the live one's own offset is accepted.
fn free_of_a_live_neighbour_is_rejected() {
    let arena = arena();
    let pair = [alloc(&arena, 64), alloc(&arena, 64)];
    let [low, high] = pair.map(|block| block.offset);
    arena.free(low).unwrap();
    refused(arena.free(low), Errno::ENOENT);
    refused(arena.free(high + 32), Errno::EINVAL);
    refused(arena.free(high - 16), Errno::ENOENT);
    arena.free(high).unwrap();
}

/// Prior art: kasan kmalloc_large_invalid_free, kmem_cache_invalid_free, mempool_kmalloc_invalid_free,
/// mempool_kmalloc_large_invalid_free; kfence test_invalid_addr_free; hardened_malloc
/// invalid_free_small_region, unaligned_free_small, unaligned_free_large; snmalloc
/// release-rounding.
fn free_inside_of_a_block_is_rejected_at_every_16_bytes() {
    let arena = arena();
    for size in [32, 64, 512, 2 * KIB, 4 * KIB, 3 * page()] {
        let block = alloc(&arena, size);
        let step = if scaled(1) > 1 { 16 } else { 16 * 7 };
        for at in (16..block.bytes)
            .step_by(step)
            .chain([block.bytes / 2, block.bytes - 16])
        {
            refused(arena.free(block.offset + at), Errno::EINVAL);
        }
        free(&arena, block);
    }
    let large = alloc(&arena, 3 * MIB);
    for at in [page(), MIB, 2 * MIB, 2 * MIB + page(), large.bytes - page()] {
        refused(arena.free(large.offset + at), Errno::EINVAL);
    }
    free(&arena, large);
}

/// Prior art: hardened_malloc unaligned_free_small, unaligned_free_large; mimalloc_security
/// invalid_free, invalid_free_unaligned, invalid_free_unaligned_multiple; scudo
/// combined.DeathCombined.
fn free_of_an_unaligned_offset_is_rejected() {
    let arena = arena();
    let block = alloc(&arena, 4 * KIB);
    for at in [1, 2, 4, 8, 15, 17, 4095] {
        refused(arena.free(block.offset + at), Errno::EINVAL);
        // Also at an offset without a live block.
        refused(arena.free(32 * MIB + at), Errno::EINVAL);
    }
    free(&arena, block);
}

/// Prior art: vulnerabilities size_arithmetic; hardened_malloc invalid_free_small_region_far.
fn free_beyond_the_arena_is_rejected() {
    let arena = arena();
    let end = info().arena_bytes;
    for offset in [
        end,
        end + 16,
        end + page(),
        2 * end,
        1 << 62,
        1 << 63,
        !15,
        !0xfff,
        u64::MAX,
    ] {
        refused(arena.free(offset), Errno::EINVAL);
    }
}

/// Prior art: hardened_malloc uninitialized_free, invalid_free_small_region_far; mimalloc_security
/// invalid_free_far; snmalloc pagemap.
fn free_of_an_offset_that_was_never_allocated_is_rejected() {
    let arena = arena();
    let end = info().arena_bytes;
    let everywhere = [0, 16, 32, page(), 8 * MIB, end / 2, end - page(), end - 16];
    for offset in everywhere {
        refused(arena.free(offset), Errno::ENOENT);
    }
    // The same offset once it lies inside of a block.
    let block = alloc(&arena, SMALLEST);
    for offset in everywhere {
        if offset != block.offset && offset != block.offset + 16 {
            refused(arena.free(offset), Errno::ENOENT);
        }
    }
    free(&arena, block);
}

/// Prior art: mimalloc_security invalid_free_close.
fn free_after_a_block_of_odd_size_is_rejected() {
    let arena = arena();
    let block = alloc(&arena, 5 * page() - 1);
    assert_eq!(block.bytes, 5 * page());
    for pages in 5..8 {
        refused(arena.free(block.offset + pages * page()), Errno::ENOENT);
    }
    refused(arena.free(block.offset + 4 * page()), Errno::EINVAL);
    free(&arena, block);
}

fn free_of_a_half_that_was_merged_is_rejected() {
    let arena = arena();
    for size in [64, 4 * KIB, 256 * KIB] {
        let halves: Vec<Block> = (0..16).map(|_| alloc(&arena, size)).collect();
        for half in &halves {
            free(&arena, *half);
        }
        for half in &halves {
            refused(arena.free(half.offset), Errno::ENOENT);
        }
        let whole = alloc(&arena, 16 * size);
        for half in &halves {
            let inside = half.offset.wrapping_sub(whole.offset) < whole.bytes;
            if half.offset != whole.offset {
                let errno = if inside { Errno::EINVAL } else { Errno::ENOENT };
                refused(arena.free(half.offset), errno);
            }
        }
        free(&arena, whole);
    }
}

/// Prior art: snmalloc two_alloc_types; scudo combined.IsOwned.
fn free_of_another_arenas_block_is_rejected() {
    let (mine, other) = (arena(), arena());
    let blocks: Vec<Block> = SIZES.iter().map(|size| alloc(&other, *size)).collect();
    for block in &blocks {
        refused(mine.free(block.offset), Errno::ENOENT);
    }
    assert_eq!(stat(&other).live_blocks, blocks.len() as u64);
    for block in blocks {
        free(&other, block);
    }
}

fn an_invalid_free_changes_nothing() {
    let arena = arena();
    let block = alloc(&arena, 64 * KIB);
    let small = alloc(&arena, 64);
    let before = stat(&arena);
    let wrong = [block.offset + 16, small.offset + 32, 48 * MIB, u64::MAX];
    for offset in wrong {
        raw::free(&arena, offset).unwrap_err();
    }
    let after = stat(&arena);
    assert_eq!(after.failures, before.failures + wrong.len() as u64);
    let failures = before.failures;
    assert_eq!(freelist::Stat { failures, ..after }, before);
    free(&arena, block);
    free(&arena, small);
}

/// The allocator has no metadata in memory that programs can write.
///
/// Prior art: slub_kunit test_clobber_zone, test_next_pointer, test_first_word, test_clobber_50th_byte,
/// test_clobber_redzone_free, test_kmalloc_redzone_access; kasan kmalloc_oob_right,
/// kmalloc_oob_left, kmalloc_oob_16, kmalloc_uaf, kmalloc_uaf_16, kmalloc_uaf_memset,
/// kmem_cache_oob, mempool_kmalloc_oob_right, mempool_slab_oob_right, mempool_kmalloc_uaf,
/// mempool_slab_uaf; hardened_malloc write_after_free_small; mimalloc_security write_after_free,
/// write_after_free_reuse; snmalloc corruption_detection, domestication, sandbox.
fn scribbling_over_all_bytes_moves_nothing() {
    fn scribble(arena: &Arena, bytes: usize, fill: u8) {
        let view = View::shared(arena, 0, bytes);
        for page in (0..bytes).step_by(system_page()) {
            // Free pages may be absent.
            if view.probe(page).is_ok() {
                view.set_bytes(page, &vec![fill; system_page()]);
            }
        }
    }

    let arena = arena();
    let sizes = [32, 64, 256, 2 * KIB];
    let mut blocks: Vec<Block> = (0..4)
        .flat_map(|_| sizes.map(|s| alloc(&arena, s)))
        .collect();
    let bytes = blocks.iter().map(|b| b.offset + b.bytes).max().unwrap();
    let bytes = bytes.next_multiple_of(page()) as usize;
    assert!(bytes <= 64 << 10, "blocks lie close: {blocks:x?}");
    for fill in [0xff, 0, 0x20] {
        scribble(&arena, bytes, fill);
        // Every other block is freed and allocated again, with stale bytes around it.
        for i in (0..blocks.len()).step_by(2) {
            free(&arena, blocks[i]);
        }
        scribble(&arena, bytes, !fill);
        for i in (0..blocks.len()).step_by(2) {
            let again = arena.alloc(blocks[i].bytes, DEFAULT).unwrap();
            assert_eq!(again.bytes, blocks[i].bytes);
            blocks[i] = again;
        }
        let stat = stat(&arena);
        assert_eq!(stat.live_blocks, blocks.len() as u64);
        let mut offsets: Vec<u64> = blocks.iter().map(|block| block.offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), blocks.len(), "no block twice");
    }
    for block in blocks {
        free(&arena, block);
    }
    assert_eq!(stat(&arena).live_bytes, 0);
}
