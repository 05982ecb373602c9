// SPDX-License-Identifier: GPL-2.0

//! Failures of the kernel at every point of a call for the arena as a whole.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use freelist::uapi::{
    freelist_info, freelist_limit, freelist_stat, freelist_trim, FREELIST_IOC_INFO,
    FREELIST_IOC_LIMIT, FREELIST_IOC_STAT, FREELIST_IOC_TRIM,
};
use freelist::{Arena, Flags};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::harness::suite;
use crate::kit::fail_nth::{made, sweep, sweep_new, Prepared};
use crate::kit::{alloc, arena, check, free, page, raw, refused, stat, DEFAULT, KIB, MIB};

suite!("freelist_fail_nth_arena":
    open_fails_cleanly,
    mmap_fails_cleanly,
    info_and_stat_fail_cleanly,
    limit_and_trim_fail_cleanly,
    clone_fails_cleanly,
    poll_fails_cleanly,
    the_texts_of_debugfs_fail_cleanly,
);

/// Prior art: iommufd_fail_nth basic, device.
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

/// Prior art: iommufd_fail_nth map_domain, map_file_domain.
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

/// Prior art: iommufd_fail_nth access_rw.
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

fn the_texts_of_debugfs_fail_cleanly() {
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
        // The text is made at the first read.
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
