// SPDX-License-Identifier: GPL-2.0

//! The events that wake a waiter.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use freelist::Flags;
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};

use crate::harness::{skip, suite};
use crate::kit::process::spawn_child;
use crate::kit::waiter::{full, hog, sleeping_child, waiting, Waiter, PATIENCE};
use crate::kit::{alloc, arena, check, free, page, raw, stat, thread, DEFAULT, GROW, LARGER, MIB};

suite!("freelist_wake_ups":
    a_raised_limit_wakes,
    the_tail_of_a_shorter_block_wakes,
    a_limit_lowered_below_the_request_is_edquot,
    a_lowered_limit_wakes_the_waiters_that_it_makes_hopeless,
    memory_that_another_arena_frees_wakes,
    a_killed_process_that_held_everything_wakes,
    a_descriptor_that_is_closed_wakes_no_waiter,
    no_wake_up_is_lost,
);

fn a_raised_limit_wakes() {
    let (arena, _) = full(8);
    thread::scope(|scope| {
        let waiters = [0, 1].map(|_| {
            let request = waiting(4 * page(), GROW, None);
            Waiter::asleep(scope, &arena, request)
        });
        arena.set_limit(11 * page()).unwrap();
        waiters[0].sleeps_on();
        arena.set_limit(13 * page()).unwrap();
        waiters[0].served();
        waiters[1].sleeps_on();
        arena.set_limit(16 * page()).unwrap();
        waiters[1].served();
    });
}

fn the_tail_of_a_shorter_block_wakes() {
    let arena = arena();
    arena.set_limit(8 * page()).unwrap();
    let block = alloc(&arena, 8 * page());
    thread::scope(|scope| {
        let waiters = [4, 2].map(|pages| {
            let request = waiting(pages * page(), DEFAULT, None);
            Waiter::asleep(scope, &arena, request)
        });
        let shorten = |pages| {
            arena
                .resize(block.offset, pages * page(), Flags::empty())
                .unwrap()
        };
        shorten(5);
        waiters[0].sleeps_on();
        shorten(4);
        assert_eq!(waiters[0].served(), block.offset + 4 * page());
        waiters[1].sleeps_on();
        shorten(2);
        assert_eq!(waiters[1].served(), block.offset + 2 * page());
    });
    check();
}

fn a_limit_lowered_below_the_request_is_edquot() {
    let (arena, blocks) = full(8);
    thread::scope(|scope| {
        let waiter = Waiter::asleep(scope, &arena, waiting(8 * page(), DEFAULT, None));
        for block in &blocks[..4] {
            free(&arena, *block);
        }
        arena.set_limit(4 * page()).unwrap();
        // The waiter notices it at its next scan at the latest.
        free(&arena, blocks[4]);
        assert_eq!(waiter.end().result, Err(Errno::EDQUOT));
    });
}

fn a_lowered_limit_wakes_the_waiters_that_it_makes_hopeless() {
    let (arena, blocks) = full(8);
    thread::scope(|scope| {
        // The oldest, one after it, and one that keeps waiting.
        let requests = [(8, LARGER), (6, DEFAULT), (3, DEFAULT)];
        let waiters = requests.map(|(pages, flags)| {
            Waiter::asleep(scope, &arena, waiting(pages * page(), flags, None))
        });
        // No block is freed: only the limit changes.
        arena.set_limit(4 * page()).unwrap();
        for waiter in &waiters[..2] {
            assert_eq!(waiter.end().result, Err(Errno::EDQUOT));
        }
        waiters[2].sleeps_on();
        for block in &blocks {
            free(&arena, *block);
        }
        waiters[2].served();
    });
    check();
}

fn memory_that_another_arena_frees_wakes() {
    let (hog, blocks) = hog();
    let arena = arena();
    thread::scope(|scope| {
        let request = waiting(2 * MIB, DEFAULT, None);
        let waiter = Waiter::asleep(scope, &arena, request);
        // The other arena's free memory is passed on.
        free(&hog, blocks[0]);
        waiter.served();
        // The rest of its memory is used up.
        while arena.alloc(4 * MIB, DEFAULT).is_ok() {}
        while arena.alloc(page(), DEFAULT).is_ok() {}
        let waiter = Waiter::asleep(scope, &arena, request);
        waiter.sleeps_on();
        drop(hog);
        waiter.served();
    });
}

fn a_killed_process_that_held_everything_wakes() {
    let (go, wait) = nix::unistd::pipe().unwrap();
    let holder = spawn_child(|| {
        let _held = hog();
        nix::unistd::write(&wait, b"x").unwrap();
        thread::sleep(Duration::from_secs(3600));
    });
    drop(wait);
    // A child that skips writes nothing.
    let mut byte = [0];
    if nix::unistd::read(&go, &mut byte) != Ok(1) {
        skip("no process can hold everything here");
    }
    let arena = arena();
    thread::scope(|scope| {
        let waiter = Waiter::asleep(scope, &arena, waiting(2 * MIB, DEFAULT, None));
        waiter.sleeps_on();
        kill(holder.pid(), Signal::SIGKILL).unwrap();
        holder.wait();
        waiter.served();
    });
}

/// Prior art: vulnerabilities close_while_waiting.
fn a_descriptor_that_is_closed_wakes_no_waiter() {
    let (arena, blocks) = full(4);
    let other = arena.try_clone().unwrap();
    thread::scope(|scope| {
        let waiter = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        drop(other.try_clone().unwrap());
        drop(other);
        waiter.sleeps_on();
        // A child that shares the arena ends without freeing its blocks.
        // (No fork here: this process has threads.)
        free(&arena, blocks[0]);
        waiter.served();
    });
    // The descriptor of a waiter's call is closed while it sleeps.
    let (shared, blocks) = full(4);
    let keeper = shared.try_clone().unwrap();
    let child = sleeping_child(&shared);
    drop(shared);
    free(&keeper, blocks[3]);
    child.succeed();
}

/// Far more threads than blocks, for a while: each is served in its turn, and all end.
fn no_wake_up_is_lost() {
    let arena = arena();
    arena.set_limit(6 * page()).unwrap();
    let done = AtomicUsize::new(0);
    let (threads, rounds) = (8, 30 * crate::kit::scaled(1));
    let start = Instant::now();
    thread::scope(|scope| {
        for i in 0..threads {
            let (arena, done) = (&arena, &done);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(i);
                for _ in 0..rounds {
                    let size = [64, page() / 2, page(), 3 * page()][rng.usize(0..4)];
                    let flags = [LARGER, DEFAULT, GROW][rng.usize(0..3)];
                    let mut request = waiting(size, flags | GROW, Some(PATIENCE));
                    let result = raw::alloc_in(arena, &mut request);
                    assert_eq!(result, Ok(()), "{size} bytes: a wake-up was lost");
                    if rng.bool() {
                        thread::yield_now();
                    }
                    arena.free(request.offset).unwrap();
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.into_inner(), threads as usize);
    let stat = stat(&arena);
    eprintln!(
        "{} requests of {threads} threads, {} slept, {:?}",
        stat.allocs,
        stat.waits,
        start.elapsed()
    );
    assert_eq!((stat.live_blocks, stat.timeouts), (0, 0));
    check();
}
