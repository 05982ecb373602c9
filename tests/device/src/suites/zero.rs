// SPDX-License-Identifier: GPL-2.0

//! Blocks that read as zero.

use freelist::{Arena, Block, Flags};

use crate::harness::suite;
use crate::kit::{alloc, arena, free, page, stat, View, DEFAULT, GROW, KIB, LARGER, MIB};

suite!("freelist_zero":
    a_used_block_reads_as_zero_again,
    a_write_after_the_release_is_not_in_a_later_block,
    a_new_block_reads_as_zero,
    without_zero_a_block_may_have_old_bytes,
    neighbours_in_the_same_page_keep_their_bytes,
    memory_that_was_moved_reads_as_zero,
    blocks_of_a_batch_read_as_zero,
    memory_that_another_arena_filled_and_released_reads_as_zero,
);

const SIZES: [u64; 8] = [1, 32, 100, 2 * KIB, 4 * KIB, 20_000, 64 * KIB, MIB + 1];

/// Maps the arena's first bytes: enough for a few blocks of any of [`SIZES`].
fn view(arena: &Arena) -> View {
    View::shared(arena, 0, 16 * MIB as usize)
}

/// Returns one byte of every 16, and the last one.
fn places(block: Block) -> impl Iterator<Item = usize> {
    let end = block.offset + block.bytes;
    (block.offset..end)
        .step_by(16)
        .chain([end - 1])
        .map(|at| at as usize)
}

fn dirty(view: &View, block: Block) {
    places(block).for_each(|at| view.store(at, 0xa5));
}

#[track_caller]
fn is_zero(view: &View, block: Block) {
    for at in places(block) {
        assert_eq!(view.load(at), 0, "byte {at:#x} of {block:x?}");
    }
}

/// Prior art: kfence test_gfpzero; hardened_malloc calloc_zeroed; mimalloc_security zero_on_malloc;
/// scudo combined.ZeroContents, combined.ZeroFill, wrappers_c.Calloc.
fn a_used_block_reads_as_zero_again() {
    for flags in [LARGER, DEFAULT, Flags::empty()] {
        let arena = arena();
        let view = view(&arena);
        for size in SIZES {
            let block = alloc(&arena, size);
            dirty(&view, block);
            free(&arena, block);
            let again = arena.alloc(size, flags | Flags::ZERO);
            let Ok(again) = again else {
                // Without the flag the content is undefined.
                assert!(flags.is_empty(), "{again:?}");
                continue;
            };
            assert_eq!(again, block, "low offsets are used first");
            is_zero(&view, again);
            free(&arena, again);
        }
    }
}

/// The page of a freed block is still mapped, so a faulty program can write to it until the block is zeroed.
///
/// Prior art: hardened_malloc write_after_free_small_reuse, write_after_free_large_reuse; scudo
/// combined.DisableMemInit.
fn a_write_after_the_release_is_not_in_a_later_block() {
    for size in SIZES {
        let arena = arena();
        let view = view(&arena);
        let block = alloc(&arena, size);
        view.touch(block.offset as usize);
        dirty(&view, block);
        free(&arena, block);
        dirty(&view, block);
        // Other blocks are allocated and freed in its place first.
        for other in [32, 2 * KIB, size] {
            let other = arena.alloc(other, LARGER | Flags::ZERO);
            let Ok(other) = other else { continue };
            is_zero(&view, other);
            dirty(&view, other);
            free(&arena, other);
            dirty(&view, other);
        }
        let again = arena.alloc(size, LARGER | Flags::ZERO).unwrap();
        assert_eq!(again, block, "low offsets are used first");
        is_zero(&view, again);
        free(&arena, again);
    }
}

/// Prior art: hardened_malloc calloc_zeroed; mimalloc_security zero_on_malloc; scudo
/// combined.ZeroContents, wrappers_c.Calloc.
fn a_new_block_reads_as_zero() {
    for size in SIZES {
        let arena = arena();
        let block = arena.alloc(size, GROW | Flags::ZERO).unwrap();
        is_zero(&view(&arena), block);
    }
}

/// Without the flag bytes may be old: otherwise the tests above would show nothing.
fn without_zero_a_block_may_have_old_bytes() {
    let arena = arena();
    let view = view(&arena);
    for size in SIZES {
        let block = alloc(&arena, size);
        dirty(&view, block);
        free(&arena, block);
        let again = arena.alloc(size, LARGER).unwrap();
        assert_eq!(view.load(again.offset as usize), 0xa5, "of {size} bytes");
        free(&arena, again);
    }
}

/// Prior art: kasan kmalloc_oob_in_memset, kmalloc_oob_memset_2, kmalloc_oob_memset_4,
/// kmalloc_oob_memset_8, kmalloc_oob_memset_16.
fn neighbours_in_the_same_page_keep_their_bytes() {
    let arena = arena();
    let view = view(&arena);
    for size in [32, 256, page() / 2] {
        let blocks: Vec<Block> = (0..6).map(|_| alloc(&arena, size)).collect();
        blocks.iter().for_each(|block| dirty(&view, *block));
        for i in [1, 4] {
            free(&arena, blocks[i]);
            let again = arena.alloc(size, LARGER | Flags::ZERO).unwrap();
            is_zero(&view, again);
            assert_eq!(again, blocks[i], "low offsets are used first");
        }
        for i in [0, 2, 3, 5] {
            assert!(places(blocks[i]).all(|at| view.load(at) == 0xa5));
        }
        blocks.into_iter().for_each(|block| free(&arena, block));
    }
}

/// At the limit a block gets the pages of freed blocks.
fn memory_that_was_moved_reads_as_zero() {
    let arena = arena();
    arena.set_limit(64 * page()).unwrap();
    let view = view(&arena);
    let blocks: Vec<Block> = (0..64).map(|_| alloc(&arena, page())).collect();
    blocks.iter().for_each(|block| dirty(&view, *block));
    for block in blocks.iter().step_by(2) {
        free(&arena, *block);
    }
    let moved = arena.alloc(24 * page(), DEFAULT | Flags::ZERO).unwrap();
    is_zero(&view, moved);
    for block in blocks.iter().skip(1).step_by(2) {
        assert!(places(*block).all(|at| view.load(at) == 0xa5));
    }
    assert_eq!(stat(&arena).held_bytes, 64 * page());
}

fn blocks_of_a_batch_read_as_zero() {
    let arena = arena();
    let view = view(&arena);
    for (size, count) in [(32, 150), (page(), 70), (3 * page(), 20)] {
        let flags = LARGER | Flags::ZERO;
        let mut offsets = vec![0; count];
        arena.alloc_bulk(size, DEFAULT, &mut offsets).unwrap();
        let block = |offset: &u64| Block {
            offset: *offset,
            bytes: size,
        };
        offsets.iter().for_each(|at| dirty(&view, block(at)));
        arena.free_bulk(&offsets).unwrap();
        assert_eq!(arena.alloc_bulk(size, flags, &mut offsets).unwrap(), count);
        offsets.iter().for_each(|at| is_zero(&view, block(at)));
        arena.free_bulk(&offsets).unwrap();
    }
}

/// Fills every byte of so many blocks that the second arena gets most of the first one's pages.
///
/// Prior art: dmabuf_heaps fill_4_kib, zeroed_4_kib, fill_1_mib, zeroed_1_mib.
fn memory_that_another_arena_filled_and_released_reads_as_zero() {
    const COUNT: u64 = 32;
    for size in [4 * KIB, MIB] {
        let blocks = || {
            let arena = arena();
            let memory = arena.map(COUNT * size).unwrap();
            let blocks: Vec<Block> = (0..COUNT).map(|_| alloc(&arena, size)).collect();
            (memory, blocks)
        };
        let fill = vec![0xff; size as usize];
        let (memory, filled) = blocks();
        for block in filled {
            memory.write(block.offset, &fill).unwrap();
        }
        drop(memory);
        let (memory, again) = blocks();
        let mut bytes = fill;
        for block in again {
            memory.read(block.offset, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "{block:x?}");
        }
    }
}
