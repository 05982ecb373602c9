// SPDX-License-Identifier: GPL-2.0

//! Blocks that are mapped before they are touched, and faults that map more
//! than one page.

use std::ops::Range;

use freelist::{Arena, Block, Flags};
use nix::sys::mman::{MmapAdvise, ProtFlags};

use crate::harness::suite;
use crate::kit::process::spawn_child;
use crate::kit::{
    alloc, arena, check, free, largest_folio, page, pages, stat, system_page, View, DEFAULT, KIB,
    MIB,
};

suite!("freelist_populate":
    a_populated_block_is_mapped_before_it_is_touched,
    without_populate_no_page_is_mapped,
    populate_maps_the_unmapped_pages_of_a_reused_block,
    blocks_of_a_batch_are_mapped,
    a_populated_block_with_zero_and_header_is_zero_after_its_header,
    without_a_mapping_populate_maps_nothing,
    holes_and_other_protections_are_no_obstacle,
    populate_finds_another_mapping_when_the_last_is_unmapped,
    the_callers_own_mapping_is_populated,
    a_refused_request_maps_nothing,
    a_fault_maps_the_backed_pages_around_it,
    a_fault_stays_within_its_mapping,
);

const FLAGS: Flags = DEFAULT.union(Flags::POPULATE);
const SIZES: [u64; 7] = [1, 100, 4 * KIB, 20_000, 64 * KIB, 300 * KIB, 3 * MIB];

/// Returns all of the arena's first bytes.
fn view(arena: &Arena) -> View {
    View::shared(arena, 0, 64 * MIB as usize)
}

/// Returns the pages that a block lies in, of a view of the whole arena.
fn pages_of(block: Block) -> Range<usize> {
    let end = (block.offset + block.bytes).div_ceil(page());
    (block.offset / page()) as usize..end as usize
}

/// Returns for each of some pages whether it is mapped.
fn mapped(view: &View, pages: Range<usize>) -> Vec<bool> {
    let frames = pages::frames(view, pages.start * system_page(), pages.len());
    frames.iter().map(Option::is_some).collect()
}

#[track_caller]
fn all_mapped(view: &View, pages: Range<usize>) {
    let mapped = mapped(view, pages.clone());
    assert!(mapped.iter().all(|yes| *yes), "{pages:?}: {mapped:?}");
}

#[track_caller]
fn none_mapped(view: &View, pages: Range<usize>) {
    let mapped = mapped(view, pages.clone());
    assert!(!mapped.iter().any(|yes| *yes), "{pages:?}: {mapped:?}");
}

/// Prior art: guard_regions pagemap.
fn a_populated_block_is_mapped_before_it_is_touched() {
    for size in SIZES {
        let arena = arena();
        let view = view(&arena);
        // The block does not begin where the mapping does.
        let before = alloc(&arena, 40_000);
        let block = arena.alloc(size, FLAGS).unwrap();
        let here = pages_of(block);
        all_mapped(&view, here.clone());
        none_mapped(&view, here.end..here.end + 20);
        if size > page() {
            none_mapped(&view, pages_of(before));
        }
        // The memory is that of this block.
        view.store(block.offset as usize, 1);
        assert_eq!(view.load(block.offset as usize), 1);
    }
}

/// Otherwise the test above would prove nothing.
fn without_populate_no_page_is_mapped() {
    let arena = arena();
    let view = view(&arena);
    for size in SIZES {
        none_mapped(&view, pages_of(alloc(&arena, size)));
    }
}

fn populate_maps_the_unmapped_pages_of_a_reused_block() {
    let arena = arena();
    let view = view(&arena);
    let block = arena.alloc(300 * KIB, FLAGS).unwrap();
    let at = block.offset as usize;
    view.set_bytes(at, b"kept");
    for dropped in [0..0, 0..10, 60..75, 3..4, 0..75] {
        let bytes = dropped.start * system_page()..dropped.end * system_page();
        if !bytes.is_empty() {
            let range = at + bytes.start..at + bytes.end;
            view.advise(range, MmapAdvise::MADV_DONTNEED).unwrap();
        }
        free(&arena, block);
        assert_eq!(arena.alloc(300 * KIB, FLAGS).unwrap().offset, block.offset);
        all_mapped(&view, pages_of(block));
        assert_eq!(view.bytes(at, 4), b"kept");
    }
    free(&arena, block);
    arena.trim(0).unwrap();
    none_mapped(&view, pages_of(block));
    let block = arena.alloc(300 * KIB, FLAGS).unwrap();
    all_mapped(&view, pages_of(block));
}

fn blocks_of_a_batch_are_mapped() {
    for size in [100, 4 * KIB, 20_000] {
        let arena = arena();
        let view = view(&arena);
        let mut offsets = [0; 150];
        let done = arena.alloc_bulk(size, FLAGS, &mut offsets).unwrap();
        assert_eq!(done, offsets.len());
        for offset in offsets {
            all_mapped(
                &view,
                pages_of(Block {
                    offset,
                    bytes: size,
                }),
            );
        }
    }
}

fn a_populated_block_with_zero_and_header_is_zero_after_its_header() {
    let arena = arena();
    let view = view(&arena);
    let flags = FLAGS | Flags::ZERO | Flags::HEADER;
    for size in [29, 5 * page()] {
        let block = arena.alloc(size, flags).unwrap();
        all_mapped(&view, pages_of(block));
        let bytes = block.bytes as usize;
        view.set_bytes(block.offset as usize, &vec![7; bytes]);
        free(&arena, block);
        let block = arena.alloc(size, flags).unwrap();
        let all = view.bytes(block.offset as usize, bytes);
        assert!(all.iter().all(|byte| *byte == 0));
        free(&arena, block);
    }
    let pages = largest_folio().min(9 * page());
    let block = arena.alloc(pages, FLAGS | Flags::CONTIG).unwrap();
    all_mapped(&view, pages_of(block));
}

fn without_a_mapping_populate_maps_nothing() {
    let arena = arena();
    let block = arena.alloc(MIB, FLAGS).unwrap();
    let view = view(&arena);
    none_mapped(&view, pages_of(block));
    drop(view);
    // The arena was unmapped, and other memory is mapped at its address.
    let other = View::anonymous(64 * MIB as usize);
    let again = arena.alloc(MIB, FLAGS).unwrap();
    none_mapped(&other, 0..256);
    free(&arena, block);
    free(&arena, again);
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn holes_and_other_protections_are_no_obstacle() {
    let arena = arena();
    let mut view = view(&arena);
    let block = alloc(&arena, 100 * page());
    let first = pages_of(block).start;
    let range = |pages: Range<usize>| {
        (first + pages.start) * system_page()..(first + pages.end) * system_page()
    };
    view.protect(range(10..20), ProtFlags::PROT_READ).unwrap();
    view.protect(range(30..40), ProtFlags::PROT_NONE).unwrap();
    view.unmap(range(50..60)).unwrap();
    free(&arena, block);
    assert_eq!(
        arena.alloc(100 * page(), FLAGS).unwrap().offset,
        block.offset
    );
    for pages in [0..30, 40..50, 60..100] {
        all_mapped(&view, first + pages.start..first + pages.end);
    }
    none_mapped(&view, first + 30..first + 40);
    // A protected page stays protected, populated or not.
    view.touch(range(10..20).start);
    assert!(crate::kit::process::signal_of(|| view.store(range(10..20).start, 1)).is_some());
    check();
}

fn populate_finds_another_mapping_when_the_last_is_unmapped() {
    let arena = arena();
    let first = view(&arena);
    let block = alloc(&arena, 20 * page());
    let start = pages_of(block).start;
    // A mapping of a part of the block, with its beginning at an address of its own.
    let part = View::shared(&arena, block.offset + 4 * page(), 8 * system_page());
    free(&arena, block);
    let block = arena.alloc(20 * page(), FLAGS).unwrap();
    all_mapped(&first, start..start + 20);
    drop(part);
    let second = view(&arena);
    let other = arena.alloc(20 * page(), FLAGS).unwrap();
    all_mapped(&second, pages_of(other));
    drop(second);
    let third = arena.alloc(20 * page(), FLAGS).unwrap();
    all_mapped(&first, pages_of(third));
    let fourth = arena.alloc(20 * page(), FLAGS).unwrap();
    all_mapped(&first, pages_of(fourth));
    free(&arena, block);
}

fn the_callers_own_mapping_is_populated() {
    let arena = arena();
    let view = view(&arena);
    let block = arena.alloc(20 * page(), FLAGS).unwrap();
    all_mapped(&view, pages_of(block));
    let start = pages_of(block).end;
    spawn_child(|| {
        let block = arena.alloc(32 * page(), FLAGS).unwrap();
        assert!(pages_of(block).start >= start);
        all_mapped(&view, pages_of(block));
    })
    .succeed();
    none_mapped(&view, start..start + 100);
}

fn a_refused_request_maps_nothing() {
    let arena = arena();
    let view = view(&arena);
    arena.set_limit(10 * page()).unwrap();
    assert!(arena.alloc(11 * page(), FLAGS).is_err());
    assert!(arena.alloc(page(), Flags::POPULATE).is_err());
    none_mapped(&view, 0..64);
}

/// Prior art: guard_regions fault_around.
fn a_fault_maps_the_backed_pages_around_it() {
    for write in [false, true] {
        let arena = arena();
        let view = view(&arena);
        let touch = |page: usize| match write {
            true => view.store(page * system_page(), 1),
            false => view.touch(page * system_page()),
        };
        let block = alloc(&arena, 40 * page());
        let first = pages_of(block).start;
        assert_eq!(first % 16, 0);
        // A fault maps the 16 pages around it, by their addresses.
        let skew = view.address(0).get() / system_page() % 16;
        let around = |page: usize| {
            let end = (page + skew) / 16 * 16 + 16 - skew;
            end.saturating_sub(16)..end
        };
        touch(first + 21);
        all_mapped(&view, around(first + 21));
        // After the block no page has memory.
        touch(first + 38);
        let around_last = around(first + 38);
        all_mapped(&view, around_last.start..around_last.end.min(first + 40));
        none_mapped(&view, first + 40..first + 64);
        // Single pages, each a block by itself.
        let blocks: Vec<Block> = (0..32).map(|_| alloc(&arena, page())).collect();
        let pages: Vec<usize> = blocks.iter().map(|block| pages_of(*block).start).collect();
        let window = around(pages[20]);
        touch(pages[20]);
        for page in pages {
            if window.contains(&page) {
                all_mapped(&view, page..page + 1);
            }
        }
    }
}

/// Prior art: guard_regions fault_around; vulnerabilities CVE-2023-2008.
fn a_fault_stays_within_its_mapping() {
    let arena = arena();
    let block = alloc(&arena, 16 * page());
    let view = View::shared(&arena, block.offset + 3 * page(), 5 * system_page());
    none_mapped(&view, 0..5);
    view.touch(2 * system_page());
    all_mapped(&view, 2..3);
    view.advise_raw(0..view.len(), nix::libc::MADV_DONTNEED)
        .unwrap();
    view.store(2 * system_page(), 1);
    // The range of one page table, with entries of 8 bytes.
    let table = |page: usize| {
        let address = view.address(page * system_page()).get();
        address / (system_page() * system_page() / 8)
    };
    for page in (0..5).filter(|page| table(*page) == table(2)) {
        all_mapped(&view, page..page + 1);
    }
    check();
}
