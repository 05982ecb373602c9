// SPDX-License-Identifier: GPL-2.0

//! Pages whose memory is bad: of live blocks, of free memory, and those that are taken offline.

use freelist::Flags;
use nix::sys::signal::Signal;

use crate::harness::{skip, suite};
use crate::kit::process::signal_of;
use crate::kit::{alloc, arena, check, free, page, stat, system_page, View, DEFAULT, KIB, MIB};

suite!("freelist_bad_pages":
    a_bad_page_of_a_live_block_is_sigbus_and_no_other,
    a_poisoned_free_page_is_never_allocated,
    a_page_that_is_taken_offline_keeps_its_bytes,
);

/// MADV_HWPOISON and MADV_SOFT_OFFLINE of linux/mman.h.
const HWPOISON: i32 = 100;
pub(super) const SOFT_OFFLINE: i32 = 101;

/// Poisons the page of byte `at`. A process that touches it is killed.
#[track_caller]
pub(super) fn poison(view: &View, at: usize) {
    let page = system_page();
    let status = crate::kit::process::fork_child(|| {
        view.touch(at);
        if view.advise_raw(at..at + page, HWPOISON).is_err() {
            // The signals are distinguished below.
            nix::sys::signal::raise(Signal::SIGKILL).unwrap();
        }
    });
    use nix::sys::wait::WaitStatus::{Exited, Signaled};
    match status {
        Signaled(_, Signal::SIGBUS, _) | Exited(_, 0) => {}
        Signaled(_, Signal::SIGKILL, _) => skip("this kernel knows no bad pages"),
        status => panic!("{status:?}"),
    }
}

fn a_bad_page_of_a_live_block_is_sigbus_and_no_other() {
    let cases = [
        (8 * MIB, 700, DEFAULT),
        (64 * KIB, 3, DEFAULT),
        (64 * KIB, 5, DEFAULT | Flags::CONTIG),
        (page(), 0, DEFAULT),
        (page() / 4, 0, DEFAULT),
    ];
    for (size, bad, flags) in cases {
        let arena = arena();
        let view = View::shared(&arena, 0, 16 * MIB as usize);
        let beside = alloc(&arena, 64 * KIB);
        let block = arena.alloc(size, flags).unwrap();
        let first = block.offset / page();
        let pages = block.bytes.div_ceil(page());
        for index in 0..pages {
            view.store(((first + index) * page()) as usize, index as u8);
        }
        view.store(beside.offset as usize, 9);
        let held = stat(&arena).held_bytes;
        let at = ((first + bad) * page()) as usize;
        poison(&view, at);
        // The block still has its size, and one page less memory.
        let now = arena.stat().unwrap();
        assert_eq!(now.held_bytes, held - page(), "{size} bytes");
        assert_eq!(now.live_bytes, block.bytes + beside.bytes);
        check();
        let signal = signal_of(|| view.touch(at));
        assert_eq!(signal, Some(Signal::SIGBUS), "{size} bytes");
        for index in (0..pages).filter(|index| *index != bad) {
            let at = ((first + index) * page()) as usize;
            assert_eq!(view.load(at), index as u8, "page {index}");
        }
        assert_eq!(view.load(beside.offset as usize), 9);
        // After its release the next block has all its memory.
        free(&arena, block);
        check();
        let again = alloc(&arena, size);
        for at in (again.offset..again.offset + again.bytes).step_by(page() as usize) {
            view.store(at as usize, 1);
        }
        free(&arena, again);
        arena.trim(0).unwrap();
        check();
        assert_eq!(stat(&arena).held_bytes, 64 * KIB);
    }
}

fn a_poisoned_free_page_is_never_allocated() {
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let block = alloc(&arena, 4 * MIB);
    let held = stat(&arena).held_bytes;
    free(&arena, block);
    poison(&view, (5 * page()) as usize);
    let now = stat(&arena);
    assert_eq!(now.held_bytes, held - page());
    assert_eq!(now.free_bytes, held - page());
    check();
    for size in [4 * MIB, 64 * KIB, page()] {
        let block = alloc(&arena, size);
        for at in (block.offset..block.offset + block.bytes).step_by(page() as usize) {
            view.store(at as usize, 1);
        }
        free(&arena, block);
    }
    assert!(arena.trim(0).unwrap() >= held - page());
    assert_eq!(stat(&arena).held_bytes, 0);
}

fn a_page_that_is_taken_offline_keeps_its_bytes() {
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let block = alloc(&arena, 4 * MIB);
    for at in (0..block.bytes as usize).step_by(system_page()) {
        view.store(at, (at / system_page()) as u8);
    }
    let page = system_page();
    if view.advise_raw(9 * page..10 * page, SOFT_OFFLINE).is_err() {
        skip("this kernel takes no pages offline");
    }
    for at in (0..block.bytes as usize).step_by(page) {
        assert_eq!(view.load(at), (at / page) as u8, "byte {at:#x}");
    }
    assert_eq!(stat(&arena).held_bytes, 4 * MIB);
    check();
}
