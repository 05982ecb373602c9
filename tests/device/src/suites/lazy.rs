// SPDX-License-Identifier: GPL-2.0

//! Blocks whose pages get their memory when they are touched.

use freelist::Flags;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::memory::huge;
use crate::figure;
use crate::harness::suite;
use crate::kit::lazy::{alloc_lazy, stat, LAZY};
use crate::kit::process::{faults, signal_of, spawn_child};
use crate::kit::{
    alloc, arena, check, free, page, refused, system_page, touch_all, Cgroup, View, DEFAULT, KIB,
    LARGER, MIB,
};

suite!("freelist_lazy":
    a_lazy_block_holds_only_touched_pages,
    a_touched_byte_of_512_mib_holds_little_memory,
    memory_that_is_touched_in_order_is_allocated_in_ever_larger_folios,
    lazy_blocks_hold_little_more_than_their_touched_bytes,
    a_lazy_block_takes_free_memory_first,
    a_lazy_block_reserves_its_headroom_at_once,
    the_promises_to_lazy_blocks_are_bounded,
    a_lazy_block_reads_as_zero_where_it_is_new,
    flags_that_exclude_lazy_are_refused,
    lazy_blocks_come_in_bulk,
    a_lazy_block_is_resized,
    pages_that_a_child_touches_are_shared,
    a_touch_in_a_full_cgroup_takes_free_memory_first,
    a_touch_in_a_full_cgroup_kills_as_anonymous_memory_does,
);

fn a_lazy_block_holds_only_touched_pages() {
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let block = alloc_lazy(&arena, 8 * MIB);
    let now = stat(&arena);
    assert_eq!((now.live_bytes, now.held_bytes), (8 * MIB, 0));
    for at in [5 * MIB, 0, 8 * MIB - 1] {
        assert_eq!(view.load(at as usize), 0);
        view.store(at as usize, 7);
    }
    let now = stat(&arena);
    assert_eq!(
        (now.held_bytes, now.faulted_bytes),
        (3 * page(), 3 * page())
    );
    assert_eq!(view.load(5 * MIB as usize), 7);
    check();
    free(&arena, block);
    let now = stat(&arena);
    assert_eq!((now.live_bytes, now.free_bytes), (0, 3 * page()));
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    assert_eq!(signal_of(|| view.touch(0)), Some(Signal::SIGBUS));
    check();
}

fn a_touched_byte_of_512_mib_holds_little_memory() {
    let arena = arena();
    // As much as the limit allows, if that is less.
    let bytes = (512 * MIB).min(stat(&arena).limit_bytes / 2);
    let view = View::shared(&arena, 0, 512 * MIB as usize);
    alloc_lazy(&arena, bytes);
    view.store((bytes / 2) as usize, 1);
    assert!(stat(&arena).held_bytes <= 2 * MIB, "{:?}", stat(&arena));
    assert!(stat(&arena).metadata_bytes <= MIB);
}

fn memory_that_is_touched_in_order_is_allocated_in_ever_larger_folios() {
    // Otherwise each page would take a fault.
    huge();
    let arena = arena();
    let bytes = 16 * MIB;
    let view = View::shared(&arena, 0, bytes as usize);
    alloc_lazy(&arena, bytes);
    let before = faults();
    for at in (0..bytes as usize).step_by(system_page()) {
        view.store(at, 1);
        let now = at as u64 + page();
        if at % (64 * system_page()) == 0 {
            let held = stat(&arena).held_bytes;
            assert!(held <= now + now / 2 + page(), "{held} for {now}");
        }
    }
    let count = faults() - before;
    assert_eq!(stat(&arena).held_bytes, bytes);
    figure!("{count} faults for 16 MiB of lazy memory, touched in order");
    assert!(count <= 64, "{count} faults");
}

fn lazy_blocks_hold_little_more_than_their_touched_bytes() {
    // Always the same sizes, with which the bounds were measured.
    let mut rng = fastrand::Rng::with_seed(20);
    let arena = arena();
    let view = View::shared(&arena, 0, 1 << 30);
    let (mut touched, mut blocks) = (0, 0);
    while touched < 128 * MIB {
        let pages = rng.u64(200 * KIB / page()..=8 * MIB / page());
        let block = alloc_lazy(&arena, pages * page());
        for index in 0..pages * 2 / 3 {
            view.store((block.offset + index * page()) as usize, 1);
        }
        touched += pages * 2 / 3 * page();
        blocks += 1;
    }
    let in_order = stat(&arena).held_bytes as f64 / touched as f64;
    let block = alloc_lazy(&arena, 64 * MIB);
    let before = stat(&arena).held_bytes;
    for index in 0..64 * MIB / page() / 8 {
        let within = rng.u64(0..8);
        view.store((block.offset + (index * 8 + within) * page()) as usize, 1);
    }
    let at_random = (stat(&arena).held_bytes - before) as f64 / (8 * MIB) as f64;
    figure!(
        "lazy memory, held over touched: {in_order:.3} in order ({blocks} blocks), {at_random:.3} at random"
    );
    assert!(in_order <= 1.12 && at_random <= 1.05);
}

fn a_lazy_block_takes_free_memory_first() {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let block = alloc_lazy(&arena, 10 * MIB);
    touch_all(&view, block.offset, 10 * MIB);
    free(&arena, block);
    let (before, held) = (faults(), stat(&arena).held_bytes);
    let block = alloc_lazy(&arena, 10 * MIB);
    touch_all(&view, block.offset, 10 * MIB);
    assert_eq!(stat(&arena).held_bytes, held);
    let count = faults() - before;
    assert!(count < 4, "{count} faults in a steady state");
}

fn a_lazy_block_reserves_its_headroom_at_once() {
    let arena = arena();
    arena.set_limit(10 * MIB).unwrap();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let block = alloc_lazy(&arena, 8 * MIB);
    refused(arena.alloc(3 * MIB, LAZY), Errno::EDQUOT);
    refused(arena.alloc(3 * MIB, DEFAULT), Errno::EDQUOT);
    let other = alloc(&arena, 2 * MIB);
    touch_all(&view, block.offset, 8 * MIB);
    assert_eq!(stat(&arena).held_bytes, 10 * MIB);
    arena.discard(block.offset, block.bytes).unwrap();
    // Discarded pages of a live block still count.
    refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
    free(&arena, block);
    // Free memory is released for owed pages.
    free(&arena, other);
    alloc_lazy(&arena, 9 * MIB + page());
    assert!(stat(&arena).held_bytes <= 10 * MIB);
    check();
}

/// The bound is half of the default limit, unless the module's parameter sets another.
///
/// Prior art: reports binder-CVE-2026-43435.
fn the_promises_to_lazy_blocks_are_bounded() {
    let arena = arena();
    let bound = stat(&arena).limit_bytes / 2 / page() * page();
    let view = View::shared(&arena, 0, 16 * page() as usize);
    let first = alloc_lazy(&arena, 16 * page());
    refused(arena.alloc(bound - 15 * page(), LAZY), Errno::EDQUOT);
    let large = alloc_lazy(&arena, bound - 16 * page());
    refused(arena.alloc(page(), LAZY), Errno::EDQUOT);
    // A touched page is not owed any more, and memory that is allocated at once never was.
    view.store(0, 1);
    let held = stat(&arena).held_bytes;
    assert_eq!(held, page());
    alloc_lazy(&arena, page());
    alloc(&arena, 16 * page());
    refused(arena.alloc(page(), LAZY), Errno::EDQUOT);
    free(&arena, large);
    free(&arena, first);
    alloc_lazy(&arena, bound - page());
    check();
}

fn a_lazy_block_reads_as_zero_where_it_is_new() {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let block = alloc(&arena, 2 * MIB);
    view.set_bytes(block.offset as usize, &vec![9; 2 * MIB as usize]);
    free(&arena, block);
    let block = arena.alloc(4 * MIB, LAZY | Flags::ZERO).unwrap();
    let bytes = view.bytes(block.offset as usize, 4 * MIB as usize);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

fn flags_that_exclude_lazy_are_refused() {
    let arena = arena();
    for flags in [
        Flags::LAZY,
        Flags::LAZY | LARGER,
        LAZY | Flags::CONTIG,
        LAZY | Flags::HEADER,
    ] {
        refused(arena.alloc(MIB, flags), Errno::EINVAL);
    }
    // Populated memory is there at once.
    let block = arena.alloc(MIB, LAZY | Flags::POPULATE).unwrap();
    assert_eq!(stat(&arena).held_bytes, MIB);
    refused(
        arena.resize(block.offset, 2 * MIB, Flags::LAZY),
        Errno::EINVAL,
    );
    assert_eq!(stat(&arena).held_bytes, MIB);
    // Below a page the flag has no effect.
    arena.alloc(100, LAZY).unwrap();
    check();
}

fn lazy_blocks_come_in_bulk() {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let mut offsets = [0; 100];
    assert_eq!(
        arena.alloc_bulk(3 * page(), LAZY, &mut offsets).unwrap(),
        100
    );
    assert_eq!(stat(&arena).held_bytes, 0);
    for offset in offsets {
        view.store((offset + page()) as usize, 1);
    }
    assert_eq!(stat(&arena).held_bytes, 100 * page());
    assert_eq!(arena.free_bulk(&offsets).unwrap(), 100);
    assert_eq!(stat(&arena).free_bytes, 100 * page());
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
}

fn a_lazy_block_is_resized() {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let block = alloc_lazy(&arena, MIB);
    view.store(block.offset as usize, 1);
    arena.resize(block.offset, 8 * MIB, LAZY).unwrap();
    assert_eq!(stat(&arena).held_bytes, page());
    view.store((block.offset + 7 * MIB) as usize, 2);
    assert_eq!(stat(&arena).held_bytes, 2 * page());
    // Pages that are added without the flag have their memory.
    arena.resize(block.offset, 9 * MIB, DEFAULT).unwrap();
    assert_eq!(stat(&arena).held_bytes, 2 * page() + MIB);
    arena.resize(block.offset, 10 * page(), DEFAULT).unwrap();
    let now = stat(&arena);
    assert_eq!(
        (now.live_bytes, now.free_bytes),
        (10 * page(), page() + MIB)
    );
    assert_eq!(view.load(block.offset as usize), 1);
    check();
    arena.free(block.offset).unwrap();
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
}

fn pages_that_a_child_touches_are_shared() {
    let arena = arena();
    let view = View::shared(&arena, 0, 8 * MIB as usize);
    let block = alloc_lazy(&arena, 8 * MIB);
    view.store(1, 1);
    spawn_child(|| {
        assert_eq!(view.load(1), 1);
        view.store(5 * MIB as usize, 2);
    })
    .succeed();
    assert_eq!(view.load(5 * MIB as usize), 2);
    assert_eq!(stat(&arena).held_bytes, 2 * page());
    free(&arena, block);
    check();
}

fn a_touch_in_a_full_cgroup_takes_free_memory_first() {
    let group = Cgroup::new("lazy");
    group.limit(48 * MIB);
    spawn_child(|| {
        group.join();
        let arena = arena();
        let view = View::shared(&arena, 0, 256 * MIB as usize);
        let lazy = alloc_lazy(&arena, 24 * MIB);
        let gone = alloc(&arena, 32 * MIB);
        touch_all(&view, gone.offset, 32 * MIB);
        free(&arena, gone);
        touch_all(&view, lazy.offset, 24 * MIB);
        check();
    })
    .succeed();
    assert_eq!(group.event("oom_kill"), 0);
    group.remove();
}

fn a_touch_in_a_full_cgroup_kills_as_anonymous_memory_does() {
    let group = Cgroup::new("lazy-kill");
    group.limit(32 * MIB);
    let child = spawn_child(|| {
        group.join();
        let arena = arena();
        let view = View::shared(&arena, 0, 256 * MIB as usize);
        let block = alloc_lazy(&arena, 128 * MIB);
        touch_all(&view, block.offset, 128 * MIB);
    });
    let pid = child.pid();
    let end = child.wait();
    assert_eq!(end, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    assert_eq!(group.event("oom_kill"), 1);
    group.remove();
    check();
}
