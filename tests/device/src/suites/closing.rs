// SPDX-License-Identifier: GPL-2.0

//! An arena that is closed beside its own calls: another one takes its number at once, so that the last
//! reference is dropped at the end of a call, of a mapping, of a poll, or of a read of its files.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use freelist::{debugfs, Arena, Error, Flags, Timeout};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::storm::nothing_is_held;
use crate::harness::suite;
use crate::kit::{arena, check, files, page, scaled, thread, View, DEFAULT, KIB, MIB};

suite!("freelist_closing":
    an_arena_that_is_closed_beside_each_of_its_calls_ends_whole,
);

/// A call that a thread makes on an arena, again and again.
type Work = fn(&Arena, &mut fastrand::Rng) -> Result<(), Error>;

/// Checks that a call succeeded, or failed as it may in another arena, which has the number of the closed one.
#[track_caller]
fn is_of_another_arena(result: Result<(), Error>) {
    let Err(error) = result else { return };
    let allowed = [
        Errno::ENOENT,
        Errno::EINVAL,
        Errno::ENOSPC,
        Errno::ETIMEDOUT,
        Errno::EDQUOT,
        Errno::ENOMEM,
        Errno::EAGAIN,
        Errno::EUCLEAN,
    ];
    assert!(
        error.errno().is_some_and(|errno| allowed.contains(&errno)),
        "{error}"
    );
}

fn size(rng: &mut fastrand::Rng) -> u64 {
    [32, 2 * KIB, page(), 64 * KIB, MIB][rng.usize(0..5)]
}

fn allocates(arena: &Arena, rng: &mut fastrand::Rng) -> Result<(), Error> {
    let flags = [Flags::empty(), Flags::ZERO, Flags::HEADER, Flags::LAZY];
    let block = arena.alloc(size(rng).max(page()), DEFAULT | flags[rng.usize(0..4)])?;
    arena.free(block.offset)
}

fn allocates_in_batches(arena: &Arena, rng: &mut fastrand::Rng) -> Result<(), Error> {
    let mut offsets = [0; 100];
    let count = arena.alloc_bulk(size(rng).min(page()), DEFAULT, &mut offsets)?;
    arena.free_bulk(&offsets[..count]).map(drop)
}

fn resizes_and_discards(arena: &Arena, rng: &mut fastrand::Rng) -> Result<(), Error> {
    let block = arena.alloc(size(rng) + 2 * page(), DEFAULT)?;
    arena.resize(block.offset, size(rng).max(page()), DEFAULT)?;
    arena.discard(block.offset, page())?;
    arena.free(block.offset)
}

fn copies(arena: &Arena, _: &mut fastrand::Rng) -> Result<(), Error> {
    let copy = arena.copy()?;
    copy.trim(0).map(drop)
}

fn trims_and_limits(arena: &Arena, rng: &mut fastrand::Rng) -> Result<(), Error> {
    arena.trim(rng.u64(0..MIB))?;
    arena.set_limit(rng.u64(1..64) * MIB)?;
    arena.set_slack_permille(Some(rng.u32(1..1000)))?;
    arena.stat().map(drop)
}

fn waits(arena: &Arena, _: &mut fastrand::Rng) -> Result<(), Error> {
    let mut timeout = Timeout::from(Duration::from_millis(2));
    // Without GROW the call waits for a free block.
    let block = arena.alloc_wait(3 * MIB, Flags::LARGER, &mut timeout)?;
    arena.free(block.offset)
}

fn maps_and_touches(arena: &Arena, rng: &mut fastrand::Rng) -> Result<(), Error> {
    let block = arena.alloc(64 * KIB, DEFAULT | Flags::POPULATE)?;
    let view = View::shared(arena, 0, 2 * MIB as usize);
    // Of this arena or of the next: there may be no page.
    for _ in 0..8 {
        let _ = view.probe(rng.usize(0..2 * MIB as usize));
    }
    arena.free(block.offset)
}

fn polls(arena: &Arena, _: &mut fastrand::Rng) -> Result<(), Error> {
    let _ = arena.alloc(2 * MIB, Flags::empty());
    let mut fds = [PollFd::new(arena.as_fd(), PollFlags::POLLOUT)];
    let _ = poll(&mut fds, PollTimeout::from(1_u8));
    Ok(())
}

fn is_shown(arena: &Arena, _: &mut fastrand::Rng) -> Result<(), Error> {
    let fdinfo = format!("/proc/self/fdinfo/{}", arena.as_fd().as_raw_fd());
    let _ = fs::read_to_string(fdinfo);
    let arenas = fs::read_dir(Path::new(debugfs::DIR).join("arenas.d"));
    for arena in arenas.into_iter().flatten().flatten() {
        for file in fs::read_dir(arena.path()).into_iter().flatten().flatten() {
            let _ = fs::read(file.path());
        }
    }
    Ok(())
}

/// The kinds of work on an arena, by name.
const WORKS: [(&str, Work); 9] = [
    ("allocates", allocates),
    ("allocates in batches", allocates_in_batches),
    ("resizes and discards", resizes_and_discards),
    ("copies", copies),
    ("trims and limits", trims_and_limits),
    ("waits", waits),
    ("maps and touches", maps_and_touches),
    ("polls", polls),
    ("is shown", is_shown),
];

/// Each kind of work by itself, and all of it at once.
fn an_arena_that_is_closed_beside_each_of_its_calls_ends_whole() {
    let alone = WORKS.iter().map(std::slice::from_ref);
    for works in alone.chain([&WORKS[..]]) {
        let shared = arena();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (number, (name, work)) in works.iter().cycle().take(works.len().max(2)).enumerate()
            {
                let (shared, is_over) = (&shared, &is_over);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(number as u64);
                    let mut rounds = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        is_of_another_arena(work(shared, &mut rng));
                        rounds += 1;
                    }
                    assert!(rounds > 0, "{name}");
                });
            }
            let until = Instant::now() + Duration::from_millis(scaled(400) as u64);
            while Instant::now() < until {
                files::replace(arena(), &shared).expect("the number is taken over");
                check();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        drop(shared);
        nothing_is_held();
    }
}
