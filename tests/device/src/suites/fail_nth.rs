// SPDX-License-Identifier: GPL-2.0

//! Every point at which the kernel may fail inside of a call, swept one by one
//! (Documentation/fault-injection of the kernel, `fail-nth`). Needs a kernel
//! with fault injection; skipped elsewhere.
//! Peer: iommufd `fail_nth`.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use freelist::{Arena, Block};
use nix::errno::Errno;

use crate::harness::{skip, suite};
use crate::kit::view::write_from;
use crate::kit::{alloc, arena, free, page, raw, stat, View, DEFAULT, KIB};

suite!("freelist_fail_nth":
    open_fails_cleanly,
    mmap_fails_cleanly,
    info_and_stat_fail_cleanly,
    alloc_fails_cleanly_in_an_empty_arena,
    alloc_fails_cleanly_beside_other_blocks,
    free_fails_only_by_its_pointer,
    a_fault_fails_cleanly,
);

/// More failure points than any call has.
const MOST: usize = 3000;

/// The switch of this thread.
struct FailNth(File);

impl FailNth {
    /// Lets all kinds of allocations and copies fail, quietly.
    fn new() -> Self {
        let debugfs = Path::new("/sys/kernel/debug");
        let options = [
            ("failslab/ignore-gfp-wait", "N"),
            ("failslab/verbose", "0"),
            ("fail_page_alloc/ignore-gfp-wait", "N"),
            ("fail_page_alloc/ignore-gfp-highmem", "N"),
            ("fail_page_alloc/min-order", "0"),
            ("fail_page_alloc/verbose", "0"),
            ("fail_usercopy/verbose", "0"),
        ];
        for (option, value) in options {
            let path = debugfs.join(option);
            if path.exists() {
                fs::write(path, value).expect("root may set it");
            }
        }
        let mut file = File::options();
        match file
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")
        {
            Ok(file) => Self(file),
            Err(_) => skip("this kernel has no fault injection"),
        }
    }

    /// Runs `call` with its failure point number `nth` failing. Says also
    /// whether there was one.
    fn run<T>(&mut self, nth: usize, call: impl FnOnce() -> T) -> (T, bool) {
        self.0.seek(SeekFrom::Start(0)).expect("seek");
        let text = nth.to_string();
        self.0.write_all(text.as_bytes()).expect("fail-nth is set");
        let result = call();
        let mut left = [0; 16];
        self.0.seek(SeekFrom::Start(0)).expect("seek");
        let len = self.0.read(&mut left).expect("fail-nth is read");
        self.0.seek(SeekFrom::Start(0)).expect("seek");
        self.0.write_all(b"0").expect("fail-nth is cleared");
        (result, left[..len].starts_with(b"0"))
    }
}

/// Makes every failure point of `call` fail in turn and hands each result to
/// `after`, until there is no further point.
#[track_caller]
fn sweep<T: Debug>(mut call: impl FnMut() -> T, mut after: impl FnMut(T)) {
    let mut switch = FailNth::new();
    // What is done once only is done before.
    after(call());
    for nth in 1..MOST {
        let (result, failed) = switch.run(nth, &mut call);
        after(result);
        if !failed {
            eprintln!("{} failure points", nth - 1);
            return;
        }
    }
    panic!("more than {MOST} failure points");
}

/// What a failure that was made can be seen as.
#[track_caller]
fn made<T: Debug>(result: Result<T, Errno>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Errno::ENOMEM | Errno::EFAULT) => None,
        Err(errno) => panic!("failed by {errno}"),
    }
}

fn open_fails_cleanly() {
    let before = freelist::debugfs::Stats::read().unwrap();
    let open = || Arena::open().map_err(|error| error.errno().expect("the kernel refused"));
    sweep(open, |result| {
        if let Some(arena) = made(result) {
            assert_eq!(stat(&arena).held_bytes, 0);
        }
    });
    let after = freelist::debugfs::Stats::read().unwrap();
    assert_eq!(after.get("arenas"), before.get("arenas"));
}

fn mmap_fails_cleanly() {
    let arena = arena();
    let map = || {
        arena
            .map(4 * page())
            .map_err(|error| error.errno().expect("the kernel refused"))
    };
    sweep(map, |result| drop(made(result)));
    alloc(&arena, 64);
}

fn info_and_stat_fail_cleanly() {
    let arena = arena();
    let info = raw::info(&arena).unwrap();
    sweep(
        || raw::info(&arena),
        |result| assert!(made(result).is_none_or(|answer| answer == info)),
    );
    let stat = raw::stat(&arena).unwrap();
    sweep(
        || raw::stat(&arena),
        |result| assert!(made(result).is_none_or(|answer| answer == stat)),
    );
}

/// After every failure nothing is live that was not before, all bytes are
/// accounted for, and the next request is served.
#[track_caller]
fn alloc_sweep(size: u64, new: impl Fn() -> (Arena, u64)) {
    let mut state = new();
    let request = raw::request(size);
    let mut switch = FailNth::new();
    for nth in 1..MOST {
        let (arena, live) = &state;
        let (result, failed) = switch.run(nth, || raw::alloc(arena, request));
        match made(result) {
            Some(answer) => {
                assert_eq!(stat(arena).live_blocks, live + 1);
                arena.free(answer.offset).unwrap();
            }
            None => assert_eq!(stat(arena).live_blocks, *live, "point {nth}"),
        }
        let block = arena.alloc(size, DEFAULT).expect("the next is served");
        let memory = View::shared(arena, block.offset / page() * page(), page() as usize);
        memory.touch((block.offset % page()) as usize);
        if !failed {
            eprintln!("{} failure points for {size} bytes", nth - 1);
            return;
        }
        state = new();
    }
    panic!("more than {MOST} failure points");
}

fn alloc_fails_cleanly_in_an_empty_arena() {
    for size in [64, page(), 3 * page(), 64 * KIB] {
        alloc_sweep(size, || (arena(), 0));
    }
}

fn alloc_fails_cleanly_beside_other_blocks() {
    let busy = || {
        let arena = arena();
        // Free and live blocks of all kinds; what is asked for below fits none.
        let blocks = [32, 128, page(), 3 * page()].map(|size| alloc(&arena, size));
        free(&arena, blocks[1]);
        free(&arena, blocks[2]);
        (arena, 2)
    };
    for size in [page() / 2, 2 * page(), 64 * KIB] {
        alloc_sweep(size, busy);
    }
}

fn free_fails_only_by_its_pointer() {
    let arena = arena();
    let mut switch = FailNth::new();
    for size in [64, page(), 64 * KIB] {
        for nth in 1..MOST {
            let Block { offset, .. } = alloc(&arena, size);
            let (result, failed) = switch.run(nth, || raw::free(&arena, offset));
            match result {
                Ok(()) => {}
                // The block is live as before; a release needs no memory.
                Err(Errno::EFAULT) => arena.free(offset).unwrap(),
                Err(errno) => panic!("failed by {errno}"),
            }
            assert_eq!(stat(&arena).live_blocks, 0);
            if !failed {
                break;
            }
        }
    }
}

fn a_fault_fails_cleanly() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let mut switch = FailNth::new();
    for nth in 1..MOST {
        let view = View::shared(&arena, block.offset, block.bytes as usize);
        // The pipe's own failures are no concern here.
        let (read, write) = nix::unistd::pipe().expect("pipe");
        let from = view.address(page() as usize - 8);
        let (_, failed) = switch.run(nth, || write_from(&write, from, 16));
        drop((read, write));
        view.store(0, 5);
        assert_eq!(view.load(0), 5);
        if !failed {
            eprintln!("{} failure points", nth - 1);
            break;
        }
    }
    assert_eq!(stat(&arena).live_blocks, 1);
    free(&arena, block);
}
