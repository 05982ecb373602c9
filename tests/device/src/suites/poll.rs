// SPDX-License-Identifier: GPL-2.0

//! poll() and epoll of an arena: when it is ready, and which events there are.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use freelist::Flags;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::harness::suite;
use crate::kit::waiter::{full, hog, PATIENCE, WHILE};
use crate::kit::{alloc, arena, free, page, refused, stat, thread, DEFAULT, KIB, MIB};

suite!("freelist_poll":
    no_wake_up_is_lost_by_poll,
    before_any_refusal_poll_is_ready,
    poll_reports_when_the_smallest_refused_size_could_be_served,
    poll_reports_memory_that_another_arena_frees,
    edges_are_reported_by_epoll,
    epoll_outlives_a_closed_arena,
);

/// Returns the result of `poll()` with this timeout.
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
                        // All share one open file, so another thread may be woken.
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
    // A request that can never succeed is not waited for.
    refused(arena.alloc(0, DEFAULT), Errno::EINVAL);
    refused(arena.free(1 << 20), Errno::ENOENT);
    assert!(now(&arena));
}

fn poll_reports_when_the_smallest_refused_size_could_be_served() {
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
        // A raised limit makes it ready, too.
        refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
        assert!(!now(&arena));
        arena.set_limit(17 * page()).unwrap();
        assert!(now(&arena));
    }
}

fn poll_reports_memory_that_another_arena_frees() {
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

/// Prior art: reports binder-CVE-2024-26606.
fn edges_are_reported_by_epoll() {
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

/// Prior art: vulnerabilities CVE-2019-2215.
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
