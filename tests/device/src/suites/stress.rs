// SPDX-License-Identifier: GPL-2.0

//! All events that change the memory of an arena, at once: blocks are allocated and freed, memory is
//! reclaimed, pinned, migrated, and inherited. Every byte is that of its owner.

use std::fs;
use std::time::{Duration, Instant};

use freelist::{Arena, Flags};
use nix::unistd::pipe;

use crate::figure;
use crate::harness::suite;
use crate::kit::calls::splice_from;
use crate::kit::process::{fork_child, spawn_child};
use crate::kit::{
    arena, check, random, random_size, scaled, shrinker, stat, system_page, Ledger, View, DEFAULT,
    KIB, MIB,
};

suite!("freelist_stress":
    blocks_keep_their_bytes_under_every_disturbance,
);

/// Owners of blocks, each a process.
const OWNERS: u64 = 3;

/// Returns a page of a mapping, by its first byte.
fn any_page(rng: &mut fastrand::Rng, view: &View) -> usize {
    rng.usize(0..view.len() / system_page()) * system_page()
}

/// Allocates, fills, checks and frees blocks of one owner.
fn use_blocks(mut ledger: Ledger<'_>, rng: &mut fastrand::Rng, goes_on: impl Fn() -> bool) {
    while goes_on() {
        let max = [4 * KIB, 200 * KIB, 5 * MIB][rng.usize(0..3)];
        let size = random_size(rng, max);
        let flags = match rng.u32(0..4) {
            0 => DEFAULT | Flags::POPULATE,
            1 => DEFAULT | Flags::ZERO,
            _ => DEFAULT,
        };
        if ledger.bytes() < 24 * MIB && rng.bool() {
            // The others may have all that the limit allows.
            let _ = ledger.alloc(size, flags);
        } else if ledger.len() > 0 {
            ledger.free(ledger.nth(rng.usize(0..ledger.len())));
        }
        if ledger.len() > 0 && rng.u32(0..8) == 0 {
            ledger.check(ledger.nth(rng.usize(0..ledger.len())));
        }
    }
    ledger.free_all();
}

/// Releases free memory, by forced shrinks and by TRIM.
fn release(arena: &Arena, rng: &mut fastrand::Rng, goes_on: impl Fn() -> bool) {
    let dir = shrinker::of_module();
    while goes_on() {
        match rng.u32(0..3) {
            0 => shrinker::force(dir.as_deref()),
            some => {
                let keep = u64::from(some - 1) * random_size(rng, 64 * MIB);
                arena.trim(keep).unwrap();
            }
        }
    }
}

/// Pins pages, one at a time, for up to 2 ms each.
fn pin(view: &View, rng: &mut fastrand::Rng, goes_on: impl Fn() -> bool) {
    let (read, write) = pipe().unwrap();
    let mut bytes = [0; 16];
    while goes_on() {
        let at = any_page(rng, view);
        if splice_from(&write, view.address(at), 16).is_ok() {
            std::thread::sleep(Duration::from_micros(rng.u64(0..2000)));
            nix::unistd::read(&read, &mut bytes).unwrap();
        }
    }
}

/// Has the kernel move pages, and drop those that are not mapped.
fn compact(goes_on: impl Fn() -> bool) {
    while goes_on() {
        let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        let _ = fs::write("/proc/sys/vm/drop_caches", "1");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn blocks_keep_their_bytes_under_every_disturbance() {
    let end = Instant::now() + Duration::from_secs(scaled(10) as u64);
    let goes_on = || Instant::now() < end;
    let arena = arena();
    arena.set_limit(96 * MIB).unwrap();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let view = View::shared(&arena, 0, 128 * MIB as usize);
    let mut rng = random();
    let mut children = Vec::new();
    for key in 1..=OWNERS {
        let mut rng = rng.fork();
        children.push(spawn_child(|| {
            let ledger = Ledger::new(&arena, &memory).with_key(key);
            use_blocks(ledger, &mut rng, goes_on);
        }));
    }
    let mut other = rng.fork();
    children.push(spawn_child(|| release(&arena, &mut other, goes_on)));
    let mut other = rng.fork();
    children.push(spawn_child(|| pin(&view, &mut other, goes_on)));
    children.push(spawn_child(|| compact(goes_on)));
    // Pages are inherited, too.
    let mut forks = 0;
    while goes_on() {
        let at = any_page(&mut rng, &view);
        fork_child(|| {
            let _ = view.probe(at);
        });
        forks += 1;
    }
    for child in children {
        child.succeed();
    }
    check();
    let stat = stat(&arena);
    figure!(
        "{} blocks, {} forks, {} pages trimmed, {} shrunk, {} MiB moved",
        stat.allocs,
        forks,
        stat.trims,
        stat.shrinks,
        stat.moved_bytes / MIB
    );
    assert_eq!(stat.live_blocks, 0);
    arena.trim(0).unwrap();
    assert_eq!(arena.stat().unwrap().held_bytes, 0);
}
