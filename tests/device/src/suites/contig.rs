// SPDX-License-Identifier: GPL-2.0

//! Blocks whose pages lie side by side in physical memory.

use std::fs;

use freelist::uapi::FREELIST_IOC_ALLOC;
use freelist::{Arena, Flags};
use nix::errno::Errno;

use super::bad_pages::SOFT_OFFLINE;
use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::trace::PageAllocs;
use crate::kit::{
    alloc, arena, check, free, largest_block, largest_folio, page, pages, raw, refused, stat,
    system_page, View, DEFAULT, GROW, LARGER, MIB,
};

suite!("freelist_contig":
    the_pages_lie_side_by_side,
    blocks_without_contig_need_not_be_contiguous,
    the_bytes_beyond_a_contiguous_request_are_the_blocks,
    the_pages_are_new_and_zero,
    more_than_the_largest_order_is_e2big,
    growing_must_be_allowed_and_waiting_not,
    at_the_limit_free_pages_make_headroom,
    a_contiguous_block_is_one_page_allocation_without_reclaim,
    a_freed_contiguous_block_serves_other_requests,
    a_live_contiguous_block_is_neither_divided_nor_moved,
);

const FLAGS: Flags = DEFAULT.union(Flags::CONTIG);

/// Returns whether the pages of a block, as they are mapped, are consecutive.
#[track_caller]
fn is_contiguous(arena: &Arena, offset: u64, bytes: u64) -> bool {
    let count = bytes.div_ceil(page()) as usize;
    let view = View::shared(arena, offset / page() * page(), count * system_page());
    for at in (0..view.len()).step_by(system_page()) {
        view.touch(at);
    }
    let frames = pages::frames(&view, 0, count);
    let frames: Vec<u64> = frames
        .into_iter()
        .map(|frame| frame.expect("it is mapped"))
        .collect();
    assert!(
        frames.iter().all(|frame| *frame != 0),
        "only root sees them"
    );
    frames.windows(2).all(|pair| pair[0] + 1 == pair[1])
}

/// Returns those of the numbers of pages that fit into a folio: 1 alone on a kernel without huge pages.
fn in_a_folio<const N: usize>(pages: [u64; N]) -> Vec<u64> {
    let mut pages = pages.to_vec();
    pages.retain(|pages| pages * page() <= largest_folio());
    pages
}

/// Returns the bytes of the largest block: those of the buddy allocator.
fn largest() -> u64 {
    let mut size = page();
    let arena = arena();
    while size <= largest_block() {
        match arena.alloc(2 * size, FLAGS) {
            Ok(block) => free(&arena, block),
            Err(error) => match error.errno() {
                Some(Errno::E2BIG) => return size,
                // There are such orders, and none free at this moment.
                Some(Errno::ENOMEM) => {}
                _ => panic!("{error}"),
            },
        }
        arena.trim(0).unwrap();
        size *= 2;
    }
    panic!("no size is too much")
}

/// Prior art: gpu_buddy gpu_test_buddy_alloc_contiguous.
fn the_pages_lie_side_by_side() {
    let arena = arena();
    let counts = in_a_folio([1, 2, 3, 5, 16, 31, 64, 65, 100, 257]);
    for pages in &counts {
        let size = pages * page() - 7;
        let block = arena.alloc(size, FLAGS).unwrap();
        assert_eq!(block.bytes, size.next_power_of_two());
        assert_eq!(block.offset % block.bytes, 0);
        assert!(
            is_contiguous(&arena, block.offset, block.bytes),
            "{pages} pages"
        );
    }
    assert_eq!(stat(&arena).grows, counts.len() as u64);
}

/// Otherwise the test above would prove nothing.
fn blocks_without_contig_need_not_be_contiguous() {
    // Single pages, of two arenas in turns, that become one run.
    let (arena, other) = (arena(), arena());
    let blocks: Vec<_> = (0..64)
        .map(|_| {
            alloc(&other, page());
            alloc(&arena, page())
        })
        .collect();
    for block in blocks {
        free(&arena, block);
    }
    let joined = arena.alloc(64 * page(), LARGER).unwrap();
    assert!(!is_contiguous(&arena, joined.offset, joined.bytes));
}

fn the_bytes_beyond_a_contiguous_request_are_the_blocks() {
    for pages in in_a_folio([1, 3, 5, 33, 65, 129]) {
        let arena = arena();
        let block = arena.alloc(pages * page(), FLAGS).unwrap();
        let bytes = (pages * page()).next_power_of_two();
        assert_eq!(block.bytes, bytes);
        let stat = stat(&arena);
        assert_eq!((stat.held_bytes, stat.free_bytes), (bytes, 0));
        assert_eq!(stat.live_bytes, bytes);
    }
}

fn the_pages_are_new_and_zero() {
    let arena = arena();
    let view = View::shared(&arena, 0, 4 * MIB as usize);
    let used = alloc(&arena, 64 * page());
    for at in (0..used.bytes).step_by(64) {
        view.store((used.offset + at) as usize, 0xa5);
    }
    free(&arena, used);
    let before = stat(&arena);
    let counts = in_a_folio([1, 1, 16]);
    for (number, pages) in counts.iter().enumerate() {
        // Less than a page takes one, too.
        let size = if number == 0 { 64 } else { pages * page() };
        let block = arena.alloc(size, FLAGS).unwrap();
        for at in block.offset..block.offset + block.bytes {
            assert_eq!(view.load(at as usize), 0, "byte {at:#x}");
        }
    }
    let after = stat(&arena);
    let bytes = counts.iter().sum::<u64>() * page();
    assert_eq!(after.held_bytes - before.held_bytes, bytes);
}

fn more_than_the_largest_order_is_e2big() {
    let largest = largest();
    eprintln!("up to {} KiB", largest >> 10);
    assert_eq!(largest, largest_folio());
    let arena = arena();
    for size in [
        largest + 1,
        2 * largest,
        largest_block(),
        largest_block() + 1,
        u64::MAX,
    ] {
        refused(arena.alloc(size, FLAGS), Errno::E2BIG);
    }
    assert_eq!(stat(&arena).held_bytes, 0);
}

fn growing_must_be_allowed_and_waiting_not() {
    let arena = arena();
    let contig = Flags::CONTIG;
    for flags in [
        contig,
        contig | LARGER,
        FLAGS | Flags::WAIT,
        contig | GROW | Flags::WAIT,
    ] {
        refused(arena.alloc(page(), flags), Errno::EINVAL);
        refused(arena.alloc_bulk(page(), flags, &mut [0; 4]), Errno::EINVAL);
    }
    arena.alloc(page(), contig | GROW).unwrap();
}

fn at_the_limit_free_pages_make_headroom() {
    let arena = arena();
    arena.set_limit(32 * page()).unwrap();
    let blocks: Vec<_> = (0..32).map(|_| alloc(&arena, page())).collect();
    refused(arena.alloc(page(), FLAGS), Errno::EDQUOT);
    for block in blocks.iter().step_by(2) {
        free(&arena, *block);
    }
    let block = arena.alloc(largest_folio().min(8 * page()), FLAGS).unwrap();
    assert!(is_contiguous(&arena, block.offset, block.bytes));
    assert!(stat(&arena).held_bytes <= 32 * page());
    let errno = match in_a_folio([33])[..] {
        [] => Errno::E2BIG,
        _ => Errno::EDQUOT,
    };
    refused(arena.alloc(33 * page(), FLAGS), errno);
}

fn a_contiguous_block_is_one_page_allocation_without_reclaim() {
    let tracer = PageAllocs::record(256);
    for pages in in_a_folio([1, 2, 3, 16, 65]) {
        let arena = arena();
        let mut request = raw::request(pages * page());
        request.flags |= Flags::CONTIG.bits();
        let view = View::anonymous(request.to_bytes().len());
        view.set_bytes(0, &request.to_bytes());
        let (result, asked) = tracer.of(|| ioctl_at(&arena, FREELIST_IOC_ALLOC, view.address(0)));
        result.unwrap();
        let order = pages.next_power_of_two().ilog2();
        let of_order = asked.iter().filter(|alloc| alloc.order == order);
        assert!(of_order.count() >= 1, "order {order} in {asked:?}");
        for alloc in asked.iter().filter(|alloc| !alloc.is_of_a_slab()) {
            assert!(alloc.order == 0 || !alloc.may_reclaim(), "{alloc:?}");
        }
    }
}

fn a_freed_contiguous_block_serves_other_requests() {
    let arena = arena();
    let block = arena
        .alloc(largest_folio().min(64 * page()), FLAGS)
        .unwrap();
    free(&arena, block);
    let held = stat(&arena).held_bytes;
    for _ in 0..block.bytes / page() {
        arena.alloc(page(), LARGER).unwrap();
    }
    assert_eq!(stat(&arena).held_bytes, held);
    refused(arena.alloc(page(), LARGER), Errno::ENOMEM);
}

/// Three events may divide a folio, or move a page of it: advice on a part of a mapping, a page that is taken
/// offline, and compaction.
fn a_live_contiguous_block_is_neither_divided_nor_moved() {
    let arena = arena();
    let block = arena.alloc(16 * page(), FLAGS).unwrap();
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    for at in (0..view.len()).step_by(system_page()) {
        view.store(at, (at / system_page()) as u8);
    }
    for advice in [libc::MADV_COLD, libc::MADV_PAGEOUT, SOFT_OFFLINE] {
        let part = 3 * system_page()..4 * system_page();
        eprintln!("advice {advice}: {:?}", view.advise_raw(part, advice));
        let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        assert!(
            is_contiguous(&arena, block.offset, block.bytes),
            "after advice {advice}"
        );
        for at in (0..view.len()).step_by(system_page()) {
            assert_eq!(view.load(at), (at / system_page()) as u8, "byte {at:#x}");
        }
    }
    free(&arena, block);
    assert_eq!(arena.trim(0).unwrap(), 16 * page());
    check();
}
