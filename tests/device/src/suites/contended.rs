// SPDX-License-Identifier: GPL-2.0

//! The same pages under several threads: touched, discarded, copied, unmapped, reclaimed and poisoned at the
//! same time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Barrier};
use std::time::{Duration, Instant};

use freelist::debugfs::Stats;
use freelist::{Arena, Block, Flags};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};

use super::bad_pages::poison;
use crate::harness::suite;
use crate::kit::lazy::LAZY;
use crate::kit::process::{spawn_child, Child};
use crate::kit::{
    alloc, arena, check, free, info, page, scaled, shrinker, stat, system_page, thread, touch_all,
    View, DEFAULT, MIB,
};

suite!("freelist_contended":
    concurrent_touches_allocate_a_page_once,
    a_discard_ends_while_its_range_is_touched,
    no_processor_writes_to_a_page_that_was_removed,
    mappings_end_beside_forced_reclaim,
    copies_beside_all_other_calls_are_whole,
    a_page_turns_out_bad_while_it_is_copied,
);

/// A call that must end, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first touch allocates the page, and all others find it.
///
/// Prior art: reports secretmem-CVE-2025-40272, mali-CVE-2023-6241.
fn concurrent_touches_allocate_a_page_once() {
    const THREADS: usize = 6;
    let pages = scaled(150);
    let arena = arena();
    let block = arena.alloc(pages as u64 * page(), LAZY).unwrap();
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (view, barrier) = (&view, &barrier);
            scope.spawn(move || {
                // From the last page on, so that no fault backs the next page, too.
                for index in (0..pages).rev() {
                    barrier.wait();
                    view.store(index * system_page() + thread, thread as u8 + 1);
                }
            });
        }
    });
    for index in 0..pages {
        let bytes = view.bytes(index * system_page(), THREADS);
        assert_eq!(
            bytes,
            (1..=THREADS as u8).collect::<Vec<_>>(),
            "page {index}"
        );
    }
    let now = arena.stat().unwrap();
    assert_eq!(now.held_bytes, block.bytes);
    assert_eq!(now.faulted_bytes, block.bytes);
    check();
    free(&arena, block);
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
}

/// Threads that fault in a range cannot keep a discard of it from ending: it does not wait until the range
/// has no memory.
///
/// Prior art: reports shmem-CVE-2014-4171.
fn a_discard_ends_while_its_range_is_touched() {
    let arena = arena();
    let block = arena.alloc(2 * MIB, LAZY).unwrap();
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let (done, touched) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..3 {
            let (view, done, touched) = (&view, &done, &touched);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                while !done.load(Ordering::Relaxed) {
                    view.store(rng.usize(0..view.len()), 1);
                    touched.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..scaled(30) {
            let before = touched.load(Ordering::Relaxed);
            let start = Instant::now();
            arena.discard(block.offset, block.bytes).unwrap();
            assert!(
                start.elapsed() < PATIENCE,
                "round {round}: {:?}",
                start.elapsed()
            );
            while touched.load(Ordering::Relaxed) < before + 3 {
                thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    check();
}

/// A processor whose TLB still had the page would write to its next user.
///
/// Prior art: reports hugetlb-CVE-2021-4002, mali-CVE-2021-28663, mali-CVE-2022-38181.
fn no_processor_writes_to_a_page_that_was_removed() {
    const PAGES: u64 = 16;
    let (mine, other) = (arena(), arena());
    let block = mine.alloc(PAGES * page(), LAZY).unwrap();
    let view = View::shared(&mine, block.offset, block.bytes as usize);
    let theirs = View::shared(&other, 0, MIB as usize);
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                (0..PAGES as usize).for_each(|index| view.store(index * system_page(), 0xaa));
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..scaled(150) {
            let before = written.load(Ordering::Relaxed);
            mine.discard(block.offset, block.bytes).unwrap();
            let taken = alloc(&other, PAGES * page());
            for pass in 0..2 {
                for index in 0..PAGES as usize {
                    let byte = theirs.load(taken.offset as usize + index * system_page());
                    assert_eq!(byte, 0, "page {index}, round {round}, pass {pass}");
                }
                while written.load(Ordering::Relaxed) == before {
                    thread::yield_now();
                }
            }
            free(&other, taken);
            other.trim(0).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    check();
}

/// Starts a process that maps, frees, unmaps and ends, `rounds` times.
fn maps_and_ends(arena: &Arena, rounds: usize) -> Child {
    spawn_child(|| {
        for _ in 0..rounds {
            let view = View::shared(arena, 0, info().arena_bytes as usize);
            let block = alloc(arena, 2 * MIB);
            touch_all(&view, block.offset, block.bytes);
            free(arena, block);
            spawn_child(|| view.touch(0)).wait();
        }
    })
}

/// Reclaim takes memory that is mapped by processes whose address spaces end at that moment.
///
/// Prior art: reports binder-CVE-2019-1999, binder-CVE-2023-52438, binder-CVE-2023-52609.
fn mappings_end_beside_forced_reclaim() {
    let arena = arena();
    let keep = alloc(&arena, page());
    let module = shrinker::of_module();
    let children = [(); 2].map(|()| maps_and_ends(&arena, scaled(12)));
    let forcing = spawn_child(|| loop {
        shrinker::force(module.as_deref());
    });
    children.map(Child::succeed);
    kill(forcing.pid(), Signal::SIGKILL).unwrap();
    forcing.wait();
    check();
    assert_eq!(stat(&arena).live_blocks, 1);
    free(&arena, keep);
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
}

/// Returns the content of block number `index` of a thread.
fn mark(thread: usize, index: usize) -> u8 {
    (thread * 16 + index) as u8 | 1
}

/// Allocates, resizes, discards and frees blocks until `done`; leaves none.
fn works_on_its_own(arena: &Arena, view: &View, thread: usize, done: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(thread as u64);
    let mut blocks: Vec<Block> = Vec::new();
    while !done.load(Ordering::Relaxed) {
        if blocks.len() < 8 {
            let flags = if rng.bool() { DEFAULT } else { LAZY };
            let block = arena.alloc(rng.u64(1..40) * page(), flags | Flags::ZERO);
            blocks.extend(block);
        }
        let index = rng.usize(0..blocks.len());
        let block = &mut blocks[index];
        let first = block.offset as usize;
        view.store(first, mark(thread, index));
        match rng.u8(0..5) {
            0 => {
                arena.discard(block.offset, block.bytes).unwrap();
                assert_eq!(view.load(first), 0);
            }
            1 => {
                let size = rng.u64(1..40) * page();
                if let Ok(bytes) = arena.resize(block.offset, size, DEFAULT) {
                    block.bytes = bytes;
                }
                assert_eq!(view.load(first), mark(thread, index));
            }
            2 => _ = arena.trim(rng.u64(0..MIB)).unwrap(),
            3 => free(arena, blocks.swap_remove(index)),
            _ => view.store(first + block.bytes as usize - 1, 3),
        }
    }
    blocks.into_iter().for_each(|block| free(arena, block));
}

/// Copies are made beside all other calls. Another thread closes each copy while the next one is made; some are
/// mapped then.
///
/// Prior art: reports binder-CVE-2022-20421, mali-CVE-2023-6241.
fn copies_beside_all_other_calls_are_whole() {
    let stats = || {
        let stats = Stats::read().unwrap();
        ["arenas", "held_bytes", "metadata_bytes"].map(|name| stats.get(name))
    };
    let before = stats();
    let source = arena();
    let view = View::shared(&source, 0, info().arena_bytes as usize);
    let fixed = alloc(&source, 5 * page());
    touch_all(&view, fixed.offset, fixed.bytes);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..2 {
            let (source, view, done) = (&source, &view, &done);
            scope.spawn(move || works_on_its_own(source, view, thread, done));
        }
        let (send, copies) = mpsc::channel::<Arena>();
        scope.spawn(move || {
            for (index, copy) in copies.into_iter().enumerate() {
                let view = View::shared(&copy, fixed.offset, fixed.bytes as usize);
                (0..5).for_each(|index| assert_eq!(view.load(index * system_page()), 1));
                let other = copy.copy().unwrap();
                if index % 2 == 0 {
                    drop(copy);
                    view.touch(0);
                } else {
                    free(&copy, fixed);
                    copy.trim(0).unwrap();
                }
                free(&other, fixed);
            }
        });
        for _ in 0..scaled(25) {
            send.send(source.copy().unwrap()).unwrap();
        }
        drop(send);
        done.store(true, Ordering::Relaxed);
    });
    check();
    free(&source, fixed);
    assert_eq!(stat(&source).live_blocks, 0);
    source.trim(0).unwrap();
    assert_eq!(stat(&source).held_bytes, 0);
    drop((source, view));
    assert_eq!(stats(), before);
}

/// The copy has the bytes of the page or a hole there, and all other bytes.
///
/// Prior art: reports shmem-a76054266661.
fn a_page_turns_out_bad_while_it_is_copied() {
    const PAGES: usize = 2048;
    let arena = arena();
    let block = alloc(&arena, PAGES as u64 * page());
    let view = View::shared(&arena, 0, block.bytes as usize);
    let byte = |index: usize| index as u8 | 1;
    for index in 0..PAGES {
        view.store(index * system_page(), byte(index));
    }
    let bad = [700, 701, 1500];
    let copies = spawn_child(|| {
        for _ in 0..scaled(6) {
            let copy = arena.copy().unwrap();
            let theirs = View::shared(&copy, 0, block.bytes as usize);
            for index in 0..PAGES {
                match theirs.probe(index * system_page()) {
                    Ok(found) => assert_eq!(found, byte(index), "page {index}"),
                    Err(errno) => assert!(
                        errno == Errno::EFAULT && bad.contains(&index),
                        "page {index}: {errno}"
                    ),
                }
            }
            free(&copy, block);
        }
    });
    for index in bad {
        thread::sleep(Duration::from_millis(20));
        poison(&view, index * system_page());
    }
    copies.succeed();
    check();
    for index in (0..PAGES).filter(|index| !bad.contains(index)) {
        assert_eq!(
            view.load(index * system_page()),
            byte(index),
            "page {index}"
        );
    }
    free(&arena, block);
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
}
