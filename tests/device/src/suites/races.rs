// SPDX-License-Identifier: GPL-2.0

//! Rare races, made to happen: on kernels with fault injection the module delays a thread at each race point
//! (debugfs `delay_us`). Skipped on other kernels.
//! Prior art: vulnerabilities CVE-2024-0582.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use freelist::{Arena, Block, Flags};
use nix::errno::Errno;
use nix::unistd::gettid;

use crate::harness::{skip, suite};
use crate::kit::calls::read_to;
use crate::kit::process::spawn_child;
use crate::kit::{
    alloc, arena, check, counters, free, largest_folio, page, raw, refused, stat, system_page,
    thread, View, DEFAULT, LARGER, MIB,
};

suite!("freelist_races":
    a_write_by_a_fault_in_flight_is_not_lost_when_its_page_is_removed,
    a_fault_in_flight_does_not_bring_a_moved_page_back,
    no_request_gets_a_page_that_is_being_removed,
    a_guessed_free_fails_until_the_block_is_reported,
    a_block_that_is_not_reported_yet_shows_zeros,
    an_arena_is_closed_while_its_pages_are_removed,
    a_thread_killed_at_a_race_point_loses_nothing,
    an_open_keeps_no_other_device_waiting,
    a_map_of_a_million_blocks_is_walked_in_steps,
);

/// The time for which a race point is held if the second thread waits for its end.
const OPEN: Duration = Duration::from_millis(80);
/// The longest time until a thread is at a race point, and for the second thread's work.
const PATIENCE: Duration = Duration::from_secs(30);

/// A race point at which threads are delayed until this is dropped.
struct RacePoint(PathBuf);

impl RacePoint {
    fn arm(name: &str) -> Self {
        let path = Path::new(freelist::debugfs::DIR)
            .join("delay_us")
            .join(name);
        if !path.exists() {
            skip("this kernel has no fault injection");
        }
        let point = Self(path);
        point.set(PATIENCE);
        point
    }

    /// Sets the longest time that a thread stays there.
    fn set(&self, max: Duration) {
        fs::write(&self.0, max.as_micros().to_string()).expect("root may set it");
    }
}

impl Drop for RacePoint {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, "0");
    }
}

/// Waits until a thread is at a race point: only there it sleeps without being interruptible. `thread` is its
/// directory in `/proc`.
fn await_at_point(thread: &str) {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(format!("{thread}/stat")).unwrap_or_default();
        let state = text
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        if state == Some('D') {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "no thread came to the race point"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `first` in a thread, and `second` while that thread is at the race point `name`. The thread goes on when
/// `second` is done, or `more` after `second` has begun.
fn meet_for<A: Send, B>(
    name: &str,
    more: Duration,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    let point = RacePoint::arm(name);
    let start = Instant::now();
    thread::scope(|scope| {
        let (tell, thread) = mpsc::channel();
        let first = scope.spawn(move || {
            tell.send(gettid()).expect("is awaited");
            first()
        });
        let thread = thread.recv().expect("it runs");
        await_at_point(&format!("/proc/self/task/{thread}"));
        // The thread is there since `start` at the earliest.
        point.set(start.elapsed() + more);
        let second = second();
        drop(point);
        (first.join().expect("no panic"), second)
    })
}

/// Makes two threads meet as [`meet_for`], if `second` waits for nothing that `first` has.
fn meet<A: Send, B>(
    name: &str,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    meet_for(name, PATIENCE, first, second)
}

/// Writes a byte to an address as a system call does: a fault that fails is an
/// errno and no signal.
fn write(view: &View, at: usize, byte: u8) -> Result<(), Errno> {
    let (read, write) = nix::unistd::pipe().unwrap();
    nix::unistd::write(&write, &[byte]).unwrap();
    read_to(&read, view.address(at), 1).map(drop)
}

fn a_write_by_a_fault_in_flight_is_not_lost_when_its_page_is_removed() {
    let arena = arena();
    let views = [0, 1].map(|_| View::shared(&arena, 0, MIB as usize));
    let block = alloc(&arena, page());
    let at = block.offset as usize;
    let (_, freed) = meet_for(
        "fault",
        OPEN,
        || write(&views[0], at, 0x11),
        || {
            free(&arena, block);
            arena.trim(0).unwrap()
        },
    );
    assert_eq!(freed, page());
    // The removal cleared the fault's entry, too.
    assert_eq!(views[0].probe(at), Err(Errno::EFAULT));
    let again = alloc(&arena, page());
    assert_eq!(again, block, "low offsets are used first");
    views[1].store(at, 0x22);
    assert_eq!(views[0].load(at), 0x22, "both show the same page");
    views[0].store(at + 1, 0x33);
    assert_eq!(views[1].load(at + 1), 0x33);
    check();
}

fn a_fault_in_flight_does_not_bring_a_moved_page_back() {
    let arena = arena();
    arena.set_limit(8 * page()).unwrap();
    let blocks: Vec<Block> = (0..8).map(|_| alloc(&arena, page())).collect();
    let view = View::shared(&arena, 0, MIB as usize);
    // Every second page, so that their memory has to move.
    for block in blocks.iter().step_by(2).skip(1) {
        free(&arena, *block);
    }
    let last = blocks[0];
    let (_, moved) = meet_for(
        "fault",
        OPEN,
        || write(&view, last.offset as usize, 0x11),
        || {
            free(&arena, last);
            arena.alloc(4 * page(), DEFAULT).unwrap()
        },
    );
    let pages = || (0..4).map(|i| moved.offset as usize + i * system_page());
    pages().for_each(|at| view.store(at, 0x22));
    // A write through the old place would show in the new one.
    let _ = write(&view, last.offset as usize, 0x33);
    for at in pages() {
        assert_eq!(view.load(at), 0x22, "page {at:#x}");
    }
    check();
}

fn no_request_gets_a_page_that_is_being_removed() {
    let arena = arena();
    let view = View::shared(&arena, 0, MIB as usize);
    let block = alloc(&arena, 4 * page());
    let at = block.offset as usize;
    view.store(at, 1);
    free(&arena, block);
    let (freed, ()) = meet(
        "removal",
        || arena.trim(0).unwrap(),
        || {
            // The arena's own bytes, unless they are gone.
            assert_eq!(view.probe(at), Ok(1));
            view.store(at, 3);
            refused(arena.alloc(4 * page(), LARGER), Errno::ENOMEM);
            refused(arena.free(block.offset), Errno::ENOENT);
            let other = alloc(&arena, 4 * page());
            assert_ne!(other.offset, block.offset);
            view.store(other.offset as usize, 2);
            let stat = counters_loosely(&arena);
            assert_eq!(stat.held_bytes, 8 * page(), "held until it is gone");
        },
    );
    assert_eq!(freed, 4 * page());
    assert_eq!(
        view.probe(at),
        Err(Errno::EFAULT),
        "the pages that were mapped meanwhile"
    );
    assert_eq!(stat(&arena).held_bytes, 4 * page());
    check();
}

/// Returns the counters while pages are neither live nor free.
#[track_caller]
fn counters_loosely(arena: &Arena) -> freelist::Stat {
    let stat = arena.stat().expect("STAT");
    assert!(
        stat.live_bytes + stat.free_bytes <= stat.held_bytes,
        "{stat:?}"
    );
    stat
}

/// Prior art: reports binder-a370003cc301.
fn a_guessed_free_fails_until_the_block_is_reported() {
    let contig = DEFAULT | Flags::CONTIG;
    for (size, flags) in [
        (64, DEFAULT),
        (page(), DEFAULT),
        (largest_folio().min(3 * page()), contig),
        (64, DEFAULT | Flags::HEADER),
        (100_000, DEFAULT | Flags::ZERO),
    ] {
        let arena = arena();
        let (block, ()) = meet(
            "answer",
            || arena.alloc(size, flags).unwrap(),
            || {
                for offset in [0, 16, 32, page()] {
                    refused(arena.free(offset), Errno::ENOENT);
                }
                let stat = counters_loosely(&arena);
                assert_eq!((stat.live_blocks, stat.frees), (0, 0));
            },
        );
        assert!(block.offset <= 16, "it was the one that was guessed");
        free(&arena, block);
        assert_eq!(counters(&arena).live_blocks, 0);
    }
    let arena = arena();
    let (offsets, ()) = meet(
        "answer",
        || {
            let mut offsets = [0; 8];
            arena.alloc_bulk(64, DEFAULT, &mut offsets).unwrap();
            offsets
        },
        || {
            for offset in (0..8 * 64).step_by(64) {
                refused(arena.free(offset), Errno::ENOENT);
            }
        },
    );
    assert_eq!(arena.free_bulk(&offsets).unwrap(), 8);
    check();
}

/// Its memory is the arena's already: zeros, and the writes of the arena's own processes.
fn a_block_that_is_not_reported_yet_shows_zeros() {
    let arena = arena();
    let view = View::shared(&arena, 0, MIB as usize);
    let (block, early) = meet(
        "answer",
        || alloc(&arena, 2 * page()),
        || (view.probe(0), view.probe(system_page())),
    );
    assert_eq!(block.offset, 0);
    assert_eq!(early, (Ok(0), Ok(0)));
    assert_eq!(view.load(0), 0);
    check();
}

/// The call continues, and ends the arena afterwards.
fn an_arena_is_closed_while_its_pages_are_removed() {
    let arena = arena();
    let block = alloc(&arena, 100 * page());
    free(&arena, block);
    let other = arena.try_clone().unwrap();
    meet("removal", || other.trim(0).unwrap(), || drop(arena));
    drop(other);
    check();
}

fn a_thread_killed_at_a_race_point_loses_nothing() {
    use nix::sys::signal::{kill, Signal};
    let shared = arena();
    for size in [64, 10 * page()] {
        let point = RacePoint::arm("answer");
        let child = spawn_child(|| _ = raw::alloc(&shared, raw::request(size)));
        await_at_point(&format!("/proc/{}", child.pid()));
        kill(child.pid(), Signal::SIGKILL).unwrap();
        drop(point);
        child.wait();
    }
    // Each block is live, and no thread knows it, or its reservation was cancelled.
    let stat = stat(&shared);
    assert!(stat.live_blocks <= 2, "{stat:?}");
    check();
}

/// An open may take long: in a full cgroup it reclaims memory first. Misc devices are opened one at a
/// time.
fn an_open_keeps_no_other_device_waiting() {
    let misc = fs::read_to_string("/proc/misc").expect("is there");
    let names = misc
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    let others = names.filter(|name| *name != "freelist");
    let mut nodes = others.map(|name| Path::new("/dev").join(name));
    let other = nodes
        .find(|node| fs::File::open(node).is_ok())
        .expect("a device that can be opened");
    let (_, took) = meet("open", arena, || {
        let start = Instant::now();
        fs::File::open(&other).expect("was opened before");
        start.elapsed()
    });
    assert!(took < PATIENCE / 4, "{}: {took:?}", other.display());
}

/// Extents of a step.
const STEP: usize = 256;
/// The delay of the walk after each step.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock is dropped after each step: calls and touches go on in between, and the walk takes a delay for each
/// step. A walk in one step would take one delay.
fn a_map_of_a_million_blocks_is_walked_in_steps() {
    const MANY: usize = 1_000_000;
    let arena = arena();
    let mut offsets = vec![0; 4096];
    for _ in 0..MANY.div_ceil(offsets.len()) {
        arena.alloc_bulk(32, DEFAULT, &mut offsets).unwrap();
    }
    let steps = (stat(&arena).live_bytes / page()) as usize / STEP;
    let id = freelist::debugfs::Arenas::read()
        .unwrap()
        .0
        .pop()
        .unwrap()
        .id;
    let path = format!("{}/arenas.d/{id}/map", freelist::debugfs::DIR);
    let open = || drop(fs::File::open(&path).unwrap());
    let view = View::shared(&arena, 0, MIB as usize);
    // Without the arena's lock: what follows ends while the walk is in its first step.
    let ((), ()) = meet("map", open, || {
        let block = alloc(&arena, 3 * page());
        free(&arena, block);
        view.store(0, 1);
        assert_eq!(stat(&arena).live_blocks as usize % offsets.len(), 0);
    });
    let point = RacePoint::arm("map");
    point.set(PAUSE);
    let took = (0..3).map(|_| {
        let start = Instant::now();
        open();
        start.elapsed()
    });
    let least = took.min().expect("several");
    drop(point);
    let expected = PAUSE * steps as u32;
    assert!(least >= expected, "{least:?} for {steps} steps");
}
