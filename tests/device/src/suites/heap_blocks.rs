// SPDX-License-Identifier: GPL-2.0

//! Blocks of the client's heap: their alignment, bytes, and pages, when they are new and when they are
//! resized.

#![expect(unsafe_code, reason = "blocks are freed by their addresses")]

use freelist::Error;
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::filled::{heap, is_empty, layout, Filled};
use crate::kit::{largest_block, random, random_size, refused, scaled, system_page, KIB, MIB};

suite!("freelist_heap_blocks":
    blocks_are_aligned_and_apart,
    a_block_is_aligned_as_asked_for_up_to_a_gibibyte,
    used_memory_reads_as_zero_with_zero,
    a_resized_block_keeps_its_bytes_and_its_place_while_they_fit,
    a_large_block_grows_and_shrinks_where_it_is,
    a_large_block_has_its_pages_and_no_more,
    a_large_block_holds_only_touched_pages,
    buffers_and_slices_free_their_memory,
);

fn blocks_are_aligned_and_apart() {
    let (heap, mut rng) = (heap(), random());
    let mut live: Vec<Filled> = Vec::new();
    for step in 0..scaled(20_000) {
        let size = random_size(&mut rng, 64 * KIB) as usize;
        let filled = Filled::new(&heap, size, step as u8);
        // The largest power of 2 that divides its size, or the alignment of large blocks.
        let align = match size {
            ..=0x8000 => 1 << size.trailing_zeros(),
            _ => 64 << 10,
        };
        assert_eq!(filled.block.addr().get() % align.max(16), 0, "{size} bytes");
        assert!(heap.usable_size(filled.block).unwrap() >= size);
        live.push(filled);
        if live.len() > 500 {
            live.swap_remove(rng.usize(..live.len())).free(&heap);
        }
    }
    for filled in live {
        filled.free(&heap);
    }
    is_empty(&heap);
}

fn a_block_is_aligned_as_asked_for_up_to_a_gibibyte() {
    let heap = heap();
    for align in (0..=30).map(|shift| 1 << shift) {
        for size in [1, 100, 5000, 100_000] {
            let block = heap.alloc(layout(size, align)).unwrap();
            assert_eq!(block.addr().get() % align, 0, "{size} bytes");
            assert!(heap.stat().unwrap().held_bytes <= 4 * MIB, "{align}");
            // SAFETY: It is live, and not used any more.
            unsafe { heap.free(block) };
        }
    }
    let error = heap.alloc(layout(1, 1 << 40)).unwrap_err();
    assert!(matches!(error, Error::Alignment { align } if align == 1 << 40));
    is_empty(&heap);
}

fn used_memory_reads_as_zero_with_zero() {
    let heap = heap();
    for size in [1, 16, 100, 4000, 32 << 10, 40_000, 3 << 20] {
        let used: Vec<Filled> = (0..5).map(|_| Filled::new(&heap, size, 0xaa)).collect();
        for filled in used {
            filled.free(&heap);
        }
        for _ in 0..5 {
            let block = heap.alloc_zeroed(layout(size, 1)).unwrap();
            let mut filled = Filled {
                block,
                size,
                byte: 0,
            };
            filled.check();
            filled.bytes().fill(0xbb);
            filled.byte = 0xbb;
            filled.free(&heap);
        }
    }
    is_empty(&heap);
}

fn a_resized_block_keeps_its_bytes_and_its_place_while_they_fit() {
    let heap = heap();
    let sizes = [
        1,
        10,
        16,
        17,
        40,
        64,
        33,
        32,
        5000,
        8192,
        4097,
        100,
        40_000,
        45_000,
        32_768,
        300_000,
        200_000,
        2 << 20,
        16,
    ];
    for (from, to) in sizes.iter().flat_map(|from| sizes.map(|to| (*from, to))) {
        let mut filled = Filled::new(&heap, from, 0x5a);
        let has = heap.usable_size(filled.block).unwrap();
        // SAFETY: It is live, and the old address is forgotten.
        let block = unsafe { heap.realloc(filled.block, to, 1) }.unwrap();
        if to <= has && to > has / 2 {
            assert_eq!(block, filled.block, "{from} to {to} bytes");
        }
        assert!(heap.usable_size(block).unwrap() >= to);
        filled.block = block;
        filled.size = from.min(to);
        filled.check();
        filled.size = to;
        filled.bytes().fill(0x5a);
        filled.free(&heap);
    }
    // At the limit a block that shrinks stays in place.
    let mut filled = Filled::new(&heap, 1 << 20, 1);
    heap.trim(0).unwrap();
    heap.set_limit(heap.stat().unwrap().held_bytes).unwrap();
    // SAFETY: As above.
    let smaller = unsafe { heap.realloc(filled.block, 100_000, 1) }.unwrap();
    assert_eq!(smaller, filled.block);
    filled.size = 100_000;
    // SAFETY: As above; it stays unchanged.
    let error = unsafe { heap.realloc(filled.block, 2 << 20, 1) };
    refused(error, Errno::EDQUOT);
    filled.free(&heap);
    is_empty(&heap);
}

fn a_large_block_grows_and_shrinks_where_it_is() {
    let (heap, page) = (heap(), system_page());
    let (small, large) = (40_000_usize, 16 << 20);
    let mut filled = Filled::new(&heap, small, 0x5a);
    let place = filled.block;
    for size in (small..large).step_by(64 * 1024).chain([large]) {
        // SAFETY: It is live, and the old address is forgotten.
        filled.block = unsafe { heap.realloc(filled.block, size, 1) }.unwrap();
        assert_eq!(filled.block, place, "{size} bytes: nothing lies behind it");
        filled.check();
        filled.size = size;
        filled.bytes().fill(0x5a);
        let bytes = size.next_multiple_of(page);
        assert_eq!(heap.usable_size(filled.block), Some(bytes));
        assert_eq!(heap.stat().unwrap().live_bytes, bytes as u64);
    }
    // The pages after it are in use: it moves, and does not change them.
    let mut behind = Filled::new(&heap, large, 0xa5);
    // SAFETY: As above.
    filled.block = unsafe { heap.realloc(filled.block, 2 * large, 1) }.unwrap();
    assert_ne!(filled.block, place);
    filled.check();
    behind.check();
    // A smaller one keeps no more than it needs.
    let place = filled.block;
    // SAFETY: As above.
    filled.block = unsafe { heap.realloc(filled.block, small, 1) }.unwrap();
    assert_eq!(filled.block, place);
    filled.size = small;
    filled.check();
    let live = (small.next_multiple_of(page) + large) as u64;
    assert_eq!(heap.stat().unwrap().live_bytes, live);
    heap.trim(0).unwrap();
    assert_eq!(heap.stat().unwrap().held_bytes, live);
    filled.free(&heap);
    behind.free(&heap);
    is_empty(&heap);
}

fn a_large_block_has_its_pages_and_no_more() {
    let (heap, page) = (heap(), system_page());
    for size in [(32 << 10) + 1, 5 << 20, (9 << 20) - 1] {
        let block = heap.alloc(layout(size, 1)).unwrap();
        let bytes = size.next_multiple_of(page);
        assert_eq!(heap.usable_size(block), Some(bytes));
        assert_eq!(heap.stat().unwrap().live_bytes, bytes as u64);
        // Inside of it no block begins.
        let inside = block.map_addr(|address| address.saturating_add(page));
        assert_eq!(heap.usable_size(inside), None);
        // SAFETY: It is live, and not used any more.
        unsafe { heap.free(block) };
        assert_eq!(heap.usable_size(block), None);
    }
    is_empty(&heap);
}

fn a_large_block_holds_only_touched_pages() {
    let heap = heap();
    let held = || heap.stat().unwrap().held_bytes;
    let block = heap.alloc(layout(64 << 20, 1)).unwrap();
    assert_eq!(held(), 0);
    for at in [0, 5_000_000, 40 << 20] {
        // SAFETY: It is live and has as many bytes.
        unsafe { block.add(at).write(9) };
    }
    assert!(held() <= 2 * MIB, "{}", held());
    // The pages after it make it move, and copy the pages that were touched.
    let behind = heap.alloc(layout(1 << 20, 1)).unwrap();
    // SAFETY: It is live, and the old address is forgotten.
    let moved = unsafe { heap.realloc(block, 96 << 20, 1) }.unwrap();
    assert_ne!(moved, block);
    assert!(held() <= 4 * MIB, "{}", held());
    for (at, byte) in [(0, 9), (1, 0), (5_000_000, 9), (40 << 20, 9), (95 << 20, 0)] {
        // SAFETY: It is live and has as many bytes.
        assert_eq!(unsafe { moved.add(at).read() }, byte);
    }
    // Untouched pages are zero even in memory with old bytes.
    for block in [behind, moved] {
        // SAFETY: No thread uses it any more.
        unsafe { heap.free(block) };
    }
    let used = heap.alloc(layout(4 << 20, 1)).unwrap();
    // SAFETY: It is live and has as many bytes.
    unsafe { used.write_bytes(7, 4 << 20) };
    let source = heap.alloc(layout(2 << 20, 1)).unwrap();
    // SAFETY: As above; no thread uses the other one any more.
    unsafe {
        source.write(9);
        heap.free(used);
    }
    let behind = heap.alloc(layout(64 << 10, 1 << 20)).unwrap();
    // SAFETY: It is live, and the old address is forgotten.
    let moved = unsafe { heap.realloc(source, 3 << 20, 1) }.unwrap();
    for at in 1..2 << 20 {
        // SAFETY: It is live and has as many bytes.
        assert_eq!(unsafe { moved.add(at).read() }, 0, "byte {at}");
    }
    for block in [behind, moved] {
        // SAFETY: No thread uses it any more.
        unsafe { heap.free(block) };
    }
}

fn buffers_and_slices_free_their_memory() {
    let heap = heap();
    let mut buffer = heap.buffer(100).unwrap();
    assert_eq!(*buffer, [0; 100]);
    buffer[99] = 7;
    buffer.resize(5 << 20, 9).unwrap();
    assert_eq!((buffer.len(), buffer[99], buffer[100]), (5 << 20, 7, 9));
    assert_eq!(buffer[(5 << 20) - 1], 9);
    buffer.resize(3, 0).unwrap();
    assert_eq!(*buffer, [0; 3]);
    let mut numbers = heap.slice(1000, 1u64).unwrap();
    numbers[500] = 2;
    assert_eq!(numbers.iter().sum::<u64>(), 1001);
    assert_eq!(numbers.as_ptr().align_offset(align_of::<u64>()), 0);
    assert!(heap.buffer(0).unwrap().is_empty());
    assert!(heap.slice(7, ()).unwrap().len() == 7);
    refused(heap.slice(usize::MAX, 1u64).map(drop), Errno::E2BIG);
    let too_long = 2 * largest_block() as usize;
    refused(heap.buffer(too_long).map(drop), Errno::E2BIG);
    drop(buffer);
    drop(numbers);
    is_empty(&heap);
    // A buffer keeps its heap alive.
    let mut buffer = heap.buffer(1 << 20).unwrap();
    drop(heap);
    buffer.fill(1);
}
