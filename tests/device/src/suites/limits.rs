// SPDX-License-Identifier: GPL-2.0

//! The limit of an arena.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use freelist::uapi::{freelist_limit, FREELIST_IOC_LIMIT};
use freelist::{Arena, Block};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::ProtFlags;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::process::{drop_cap_sys_resource, spawn_child};
use crate::kit::{
    alloc, arena, counters, fdinfo, free, largest_block, page, random, random_size, raw, refused,
    scaled, stat, thread, Cgroup, Ledger, View, DEFAULT, GROW, KIB, LARGER, MIB,
};

suite!("freelist_limits":
    a_limit_in_force_is_shown_everywhere,
    a_field_of_0_leaves_its_bound_unchanged,
    growing_stops_at_the_limit_exactly,
    threads_that_grow_at_once_stay_within_the_limit,
    at_the_limit_free_blocks_still_serve,
    a_request_that_may_grow_and_is_larger_than_the_limit_is_edquot,
    a_limit_below_the_live_bytes_changes_no_block,
    a_raised_limit_lets_the_arena_grow_again,
    a_limit_above_the_default_needs_a_capability,
    a_limit_whose_answer_cannot_be_written_changes_nothing,
    limits_of_a_read_only_arena_are_ebadf,
    a_limit_is_one_arenas_alone,
    a_process_in_a_small_cgroup_that_asks_for_a_gibibyte_lives,
    in_a_full_cgroup_the_arenas_own_free_blocks_are_used_first,
);

/// Returns a new arena that may hold `bytes`.
#[track_caller]
pub(super) fn limited(bytes: u64) -> Arena {
    let arena = arena();
    assert_eq!(arena.set_limit(bytes).unwrap().bytes, bytes);
    arena
}

/// Allocates blocks of `size` bytes until one is refused with `errno`.
#[track_caller]
pub(super) fn fill(arena: &Arena, size: u64, errno: Errno) -> Vec<Block> {
    let mut blocks = Vec::new();
    loop {
        match arena.alloc(size, DEFAULT) {
            Ok(block) => blocks.push(block),
            refusal => {
                refused(refusal, errno);
                return blocks;
            }
        }
    }
}

fn a_limit_in_force_is_shown_everywhere() {
    let arena = arena();
    let before = arena.info().unwrap();
    let now = arena.set_limit(5 * MIB).unwrap();
    assert_eq!((now.bytes, now.span), (5 * MIB, before.arena_bytes));
    assert_eq!(arena.info().unwrap().limit_bytes, 5 * MIB);
    assert_eq!(stat(&arena).limit_bytes, 5 * MIB);
    assert_eq!(fdinfo(&arena).1.get("limit_bytes"), Some(5 * MIB));
    let now = arena.set_span(MIB).unwrap();
    assert_eq!((now.bytes, now.span), (5 * MIB, MIB));
    assert_eq!(arena.info().unwrap().arena_bytes, MIB);
    assert_eq!(fdinfo(&arena).1.get("arena_bytes"), Some(MIB));
}

fn a_field_of_0_leaves_its_bound_unchanged() {
    let arena = arena();
    let before = arena.info().unwrap();
    let now = raw::limit(&arena, 0, 0).unwrap();
    assert_eq!(
        (now.bytes, now.span),
        (before.limit_bytes, before.arena_bytes)
    );
    assert_eq!(arena.info().unwrap(), before);
}

/// Pages that are being allocated count: no two callers get the same headroom.
fn threads_that_grow_at_once_stay_within_the_limit() {
    const THREADS: u64 = 4;
    let shared = arena();
    shared.set_limit(THREADS * MIB).unwrap();
    let growing = AtomicU64::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..scaled(20) {
                    // Two of four concurrent requests are refused.
                    match shared.alloc(3 * MIB / 2, GROW) {
                        Ok(block) => {
                            free(&shared, block);
                            shared.trim(0).unwrap();
                        }
                        result => refused(result, Errno::EDQUOT),
                    }
                }
                growing.fetch_sub(1, Relaxed);
            });
        }
        while growing.load(Relaxed) > 0 {
            let stat = shared.stat().unwrap();
            assert!(stat.held_bytes <= stat.limit_bytes, "{stat:?}");
        }
    });
}

/// Prior art: scudo primary.Primary64OOM.
fn growing_stops_at_the_limit_exactly() {
    for size in [32, page(), 3 * page(), 64 * KIB] {
        let arena = limited(3 * page() * 16);
        let blocks = fill(&arena, size, Errno::EDQUOT);
        let stat = stat(&arena);
        assert_eq!(
            stat.held_bytes,
            stat.limit_bytes / size.max(page()) * size.max(page())
        );
        assert_eq!(stat.live_bytes, blocks.len() as u64 * size);
        assert!(stat.free_bytes < size, "{stat:?}");
    }
}

fn at_the_limit_free_blocks_still_serve() {
    let arena = limited(MIB);
    let blocks = fill(&arena, page(), Errno::EDQUOT);
    assert_eq!(blocks.len() as u64, MIB / page());
    refused(arena.alloc(page(), LARGER), Errno::ENOMEM);
    refused(arena.alloc(page(), GROW), Errno::EDQUOT);
    free(&arena, blocks[7]);
    alloc(&arena, 64);
    // Every second page is free, and no two are adjacent: their memory
    // moves to where a larger block can have it.
    for block in blocks.iter().skip(8).step_by(2) {
        free(&arena, *block);
    }
    let before = stat(&arena);
    let moved = arena.alloc(64 * KIB, DEFAULT).expect("that much is free");
    assert_eq!(stat(&arena).held_bytes, before.held_bytes);
    assert_eq!(moved.offset % (64 * KIB), 0);
}

fn a_request_that_may_grow_and_is_larger_than_the_limit_is_edquot() {
    let arena = limited(MIB);
    for flags in [GROW, DEFAULT] {
        refused(arena.alloc(MIB + 1, flags), Errno::EDQUOT);
        refused(arena.alloc(largest_block(), flags), Errno::EDQUOT);
    }
    refused(arena.alloc(MIB + 1, LARGER), Errno::ENOMEM);
    refused(arena.alloc(largest_block() + 1, DEFAULT), Errno::E2BIG);
    alloc(&arena, MIB);
}

fn a_limit_below_the_live_bytes_changes_no_block() {
    let mut rng = random();
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    while ledger.bytes() < 4 * MIB {
        ledger
            .alloc(random_size(&mut rng, 128 * KIB), DEFAULT)
            .unwrap();
    }
    let now = arena.set_limit(64 * KIB).unwrap();
    assert_eq!(now.bytes, 64 * KIB);
    assert_eq!(counters(&arena).live_bytes, ledger.bytes());
    refused(arena.alloc(64 * KIB, GROW), Errno::EDQUOT);
    let offsets: Vec<u64> = ledger.offsets().collect();
    for offset in offsets {
        ledger.check(offset);
    }
    // Released memory serves further blocks within the new limit.
    let largest = ledger.nth(ledger.len() / 2);
    ledger.free(largest);
    ledger.free_all();
    let after = counters(&arena);
    assert_eq!(after.live_bytes, 0);
    refused(arena.alloc(65 * KIB, GROW), Errno::EDQUOT);
}

fn a_raised_limit_lets_the_arena_grow_again() {
    let arena = limited(MIB);
    let before = fill(&arena, 64 * KIB, Errno::EDQUOT).len();
    arena.set_limit(3 * MIB).unwrap();
    let more = fill(&arena, 64 * KIB, Errno::EDQUOT).len();
    assert_eq!((before, more), (16, 32));
}

fn a_limit_above_the_default_needs_a_capability() {
    let arena = arena();
    let default = arena.info().unwrap().limit_bytes;
    spawn_child(|| {
        drop_cap_sys_resource();
        refused(arena.set_limit(default + 1), Errno::EPERM);
        refused(arena.set_limit(u64::MAX), Errno::EPERM);
        assert_eq!(arena.info().unwrap().limit_bytes, default);
        // Lowered, and raised again to the administrator's value.
        arena.set_limit(MIB).unwrap();
        refused(arena.set_limit(default + 1), Errno::EPERM);
        assert_eq!(arena.info().unwrap().limit_bytes, MIB);
        arena.set_limit(default).unwrap();
    })
    .succeed();
    let now = arena.set_limit(default + page()).unwrap();
    assert_eq!(now.bytes, default + page());
    assert_eq!(stat(&arena).failures, 3);
}

/// Prior art: vulnerabilities state_changed_then_EFAULT.
fn a_limit_whose_answer_cannot_be_written_changes_nothing() {
    let arena = arena();
    let before = arena.info().unwrap();
    let bounds = raw::limit(&arena, 0, 0).unwrap();
    let view = View::anonymous(size_of::<freelist_limit>());
    let asked = freelist_limit {
        bytes: MIB,
        span: MIB,
        slack_permille: 7,
        ..Default::default()
    };
    view.set_bytes(0, &asked.to_bytes());
    view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
    let result = ioctl_at(&arena, FREELIST_IOC_LIMIT, view.address(0));
    assert_eq!(result, Err(Errno::EFAULT));
    assert_eq!(arena.info().unwrap(), before);
    assert_eq!(raw::limit(&arena, 0, 0).unwrap(), bounds);
}

fn limits_of_a_read_only_arena_are_ebadf() {
    let fd = raw::open_as(OFlag::O_RDONLY);
    for (bytes, span) in [(0, 0), (MIB, 0), (0, MIB)] {
        assert_eq!(raw::limit(&fd, bytes, span).err(), Some(Errno::EBADF));
    }
}

fn a_limit_is_one_arenas_alone() {
    let (one, two) = (limited(64 * KIB), arena());
    refused(one.alloc(MIB, DEFAULT), Errno::EDQUOT);
    alloc(&two, MIB);
    // A duplicate is the same arena, a child's descriptor too.
    let same = one.try_clone().unwrap();
    assert_eq!(same.info().unwrap().limit_bytes, 64 * KIB);
    spawn_child(|| _ = one.set_limit(128 * KIB).unwrap()).succeed();
    assert_eq!(same.info().unwrap().limit_bytes, 128 * KIB);
}

fn a_process_in_a_small_cgroup_that_asks_for_a_gibibyte_lives() {
    let cgroup = Cgroup::new("gibibyte");
    cgroup.limit(64 * MIB);
    cgroup.run(|| {
        let arena = arena();
        // If all arenas may not hold that much, as many pages as they may.
        let limit = arena.info().unwrap().limit_bytes;
        let size = (1 << 30).min(limit / page() * page());
        for flags in [GROW, DEFAULT] {
            refused(arena.alloc(size, flags), Errno::ENOMEM);
        }
        assert_eq!(stat(&arena).held_bytes, 0);
        alloc(&arena, MIB);
    });
    assert_eq!((cgroup.event("oom"), cgroup.event("oom_kill")), (0, 0));
    eprintln!("refused {} times at 64 MiB", cgroup.event("max"));
}

fn in_a_full_cgroup_the_arenas_own_free_blocks_are_used_first() {
    let cgroup = Cgroup::new("own");
    cgroup.run(|| {
        let arena = arena();
        let blocks: Vec<Block> = (0..128).map(|_| alloc(&arena, 64 * KIB)).collect();
        cgroup.limit(cgroup.current() + 8 * MIB);
        // All the cgroup's headroom, and then some of the arena's own.
        let more = fill(&arena, 256 * KIB, Errno::ENOMEM);
        for block in blocks.iter().step_by(2) {
            free(&arena, *block);
        }
        // 4 MiB are free, and no two blocks side by side.
        let before = stat(&arena);
        let block = arena.alloc(2 * MIB, DEFAULT);
        block.unwrap_or_else(|error| panic!("{error}: {:?}", stat(&arena)));
        let after = stat(&arena);
        eprintln!(
            "{} MiB more, then 2 MiB of {} KiB free in pieces",
            more.len() / 4,
            before.free_bytes / KIB
        );
        // The arena may hold a hundredth of the peak more.
        let max = before.held_bytes + before.held_bytes / 99;
        assert!(after.held_bytes <= max, "{after:?}");
    });
    assert_eq!(cgroup.event("oom_kill"), 0);
}
