// SPDX-License-Identifier: GPL-2.0

//! The limit of all arenas together: that of the module.

use freelist::{Arena, Block};
use nix::errno::Errno;

use super::limits::limited;
use crate::harness::{skip, suite};
use crate::kit::{
    alloc, arena, free, largest_block, meminfo, page, refused, stat, View, DEFAULT, MIB,
};

suite!("freelist_shared_limit":
    all_arenas_share_the_modules_limit,
    another_arena_releases_free_memory_at_the_modules_limit,
    an_arenas_own_limit_does_not_lift_the_modules,
);

/// Returns the limit of all arenas, if two blocks exceed it.
#[track_caller]
fn shared_limit() -> u64 {
    let stats = freelist::debugfs::Stats::read().expect("debugfs is mounted");
    let limit = stats.get("limit_bytes").expect("the limit of all arenas");
    if limit > largest_block() {
        skip("too much memory to fill; needs a machine of at most 2 GiB");
    }
    limit
}

/// Returns more than half of that limit; skips if the machine does not have that much at the moment.
#[track_caller]
fn more_than_half(arena: &Arena, limit: u64) -> Block {
    match arena.alloc(limit / 2 + MIB, DEFAULT) {
        Ok(block) => block,
        Err(error) if error.errno() == Some(Errno::ENOMEM) => skip("memory is short"),
        Err(error) => panic!("{error}"),
    }
}

fn all_arenas_share_the_modules_limit() {
    let limit = shared_limit();
    let (one, two) = (arena(), arena());
    more_than_half(&one, limit);
    refused(two.alloc(limit / 2 + MIB, DEFAULT), Errno::EDQUOT);
    let none = stat(&two);
    assert_eq!(none.held_bytes, 0, "refused memory is not held");
    // The rest is there for others.
    alloc(&two, MIB);
    // So is the memory that an arena releases at its end.
    drop(one);
    more_than_half(&two, limit);
}

fn another_arena_releases_free_memory_at_the_modules_limit() {
    let limit = shared_limit();
    // If the system is short of memory, it reclaims free pages itself.
    let is_short = meminfo("MemAvailable") < limit + 128 * MIB;
    let (one, two) = (arena(), arena());
    let kept = alloc(&one, MIB);
    let view = View::shared(&one, kept.offset, MIB as usize);
    view.set_bytes(0, b"kept");
    let block = more_than_half(&one, limit);
    refused(two.alloc(limit / 2 + MIB, DEFAULT), Errno::EDQUOT);
    free(&one, block);
    let held = stat(&one).held_bytes;
    more_than_half(&two, limit);
    let given = held - stat(&one).held_bytes;
    assert_eq!(stat(&one).shrinks, given / page());
    // As much as was needed, not all that was free, and nothing that is live.
    let all = stat(&one).held_bytes + stat(&two).held_bytes;
    let least = if is_short { MIB } else { limit - MIB };
    assert!((least..=limit).contains(&all), "{all} of {limit}");
    assert_eq!(view.bytes(0, 4), b"kept");
}

fn an_arenas_own_limit_does_not_lift_the_modules() {
    let limit = shared_limit();
    let arena = limited(4 * limit);
    refused(
        arena.alloc((limit + page()).min(largest_block()), DEFAULT),
        Errno::EDQUOT,
    );
    alloc(&arena, MIB);
}
