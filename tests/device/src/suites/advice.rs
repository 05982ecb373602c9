// SPDX-License-Identifier: GPL-2.0

//! madvise(), mlock(), userfaultfd and scans of the page tables on a mapping of an arena.

use std::fs::File;

use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use crate::harness::{skip, suite};
use crate::kit::calls::ioctl_at;
use crate::kit::pages::frames;
use crate::kit::process::{fork_child, userfaultfd};
use crate::kit::{alloc, arena, free, numbered_pages, page, stat, View};

suite!("freelist_advice":
    madvise_dontneed_keeps_the_contents,
    madvise_that_would_take_pages_away_is_refused,
    no_advice_takes_or_spoils_a_page,
    madvise_populate_maps_blocks_and_reports_holes,
    mlock_changes_no_bytes_and_keeps_no_free_page,
    a_scan_of_the_page_tables_finds_what_is_mapped,
    guards_cannot_be_installed,
    userfaultfd_does_not_take_faults_over,
    pages_keep_their_bytes_under_every_treatment,
);

/// Prior art: guard_regions dontneed.
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

/// Prior art: guard_regions lazyfree.
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

/// Prior art: guard_regions populate.
fn madvise_populate_maps_blocks_and_reports_holes() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 4 * page as u64);
    for advice in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
        let view = View::shared(&arena, block.offset, 8 * page);
        view.advise_raw(0..4 * page, advice).unwrap();
        let mapped = frames(&view, 0, 8);
        assert!(mapped[..4].iter().all(Option::is_some), "{mapped:?}");
        let result = view.advise_raw(0..8 * page, advice);
        assert_eq!(result, Err(Errno::EFAULT), "after the block");
        assert!(frames(&view, 4 * page, 4).iter().all(Option::is_none));
    }
    free(&arena, block);
}

/// Prior art: guard_regions mlock.
fn mlock_changes_no_bytes_and_keeps_no_free_page() {
    let page = page() as usize;
    let (arena, block, view) = numbered_pages(4);
    view.lock(0..4 * page).unwrap();
    view.unlock(page..2 * page).unwrap();
    // The advice that skips pages that are locked in memory, and the one that skips none.
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

/// Calls PAGEMAP_SCAN with a `struct pm_scan_arg` of linux/fs.h, whose masks are `mask` and `answer`.
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

/// Programs that take snapshots rely on the pages that the kernel reports.
///
/// Prior art: guard_regions pagemap_scan, pagemap.
fn a_scan_of_the_page_tables_finds_what_is_mapped() {
    const PRESENT: u64 = 1 << 3;
    const GUARD: u64 = 1 << 8;
    let arena = arena();
    let len = page() as usize;
    let block = alloc(&arena, 64 * page());
    let view = View::shared(&arena, block.offset, 64 * len);
    view.advise_raw(0..64 * len, libc::MADV_POPULATE_WRITE)
        .unwrap();
    // Each fault also maps pages around it, so holes are made.
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

/// A guard would be in the page table entry of a page of the arena.
///
/// Prior art: guard_regions basic, multi_vma, process_madvise.
fn guards_cannot_be_installed() {
    let page = page() as usize;
    let (arena, block, mut view) = numbered_pages(8);
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

/// Pages that another process would have to provide, by userfaultfd: the kernel serves its own files
/// and anonymous memory alone.
///
/// Prior art: guard_regions uffd.
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

/// Tries every advice, whether the kernel accepts it or not.
///
/// Prior art: pfnmap madvise_disallowed; guard_regions fork_wipeonfork, cold_pageout,
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

/// Applies every treatment to the same page in turn, then checks its neighbours.
fn pages_keep_their_bytes_under_every_treatment() {
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
