// SPDX-License-Identifier: GPL-2.0

//! The classic header in front of a block.

use freelist::uapi::{freelist_free, FREELIST_IOC_FREE};
use freelist::{Arena, Block, Flags};
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::{
    alloc, arena, block_bytes_of, class_of, free, largest_block, page, refused, stat, View,
    DEFAULT, KIB, LARGER, MIB,
};

suite!("freelist_header":
    a_block_lies_16_bytes_after_its_start,
    free_of_the_start_of_a_header_is_rejected,
    an_untouched_header_is_released_in_silence,
    any_overwritten_byte_is_reported_and_the_block_is_released,
    an_overrun_into_the_next_block_is_reported_when_that_is_freed,
    zeros_and_other_blocks_headers_do_not_pass,
    a_restored_header_passes,
    a_batch_continues_after_an_overwritten_header,
    a_block_that_must_read_as_zero_keeps_its_header,
    blocks_with_and_without_a_header_are_neighbours,
    a_header_counts_against_the_largest_size_and_the_limit,
    a_block_of_whole_pages_has_one_more_for_its_header,
    scribbling_over_headers_moves_nothing,
);

/// The bytes of a header.
const HEADER: u64 = 16;
const FLAGS: Flags = DEFAULT.union(Flags::HEADER);
const SIZES: [u64; 9] = [1, 16, 17, 29, 48, 49, 2000, 4096 - 16, 20_000];

#[track_caller]
fn headed(arena: &Arena, size: u64) -> Block {
    arena.alloc(size, FLAGS).unwrap()
}

/// Returns the first bytes of an arena.
fn view(arena: &Arena) -> View {
    View::shared(arena, 0, 4 * MIB as usize)
}

fn header(view: &View, block: Block) -> Vec<u8> {
    view.bytes((block.offset - HEADER) as usize, HEADER as usize)
}

fn a_block_lies_16_bytes_after_its_start() {
    let arena = arena();
    for size in SIZES {
        let block = headed(&arena, size);
        let whole = block_bytes_of(size + HEADER, page());
        assert_eq!(block.bytes, whole - HEADER, "for {size} bytes");
        let start = block.offset - HEADER;
        assert_eq!(start % class_of(size + HEADER), 0, "for {size} bytes");
        // The client, as any other, sees a block of 48 bytes for 29.
        assert!(size != 29 || block.bytes == 48);
        free(&arena, block);
        assert_eq!(stat(&arena).live_blocks, 0);
    }
}

/// Prior art: kasan kmem_cache_invalid_free.
fn free_of_the_start_of_a_header_is_rejected() {
    let arena = arena();
    for size in SIZES {
        let block = headed(&arena, size);
        refused(arena.free(block.offset - HEADER), Errno::EINVAL);
        if HEADER < block.bytes {
            refused(arena.free(block.offset + HEADER), Errno::EINVAL);
        }
        free(&arena, block);
        refused(arena.free(block.offset), Errno::ENOENT);
        refused(arena.free(block.offset - HEADER), Errno::ENOENT);
        let plain = alloc(&arena, size);
        refused(arena.free(plain.offset + HEADER), {
            let inside = HEADER < plain.bytes;
            if inside {
                Errno::EINVAL
            } else {
                Errno::ENOENT
            }
        });
        free(&arena, plain);
    }
}

/// Prior art: scudo chunk.ChunkBasic.
fn an_untouched_header_is_released_in_silence() {
    let arena = arena();
    let view = view(&arena);
    for size in SIZES {
        let block = headed(&arena, size);
        // All of the block's own bytes are its user's.
        for at in block.offset..block.offset + block.bytes {
            view.store(at as usize, 0xff);
        }
        assert_ne!(header(&view, block), [0; HEADER as usize]);
        free(&arena, block);
    }
    assert_eq!(stat(&arena).failures, 0);
}

/// Prior art: slub_kunit test_first_word; kasan kmalloc_oob_left; kfence test_corruption;
/// mimalloc_security one_byte_underflow, one_byte_memcpy_underflow; scudo chunk.CorruptHeader,
/// combined.DeathCombined.
fn any_overwritten_byte_is_reported_and_the_block_is_released() {
    let arena = arena();
    let view = view(&arena);
    for size in [29, 2000, 20_000] {
        for distance in 1..=HEADER {
            let block = headed(&arena, size);
            let at = (block.offset - distance) as usize;
            view.store(at, !view.load(at));
            refused(arena.free(block.offset), Errno::EUCLEAN);
            assert_eq!(stat(&arena).live_blocks, 0, "released all the same");
            refused(arena.free(block.offset), Errno::ENOENT);
        }
    }
    let stat = stat(&arena);
    assert_eq!(stat.failures, 3 * 2 * HEADER);
    assert_eq!(stat.frees, 3 * HEADER);
    let stats = freelist::debugfs::Stats::read().unwrap();
    let counted = stats.0.iter().find(|(name, _)| name.ends_with("EUCLEAN"));
    let (_, count) = counted.expect("failures have their errno's name");
    assert!(*count >= 3 * HEADER);
}

/// The header of the next block follows a block.
///
/// Prior art: hardened_malloc overflow_small_1_byte, overflow_small_8_byte; mimalloc_security
/// one_byte_overflow, one_byte_memcpy_overflow, 32_byte_overflow, 32_byte_memcpy_overflow.
fn an_overrun_into_the_next_block_is_reported_when_that_is_freed() {
    let arena = arena();
    let view = view(&arena);
    for size in [29, 2000, 20_000] {
        for overrun in [1, 8, 32] {
            let mut blocks = [headed(&arena, size), headed(&arena, size)];
            blocks.sort_by_key(|block| block.offset);
            let [low, high] = blocks;
            let end = (low.offset + low.bytes) as usize;
            // Larger blocks are aligned, and may have unused pages between them.
            let from = end.max((high.offset - HEADER) as usize);
            for at in from..from + overrun {
                view.store(at, !view.load(at));
            }
            free(&arena, low);
            refused(arena.free(high.offset), Errno::EUCLEAN);
            assert_eq!(stat(&arena).live_blocks, 0, "{overrun} bytes of {size}");
        }
    }
}

/// Prior art: mimalloc_security 32_byte_underflow, 32_byte_memcpy_underflow.
fn zeros_and_other_blocks_headers_do_not_pass() {
    let arena = arena();
    let view = view(&arena);
    for size in [29, 20_000] {
        let blocks = [headed(&arena, size), headed(&arena, size)];
        let other = header(&view, blocks[0]);
        view.set_bytes((blocks[1].offset - HEADER) as usize, &other);
        refused(arena.free(blocks[1].offset), Errno::EUCLEAN);
        view.set_bytes((blocks[0].offset - HEADER) as usize, &[0; HEADER as usize]);
        refused(arena.free(blocks[0].offset), Errno::EUCLEAN);
    }
    // A block of another arena, at the same offset.
    let [arena, other] = [(); 2].map(|()| crate::kit::arena());
    let view = self::view(&arena);
    let [one, two] = [&arena, &other].map(|arena| headed(arena, 29));
    assert_eq!(one, two);
    let theirs = header(&self::view(&other), two);
    view.set_bytes((one.offset - HEADER) as usize, &theirs);
    refused(arena.free(one.offset), Errno::EUCLEAN);
}

fn a_restored_header_passes() {
    let arena = arena();
    let view = view(&arena);
    let block = headed(&arena, 100);
    let before = header(&view, block);
    let at = (block.offset - HEADER) as usize;
    view.set_bytes(at, &[0xee; HEADER as usize]);
    view.set_bytes(at, &before);
    free(&arena, block);
    assert_eq!(stat(&arena).failures, 0);
}

fn a_batch_continues_after_an_overwritten_header() {
    let arena = arena();
    let view = view(&arena);
    let mut offsets = [0; 150];
    assert_eq!(arena.alloc_bulk(29, FLAGS, &mut offsets).unwrap(), 150);
    for offset in &offsets {
        assert_eq!(offset % 64, HEADER);
    }
    for spoiled in [0, 70, 149] {
        view.store(offsets[spoiled] as usize - 1, 0x5a);
        view.store(offsets[spoiled] as usize - 9, 0x5a);
    }
    assert_eq!(
        arena.free_bulk(&offsets).unwrap(),
        150,
        "they count as done"
    );
    let stat = stat(&arena);
    assert_eq!((stat.live_blocks, stat.failures), (0, 3));
}

fn a_block_that_must_read_as_zero_keeps_its_header() {
    let arena = arena();
    let view = view(&arena);
    for size in [29, 2000, 20_000] {
        let block = headed(&arena, size);
        let all = block.offset..block.offset + block.bytes;
        all.clone().for_each(|at| view.store(at as usize, 0xa5));
        free(&arena, block);
        let again = arena
            .alloc(size, LARGER | Flags::HEADER | Flags::ZERO)
            .unwrap();
        assert_eq!(again, block, "low offsets are used first");
        for at in all {
            assert_eq!(view.load(at as usize), 0, "byte {at:#x} of {block:x?}");
        }
        free(&arena, again);
    }
    assert_eq!(stat(&arena).failures, 0);
}

fn blocks_with_and_without_a_header_are_neighbours() {
    let arena = arena();
    let view = view(&arena);
    let blocks: Vec<(Block, u64)> = (0..100u64)
        .map(|i| match i % 2 {
            0 => (headed(&arena, 40), HEADER),
            _ => (alloc(&arena, 64), 0),
        })
        .collect();
    // The header of a block does not change its neighbour's bytes.
    for (i, (block, _)) in blocks.iter().enumerate() {
        for at in block.offset..block.offset + block.bytes {
            view.store(at as usize, i as u8);
        }
    }
    for (i, (block, _)) in blocks.iter().enumerate() {
        assert_eq!(view.load(block.offset as usize), i as u8);
        free(&arena, *block);
    }
    assert_eq!(stat(&arena).failures, 0);
}

/// Prior art: vulnerabilities size_arithmetic.
fn a_header_counts_against_the_largest_size_and_the_limit() {
    let arena = arena();
    for size in [
        largest_block() - HEADER + 1,
        largest_block(),
        largest_block() + 1,
        u64::MAX - 15,
        u64::MAX,
    ] {
        refused(arena.alloc(size, FLAGS), Errno::E2BIG);
    }
    // With its header the block is larger than the limit.
    arena.set_limit(64 * KIB).unwrap();
    refused(arena.alloc(64 * KIB, FLAGS), Errno::EDQUOT);
    headed(&arena, 64 * KIB - HEADER);
    assert_eq!(stat(&arena).held_bytes, 64 * KIB);
}

fn a_block_of_whole_pages_has_one_more_for_its_header() {
    let arena = arena();
    let block = headed(&arena, page());
    assert_eq!(block.bytes, 2 * page() - HEADER);
    assert_eq!(stat(&arena).held_bytes, 2 * page());
}

/// Prior art: mimalloc_security one_mbyte_underflow, one_mbyte_memcpy_underflow; snmalloc domestication.
fn scribbling_over_headers_moves_nothing() {
    let arena = arena();
    let view = view(&arena);
    let blocks: Vec<Block> = (0..60).map(|i| headed(&arena, 20 + i % 3 * 900)).collect();
    for block in &blocks {
        view.set_bytes((block.offset - HEADER) as usize, &[0x20; HEADER as usize]);
    }
    let request = View::anonymous(8);
    for block in &blocks {
        let offset = block.offset;
        request.set_bytes(0, &freelist_free { offset }.to_bytes());
        let result = ioctl_at(&arena, FREELIST_IOC_FREE, request.address(0));
        assert_eq!(result, Err(Errno::EUCLEAN));
    }
    assert_eq!(stat(&arena).live_bytes, 0);
    let held = stat(&arena).held_bytes;
    let whole = arena.alloc(held, LARGER).expect("all is one block again");
    free(&arena, whole);
}
