// SPDX-License-Identifier: GPL-2.0

//! Every point at which the kernel may fail inside of a call, swept one by one
//! (Documentation/fault-injection of the kernel, `fail-nth`). Needs a kernel
//! with fault injection; skipped elsewhere.

use std::cell::RefCell;
use std::fmt::Debug;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use freelist::uapi::{
    freelist_alloc, freelist_bulk, freelist_discard, freelist_free, freelist_info, freelist_limit,
    freelist_resize, freelist_stat, freelist_trim, FREELIST_IOC_ALLOC, FREELIST_IOC_ALLOC_BULK,
    FREELIST_IOC_DISCARD, FREELIST_IOC_FREE, FREELIST_IOC_FREE_BULK, FREELIST_IOC_INFO,
    FREELIST_IOC_LIMIT, FREELIST_IOC_RESIZE, FREELIST_IOC_STAT, FREELIST_IOC_TRIM,
};
use freelist::{debugfs, Arena, Block, Flags};
use freelist_probe::FailNth;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::harness::{skip, suite};
use crate::kit::module::{self, MODULE};
use crate::kit::view::{ioctl_at, write_from, Plain};
use crate::kit::waiter::waiting;
use crate::kit::{
    alloc, arena, check, free, info, page, random, raw, refused, scaled, stat, View, DEFAULT, KIB,
    MIB,
};
use crate::{figure, trust};

suite!("freelist_fail_nth":
    open_fails_cleanly,
    mmap_fails_cleanly,
    info_and_stat_fail_cleanly,
    alloc_fails_cleanly_in_an_empty_arena,
    alloc_fails_cleanly_beside_other_blocks,
    free_fails_only_by_its_pointer,
    a_fault_fails_cleanly,
    a_touch_fails_cleanly,
    discard_fails_cleanly,
    batches_fail_cleanly,
    every_flag_fails_cleanly,
    moving_fails_cleanly,
    limit_and_trim_fail_cleanly,
    resize_fails_cleanly,
    clone_fails_cleanly,
    waiting_fails_cleanly,
    poll_fails_cleanly,
    what_is_shown_fails_cleanly,
    loading_fails_cleanly,
);

/// More failure points than any call has.
const MOST: usize = 3000;

/// Returns the switch of this thread.
fn switch() -> FailNth {
    let switch = FailNth::new().expect("root may set its options");
    switch.unwrap_or_else(|| skip("this kernel has no fault injection"))
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
    let switch = switch();
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

/// Peer: iommufd_fail_nth basic, device.
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

/// Peer: iommufd_fail_nth map_domain, map_file_domain.
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

/// Peer: iommufd_fail_nth access_rw.
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
    let switch = switch();
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

/// Peer: iommufd_fail_nth map_domain.
fn alloc_fails_cleanly_in_an_empty_arena() {
    for size in [64, page(), 3 * page(), 64 * KIB] {
        alloc_sweep(size, || (arena(), 0));
    }
}

/// Peer: iommufd_fail_nth map_two_domains.
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
    let switch = switch();
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

/// Peer: iommufd_fail_nth access_pin.
fn a_fault_fails_cleanly() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let switch = switch();
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

/// A page fault in a lazy block, for one page and for several.
fn a_touch_fails_cleanly() {
    let switch = switch();
    for present in [0, 6] {
        for nth in 1..MOST {
            let arena = arena();
            let block = arena.alloc(16 * page(), DEFAULT | Flags::LAZY).unwrap();
            let view = View::shared(&arena, block.offset, block.bytes as usize);
            for index in 0..present {
                view.store(index * page() as usize, 1);
            }
            let held = stat_of_lazy(&arena).held_bytes;
            let (read, write) = nix::unistd::pipe().expect("pipe");
            let from = view.address(present * page() as usize);
            let (result, failed) = switch.run(nth, || write_from(&write, from, 16));
            drop((read, write));
            if made(result).is_some() {
                assert!(stat_of_lazy(&arena).held_bytes > held);
            }
            check();
            // The next touch has its memory, which is zero.
            assert_eq!(view.load(present * page() as usize), 0);
            view.store(present * page() as usize, 5);
            arena.free(block.offset).unwrap();
            arena.trim(0).unwrap();
            assert_eq!(stat(&arena).held_bytes, 0);
            if !failed {
                eprintln!("{} failure points with {present} pages before", nth - 1);
                break;
            }
        }
    }
}

/// Returns the counters, where live blocks hold less than they have.
fn stat_of_lazy(arena: &Arena) -> freelist::Stat {
    arena.stat().expect("STAT")
}

fn discard_fails_cleanly() {
    let pages = 16;
    let request = freelist_discard {
        offset: 0,
        bytes: 5 * page(),
    };
    sweep_new(
        || Prepared::new(FREELIST_IOC_DISCARD, request),
        || {
            let arena = arena();
            assert_eq!(alloc(&arena, pages * page()).offset, 0);
            let view = View::shared(&arena, 0, (pages * page()) as usize);
            (0..pages).for_each(|index| view.store((index * page()) as usize, 7));
            (arena, 1)
        },
        |arena, _, result| {
            let view = View::shared(arena, 0, (pages * page()) as usize);
            let discarded = made(result).is_some();
            for index in 0..pages {
                let byte = view.load((index * page()) as usize);
                if index >= 5 {
                    assert_eq!(byte, 7);
                } else if discarded {
                    assert_eq!(byte, 0);
                }
            }
        },
    );
}

/// Sweeps the failure points of one call, each in an arena of its own, of which
/// `new` also says how many blocks are live. `after` is told how the call ended
/// and undoes it.
#[track_caller]
fn sweep_new(
    prepared: impl Fn() -> Prepared,
    new: impl Fn() -> (Arena, u64),
    after: impl Fn(&Arena, &Prepared, Result<i32, Errno>),
) -> usize {
    let switch = switch();
    for nth in 1..MOST {
        let (arena, live) = new();
        let call = prepared();
        let (result, failed) = switch.run(nth, || call.make(&arena));
        after(&arena, &call, result);
        assert_eq!(stat(&arena).live_blocks, live, "point {nth}");
        check();
        arena.alloc(64, DEFAULT).expect("the next is served");
        if !failed {
            eprintln!("{} failure points", nth - 1);
            return nth - 1;
        }
    }
    panic!("more than {MOST} failure points");
}

fn batches_fail_cleanly() {
    let array = View::anonymous(8 * 70);
    let bulk = |size, count| freelist_bulk {
        size,
        offsets: array.address(0).get() as u64,
        count,
        flags: DEFAULT.bits(),
        ..Default::default()
    };
    let release = |done| freelist_bulk {
        size: 0,
        flags: 0,
        ..bulk(0, done)
    };
    for (size, count) in [(96, 5), (3 * page(), 4)] {
        sweep_new(
            || Prepared::new(FREELIST_IOC_ALLOC_BULK, bulk(size, count)),
            || (arena(), 0),
            |arena, call, result| {
                // What was done stays done, and is told.
                let done = made(result).map_or(0, |_| call.answer::<freelist_bulk>().done);
                assert_eq!(stat(arena).live_blocks, u64::from(done));
                if done > 0 {
                    let freed = raw::free_bulk(arena, release(done)).unwrap();
                    assert_eq!(freed.done, done);
                }
            },
        );
    }
    sweep_new(
        || Prepared::new(FREELIST_IOC_FREE_BULK, release(70)),
        || {
            let arena = arena();
            raw::alloc_bulk(&arena, bulk(64, 70)).unwrap();
            (arena, 0)
        },
        |arena, call, result| {
            match result {
                Ok(_) => {
                    let done = u64::from(call.answer::<freelist_bulk>().done);
                    assert_eq!(stat(arena).live_blocks, 70 - done);
                }
                // The last write alone can fail after the releases.
                Err(errno) => assert_eq!(errno, Errno::EFAULT),
            }
            let offsets = array.bytes(0, 8 * 70);
            for offset in offsets.chunks_exact(8) {
                let offset = u64::from_le_bytes(offset.try_into().unwrap());
                let _ = raw::free(arena, offset);
            }
        },
    );
}

/// Flags beside those that say where a block may come from.
const SPECIAL: [Flags; 6] = [
    Flags::WAIT,
    Flags::ZERO,
    Flags::CONTIG,
    Flags::HEADER,
    Flags::POPULATE,
    Flags::LAZY,
];

/// All combinations that the contract allows, on parts of a page and on whole pages.
fn every_flag_fails_cleanly() {
    // One that is new is to be swept too.
    let known = SPECIAL.into_iter().fold(DEFAULT, |all, flag| all | flag);
    assert_eq!(info().features as u32, known.bits());
    let sources = [Flags::empty(), Flags::LARGER, Flags::GROW].map(|flags| (flags, 0));
    let special = (0..1 << SPECIAL.len()).map(|set| {
        let mut flags = DEFAULT;
        for (bit, flag) in SPECIAL.into_iter().enumerate() {
            if set & (1 << bit) != 0 {
                flags |= flag;
            }
        }
        (flags, set)
    });
    let mut points = 0;
    for (flags, set) in sources.into_iter().chain(special) {
        let excluded = flags.contains(Flags::LAZY)
            && flags.intersects(Flags::CONTIG | Flags::HEADER)
            || flags.contains(Flags::CONTIG | Flags::WAIT);
        if excluded {
            continue;
        }
        let request = freelist_alloc {
            flags: flags.bits(),
            timeout_ns: if flags.contains(Flags::WAIT) {
                1_000_000
            } else {
                0
            },
            ..raw::request([100, 3 * page()][set as usize % 2])
        };
        let views = RefCell::new(Vec::new());
        points += sweep_new(
            || Prepared::new(FREELIST_IOC_ALLOC, request),
            || {
                let arena = arena();
                // POPULATE maps where it is mapped.
                views
                    .borrow_mut()
                    .push(View::shared(&arena, 0, 64 * page() as usize));
                (arena, 0)
            },
            |arena, call, result| {
                if made(result).is_some() {
                    arena.free(call.answer::<freelist_alloc>().offset).unwrap();
                }
            },
        );
    }
    figure!("{points} failure points in calls with all flags");
    trust!("failure_points_of_flags", points, "points", ">=100");
}

/// The pages of free blocks move to a request at the limit.
///
/// Peer: iommufd_fail_nth access_pin_domain.
fn moving_fails_cleanly() {
    sweep_new(
        || Prepared::new(FREELIST_IOC_ALLOC, raw::request(4 * page())),
        || {
            let arena = arena();
            arena.set_limit(16 * page()).unwrap();
            let blocks: Vec<Block> = (0..16).map(|_| alloc(&arena, page())).collect();
            for block in blocks.iter().step_by(2) {
                free(&arena, *block);
            }
            (arena, 8)
        },
        |arena, call, result| {
            if made(result).is_some() {
                arena.free(call.answer::<freelist_alloc>().offset).unwrap();
            }
        },
    );
}

fn limit_and_trim_fail_cleanly() {
    let idle = || {
        let arena = arena();
        let block = alloc(&arena, MIB);
        alloc(&arena, 64);
        free(&arena, block);
        (arena, 1)
    };
    let limit = freelist_limit {
        bytes: 64 * KIB,
        ..Default::default()
    };
    sweep_new(
        || Prepared::new(FREELIST_IOC_LIMIT, limit),
        idle,
        |arena, _, result| {
            let now = arena.info().unwrap().limit_bytes;
            match made(result) {
                Some(_) => assert_eq!(now, 64 * KIB),
                None => assert_ne!(now, 64 * KIB),
            }
        },
    );
    sweep_new(
        || Prepared::new(FREELIST_IOC_TRIM, freelist_trim::default()),
        idle,
        |arena, call, result| {
            if made(result).is_some() {
                let freed = call.answer::<freelist_trim>().freed_bytes;
                assert_eq!(freed, stat(arena).trims * page());
                assert_eq!(freed, MIB);
            }
        },
    );
}

fn resize_fails_cleanly() {
    for pages in [8, 400] {
        let request = freelist_resize {
            size: pages * page(),
            flags: (DEFAULT | Flags::ZERO | Flags::POPULATE).bits(),
            ..Default::default()
        };
        sweep_new(
            || Prepared::new(FREELIST_IOC_RESIZE, request),
            || {
                let arena = arena();
                assert_eq!(alloc(&arena, 16 * page()).offset, 0);
                (arena, 1)
            },
            |arena, _, result| {
                let now = stat(arena).live_bytes / page();
                assert_eq!(now, if made(result).is_some() { pages } else { 16 });
            },
        );
    }
}

fn clone_fails_cleanly() {
    let source = arena();
    for size in [32, 3 * page(), 100, 40 * page(), MIB, 2048] {
        alloc(&source, size);
    }
    source.alloc(5 * page(), DEFAULT | Flags::HEADER).unwrap();
    let live = stat(&source).live_bytes;
    let now = || {
        let stats = freelist::debugfs::Stats::read().unwrap();
        ["arenas", "held_bytes", "live_blocks"].map(|name| stats.get(name))
    };
    let before = now();
    let copy = || {
        let copy = source.copy();
        copy.map_err(|error| error.errno().expect("the kernel refused"))
    };
    sweep(copy, |result| {
        if let Some(copy) = made(result) {
            assert_eq!(stat(&copy).live_bytes, live);
        }
        assert_eq!(now(), before);
    });
}

fn waiting_fails_cleanly() {
    let request = waiting(page(), DEFAULT, Some(std::time::Duration::from_millis(1)));
    sweep_new(
        || Prepared::new(FREELIST_IOC_ALLOC, request),
        || {
            let arena = arena();
            arena.set_limit(page()).unwrap();
            let parts = [0; 4].map(|_| alloc(&arena, page() / 4));
            free(&arena, parts[2]);
            (arena, 3)
        },
        |arena, _, result| {
            let errno = result.expect_err("there is no such block");
            let expected = [Errno::ETIMEDOUT, Errno::ENOMEM, Errno::EFAULT];
            assert!(expected.contains(&errno), "{errno}");
            // No waiter is left: the next one is served at once.
            alloc(arena, page() / 4);
            let live = stat(arena).live_blocks;
            assert_eq!(live, 4);
            arena.free(2 * page() / 4).unwrap();
        },
    );
}

fn poll_fails_cleanly() {
    let arena = arena();
    arena.set_limit(page()).unwrap();
    let block = alloc(&arena, page());
    refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
    let ask = || {
        let mut polled = [PollFd::new(arena.as_fd(), PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::from(1_u8)).map(|_| polled[0].any().unwrap_or(false))
    };
    sweep(ask, |result| {
        assert_ne!(made(result), Some(true), "there is no room");
    });
    free(&arena, block);
    sweep(ask, |result| {
        assert_ne!(made(result), Some(false), "there is room");
    });
}

fn what_is_shown_fails_cleanly() {
    let arena = arena();
    for size in [32, page(), 300 * KIB] {
        alloc(&arena, size);
    }
    let dir = Path::new(freelist::debugfs::DIR);
    let of_arena = fs::read_dir(dir.join("arenas.d")).unwrap();
    let of_arena = of_arena.flatten().next().expect("an arena").path();
    let fdinfo = format!("/proc/self/fdinfo/{}", arena.as_fd().as_raw_fd());
    let paths = [
        dir.join("stats"),
        dir.join("classes"),
        dir.join("arenas"),
        of_arena.join("map"),
        fdinfo.into(),
    ];
    for path in paths {
        let open = || File::open(&path).map_err(errno_of);
        sweep(open, |result| drop(made(result)));
        // What is shown is made at the first read.
        let mut whole = vec![0; 16 << 10];
        let read = || {
            let file = File::open(&path).map_err(errno_of)?;
            file.read_at(&mut whole, 0).map_err(errno_of)
        };
        sweep(read, |result| assert_ne!(made(result), Some(0), "{path:?}"));
    }
    check();
    assert_eq!(stat(&arena).live_blocks, 3);
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().expect("the kernel refused"))
}

/// More failure points than a load has: most are the loader's own.
const MOST_OF_A_LOAD: usize = 1 << 16;
/// Those of the module's own code, and some before.
const LAST_OF_A_LOAD: usize = 240;

/// The module's own failure points are the last of a load. One in eight of them is tried, others
/// each time; all with a scale of 8.
fn loading_fails_cleanly() {
    let Ok(file) = File::open(MODULE) else {
        skip("the module's file is not there");
    };
    let switch = switch();
    module::unload();
    // Says whether there was such a point; whatever is loaded then goes again.
    let fails_at = |nth| {
        let (result, failed) = switch.run(nth, || module::load(&file));
        match result {
            Ok(()) => module::unload(),
            Err(error) => {
                assert!(failed, "{error}");
                for left in ["/sys/module/freelist", "/dev/freelist", debugfs::DIR] {
                    assert!(!Path::new(left).exists(), "{left} is left of point {nth}");
                }
            }
        }
        failed
    };
    let (mut last, mut beyond) = (1, MOST_OF_A_LOAD);
    while last + 1 < beyond {
        let nth = last.midpoint(beyond);
        if fails_at(nth) {
            last = nth;
        } else {
            beyond = nth;
        }
    }
    let step = (8 / scaled(1)).max(1);
    let first = last.saturating_sub(LAST_OF_A_LOAD) + random().usize(..step);
    let tried = (first..=last)
        .step_by(step)
        .filter(|nth| fails_at(*nth))
        .count();
    eprintln!("{last} failure points, {tried} of the last {LAST_OF_A_LOAD} tried");
    module::load(&file).expect("nothing fails");
    let arena = arena();
    let block = alloc(&arena, KIB);
    arena.free(block.offset).unwrap();
    check();
}
