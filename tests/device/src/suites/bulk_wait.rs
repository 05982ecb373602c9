// SPDX-License-Identifier: GPL-2.0

//! Batches that wait for their blocks, or are killed.

use std::time::{Duration, Instant};

use freelist::uapi::{freelist_bulk, FREELIST_WAIT};
use freelist::{Arena, Flags, Timeout};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::batch::request;
use crate::kit::process::spawn_child;
use crate::kit::waiter::{full, WHILE};
use crate::kit::{arena, free, page, raw, refused, stat, thread, View, DEFAULT};

suite!("freelist_bulk_wait":
    a_batch_that_is_killed_stops,
    free_blocks_are_allocated_before_a_batch_waits,
    a_timeout_is_for_the_whole_batch,
    a_batch_that_may_not_wait_allocates_all_that_is_free,
    a_batch_waits_for_all_of_its_blocks,
    a_batch_whose_time_is_up_keeps_what_it_has,
);

fn a_batch_that_is_killed_stops() {
    let shared = arena();
    // More than can be allocated before it is killed.
    let max = 8 << 20;
    let child = spawn_child(|| {
        let array = View::anonymous(8 * max);
        let _ = raw::alloc_bulk(&shared, request(32, &array, 0, max as u32));
    });
    // Reserved memory is held, and neither live nor free.
    while shared.stat().unwrap().live_blocks == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let (pid, start) = (child.pid(), Instant::now());
    kill(pid, Signal::SIGKILL).unwrap();
    let status = child.wait();
    let took = start.elapsed();
    assert_eq!(status, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    let stat = stat(&shared);
    eprintln!("{} blocks of {max}, ended after {took:?}", stat.live_blocks);
    assert!(
        stat.live_blocks < max as u64,
        "it was too fast to be killed"
    );
    assert!(took < Duration::from_secs(3), "ended after {took:?}");
    assert_eq!(stat.live_bytes, 32 * stat.live_blocks);
}

/// Returns an arena that may hold 10 pages, and all its live blocks but `free` of them.
fn full_arena(free: usize) -> (Arena, Vec<u64>) {
    let arena = arena();
    arena.set_limit(10 * page()).unwrap();
    let mut offsets = vec![0; 10];
    assert_eq!(arena.alloc_bulk(page(), DEFAULT, &mut offsets).unwrap(), 10);
    arena.free_bulk(&offsets[10 - free..]).unwrap();
    offsets.truncate(10 - free);
    (arena, offsets)
}

fn free_blocks_are_allocated_before_a_batch_waits() {
    let (arena, held) = full_arena(4);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut offsets = [0; 8];
            let mut timeout = Timeout::from(Duration::from_secs(20));
            let done = arena.alloc_bulk_wait(page(), DEFAULT, &mut timeout, &mut offsets);
            (done.unwrap(), timeout.left().unwrap())
        });
        // Its first four blocks are live while it waits for the others.
        while arena.stat().unwrap().live_blocks < 10 {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished());
        arena.free_bulk(&held[..2]).unwrap();
        while arena.stat().unwrap().live_blocks < 10 {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!waiter.is_finished());
        arena.free_bulk(&held[2..4]).unwrap();
        let (done, left) = waiter.join().unwrap();
        assert_eq!(done, 8);
        assert!(left < Duration::from_secs(20), "{left:?}");
    });
    assert_eq!(stat(&arena).live_blocks, 10);
}

fn a_timeout_is_for_the_whole_batch() {
    let (arena, _held) = full_arena(3);
    let mut offsets = [0; 8];
    let time = Duration::from_millis(200);
    let (mut timeout, start) = (Timeout::from(time), Instant::now());
    let done = arena.alloc_bulk_wait(page(), DEFAULT, &mut timeout, &mut offsets);
    assert_eq!(done.unwrap(), 3);
    assert!(start.elapsed() >= time, "{:?}", start.elapsed());
    // A call for the rest fails with the reason.
    let mut timeout = Timeout::from(time);
    let rest = arena.alloc_bulk_wait(page(), DEFAULT, &mut timeout, &mut offsets[3..]);
    refused(rest, Errno::ETIMEDOUT);
    assert!(start.elapsed() >= 2 * time, "{:?}", start.elapsed());
    assert_eq!(stat(&arena).timeouts, 2);
    assert_eq!(stat(&arena).live_blocks, 10);
}

fn a_batch_that_may_not_wait_allocates_all_that_is_free() {
    let (arena, _held) = full_arena(3);
    let mut offsets = [0; 8];
    let flags = DEFAULT | Flags::WAIT;
    assert_eq!(arena.alloc_bulk(page(), flags, &mut offsets).unwrap(), 3);
    refused(
        arena.alloc_bulk(page(), flags, &mut offsets[3..]),
        Errno::EAGAIN,
    );
    assert_eq!(stat(&arena).waits, 0);
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
    let max = 64;
    let array = View::anonymous(8 * max as usize);
    let timeout = Duration::from_millis(50);
    let start = Instant::now();
    let answer = raw::alloc_bulk(&arena, bulk(&array, page(), 5, Some(timeout))).unwrap();
    assert_eq!(answer.done, 1);
    assert!(start.elapsed() >= timeout);
    assert_eq!(answer.timeout_ns, 0);
    // The time is for the whole call, not for each block: that would be 3.2 s.
    let start = Instant::now();
    let none = raw::alloc_bulk(&arena, bulk(&array, page(), max, Some(timeout)));
    assert_eq!(none.err(), Some(Errno::ETIMEDOUT));
    assert!(start.elapsed() < max / 2 * timeout, "{:?}", start.elapsed());
    // FREE_BULK waits for nothing.
    let asked = freelist_bulk {
        size: 0,
        flags: FREELIST_WAIT,
        timeout_ns: 0,
        ..bulk(&array, 0, 1, None)
    };
    assert_eq!(raw::free_bulk(&arena, asked).err(), Some(Errno::EINVAL));
}
