// SPDX-License-Identifier: GPL-2.0

//! Lazy blocks, of which not all bytes are held.

use freelist::{Arena, Block, Flags, Stat};

/// [`Flags::DEFAULT`] and [`Flags::LAZY`].
pub const LAZY: Flags = Flags::from_bits_retain(Flags::DEFAULT.bits() | Flags::LAZY.bits());

/// Returns the counters of an arena with lazy blocks: at most what is live and free is held.
#[track_caller]
pub fn stat(arena: &Arena) -> Stat {
    let stat = arena.stat().expect("STAT");
    assert!(
        stat.held_bytes <= stat.live_bytes + stat.free_bytes,
        "{stat:?}"
    );
    stat
}

/// Allocates a lazy block, which must fit into the limit.
#[track_caller]
pub fn alloc_lazy(arena: &Arena, size: u64) -> Block {
    let block = arena.alloc(size, LAZY);
    block.unwrap_or_else(|error| panic!("{error}"))
}
