// SPDX-License-Identifier: GPL-2.0

//! Requests that wait for a block: when they wait, for what, for how long, and in which order they are
//! served.

use std::time::{Duration, Instant};

use freelist::{Arena, Block, Flags};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::harness::suite;
use crate::kit::waiter::{full, waiting, Waiter, PATIENCE};
use crate::kit::{
    alloc, arena, check, fdinfo, free, largest_block, page, raw, refused, stat, thread, DEFAULT,
    GROW, LARGER, MIB,
};

suite!("freelist_waiting":
    a_request_that_can_be_served_does_not_wait,
    without_flags_the_own_class_is_waited_for,
    larger_waits_for_any_larger_block,
    grow_waits_for_any_memory,
    no_time_is_eagain,
    a_request_larger_than_the_limit_is_edquot_and_not_waited_for,
    a_timeout_is_neither_early_nor_late,
    first_come_first_served,
    a_big_waiter_is_not_starved_by_small_ones,
    subpages_are_served_beside_a_large_waiter,
    a_block_of_exactly_its_class_is_kept_for_a_waiter,
    fdinfo_counts_the_requests_that_wait,
);

fn a_request_that_can_be_served_does_not_wait() {
    let (arena, blocks) = full(8);
    free(&arena, blocks[3]);
    let timeout = Duration::from_secs(5);
    let mut request = waiting(page(), DEFAULT, Some(timeout));
    let start = Instant::now();
    raw::alloc_in(&arena, &mut request).unwrap();
    assert_eq!(request.offset, blocks[3].offset);
    assert!(start.elapsed() < timeout / 2);
    let rest = Duration::from_nanos(request.timeout_ns as u64);
    assert!(rest <= timeout && rest > timeout / 2, "{rest:?} are left");
    assert_eq!(stat(&arena).waits, 0);
    // An infinite timeout stays infinite.
    arena.free(request.offset).unwrap();
    let mut request = waiting(page(), DEFAULT, None);
    raw::alloc_in(&arena, &mut request).unwrap();
    assert!(request.timeout_ns < 0);
}

/// Waits with `flags` for a page in a full arena, and is served by `help` only
/// after `no_help` was in vain.
#[track_caller]
fn served_by(
    flags: Flags,
    no_help: impl FnOnce(&Arena, &[Block]),
    help: impl FnOnce(&Arena, &[Block]),
) {
    let arena = arena();
    arena.set_limit(24 * page()).unwrap();
    // 16 blocks of a page, then two of four pages.
    let mut blocks: Vec<Block> = (0..16).map(|_| alloc(&arena, page())).collect();
    blocks.extend((0..2).map(|_| alloc(&arena, 4 * page())));
    thread::scope(|scope| {
        let waiter = Waiter::asleep(scope, &arena, waiting(page(), flags, None));
        waiter.sleeps_on();
        no_help(&arena, &blocks);
        waiter.sleeps_on();
        help(&arena, &blocks);
        let offset = waiter.served();
        assert_eq!(offset % page(), 0);
        arena.free(offset).unwrap();
    });
    assert_eq!(stat(&arena).waits, 1, "with {flags}");
    check();
}

fn without_flags_the_own_class_is_waited_for() {
    served_by(
        Flags::empty(),
        |arena, blocks| {
            // Neither a larger block nor headroom is a block of its own class.
            free(arena, blocks[16]);
            arena.set_limit(100 * page()).unwrap();
        },
        |arena, blocks| free(arena, blocks[5]),
    );
}

fn larger_waits_for_any_larger_block() {
    served_by(
        LARGER,
        |arena, _| drop(arena.set_limit(100 * page())),
        |arena, blocks| free(arena, blocks[17]),
    );
    served_by(LARGER, |_, _| {}, |arena, blocks| free(arena, blocks[0]));
}

fn grow_waits_for_any_memory() {
    for flags in [GROW, DEFAULT] {
        served_by(flags, |_, _| {}, |arena, blocks| free(arena, blocks[3]));
        served_by(flags, |_, _| {}, |arena, blocks| free(arena, blocks[16]));
        served_by(
            flags,
            |_, _| {},
            |arena, _| drop(arena.set_limit(25 * page())),
        );
    }
}

/// Prior art: test_vmalloc no_block_alloc_test.
fn no_time_is_eagain() {
    let (arena, blocks) = full(4);
    for flags in [Flags::empty(), LARGER, GROW, DEFAULT] {
        let mut request = waiting(page(), flags, Some(Duration::ZERO));
        assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EAGAIN));
    }
    let fd = raw::open_as(OFlag::O_RDWR | OFlag::O_NONBLOCK);
    raw::limit(&fd, page(), 0).unwrap();
    let block = raw::alloc(&fd, raw::request(page())).unwrap();
    for timeout in [None, Some(PATIENCE), Some(Duration::ZERO)] {
        let mut request = waiting(page(), DEFAULT, timeout);
        assert_eq!(raw::alloc_in(&fd, &mut request), Err(Errno::EAGAIN));
    }
    // A request that need not wait succeeds.
    raw::free(&fd, block.offset).unwrap();
    raw::alloc_in(&fd, &mut waiting(page(), DEFAULT, None)).unwrap();
    free(&arena, blocks[0]);
    raw::alloc_in(&arena, &mut waiting(page(), LARGER, Some(Duration::ZERO))).unwrap();
    let stat = stat(&arena);
    assert_eq!((stat.waits, stat.timeouts), (0, 0));
}

fn a_request_larger_than_the_limit_is_edquot_and_not_waited_for() {
    let (arena, _) = full(4);
    for flags in [Flags::empty(), LARGER, GROW, DEFAULT] {
        let mut request = waiting(5 * page(), flags, None);
        assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EDQUOT));
    }
    let mut request = waiting(largest_block() + 1, DEFAULT, None);
    assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::E2BIG));
    let mut request = waiting(0, DEFAULT, None);
    assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EINVAL));
    let mut request = waiting(page(), DEFAULT | Flags::CONTIG, None);
    assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EINVAL));
}

fn a_timeout_is_neither_early_nor_late() {
    let (arena, _) = full(4);
    let mut worst = Duration::ZERO;
    for ms in [1, 20, 100] {
        let timeout = Duration::from_millis(ms);
        let mut request = waiting(page(), DEFAULT, Some(timeout));
        let start = Instant::now();
        assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::ETIMEDOUT));
        let took = start.elapsed();
        assert!(took >= timeout, "{took:?} for {timeout:?}");
        worst = worst.max(took - timeout);
    }
    eprintln!("at most {worst:?} late");
    assert!(worst < Duration::from_millis(500), "{worst:?} late");
    let stat = stat(&arena);
    assert_eq!((stat.waits, stat.timeouts, stat.failures), (3, 3, 3));
}

fn first_come_first_served() {
    for flags in [Flags::empty(), LARGER, DEFAULT] {
        let (arena, blocks) = full(8);
        thread::scope(|scope| {
            let request = waiting(page(), flags, None);
            let waiters: Vec<Waiter> = (0..5)
                .map(|_| Waiter::asleep(scope, &arena, request))
                .collect();
            // In another order than that of their offsets.
            for (i, block) in [6, 1, 3, 0, 7].into_iter().enumerate() {
                free(&arena, blocks[block]);
                waiters[i].served();
                if let Some(next) = waiters.get(i + 1) {
                    next.sleeps_on();
                }
            }
        });
        assert_eq!(stat(&arena).waits, 5, "with {flags}");
    }
    check();
}

fn a_big_waiter_is_not_starved_by_small_ones() {
    let (arena, blocks) = full(64);
    thread::scope(|scope| {
        let big = Waiter::asleep(scope, &arena, waiting(16 * page(), DEFAULT, None));
        let small = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        for block in blocks.iter().step_by(4).take(15) {
            free(&arena, *block);
            // The reserved memory is for the oldest waiter.
            refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
            refused(arena.alloc(page(), LARGER), Errno::ENOMEM);
            refused(arena.alloc(page(), Flags::empty()), Errno::ENOMEM);
            let mut request = waiting(page(), DEFAULT, Some(Duration::ZERO));
            assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EAGAIN));
        }
        big.sleeps_on();
        // Nor does a later waiter get it.
        let later = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        later.sleeps_on();
        free(&arena, blocks[1]);
        let offset = big.served();
        assert_eq!(offset % (16 * page()), 0);
        for (block, next) in [(2, small), (3, later)] {
            next.sleeps_on();
            free(&arena, blocks[block]);
            next.served();
        }
    });
    check();
}

fn subpages_are_served_beside_a_large_waiter() {
    let (arena, blocks) = full(16);
    free(&arena, blocks[0]);
    let subpage = alloc(&arena, 64);
    thread::scope(|scope| {
        let big = Waiter::asleep(scope, &arena, waiting(8 * page(), DEFAULT, None));
        // A subpage of the page that is divided already.
        let small = alloc(&arena, page() / 2);
        assert_eq!(small.offset / page(), subpage.offset / page());
        // There is no second half: this one waits for one.
        let mut request = waiting(page() / 2, DEFAULT, Some(Duration::ZERO));
        assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EAGAIN));
        let waiter = Waiter::asleep(scope, &arena, waiting(page() / 2, DEFAULT, None));
        free(&arena, small);
        assert_eq!(waiter.served(), small.offset);
        big.sleeps_on();
        for block in &blocks[1..9] {
            free(&arena, *block);
        }
        big.served();
    });
}

fn a_block_of_exactly_its_class_is_kept_for_a_waiter() {
    for size in [64, page(), 20 * page(), MIB] {
        let arena = arena();
        // Its neighbours are free before it is freed.
        let blocks = [(); 3].map(|()| alloc(&arena, size));
        free(&arena, blocks[0]);
        free(&arena, blocks[2]);
        arena.trim(0).unwrap();
        thread::scope(|scope| {
            let request = waiting(size, Flags::empty(), None);
            let waiter = Waiter::asleep(scope, &arena, request);
            free(&arena, blocks[1]);
            assert_eq!(waiter.served(), blocks[1].offset, "{size}");
        });
        check();
    }
}

fn fdinfo_counts_the_requests_that_wait() {
    let (arena, blocks) = full(2);
    let waiters = || fdinfo(&arena).1.get("waiters");
    assert_eq!(waiters(), Some(0));
    thread::scope(|scope| {
        let asleep = [0, 1].map(|_| Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None)));
        assert_eq!(waiters(), Some(2));
        for block in &blocks {
            free(&arena, *block);
        }
        asleep.map(|waiter| waiter.served());
    });
    assert_eq!(waiters(), Some(0));
}
