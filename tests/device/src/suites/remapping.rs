// SPDX-License-Identifier: GPL-2.0

//! Mappings of an arena that are divided, moved, or covered by another one.

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;

use crate::harness::suite;
use crate::kit::process::signal_of;
use crate::kit::{alloc, arena, free, numbered_pages, page, partly_numbered_pages, View};

suite!("freelist_remapping":
    a_hole_divides_a_mapping,
    protections_divide_a_mapping,
    other_memory_may_cover_a_part_of_a_mapping,
    another_arena_may_cover_a_part_of_a_mapping,
    a_moved_mapping_shows_the_same_blocks,
);

/// Prior art: pfnmap munmap_split; guard_regions munmap; vulnerabilities CVE-2025-38563.
fn a_hole_divides_a_mapping() {
    let page = page() as usize;
    let (arena, block, mut view) = partly_numbered_pages(8, 4);
    view.unmap(2 * page..4 * page).unwrap();
    assert!(!view.is_mapped(2 * page) && !view.is_mapped(3 * page));
    // Both sides work, with pages that were mapped before and new ones.
    assert_eq!((view.load(0), view.load(page)), (1, 2));
    view.store(7 * page, 8);
    assert_eq!(view.load(7 * page), 8);
    view.unmap(0..page).unwrap();
    view.unmap(7 * page..8 * page).unwrap();
    view.store(6 * page, 7);
    let again = View::shared(&arena, block.offset, 8 * page);
    for (i, value) in [1, 2, 3, 4, 0, 0, 7, 8].into_iter().enumerate() {
        assert_eq!(again.load(i * page), value, "page {i}");
    }
    free(&arena, block);
}

/// Prior art: guard_regions mprotect, split_merge; vulnerabilities CVE-2025-38563.
fn protections_divide_a_mapping() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 4 * page as u64);
    let view = View::shared(&arena, block.offset, 4 * page);
    view.store(page, 5);
    view.protect(page..2 * page, ProtFlags::PROT_NONE).unwrap();
    let signal = signal_of(|| view.touch(page));
    assert_eq!(signal, Some(Signal::SIGSEGV));
    view.protect(page..2 * page, ProtFlags::PROT_READ).unwrap();
    assert_eq!(view.load(page), 5);
    let signal = signal_of(|| view.store(page, 6));
    assert_eq!(signal, Some(Signal::SIGSEGV));
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    view.protect(page..2 * page, both).unwrap();
    view.store(page, 6);
    view.store(3 * page, 7);
    assert_eq!((view.load(page), view.load(3 * page)), (6, 7));
    free(&arena, block);
}

/// Prior art: pfnmap munmap_split; guard_regions munmap, multi_vma.
fn other_memory_may_cover_a_part_of_a_mapping() {
    let page = page() as usize;
    let (arena, block, view) = numbered_pages(6);
    view.cover(2 * page..4 * page).unwrap();
    for (i, byte) in [1, 2, 0, 0, 5, 6].into_iter().enumerate() {
        assert_eq!(view.load(i * page), byte, "page {i}");
        view.store(i * page + 1, 9);
    }
    // Then the arena over that again, at another address in it.
    let at = block.offset + 5 * page as u64;
    view.cover_with(3 * page..4 * page, &arena, at).unwrap();
    assert_eq!((view.load(3 * page), view.load(3 * page + 1)), (6, 9));
    let again = View::shared(&arena, block.offset, 6 * page);
    for (i, byte) in [9, 9, 0, 0, 9, 9].into_iter().enumerate() {
        assert_eq!(again.load(i * page), i as u8 + 1);
        assert_eq!(again.load(i * page + 1), byte, "page {i}");
    }
    free(&arena, block);
}

fn another_arena_may_cover_a_part_of_a_mapping() {
    let (one, two) = (arena(), arena());
    let page = page() as usize;
    let blocks = [&one, &two].map(|arena| alloc(arena, 4 * page as u64));
    let view = View::shared(&one, blocks[0].offset, 4 * page);
    for i in 0..4 {
        view.store(i * page, 1);
    }
    view.cover_with(page..3 * page, &two, blocks[1].offset)
        .unwrap();
    for i in 0..4 {
        assert_eq!(view.load(i * page), [1, 0, 0, 1][i]);
        view.store(i * page, 2);
    }
    // A release of one arena leaves the other's mapping unchanged.
    free(&one, blocks[0]);
    one.trim(0).unwrap();
    assert_eq!(view.probe(0), Err(Errno::EFAULT));
    assert_eq!((view.load(page), view.load(2 * page)), (2, 2));
    assert_eq!(view.probe(3 * page), Err(Errno::EFAULT));
    free(&two, blocks[1]);
    two.trim(0).unwrap();
    assert_eq!(view.probe(page), Err(Errno::EFAULT));
}

/// Prior art: pfnmap mremap_fixed; guard_regions mremap_move.
fn a_moved_mapping_shows_the_same_blocks() {
    let page = page() as usize;
    let (arena, block, mut view) = partly_numbered_pages(8, 4);
    let before = view.address(0).get();
    view.move_to_elsewhere(8 * page).unwrap();
    assert_ne!(view.address(0).get(), before);
    for i in 0..8 {
        let byte = if i < 4 { i as u8 + 1 } else { 0 };
        assert_eq!(view.load(i * page), byte, "page {i}");
    }
    // Pages that are trimmed are unmapped at their present addresses.
    free(&arena, block);
    arena.trim(0).unwrap();
    for i in 0..8 {
        assert_eq!(view.probe(i * page), Err(Errno::EFAULT), "page {i}");
    }
}
