// SPDX-License-Identifier: GPL-2.0

//! Machines with two nodes of memory: pages that the kernel moves between them, and free memory that
//! is reclaimed from each.

use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;

use super::pressure::{oom_kills, Idle};
use crate::figure;
use crate::harness::{skip, suite};
use crate::kit::process::{spawn_child, Child};
use crate::kit::{
    alloc, arena, check, free, meminfo, page, scaled, shrinker, stat, system_page, Cgroup, View,
    DEFAULT, KIB, MIB,
};

suite!("freelist_nodes":
    memory_that_moves_to_another_node_keeps_its_bytes,
    free_memory_of_every_node_is_reclaimed,
    memory_that_moves_in_a_full_cgroup_keeps_its_bytes,
    memory_that_moves_to_a_full_node_keeps_its_bytes,
);

/// The numbers of two nodes with memory.
fn two_nodes() -> [i32; 2] {
    let path = "/sys/devices/system/node/has_memory";
    match fs::read_to_string(path) {
        Ok(text) if text.trim() == "0-1" => [0, 1],
        _ => skip("this machine has not two nodes of memory"),
    }
}

/// Moves all pages of `view` with memory to a node. Returns how many are on it then, and how many have memory:
/// the kernel does not move a page that is used at this moment.
#[track_caller]
fn move_to(view: &View, node: i32) -> [usize; 2] {
    let places = view.move_to_node(0..view.len(), node).unwrap();
    let there = places
        .iter()
        .filter(|place| **place != Err(Errno::ENOENT))
        .count();
    let moved = places.iter().filter(|place| **place == Ok(node)).count();
    [moved, there]
}

fn memory_that_moves_to_another_node_keeps_its_bytes() {
    let nodes = two_nodes();
    for size in [page() / 4, page(), 64 * KIB, 2 * MIB, 5 * MIB] {
        let arena = arena();
        let block = alloc(&arena, size);
        let bytes = size.next_multiple_of(page()) as usize;
        let view = View::shared(&arena, block.offset / page() * page(), bytes);
        let byte = |at: usize, round: usize| (at / system_page() * 3 + round) as u8;
        let before = stat(&arena);
        let mut moves = 0;
        for round in 0..6 {
            for at in (0..bytes).step_by(system_page()) {
                view.store(at, byte(at, round));
            }
            let [moved, there] = move_to(&view, nodes[round % 2]);
            assert_eq!(there, bytes / system_page());
            moves += moved;
            for at in (0..bytes).step_by(system_page()) {
                assert_eq!(view.load(at), byte(at, round), "byte {at:#x} of {size}");
            }
        }
        let pages = 6 * bytes / system_page();
        assert!(moves >= pages / 2, "{moves} of {pages} pages are moved");
        let after = stat(&arena);
        assert_eq!(after.held_bytes, before.held_bytes);
        assert_eq!(after.huge_bytes, before.huge_bytes);
        check();
        free(&arena, block);
        arena.trim(0).unwrap();
        assert_eq!(stat(&arena).held_bytes, 0);
    }
}

/// The kernel asks for free memory node by node.
fn free_memory_of_every_node_is_reclaimed() {
    let nodes = two_nodes();
    let module = shrinker::of_module();
    let idle = Idle::new(8 * MIB);
    let [moved, there] = move_to(&idle.view, nodes[1]);
    assert!(moved > 0, "0 of {there} pages are moved");
    // Pages that were moved to one node, and those that stayed on the other, are both reclaimed.
    let half = View::shared(&idle.arena, 0, 4 * MIB as usize);
    move_to(&half, nodes[0]);
    let mut rounds = 0;
    while stat(&idle.arena).free_bytes > 0 {
        shrinker::force(module.as_deref());
        rounds += 1;
        assert!(rounds < 1000, "{:?}", stat(&idle.arena));
    }
    assert_eq!(idle.released(), 8 * MIB);
    check();
}

/// Does `work` again and again in a child.
fn again_until(end: Instant, mut work: impl FnMut()) -> Child {
    spawn_child(|| {
        while Instant::now() < end {
            work();
        }
    })
}

/// Pages are moved, touched and allocated at once: live blocks keep their bytes, no call waits for ever, and no
/// process is killed. `eaten` bytes of other memory are allocated and freed.
fn moves_beside_reclaim(idle: &Idle, nodes: [i32; 2], eaten: u64) {
    let end = Instant::now() + Duration::from_secs(scaled(4) as u64);
    let view = &idle.view;
    let mut turn = 0;
    let mover = again_until(end, || {
        turn += 1;
        match view.move_to_node(0..view.len(), nodes[turn % 2]) {
            Ok(_) | Err(Errno::ENOMEM) => {}
            Err(errno) => panic!("{errno}"),
        }
    });
    // Each mapping is new: its faults take page tables, and find folios that move.
    let faulter = again_until(end, || {
        let new = View::shared(&idle.arena, 0, view.len());
        for block in &idle.live {
            new.touch(block.offset as usize);
        }
    });
    let allocator = again_until(end, || {
        let flags = [DEFAULT, DEFAULT | freelist::Flags::POPULATE];
        for (index, size) in [64 * KIB, MIB, 3 * page(), 2 * MIB].into_iter().enumerate() {
            if let Ok(block) = idle.arena.alloc(size, flags[index % 2]) {
                idle.arena.free(block.offset).unwrap();
            }
        }
    });
    let eater = again_until(end, || {
        let other = View::anonymous(eaten as usize);
        let _ = other.advise(0..other.len(), MmapAdvise::MADV_NOHUGEPAGE);
        for at in (0..other.len()).step_by(system_page()) {
            other.store(at, 1);
        }
    });
    for child in [mover, faulter, allocator, eater] {
        child.succeed();
    }
    let released = idle.released();
    figure!("{} MiB left beside moves", released / MIB);
    assert!(released > 0, "nothing was reclaimed");
    check();
}

fn memory_that_moves_in_a_full_cgroup_keeps_its_bytes() {
    let nodes = two_nodes();
    let cgroup = Cgroup::new("nodes");
    cgroup.run(|| {
        let idle = Idle::new(24 * MIB);
        cgroup.limit(cgroup.current() + 6 * MIB);
        moves_beside_reclaim(&idle, nodes, 8 * MIB);
    });
    assert_eq!(cgroup.event("oom_kill"), 0);
}

/// A page that moves is locked while memory for it is reclaimed: on a node that has no more, from the
/// arena's own free memory.
fn memory_that_moves_to_a_full_node_keeps_its_bytes() {
    /// On a machine with more memory it takes too long to use it all.
    const SMALL_MACHINE: u64 = 600 * MIB;
    let nodes = two_nodes();
    if meminfo("MemTotal") > SMALL_MACHINE {
        skip("too much memory to use up; needs a machine of at most 600 MiB");
    }
    let kills = oom_kills();
    let (idle, bytes, unused) = Idle::of_half_of_memory();
    moves_beside_reclaim(&idle, nodes, unused + bytes / 4);
    assert_eq!(oom_kills(), kills, "the OOM killer was called");
}
