// SPDX-License-Identifier: GPL-2.0

//! Every point at which the kernel may fail inside of a call, swept one by one
//! (Documentation/fault-injection of the kernel, `fail-nth`). Needs a kernel
//! with fault injection; skipped elsewhere.
//! Peer: iommufd `fail_nth`.

use std::fmt::Debug;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use freelist::uapi::{
    freelist_alloc, freelist_free, freelist_info, freelist_stat, FREELIST_IOC_ALLOC,
    FREELIST_IOC_FREE, FREELIST_IOC_INFO, FREELIST_IOC_STAT,
};
use freelist::{Arena, Block};
use nix::errno::Errno;

use crate::harness::{skip, suite};
use crate::kit::view::{ioctl_at, write_from, Plain};
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

    /// Runs `call`, which makes one system call, with its failure point number
    /// `nth` failing. Says also whether there was one.
    fn run<T>(&self, nth: usize, call: impl FnOnce() -> T) -> (T, bool) {
        let text = nth.to_string();
        let set = self.0.write_at(text.as_bytes(), 0);
        let result = call();
        // What is left may make these fail in place of the call.
        let mut left = [0; 16];
        let read = self.0.read_at(&mut left, 0);
        while self.0.write_at(b"0", 0).is_err() {}
        set.expect("fail-nth is set");
        let failed = read.is_ok_and(|len| &left[..len] == b"0\n");
        (result, failed)
    }
}

/// A call with its structure, so that making it is one system call.
struct Prepared {
    request: u32,
    view: View,
}

impl Prepared {
    fn new<T: Plain>(request: u32, with: T) -> Self {
        let view = View::anonymous(size_of::<T>());
        view.set_bytes(0, &with.to_bytes());
        Self { request, view }
    }

    fn make(&self, arena: &Arena) -> Result<i32, Errno> {
        ioctl_at(arena, self.request, self.view.address(0))
    }

    fn answer<T: Plain>(&self) -> T {
        T::from_bytes(&self.view.bytes(0, size_of::<T>()))
    }
}

/// Makes every failure point of `call` fail in turn and hands each result to
/// `after`, until there is no further point.
#[track_caller]
fn sweep<T: Debug>(mut call: impl FnMut() -> T, mut after: impl FnMut(T)) {
    let switch = FailNth::new();
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
    let info = Prepared::new(FREELIST_IOC_INFO, freelist_info::default());
    let expected = raw::info(&arena).unwrap();
    sweep(
        || info.make(&arena),
        |result| {
            if made(result).is_some() {
                assert_eq!(info.answer::<freelist_info>(), expected);
            }
        },
    );
    let stat = Prepared::new(FREELIST_IOC_STAT, freelist_stat::default());
    let expected = raw::stat(&arena).unwrap();
    sweep(
        || stat.make(&arena),
        |result| {
            if made(result).is_some() {
                assert_eq!(stat.answer::<freelist_stat>(), expected);
            }
        },
    );
}

/// After every failure nothing is live that was not before, all bytes are
/// accounted for, and the next request is served.
#[track_caller]
fn alloc_sweep(size: u64, new: impl Fn() -> (Arena, u64)) {
    let mut state = new();
    let switch = FailNth::new();
    for nth in 1..MOST {
        let (arena, live) = &state;
        let request = Prepared::new(FREELIST_IOC_ALLOC, raw::request(size));
        let (result, failed) = switch.run(nth, || request.make(arena));
        match made(result) {
            Some(_) => {
                assert_eq!(stat(arena).live_blocks, live + 1);
                let answer = request.answer::<freelist_alloc>();
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
    let switch = FailNth::new();
    for size in [64, page(), 64 * KIB] {
        for nth in 1..MOST {
            let Block { offset, .. } = alloc(&arena, size);
            let request = Prepared::new(FREELIST_IOC_FREE, freelist_free { offset });
            let (result, failed) = switch.run(nth, || request.make(&arena));
            match result {
                Ok(_) => {}
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
    let switch = FailNth::new();
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
