// SPDX-License-Identifier: GPL-2.0

//! Waiting for a block, and for being told that there could be one.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use freelist::uapi::{freelist_alloc, freelist_bulk, FREELIST_WAIT};
use freelist::{Arena, Block, Flags};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::{kill, sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::wait::WaitStatus;

use crate::harness::{skip, suite};
use crate::kit::process::spawn_child;
use crate::kit::waiter::{sleeps_in_ioctl, waiting, Waiter, PATIENCE, WHILE};
use crate::kit::{
    alloc, arena, check, free, largest_block, page, raw, refused, stat, thread, Cgroup, View,
    DEFAULT, GROW, KIB, LARGER, MIB,
};

suite!("freelist_waiting":
    what_is_there_is_not_waited_for,
    without_flags_the_own_class_is_waited_for,
    larger_waits_for_any_larger_block,
    grow_waits_for_any_memory,
    no_time_is_eagain,
    a_request_larger_than_the_limit_is_edquot_and_not_waited_for,
    a_timeout_is_neither_early_nor_late,
    a_signal_ends_it_and_leaves_the_rest_of_the_time,
    a_signal_whose_handler_restarts_does_not_prolong_it,
    a_killed_waiter_ends_at_once_and_the_next_is_served,
    a_stopped_waiter_goes_on_waiting,
    a_frozen_waiter_goes_on_waiting,
    first_come_first_served,
    a_big_waiter_is_not_starved_by_small_ones,
    parts_of_pages_are_served_beside_a_big_waiter,
    a_raised_limit_wakes,
    the_tail_of_a_shorter_block_wakes,
    a_limit_lowered_below_the_request_is_edquot,
    a_lowered_limit_wakes_whom_it_makes_hopeless,
    a_block_of_exactly_its_class_is_kept_for_a_waiter,
    memory_that_another_arena_frees_wakes,
    a_killed_process_that_held_everything_wakes,
    a_descriptor_that_is_closed_wakes_nobody,
    a_batch_waits_for_all_of_its_blocks,
    a_batch_whose_time_is_up_keeps_what_it_has,
    no_wake_up_is_lost,
    no_wake_up_is_lost_by_poll,
    before_any_refusal_poll_is_ready,
    poll_tells_when_the_smallest_refused_size_could_be_served,
    poll_tells_of_memory_that_another_arena_frees,
    edges_are_told_by_epoll,
    epoll_outlives_a_closed_arena,
);

/// An arena at its limit: all of its `pages` pages are live blocks of a page.
fn full(pages: u64) -> (Arena, Vec<Block>) {
    let arena = arena();
    arena.set_limit(pages * page()).unwrap();
    let blocks = (0..pages).map(|_| alloc(&arena, page())).collect();
    (arena, blocks)
}

fn what_is_there_is_not_waited_for() {
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
    // For ever is still for ever.
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
            // Neither a larger block nor room to grow is of its own class.
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

/// Peer: test_vmalloc no_block_alloc_test.
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
    // The same is no hindrance where nothing is to be waited for.
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

extern "C" fn nothing(_: i32) {}

/// SIGUSR1 interrupts calls from now on, or restarts them.
#[expect(unsafe_code, reason = "sigaction()")]
fn handle(flags: SaFlags) {
    let action = SigAction::new(SigHandler::Handler(nothing), flags, SigSet::empty());
    // SAFETY: The handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
}

fn a_signal_ends_it_and_leaves_the_rest_of_the_time() {
    handle(SaFlags::empty());
    let (arena, _) = full(4);
    thread::scope(|scope| {
        let timeout = Duration::from_secs(30);
        let request = waiting(page(), DEFAULT, Some(timeout));
        let waiter = Waiter::asleep(scope, &arena, request);
        thread::sleep(Duration::from_millis(50));
        waiter.signal(Signal::SIGUSR1);
        let ended = waiter.end();
        assert_eq!(ended.result, Err(Errno::EINTR));
        let rest = Duration::from_nanos(ended.request.timeout_ns as u64);
        assert!(rest + ended.took >= timeout, "{rest:?} after {ended:?}");
        assert!(rest <= timeout - Duration::from_millis(50), "{rest:?}");
        // Nothing else of the request was changed: it can be made again.
        let again = freelist_alloc {
            timeout_ns: request.timeout_ns,
            ..ended.request
        };
        assert_eq!(again, request);

        let waiter = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        waiter.signal(Signal::SIGUSR1);
        let ended = waiter.end();
        assert_eq!(ended.result, Err(Errno::EINTR));
        assert!(ended.request.timeout_ns < 0, "for ever");
    });
    assert_eq!(stat(&arena).timeouts, 0);
}

fn a_signal_whose_handler_restarts_does_not_prolong_it() {
    handle(SaFlags::SA_RESTART);
    let (arena, blocks) = full(4);
    thread::scope(|scope| {
        let timeout = Duration::from_millis(400);
        let request = waiting(page(), DEFAULT, Some(timeout));
        let waiter = Waiter::asleep(scope, &arena, request);
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(20));
            waiter.signal(Signal::SIGUSR1);
        }
        let ended = waiter.end();
        assert_eq!(ended.result, Err(Errno::ETIMEDOUT));
        assert!(ended.took >= timeout, "{:?}", ended.took);
        assert!(ended.took < 2 * timeout, "{:?}", ended.took);
        // And is served as if nothing had happened.
        let waiter = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        waiter.signal(Signal::SIGUSR1);
        waiter.sleeps_on();
        free(&arena, blocks[0]);
        waiter.served();
    });
}

/// A child that waits for a page, asleep when this returns.
fn sleeping_child(shared: &Arena) -> crate::kit::process::Child {
    let child = spawn_child(|| {
        let mut request = waiting(page(), DEFAULT, None);
        raw::alloc_in(shared, &mut request).unwrap();
    });
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    child
}

/// Peer: vulnerabilities SIGKILL_while_waiting.
fn a_killed_waiter_ends_at_once_and_the_next_is_served() {
    let (shared, blocks) = full(4);
    let children = [0, 1, 2].map(|_| sleeping_child(&shared));
    let [first, second, third] = children;
    for killed in [second, first] {
        let (pid, start) = (killed.pid(), Instant::now());
        kill(pid, Signal::SIGKILL).unwrap();
        let status = killed.wait();
        assert_eq!(status, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    free(&shared, blocks[0]);
    third.succeed();
    assert_eq!(stat(&shared).live_blocks, 4);
    check();
}

/// Peer: vulnerabilities SIGSTOP_while_waiting.
fn a_stopped_waiter_goes_on_waiting() {
    let (shared, blocks) = full(4);
    let child = sleeping_child(&shared);
    for _ in 0..3 {
        kill(child.pid(), Signal::SIGSTOP).unwrap();
        thread::sleep(WHILE / 4);
        kill(child.pid(), Signal::SIGCONT).unwrap();
        thread::sleep(WHILE / 4);
    }
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    free(&shared, blocks[2]);
    child.succeed();
}

fn a_frozen_waiter_goes_on_waiting() {
    let cgroup = Cgroup::new("frozen");
    let (shared, blocks) = full(4);
    let child = spawn_child(|| {
        cgroup.join();
        let mut request = waiting(page(), DEFAULT, None);
        raw::alloc_in(&shared, &mut request).unwrap();
    });
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    cgroup.write("cgroup.freeze", "1");
    let start = Instant::now();
    while !cgroup.is_frozen() {
        assert!(start.elapsed() < PATIENCE, "it does not freeze");
        thread::sleep(Duration::from_millis(5));
    }
    cgroup.write("cgroup.freeze", "0");
    free(&shared, blocks[1]);
    child.succeed();
}

fn first_come_first_served() {
    for flags in [Flags::empty(), LARGER, DEFAULT] {
        let (arena, blocks) = full(8);
        thread::scope(|scope| {
            let request = waiting(page(), flags, None);
            let waiters: Vec<Waiter> = (0..5)
                .map(|_| Waiter::asleep(scope, &arena, request))
                .collect();
            // In another order than they lie.
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
            // What is set aside is for the oldest one.
            refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
            refused(arena.alloc(page(), LARGER), Errno::ENOMEM);
            refused(arena.alloc(page(), Flags::empty()), Errno::ENOMEM);
            let mut request = waiting(page(), DEFAULT, Some(Duration::ZERO));
            assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EAGAIN));
        }
        big.sleeps_on();
        // Nor can a waiter have it that came later.
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

fn parts_of_pages_are_served_beside_a_big_waiter() {
    let (arena, blocks) = full(16);
    free(&arena, blocks[0]);
    let part = alloc(&arena, 64);
    thread::scope(|scope| {
        let big = Waiter::asleep(scope, &arena, waiting(8 * page(), DEFAULT, None));
        // Of the page that is divided already.
        let small = alloc(&arena, page() / 2);
        assert_eq!(small.offset / page(), part.offset / page());
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
        // It hears of it at the latest when it looks again.
        free(&arena, blocks[4]);
        assert_eq!(waiter.end().result, Err(Errno::EDQUOT));
    });
}

fn a_lowered_limit_wakes_whom_it_makes_hopeless() {
    let (arena, blocks) = full(8);
    thread::scope(|scope| {
        // The oldest, one behind it, and one that hopes on.
        let requests = [(8, LARGER), (6, DEFAULT), (3, DEFAULT)];
        let waiters = requests.map(|(pages, flags)| {
            Waiter::asleep(scope, &arena, waiting(pages * page(), flags, None))
        });
        // Nothing comes back: only the limit changes.
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

fn a_block_of_exactly_its_class_is_kept_for_a_waiter() {
    for size in [64, page(), 20 * page(), MIB] {
        let arena = arena();
        // Its neighbours are free before it comes back.
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

/// An arena that leaves nothing of what all may hold; skipped where that is
/// too much, or more than there is.
fn hog() -> (Arena, Vec<Block>) {
    let stats = freelist::debugfs::Stats::read().expect("debugfs is mounted");
    let limit = stats.get("limit_bytes").expect("the limit of all arenas");
    if limit > 640 * MIB {
        skip("too much memory to fill; needs a machine of about 1 GiB or less");
    }
    let arena = arena();
    arena.set_limit(2 * limit).unwrap();
    let mut blocks = Vec::new();
    let mut size = 64 * MIB;
    while size >= page() {
        match arena.alloc(size, DEFAULT) {
            Ok(block) => blocks.push(block),
            Err(error) => match error.errno() {
                Some(Errno::EDQUOT) => size /= 2,
                Some(Errno::ENOMEM) => skip("memory is short"),
                _ => panic!("{error}"),
            },
        }
    }
    (arena, blocks)
}

fn memory_that_another_arena_frees_wakes() {
    let (hog, blocks) = hog();
    let arena = arena();
    thread::scope(|scope| {
        let request = waiting(2 * MIB, DEFAULT, None);
        let waiter = Waiter::asleep(scope, &arena, request);
        // What the other arena has free is handed over.
        free(&hog, blocks[0]);
        waiter.served();
        // What is left of it, and then nothing.
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
    // Nothing comes where the child has skipped.
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

/// Peer: vulnerabilities close_while_waiting.
fn a_descriptor_that_is_closed_wakes_nobody() {
    let (arena, blocks) = full(4);
    let other = arena.try_clone().unwrap();
    thread::scope(|scope| {
        let waiter = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        drop(other.try_clone().unwrap());
        drop(other);
        waiter.sleeps_on();
        // A child that shares the arena ends, and leaves its blocks behind.
        // (No fork here: this process has threads.)
        free(&arena, blocks[0]);
        waiter.served();
    });
    // The descriptor that a waiter came by is closed under it.
    let (shared, blocks) = full(4);
    let keeper = shared.try_clone().unwrap();
    let child = sleeping_child(&shared);
    drop(shared);
    free(&keeper, blocks[3]);
    child.succeed();
}

fn bulk(array: &View, size: u64, count: u32, timeout: Option<Duration>) -> freelist_bulk {
    freelist_bulk {
        size,
        offsets: array.address(0).get() as u64,
        count,
        flags: (DEFAULT | Flags::WAIT).bits(),
        timeout_ns: timeout.map_or(-1, |timeout| timeout.as_nanos() as i64),
        ..Default::default()
    }
}

fn a_batch_waits_for_all_of_its_blocks() {
    let (arena, blocks) = full(8);
    free(&arena, blocks[0]);
    free(&arena, blocks[1]);
    let array = View::anonymous(8 * 5);
    thread::scope(|scope| {
        let batch = scope.spawn(|| raw::alloc_bulk(&arena, bulk(&array, page(), 5, None)));
        for block in &blocks[2..5] {
            thread::sleep(WHILE / 2);
            assert!(!batch.is_finished());
            free(&arena, *block);
        }
        let answer = batch.join().unwrap().unwrap();
        assert_eq!(answer.done, 5);
    });
    assert_eq!(stat(&arena).live_blocks, 8);
}

fn a_batch_whose_time_is_up_keeps_what_it_has() {
    let (arena, blocks) = full(8);
    free(&arena, blocks[0]);
    let most = 64;
    let array = View::anonymous(8 * most as usize);
    let timeout = Duration::from_millis(50);
    let start = Instant::now();
    let answer = raw::alloc_bulk(&arena, bulk(&array, page(), 5, Some(timeout))).unwrap();
    assert_eq!(answer.done, 1);
    assert!(start.elapsed() >= timeout);
    assert_eq!(answer.timeout_ns, 0);
    // The time is for the whole call, not for each block: that would be 3.2 s.
    let start = Instant::now();
    let none = raw::alloc_bulk(&arena, bulk(&array, page(), most, Some(timeout)));
    assert_eq!(none.err(), Some(Errno::ETIMEDOUT));
    assert!(
        start.elapsed() < most / 2 * timeout,
        "{:?}",
        start.elapsed()
    );
    // FREE_BULK waits for nothing.
    let asked = freelist_bulk {
        size: 0,
        flags: FREELIST_WAIT,
        timeout_ns: 0,
        ..bulk(&array, 0, 1, None)
    };
    assert_eq!(raw::free_bulk(&arena, asked).err(), Some(Errno::EINVAL));
}

/// Far more threads than blocks, for a while: each gets one in its turn, and
/// all end.
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

/// What `poll()` says, after at most `timeout`.
fn ready(fd: impl AsFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(timeout).unwrap();
    let count = poll(&mut fds, timeout).unwrap();
    let events = fds[0].revents().unwrap();
    assert!(
        events.difference(PollFlags::POLLOUT).is_empty(),
        "{events:?}"
    );
    count == 1
}

fn now(fd: impl AsFd) -> bool {
    ready(fd, Duration::ZERO)
}

/// A program that never sleeps in a call, but in poll().
fn no_wake_up_is_lost_by_poll() {
    let arena = arena();
    arena.set_limit(2 * page()).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let block = loop {
                        match arena.alloc(page(), DEFAULT) {
                            Ok(block) => break block,
                            Err(error) => assert_eq!(error.errno(), Some(Errno::EDQUOT)),
                        }
                        // All share one open file, so another may be told.
                        ready(&arena, Duration::from_millis(20));
                    };
                    free(&arena, block);
                }
            });
        }
    });
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn before_any_refusal_poll_is_ready() {
    let (arena, _) = full(4);
    assert!(now(&arena), "nothing was refused");
    assert!(now(&arena), "still not");
    // What can never be is no refusal to wait for.
    refused(arena.alloc(0, DEFAULT), Errno::EINVAL);
    refused(arena.free(1 << 20), Errno::ENOENT);
    assert!(now(&arena));
}

fn poll_tells_when_the_smallest_refused_size_could_be_served() {
    for refusal in [DEFAULT, DEFAULT | Flags::WAIT] {
        let (arena, blocks) = full(16);
        for size in [8 * page(), 2 * page(), 4 * page()] {
            arena.alloc(size, refusal).unwrap_err();
        }
        assert!(!now(&arena));
        free(&arena, blocks[3]);
        assert!(!now(&arena), "two pages were the smallest");
        free(&arena, blocks[5]);
        assert!(now(&arena), "two pages are free");
        assert!(now(&arena), "reported, and nothing was refused since");
        arena.alloc(2 * page(), DEFAULT).unwrap();

        // Asleep in poll().
        refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
        thread::scope(|scope| {
            let poller = scope.spawn(|| {
                let start = Instant::now();
                (ready(&arena, PATIENCE), start.elapsed())
            });
            thread::sleep(WHILE);
            assert!(!poller.is_finished());
            free(&arena, blocks[7]);
            let (ready, took) = poller.join().unwrap();
            assert!(ready && took < PATIENCE / 2, "{took:?}");
        });
        arena.alloc(page(), DEFAULT).unwrap();
        // A raised limit is as good.
        refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
        assert!(!now(&arena));
        arena.set_limit(17 * page()).unwrap();
        assert!(now(&arena));
    }
}

fn poll_tells_of_memory_that_another_arena_frees() {
    let (hog, blocks) = hog();
    let arena = arena();
    // Registered before the refusal, and polled anew after it.
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll
        .add(&arena, EpollEvent::new(EpollFlags::EPOLLOUT, 1))
        .unwrap();
    refused(arena.alloc(2 * MIB, DEFAULT), Errno::EDQUOT);
    assert!(!now(&arena));
    thread::scope(|scope| {
        let poller = scope.spawn(|| ready(&arena, PATIENCE));
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        let epoller = scope.spawn(move || {
            let mut events = [EpollEvent::empty(); 2];
            epoll.wait(&mut events, timeout).unwrap()
        });
        thread::sleep(WHILE);
        assert!(!poller.is_finished() && !epoller.is_finished());
        let start = Instant::now();
        free(&hog, blocks[0]);
        assert!(poller.join().unwrap());
        assert_eq!(epoller.join().unwrap(), 1);
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    });
    alloc(&arena, 2 * MIB);
}

/// Peer: reports binder-CVE-2024-26606.
fn edges_are_told_by_epoll() {
    let (arena, blocks) = full(4);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(&arena, EpollEvent::new(flags, 7)).unwrap();
    let wait = |timeout: u16| {
        let mut events = [EpollEvent::empty(); 2];
        let count = epoll.wait(&mut events, timeout).unwrap();
        assert!(count == 0 || events[0].data() == 7);
        count
    };
    assert_eq!(wait(0), 1, "ready at first");
    assert_eq!(wait(0), 0, "no edge since");
    for block in &blocks {
        refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
        assert_eq!(wait(10), 0);
        free(&arena, *block);
        assert_eq!(wait(5000), 1, "an edge");
        alloc(&arena, page());
    }
}

/// Peer: vulnerabilities CVE-2019-2215.
fn epoll_outlives_a_closed_arena() {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    for _ in 0..20 {
        let (arena, _) = full(2);
        refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
        let flags = EpollFlags::EPOLLOUT;
        epoll.add(&arena, EpollEvent::new(flags, 1)).unwrap();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let mut events = [EpollEvent::empty(); 2];
                epoll.wait(&mut events, 20u16).unwrap()
            });
            // The last descriptor goes while another thread sleeps on it.
            thread::sleep(Duration::from_millis(2));
            drop(arena);
            assert_eq!(sleeper.join().unwrap(), 0);
        });
    }
    let arena = arena();
    epoll
        .add(&arena, EpollEvent::new(EpollFlags::EPOLLOUT, 1))
        .unwrap();
    drop(epoll);
    alloc(&arena, 64 * KIB);
}
