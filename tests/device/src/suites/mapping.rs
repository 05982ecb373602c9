// SPDX-License-Identifier: GPL-2.0

//! What is seen through a mapping.

use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use nix::sys::signal::Signal;
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::unistd::Pid;

use crate::harness::{skip, suite};
use crate::kit::pages::frames;
use crate::kit::process::{fork_child, signal_of, spawn_child, userfaultfd};
use crate::kit::view::{ioctl_at, write_from};
use crate::kit::{alloc, arena, free, info, page, refused, stat, View, DEFAULT, KIB, LARGER, MIB};

suite!("freelist_mapping":
    an_offset_without_a_page_is_sigbus,
    a_free_page_shows_zeros_or_the_arenas_own_bytes,
    a_page_with_any_live_block_is_there,
    new_pages_read_as_zero,
    other_arenas_bytes_are_never_seen,
    all_mappings_of_an_arena_show_the_same_bytes,
    a_part_of_the_arena_shows_its_bytes,
    a_freed_blocks_page_stays_mapped_where_it_was,
    contents_outlive_the_mapping,
    the_mapping_outlives_the_descriptor,
    a_hole_divides_a_mapping,
    protections_divide_a_mapping,
    a_forked_child_shares_the_blocks,
    a_child_without_the_mapping_does_not_have_it,
    madvise_dontneed_keeps_the_contents,
    madvise_that_would_take_pages_away_is_refused,
    no_advice_takes_or_spoils_a_page,
    a_page_that_was_read_first_is_the_one_that_is_written,
    madvise_populate_maps_blocks_and_tells_of_holes,
    mlock_spoils_nothing_and_keeps_nothing,
    a_scan_of_the_page_tables_finds_what_is_mapped,
    guards_cannot_be_installed,
    userfaultfd_does_not_take_faults_over,
    other_memory_may_cover_a_part_of_a_mapping,
    another_arena_may_cover_a_part_of_a_mapping,
    a_moved_mapping_shows_the_same_blocks,
    blocks_are_good_for_system_calls,
    other_processes_tools_read_the_blocks,
    every_byte_of_a_block_is_memory,
    pages_stay_what_they_were_under_all_this,
);

/// Peer: kfence test_out_of_bounds_read, test_out_of_bounds_write, test_kmalloc_aligned_oob_read,
/// test_kmalloc_aligned_oob_write, test_invalid_access; kasan kmalloc_big_oob_right,
/// kmalloc_large_oob_right, page_alloc_oob_right, mempool_kmalloc_large_oob_right; vulnerabilities
/// CVE-2023-2008; hardened_malloc overflow_large_1_byte, overflow_large_8_byte; mimalloc_security
/// one_mbyte_overflow, one_mbyte_memcpy_overflow; scudo secondary.VerifyGuardPageOption.
fn an_offset_without_a_page_is_sigbus() {
    let arena = arena();
    let view = View::shared(&arena, 0, info().arena_bytes as usize);
    let last = view.len() - 1;
    for at in [0, MIB as usize, view.len() / 2, last] {
        assert_eq!(view.probe(at), Err(Errno::EFAULT));
        let signal = signal_of(|| view.touch(at));
        assert_eq!(signal, Some(Signal::SIGBUS), "reading {at:#x}");
        let signal = signal_of(|| view.store(at, 1));
        assert_eq!(signal, Some(Signal::SIGBUS), "writing {at:#x}");
    }
    // Next to a block, too: what is behind its last page.
    let block = alloc(&arena, 3 * page());
    let end = (block.offset + block.bytes) as usize;
    view.store(end - 1, 1);
    assert_eq!(view.probe(end), Err(Errno::EFAULT));
    free(&arena, block);
}

/// Free memory may be mapped with its neighbours: a huge page is one thing.
fn a_free_page_shows_zeros_or_the_arenas_own_bytes() {
    let arena = arena();
    for size in [64, page(), 64 * KIB] {
        let block = alloc(&arena, size);
        let view = View::shared(&arena, 0, MIB as usize);
        let at = block.offset as usize;
        free(&arena, block);
        assert_eq!(view.load(at), 0, "of {size} bytes, never touched");
        view.store(at, 0x77);
        assert_eq!(View::shared(&arena, 0, MIB as usize).load(at), 0x77);
        // Once it has left there is nothing.
        arena.trim(0).unwrap();
        let signal = signal_of(|| view.touch(at));
        assert_eq!(signal, Some(Signal::SIGBUS), "of {size} bytes");
        // And what comes there next is new.
        let again = alloc(&arena, size);
        assert_eq!(again.offset, block.offset, "low offsets are used first");
        assert_eq!(view.load(at), 0);
        free(&arena, again);
        arena.trim(0).unwrap();
    }
}

fn a_page_with_any_live_block_is_there() {
    let arena = arena();
    let small: Vec<_> = (0..4).map(|_| alloc(&arena, page() / 4)).collect();
    let view = View::shared(&arena, 0, MIB as usize);
    let start = small.iter().map(|block| block.offset).min().unwrap();
    assert_eq!(start % page(), 0);
    for block in &small[1..] {
        free(&arena, *block);
    }
    // The live block's page is one, whatever else it holds.
    for at in [0, page() / 2, page() - 1] {
        let at = small[0].offset / page() * page() + at;
        view.store(at as usize, 1);
        assert_eq!(view.load(at as usize), 1);
    }
    free(&arena, small[0]);
}

/// Peer: hardened_malloc uninitialized_read_small, uninitialized_read_large.
fn new_pages_read_as_zero() {
    let arena = arena();
    for size in [32, page(), 7 * page(), 256 * KIB] {
        let block = alloc(&arena, size);
        let start = block.offset / page() * page();
        let len = (block.offset + block.bytes).next_multiple_of(page()) - start;
        let view = View::shared(&arena, start, len as usize);
        let bytes = view.bytes(0, view.len());
        assert!(bytes.iter().all(|byte| *byte == 0), "of {size} bytes");
    }
}

/// Peer: kfence test_init_on_free; vulnerabilities CVE-2024-0582.
fn other_arenas_bytes_are_never_seen() {
    let len = 2 * MIB;
    for _ in 0..3 {
        let secret = arena();
        let block = alloc(&secret, len);
        let view = View::shared(&secret, block.offset, len as usize);
        for at in (0..len as usize).step_by(64) {
            view.store(at, 0xa5);
        }
        drop(view);
        drop(secret);

        let other = arena();
        let block = alloc(&other, len);
        let view = View::shared(&other, block.offset, len as usize);
        for at in (0..len as usize).step_by(64) {
            assert_eq!(view.load(at), 0, "byte {at:#x} of a new page");
        }
    }
}

fn all_mappings_of_an_arena_show_the_same_bytes() {
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let views: Vec<View> = (0..3)
        .map(|_| View::shared(&arena, block.offset, block.bytes as usize))
        .collect();
    for at in [0, page() as usize, block.bytes as usize - 1] {
        for (i, view) in views.iter().enumerate() {
            view.store(at, i as u8 + 1);
            for other in &views {
                assert_eq!(other.load(at), i as u8 + 1);
            }
        }
    }
    let prot = ProtFlags::PROT_READ;
    let len = block.bytes as usize;
    let reader = View::map(&arena, block.offset, len, prot, MapFlags::MAP_SHARED).unwrap();
    assert_eq!(reader.load(0), 3);
    let signal = signal_of(|| reader.store(0, 9));
    assert_eq!(signal, Some(Signal::SIGSEGV));
    assert_eq!(views[0].load(0), 3);
}

fn a_part_of_the_arena_shows_its_bytes() {
    let arena = arena();
    let block = alloc(&arena, 16 * page());
    let whole = View::shared(&arena, 0, 64 * MIB as usize);
    for i in 0..16 {
        let at = block.offset + i * page();
        whole.store(at as usize, i as u8 + 1);
        let part = View::shared(&arena, at, page() as usize);
        assert_eq!(part.load(0), i as u8 + 1);
    }
    free(&arena, block);
}

/// A program that uses a block after its release hurts itself alone: no
/// signal, and never a page of someone else.
///
/// Peer: kasan kmalloc_large_uaf, page_alloc_uaf, mempool_kmalloc_large_uaf,
/// mempool_page_alloc_uaf; vulnerabilities CVE-2024-0582; hardened_malloc read_after_free_small.
fn a_freed_blocks_page_stays_mapped_where_it_was() {
    let arena = arena();
    for size in [64, page(), 64 * KIB] {
        let block = alloc(&arena, size);
        let start = block.offset / page() * page();
        let view = View::shared(&arena, start, block.bytes.next_multiple_of(page()) as usize);
        view.store(0, 0x77);
        free(&arena, block);
        assert_eq!(signal_of(|| view.touch(0)), None, "of {size} bytes");
        assert_eq!(view.load(0), 0x77);
        view.store(0, 0x78);
        let again = arena.alloc(size, LARGER).unwrap();
        assert_eq!(again, block, "low offsets are used first");
        assert_eq!(view.load(0), 0x78, "this arena's own bytes");
        free(&arena, again);
    }
}

fn contents_outlive_the_mapping() {
    let arena = arena();
    let block = alloc(&arena, 3 * page());
    let len = block.bytes as usize;
    for round in 1..5u8 {
        let view = View::shared(&arena, block.offset, len);
        for at in [0, len / 2, len - 1] {
            assert_eq!(view.load(at), round - 1);
            view.store(at, round);
        }
    }
    free(&arena, block);
}

fn the_mapping_outlives_the_descriptor() {
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    view.store(0, 1);
    drop(arena);
    // Also pages that were not touched before.
    for at in (0..view.len()).step_by(page() as usize) {
        view.store(at + 1, 2);
    }
    assert_eq!((view.load(0), view.load(1)), (1, 2));
}

/// Peer: pfnmap munmap_split; guard_regions munmap; vulnerabilities CVE-2025-38563.
fn a_hole_divides_a_mapping() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 8 * page as u64);
    let mut view = View::shared(&arena, block.offset, 8 * page);
    for i in 0..4 {
        view.store(i * page, i as u8 + 1);
    }
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

/// Peer: guard_regions mprotect, split_merge; vulnerabilities CVE-2025-38563.
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

/// Peer: guard_regions fork, fork_cow; pfnmap fork; scudo wrappers_c.Fork.
fn a_forked_child_shares_the_blocks() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let other = alloc(&arena, 2 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    view.store(0, 1);
    spawn_child(|| {
        assert_eq!(view.load(0), 1, "written before the fork");
        view.store(1, 2);
        // A page that the parent has not touched.
        view.store(page() as usize, 3);
        // The arena is the same one.
        arena.alloc(100, DEFAULT).unwrap();
        arena.free(other.offset).unwrap();
    })
    .succeed();
    assert_eq!(view.load(1), 2);
    assert_eq!(view.load(page() as usize), 3);
    assert_eq!(stat(&arena).live_blocks, 2, "the child's is live");
    refused(arena.free(other.offset), Errno::ENOENT);
    free(&arena, block);
}

/// Peer: guard_regions fork.
fn a_child_without_the_mapping_does_not_have_it() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, block.offset, page() as usize);
    view.store(0, 1);
    view.advise(0..view.len(), MmapAdvise::MADV_DONTFORK)
        .unwrap();
    let signal = signal_of(|| view.touch(0));
    assert_eq!(signal, Some(Signal::SIGSEGV));
    assert_eq!(view.load(0), 1, "the parent has it still");
}

/// Peer: guard_regions dontneed.
fn madvise_dontneed_keeps_the_contents() {
    let arena = arena();
    let block = alloc(&arena, 8 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let pages = (0..view.len()).step_by(page() as usize);
    for at in pages.clone() {
        view.store(at, (at / page() as usize) as u8 + 1);
    }
    view.advise(0..view.len(), MmapAdvise::MADV_DONTNEED)
        .unwrap();
    for at in pages {
        assert_eq!(view.load(at), (at / page() as usize) as u8 + 1);
    }
    free(&arena, block);
}

/// Peer: guard_regions lazyfree.
fn madvise_that_would_take_pages_away_is_refused() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, block.offset, page() as usize);
    view.store(0, 1);
    for advice in [MmapAdvise::MADV_REMOVE, MmapAdvise::MADV_FREE] {
        let result = view.advise(0..view.len(), advice);
        assert!(result.is_err(), "{advice:?}: {result:?}");
    }
    assert_eq!(view.load(0), 1);
    free(&arena, block);
}

/// A read comes first, so nothing that is shared by all may stand in for the page.
///
/// Peer: guard_regions anon_zeropage.
fn a_page_that_was_read_first_is_the_one_that_is_written() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 4 * page as u64);
    let views = [0, 1].map(|_| View::shared(&arena, block.offset, 4 * page));
    for at in (0..4 * page).step_by(page) {
        assert_eq!((views[0].load(at), views[1].load(at)), (0, 0));
        let before = frames(&views[0], at, 1);
        assert_eq!(before, frames(&views[1], at, 1), "one page for both");
        views[0].store(at, 7);
        assert_eq!(views[1].load(at), 7);
        assert_eq!(before, frames(&views[0], at, 1), "the page that was read");
    }
    free(&arena, block);
}

/// Peer: guard_regions populate.
fn madvise_populate_maps_blocks_and_tells_of_holes() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 4 * page as u64);
    for advice in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
        let view = View::shared(&arena, block.offset, 8 * page);
        view.advise_raw(0..4 * page, advice).unwrap();
        let mapped = frames(&view, 0, 8);
        assert!(mapped[..4].iter().all(Option::is_some), "{mapped:?}");
        let result = view.advise_raw(0..8 * page, advice);
        assert_eq!(result, Err(Errno::EFAULT), "behind the block");
        assert!(frames(&view, 4 * page, 4).iter().all(Option::is_none));
    }
    free(&arena, block);
}

/// Peer: guard_regions mlock.
fn mlock_spoils_nothing_and_keeps_nothing() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 4 * page as u64);
    let view = View::shared(&arena, block.offset, 4 * page);
    for i in 0..4 {
        view.store(i * page, i as u8 + 1);
    }
    view.lock(0..4 * page).unwrap();
    view.unlock(page..2 * page).unwrap();
    // The advice that pages locked in memory are spared from, and the one that spares none.
    let _ = view.advise_raw(0..4 * page, libc::MADV_DONTNEED);
    let _ = view.advise_raw(0..4 * page, libc::MADV_DONTNEED_LOCKED);
    for i in 0..4 {
        assert_eq!(view.load(i * page), i as u8 + 1, "page {i}");
    }
    free(&arena, block);
    assert_eq!(arena.trim(0).unwrap(), 4 * page as u64);
    for i in 0..4 {
        assert_eq!(view.probe(i * page), Err(Errno::EFAULT), "page {i}");
    }
    view.unlock(0..4 * page).unwrap();
}

/// struct pm_scan_arg of linux/fs.h; what is wanted is in `mask` and `answer`.
fn scan(view: &View, pages: usize, mask: u64, answer: u64) -> Vec<[u64; 3]> {
    const PAGEMAP_SCAN: u32 = 0xc060_6610;
    let ranges = View::anonymous(16 * 24);
    let start = view.address(0).get() as u64;
    let words = [
        96,
        0,
        start,
        start + pages as u64 * page(),
        0,
        ranges.address(0).get() as u64,
        16,
        0,
        0,
        mask,
        0,
        answer,
    ];
    let words: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    let argument = View::anonymous(96);
    argument.set_bytes(0, &words);
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let found = ioctl_at(&pagemap, PAGEMAP_SCAN, argument.address(0)).expect("PAGEMAP_SCAN");
    let word = |at| u64::from_ne_bytes(ranges.bytes(at, 8).try_into().expect("8 bytes"));
    (0..found as usize)
        .map(|i| [0, 8, 16].map(|at| word(i * 24 + at)))
        .map(|[from, to, kind]| [(from - start) / page(), (to - start) / page(), kind])
        .collect()
}

/// Which pages are there is what programs that take snapshots go by.
///
/// Peer: guard_regions pagemap_scan, pagemap.
fn a_scan_of_the_page_tables_finds_what_is_mapped() {
    const PRESENT: u64 = 1 << 3;
    const GUARD: u64 = 1 << 8;
    let arena = arena();
    let len = page() as usize;
    let block = alloc(&arena, 64 * page());
    let view = View::shared(&arena, block.offset, 64 * len);
    view.advise_raw(0..64 * len, libc::MADV_POPULATE_WRITE)
        .unwrap();
    // Faults map some around them: holes are made.
    for hole in [5..40, 41..64] {
        view.advise_raw(hole.start * len..hole.end * len, libc::MADV_DONTNEED)
            .unwrap();
    }
    let found = scan(&view, 64, PRESENT, PRESENT);
    let expected: Vec<[u64; 3]> = {
        let mapped = frames(&view, 0, 64);
        let mut runs: Vec<[u64; 3]> = Vec::new();
        for i in (0..64).filter(|i| mapped[*i as usize].is_some()) {
            match runs.last_mut() {
                Some(run) if run[1] == i => run[1] += 1,
                _ => runs.push([i, i + 1, PRESENT]),
            }
        }
        runs
    };
    assert_eq!(expected, [[0, 5, PRESENT], [40, 41, PRESENT]]);
    assert_eq!(found, expected);
    assert!(scan(&view, 64, GUARD, GUARD).is_empty());
    free(&arena, block);
}

/// Guards would stand where the arena's pages come and go.
///
/// Peer: guard_regions basic, multi_vma, process_madvise.
fn guards_cannot_be_installed() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 8 * page as u64);
    let mut view = View::shared(&arena, block.offset, 8 * page);
    for i in 0..8 {
        view.store(i * page, i as u8 + 1);
    }
    // In one mapping, over the borders of several, and over a hole.
    let holds = |view: &View, of: &str| {
        for range in [0..8 * page, page..2 * page, 2 * page..7 * page] {
            let result = view.advise_raw(range.clone(), GUARD_INSTALL);
            assert_eq!(result, Err(Errno::EINVAL), "{range:?} of {of}");
            let _ = view.advise_raw(range, GUARD_REMOVE);
        }
        for i in 0..8 {
            assert_eq!(view.load(i * page), i as u8 + 1, "page {i} of {of}");
        }
    };
    holds(&view, "one mapping");
    let ranges = [0..page, 4 * page..8 * page];
    let result = view.advise_ranges(&ranges, GUARD_INSTALL);
    assert_eq!(result, Err(Errno::EINVAL));
    view.protect(3 * page..5 * page, ProtFlags::PROT_READ)
        .unwrap();
    holds(&view, "three mappings");
    view.unmap(5 * page..6 * page).unwrap();
    assert!(view
        .advise_raw(0..page, GUARD_INSTALL)
        .is_err_and(|errno| errno == Errno::EINVAL));
    assert_eq!((view.load(4 * page), view.load(6 * page)), (5, 7));
    free(&arena, block);
}

/// Pages that another process would have to bring, by userfaultfd: the kernel serves its own files
/// and anonymous memory alone.
///
/// Peer: guard_regions uffd.
fn userfaultfd_does_not_take_faults_over() {
    const API: u32 = 0xc018_aa3f;
    const REGISTER: u32 = 0xc020_aa00;
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let Some(faults) = userfaultfd() else {
        skip("this kernel has no userfaultfd");
    };
    let call = |request, words: &[u64]| {
        let argument = View::anonymous(32);
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        argument.set_bytes(0, &words);
        ioctl_at(&faults, request, argument.address(0))
    };
    call(API, &[0xaa, 0, 0]).expect("UFFDIO_API");
    // Missing pages, protected ones, and ones of which others have a copy.
    for mode in [1, 2, 4] {
        let start = view.address(0).get() as u64;
        let result = call(REGISTER, &[start, block.bytes, mode, 0]);
        assert_eq!(result, Err(Errno::EINVAL), "mode {mode}");
    }
    view.store(0, 1);
    assert_eq!(view.load(0), 1);
    free(&arena, block);
}

/// MADV_GUARD_INSTALL and _REMOVE of linux/mman.h: touching is SIGSEGV between.
const GUARD_INSTALL: i32 = 102;
const GUARD_REMOVE: i32 = 103;

/// Every advice there is, whether it is taken or not.
///
/// Peer: pfnmap madvise_disallowed; guard_regions fork_wipeonfork, cold_pageout,
/// madvise_sequential, collapse.
fn no_advice_takes_or_spoils_a_page() {
    let arena = arena();
    let block = alloc(&arena, 8 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let pages = || (0..8).map(|i| i * page() as usize);
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for advice in (0..=26).chain([102, 103, 104]) {
        for at in pages() {
            view.store(at, at.to_le_bytes()[1] ^ advice as u8);
        }
        // The middle only, so that mappings are divided by it.
        let middle = 2 * page() as usize..6 * page() as usize;
        match view.advise_raw(middle.clone(), advice) {
            Ok(()) => taken.push(advice),
            Err(_) => refused.push(advice),
        }
        if advice == GUARD_INSTALL {
            let _ = view.advise_raw(middle, GUARD_REMOVE);
        }
        for at in pages() {
            let byte = at.to_le_bytes()[1] ^ advice as u8;
            assert_eq!(view.load(at), byte, "page {at:#x} after advice {advice}");
        }
    }
    eprintln!("taken: {taken:?}; refused: {refused:?}");
    for advice in [libc::MADV_FREE, libc::MADV_REMOVE, libc::MADV_WIPEONFORK] {
        assert!(refused.contains(&advice), "{advice}");
    }
    assert!(taken.contains(&libc::MADV_DONTNEED));
    assert_eq!(stat(&arena).held_bytes, 8 * page());
    free(&arena, block);
}

/// Peer: pfnmap munmap_split; guard_regions munmap, multi_vma.
fn other_memory_may_cover_a_part_of_a_mapping() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 6 * page as u64);
    let view = View::shared(&arena, block.offset, 6 * page);
    for i in 0..6 {
        view.store(i * page, i as u8 + 1);
    }
    view.cover(2 * page..4 * page).unwrap();
    for (i, byte) in [1, 2, 0, 0, 5, 6].into_iter().enumerate() {
        assert_eq!(view.load(i * page), byte, "page {i}");
        view.store(i * page + 1, 9);
    }
    // And the arena over that again, elsewhere in it.
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
    // Unmapping what one arena gives back leaves the other's alone.
    free(&one, blocks[0]);
    one.trim(0).unwrap();
    assert_eq!(view.probe(0), Err(Errno::EFAULT));
    assert_eq!((view.load(page), view.load(2 * page)), (2, 2));
    assert_eq!(view.probe(3 * page), Err(Errno::EFAULT));
    free(&two, blocks[1]);
    two.trim(0).unwrap();
    assert_eq!(view.probe(page), Err(Errno::EFAULT));
}

/// Peer: pfnmap mremap_fixed; guard_regions mremap_move.
fn a_moved_mapping_shows_the_same_blocks() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 8 * page as u64);
    let mut view = View::shared(&arena, block.offset, 8 * page);
    for i in 0..4 {
        view.store(i * page, i as u8 + 1);
    }
    let before = view.address(0).get();
    view.move_to_elsewhere(8 * page).unwrap();
    assert_ne!(view.address(0).get(), before);
    for i in 0..8 {
        let byte = if i < 4 { i as u8 + 1 } else { 0 };
        assert_eq!(view.load(i * page), byte, "page {i}");
    }
    // What leaves is found where it is mapped now.
    free(&arena, block);
    arena.trim(0).unwrap();
    for i in 0..8 {
        assert_eq!(view.probe(i * page), Err(Errno::EFAULT), "page {i}");
    }
}

fn blocks_are_good_for_system_calls() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    view.set_bytes(page() as usize - 3, b"across");
    // Out of a block, into a file ...
    let path = std::env::temp_dir().join(format!("freelist-{}", std::process::id()));
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let from = view.address(page() as usize - 3);
    assert_eq!(write_from(&file, from, 6), Ok(6));
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "across");
    // ... and a pipe.
    assert_eq!(view.probe(page() as usize), Ok(b'o'));
    // Where no page is, the call fails and the process lives.
    let absent = View::shared(&arena, 32 * MIB, page() as usize);
    assert_eq!(write_from(&file, absent.address(0), 6), Err(Errno::EFAULT));
    free(&arena, block);
}

fn other_processes_tools_read_the_blocks() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, block.offset, page() as usize);
    view.set_bytes(0, b"seen");
    let mut bytes = [0; 4];
    let remote = RemoteIoVec {
        base: view.address(0).get(),
        len: bytes.len(),
    };
    let own = Pid::this();
    process_vm_readv(own, &mut [IoSliceMut::new(&mut bytes)], &[remote]).unwrap();
    assert_eq!(&bytes, b"seen");

    let mut memory = File::open("/proc/self/mem").unwrap();
    memory
        .seek(SeekFrom::Start(view.address(0).get() as u64))
        .unwrap();
    let mut bytes = [0; 4];
    memory.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"seen");
    free(&arena, block);
}

fn every_byte_of_a_block_is_memory() {
    let arena = arena();
    for size in [32, 64, 2 * KIB, 4 * KIB, 3 * page() - 1] {
        let block = alloc(&arena, size);
        let start = block.offset / page() * page();
        let into = (block.offset - start) as usize;
        let len = (into as u64 + block.bytes).next_multiple_of(page());
        let view = View::shared(&arena, start, len as usize);
        let bytes: Vec<u8> = (0..block.bytes)
            .map(|at| (at * 7 + at / 256) as u8)
            .collect();
        view.set_bytes(into, &bytes);
        assert_eq!(view.bytes(into, bytes.len()), bytes);
        free(&arena, block);
    }
}

/// The same page under every treatment, in a row, then its neighbours.
fn pages_stay_what_they_were_under_all_this() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 4 * page as u64);
    let mut view = View::shared(&arena, block.offset, 4 * page);
    for i in 0..4 {
        view.store(i * page, 0x40 + i as u8);
    }
    view.advise(0..page, MmapAdvise::MADV_DONTNEED).unwrap();
    view.protect(0..2 * page, ProtFlags::PROT_READ).unwrap();
    let status = fork_child(|| assert_eq!(view.load(0), 0x40));
    assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)));
    view.unmap(page..2 * page).unwrap();
    assert_eq!(view.load(2 * page), 0x42);
    drop(view);
    let view = View::shared(&arena, block.offset, 4 * page);
    for i in 0..4 {
        assert_eq!(view.load(i * page), 0x40 + i as u8);
    }
    free(&arena, block);
}
