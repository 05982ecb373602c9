// SPDX-License-Identifier: GPL-2.0

//! Many threads and processes on one arena.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Barrier;

use freelist::uapi::{freelist_alloc, FREELIST_IOC_ALLOC};
use freelist::{Arena, Mapping};
use nix::errno::Errno;
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::process::{fork_beside_threads, spawn_child, Child};
use crate::kit::{
    alloc, arena, block_bytes_of, page, random, random_size, raw, scaled, stat, system_page,
    thread, Ledger, View, DEFAULT, KIB, LARGER,
};

suite!("freelist_concurrency":
    threads_never_share_a_block,
    processes_never_share_a_block,
    racing_frees_of_one_block_succeed_once,
    each_block_is_freed_once_beside_frees_of_any_offset,
    blocks_keep_their_bytes_beside_faults,
    blocks_keep_their_bytes_while_mappings_come_and_go,
    a_forked_child_reads_the_last_byte_beside_faults_and_allocations,
    arenas_are_opened_and_closed_by_many_threads,
    statistics_add_up_under_load,
    a_request_that_changes_under_the_call_is_read_once,
);

const THREADS: u64 = 4;

/// Stops the other threads when it is dropped, also by a panic.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does random work of one user of an arena.
fn churn(arena: &Arena, memory: &Mapping, seed: u64, rounds: usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut ledger = Ledger::new(arena, memory).with_key(seed);
    for _ in 0..rounds {
        if ledger.len() > 24 || (ledger.len() > 0 && rng.u8(..) < 110) {
            ledger.free(ledger.nth(rng.usize(0..ledger.len())));
        } else {
            ledger
                .alloc(random_size(&mut rng, 48 * KIB), DEFAULT)
                .unwrap();
        }
    }
    ledger.free_all();
}

/// Prior art: test_vmalloc pcpu_alloc_test; scudo combined.ThreadedCombined, primary.PrimaryThreaded,
/// wrappers_cpp.ThreadedNew.
fn threads_never_share_a_block() {
    let seed = random().u64(0..1 << 30);
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (arena, memory) = (&arena, &memory);
            scope.spawn(move || churn(arena, memory, seed + i, scaled(400)));
        }
    });
    let stat = stat(&arena);
    assert_eq!((stat.live_blocks, stat.live_bytes), (0, 0));
    assert_eq!(stat.allocs, stat.frees);
}

fn processes_never_share_a_block() {
    let seed = random().u64(0..1 << 30);
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let children: Vec<Child> = (0..THREADS)
        .map(|i| spawn_child(|| churn(&arena, &memory, seed + i, scaled(200))))
        .collect();
    children.into_iter().for_each(Child::succeed);
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// Prior art: vulnerabilities racing_frees, CVE-2025-68260; snmalloc corruption_detection;
/// reports ion-CVE-2016-9120, ion-34276203.
fn racing_frees_of_one_block_succeed_once() {
    let arena = arena();
    let neighbour = alloc(&arena, 64);
    let rounds = scaled(100);
    let offset = AtomicU64::new(0);
    let freed = AtomicU64::new(0);
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (arena, offset, freed, barrier) = (&arena, &offset, &freed, &barrier);
            scope.spawn(move || {
                for round in 0..rounds {
                    if i == 0 {
                        let size = [64, 4 * KIB, 64 * KIB][round % 3];
                        offset.store(alloc(arena, size).offset, Ordering::SeqCst);
                        freed.store(0, Ordering::SeqCst);
                    }
                    barrier.wait();
                    match raw::free(arena, offset.load(Ordering::SeqCst)) {
                        Ok(()) => drop(freed.fetch_add(1, Ordering::SeqCst)),
                        Err(errno) => assert_eq!(errno, Errno::ENOENT),
                    }
                    barrier.wait();
                    assert_eq!(freed.load(Ordering::SeqCst), 1, "round {round}");
                    barrier.wait();
                }
            });
        }
    });
    arena.free(neighbour.offset).unwrap();
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// One thread frees offsets that it does not own, as a faulty program would; every allocation has exactly one
/// successful free.
fn each_block_is_freed_once_beside_frees_of_any_offset() {
    let arena = arena();
    let stop = AtomicBool::new(false);
    let (made, freed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for offset in (0..8 * 64).step_by(32) {
                        if raw::free(&arena, offset).is_ok() {
                            freed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        for i in 0..scaled(500) {
            let block = alloc(&arena, 32 << (i % 2));
            made.fetch_add(1, Ordering::Relaxed);
            if raw::free(&arena, block.offset).is_ok() {
                freed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let stat = stat(&arena);
    assert_eq!(stat.allocs, made.into_inner());
    assert_eq!(stat.frees, freed.into_inner());
}

fn blocks_keep_their_bytes_beside_faults() {
    let arena = arena();
    let len = 64 * system_page();
    // The arena holds these pages from here on, with a live block in them or without.
    let run = alloc(&arena, len as u64);
    arena.free(run.offset).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // A new mapping has no entries: every touch is a fault.
                let view = View::shared(&arena, 0, len);
                for page in 0..len / system_page() {
                    match view.probe(page * system_page()) {
                        Ok(_) | Err(Errno::EFAULT) => {}
                        Err(errno) => panic!("{errno}"),
                    }
                }
            }
        });
        let _stop = StopAtEnd(&stop);
        let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
        let mut ledger = Ledger::new(&arena, &memory);
        for i in 0..scaled(300) {
            let size = [32, 2 * KIB, page(), 3 * page()][i % 4];
            ledger.alloc(size, LARGER).unwrap();
            if ledger.len() > 8 {
                ledger.free(ledger.nth(i % 8));
            }
        }
        ledger.free_all();
    });
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn blocks_keep_their_bytes_while_mappings_come_and_go() {
    let arena = arena();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let block = alloc(&arena, 2 * page());
                    let mut view = View::shared(&arena, block.offset, 2 * system_page());
                    view.store(system_page(), 1);
                    view.unmap(0..system_page()).unwrap();
                    assert_eq!(view.load(system_page()), 1);
                    arena.free(block.offset).unwrap();
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
        churn(&arena, &memory, 1, scaled(300));
    });
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// fork() copies a mapping while its pages are allocated and trimmed, and other threads are in calls.
///
/// Prior art: snmalloc protect_fork; scudo wrappers_cpp.AllocAfterFork.
fn a_forked_child_reads_the_last_byte_beside_faults_and_allocations() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, block.offset, system_page());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (arena, stop) = (&arena, &stop);
            let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    churn(arena, &memory, seed, 40);
                    arena.trim(0).unwrap();
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        for round in (0..=u8::MAX).cycle().take(scaled(12)) {
            view.store(0, round);
            let status = fork_beside_threads(&view);
            assert!(
                matches!(status, WaitStatus::Exited(_, code) if code == i32::from(round)),
                "round {round}: {status:?}"
            );
        }
    });
    arena.free(block.offset).unwrap();
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn arenas_are_opened_and_closed_by_many_threads() {
    thread::scope(|scope| {
        for i in 0..THREADS {
            scope.spawn(move || {
                for round in 0..scaled(20) {
                    let arena = arena();
                    let memory = arena.map(64 << 20).unwrap();
                    let block = alloc(&arena, 32 << ((round as u64 + i) % 12));
                    memory.set_byte(block.offset, 1).unwrap();
                    drop(arena);
                    memory.set_byte(block.offset, 2).unwrap();
                }
            });
        }
    });
}

/// STAT and debugfs are snapshots of one moment, under load too.
///
/// Prior art: scudo stats_test.
fn statistics_add_up_under_load() {
    let arena = arena();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
        scope.spawn(|| {
            let _stop = StopAtEnd(&stop);
            for _ in 0..scaled(200) {
                let stat = arena.stat().unwrap();
                assert_eq!(stat.allocs - stat.frees, stat.live_blocks, "{stat:?}");
                assert!(
                    stat.live_bytes + stat.free_bytes <= stat.held_bytes,
                    "{stat:?}"
                );
                freelist::debugfs::Stats::read().unwrap();
                freelist::debugfs::Classes::read().unwrap();
            }
        });
        for seed in 0..scaled(50) as u64 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            churn(&arena, &memory, seed, 40);
        }
    });
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// Prior art: vulnerabilities CVE-2016-6516.
fn a_request_that_changes_under_the_call_is_read_once() {
    let arena = arena();
    let view = View::anonymous(size_of::<freelist_alloc>());
    let small = raw::request(64).to_bytes();
    // The size's second byte makes it 64 or 64 + 0x8000; the flags' third one
    // makes them known or unknown.
    view.set_bytes(0, &small);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut flip = false;
            while !stop.load(Ordering::Relaxed) {
                flip = !flip;
                view.store(1, if flip { 0x80 } else { 0 });
                view.store(10, u8::from(flip));
            }
        });
        let _stop = StopAtEnd(&stop);
        for _ in 0..scaled(500) {
            let before = stat(&arena);
            match ioctl_at(&arena, FREELIST_IOC_ALLOC, view.address(0)) {
                Ok(_) => {
                    let answer = view.bytes(0, size_of::<freelist_alloc>());
                    let answer = freelist_alloc::from_bytes(&answer);
                    let after = stat(&arena);
                    let bytes = answer.block_bytes;
                    assert!(
                        bytes == 64 || bytes == block_bytes_of(0x8040, page()),
                        "{answer:?}"
                    );
                    assert_eq!(after.live_bytes - before.live_bytes, bytes);
                    arena.free(answer.offset).unwrap();
                }
                Err(errno) => assert_eq!(errno, Errno::EINVAL),
            }
        }
    });
    assert_eq!(stat(&arena).live_blocks, 0);
}
