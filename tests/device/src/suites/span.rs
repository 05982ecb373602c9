// SPDX-License-Identifier: GPL-2.0

//! The span of an arena's offsets.

use freelist::Arena;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::Signal;

use super::limits::fill;
use crate::harness::suite;
use crate::kit::process::{drop_cap_sys_resource, signal_of, spawn_child};
use crate::kit::{
    alloc, arena, free, info, page, raw, refused, stat, View, DEFAULT, GROW, LARGER, MIB,
};

suite!("freelist_span":
    a_span_bounds_offsets_mappings_and_releases,
    a_full_span_is_enospc,
    free_blocks_of_any_shape_serve_where_the_span_is_used_up,
    a_bad_span_is_einval,
    a_span_after_the_first_block_is_einval,
    a_span_and_a_limit_are_set_together_or_not_at_all,
    a_mapping_beyond_a_later_span_is_sigbus,
);

/// Returns a new arena with offsets below `bytes`.
#[track_caller]
fn spanning(bytes: u64) -> Arena {
    let arena = arena();
    assert_eq!(arena.set_span(bytes).unwrap().span, bytes);
    arena
}

/// Prior art: snmalloc fixed_region.
fn a_span_bounds_offsets_mappings_and_releases() {
    let span = 16 * page();
    let arena = spanning(span);
    refused(arena.free(span), Errno::EINVAL);
    refused(arena.free(span - 16), Errno::ENOENT);
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    for (offset, len) in [(0, span + page()), (page(), span), (span, page())] {
        let result = View::map(&arena, offset, len as usize, both, MapFlags::MAP_SHARED);
        assert_eq!(result.err(), Some(Errno::EINVAL), "{len:#x} at {offset:#x}");
    }
    let view = View::shared(&arena, 0, span as usize);
    let blocks = fill(&arena, page(), Errno::ENOSPC);
    assert_eq!(blocks.len(), 16);
    for block in blocks {
        view.store(block.offset as usize, 1);
        free(&arena, block);
    }
    // The smallest of all.
    let arena = spanning(page());
    assert_eq!(alloc(&arena, page()).offset, 0);
}

/// Prior art: snmalloc fixed_region_alloc.
fn a_full_span_is_enospc() {
    let arena = spanning(16 * page());
    refused(arena.alloc(17 * page(), DEFAULT), Errno::ENOSPC);
    refused(arena.alloc(MIB, GROW), Errno::ENOSPC);
    refused(arena.alloc(MIB, LARGER), Errno::ENOMEM);
    let small = fill(&arena, 64, Errno::ENOSPC);
    assert_eq!(small.len() as u64, 16 * page() / 64);
    refused(arena.alloc(64, LARGER), Errno::ENOMEM);
    free(&arena, small[1]);
    alloc(&arena, 64);
    assert_eq!(stat(&arena).held_bytes, 16 * page());
}

/// Free memory of one shape keeps address space from another.
fn free_blocks_of_any_shape_serve_where_the_span_is_used_up() {
    let arena = spanning(64 * page());
    for size in [
        64,
        page(),
        4 * page(),
        16 * page(),
        64 * page(),
        16 * page(),
        64,
    ] {
        let blocks = fill(&arena, size, Errno::ENOSPC);
        assert_eq!(blocks.len() as u64, 64 * page() / size, "of {size} bytes");
        for block in blocks {
            free(&arena, block);
        }
    }
}

fn a_bad_span_is_einval() {
    let arena = arena();
    let before = arena.info().unwrap();
    let max = before.arena_bytes;
    for span in [
        1,
        page() - 1,
        page() + 1,
        max + page(),
        1 << 62,
        1 << 63,
        u64::MAX,
    ] {
        refused(arena.set_span(span), Errno::EINVAL);
    }
    assert_eq!(arena.info().unwrap(), before);
    arena.set_span(max).unwrap();
}

fn a_span_after_the_first_block_is_einval() {
    let arena = arena();
    let block = alloc(&arena, 64);
    refused(arena.set_span(MIB), Errno::EINVAL);
    free(&arena, block);
    refused(arena.set_span(MIB), Errno::EINVAL);
    assert_eq!(arena.info().unwrap().arena_bytes, info().arena_bytes);
    // The limit can be set at any time.
    arena.set_limit(MIB).unwrap();
}

fn a_span_and_a_limit_are_set_together_or_not_at_all() {
    let arena = arena();
    let before = arena.info().unwrap();
    assert_eq!(raw::limit(&arena, MIB, 5).err(), Some(Errno::EINVAL));
    assert_eq!(arena.info().unwrap(), before);
    spawn_child(|| {
        drop_cap_sys_resource();
        let result = raw::limit(&arena, u64::MAX, MIB);
        assert_eq!(result.err(), Some(Errno::EPERM));
    })
    .succeed();
    assert_eq!(arena.info().unwrap(), before);
    let both = raw::limit(&arena, 2 * MIB, MIB).unwrap();
    assert_eq!((both.bytes, both.span), (2 * MIB, MIB));
}

/// Prior art: vulnerabilities CVE-2023-2008.
fn a_mapping_beyond_a_later_span_is_sigbus() {
    let arena = arena();
    let view = View::shared(&arena, 0, 4 * MIB as usize);
    arena.set_span(MIB).unwrap();
    let block = alloc(&arena, MIB);
    assert_eq!(block.offset, 0);
    view.store(MIB as usize - 1, 1);
    let signal = signal_of(|| view.touch(MIB as usize));
    assert_eq!(signal, Some(Signal::SIGBUS));
}
