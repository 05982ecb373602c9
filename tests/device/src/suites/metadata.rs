// SPDX-License-Identifier: GPL-2.0

//! The module's own memory, as the kernel's tools for finding bugs see it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::figure;
use crate::harness::{skip, suite};
use crate::kit::waiter::{waiting, Waiter};
use crate::kit::{alloc, arena, check, free, page, stat, thread, DEFAULT, MIB};

suite!("freelist_metadata":
    divided_pages_are_objects_of_a_cache_of_their_own,
    memory_of_an_open_arena_is_no_leak,
    metadata_that_blocks_need_does_not_count,
    metadata_of_sparse_pages_counts_against_the_limits,
);

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
/// Younger objects are not reported by kmemleak.
const MINIMUM_AGE: Duration = Duration::from_millis(5200);

/// Objects that are live in the slab cache `name`.
fn objects(name: &str) -> u64 {
    let Ok(slabs) = fs::read_to_string("/proc/slabinfo") else {
        skip("this kernel has no /proc/slabinfo");
    };
    let line = slabs
        .lines()
        .find(|line| line.split(' ').next() == Some(name));
    let live = line.and_then(|line| line.split_whitespace().nth(1));
    live.map_or(0, |live| live.parse().expect("a number"))
}

fn divided_pages_are_objects_of_a_cache_of_their_own() {
    const PAGES: u64 = 1000;
    let arena = arena();
    let halves: Vec<_> = (0..PAGES).map(|_| alloc(&arena, page() / 2)).collect();
    // Two halves in each page; objects in per-CPU caches count as live, too.
    let divided = objects("freelist_tree");
    assert!(divided >= PAGES / 2, "{divided} objects");
    for half in halves {
        free(&arena, half);
    }
}

fn memory_of_an_open_arena_is_no_leak() {
    if !Path::new(KMEMLEAK).exists() {
        skip("this kernel has no kmemleak");
    }
    let arena = arena();
    // Divided pages, several chunks, a run as large as a chunk, free blocks.
    let blocks = [32, 3 * MIB, page(), 4 * MIB, 5 * MIB, 2048, 64, 9 * page()]
        .map(|size| alloc(&arena, size));
    let (freed, live) = blocks.split_at(4);
    for block in freed {
        free(&arena, *block);
    }
    let held = stat(&arena).held_bytes;
    arena.set_limit(held).unwrap();
    thread::scope(|scope| {
        let waiter = Waiter::asleep(scope, &arena, waiting(held, DEFAULT, None));
        // The first scan notes checksums, the second reports what did not change.
        let start = Instant::now();
        fs::write(KMEMLEAK, "scan").expect("root may write it");
        thread::sleep(MINIMUM_AGE.saturating_sub(start.elapsed()));
        fs::write(KMEMLEAK, "scan").expect("root may write it");
        let found = fs::read_to_string(KMEMLEAK).expect("root may read it");
        let ours: Vec<_> = found
            .split("unreferenced object")
            .filter(|report| report.contains("freelist"))
            .collect();
        assert!(ours.is_empty(), "taken for leaks:\n{}", ours.join("\n"));
        for block in live {
            free(&arena, *block);
        }
        waiter.served();
    });
}

/// Returns the bytes of metadata that are not charged to the limits of an arena of `held_bytes`.
fn free_metadata(held_bytes: u64) -> u64 {
    (64 << 10) + held_bytes / 32
}

fn metadata_that_blocks_need_does_not_count() {
    for size in [32, page() / 2, page(), 3 * page(), MIB] {
        let arena = arena();
        arena.set_limit(8 * MIB).unwrap();
        let mut offsets = [0; 1024];
        let mut count = 0;
        while let Ok(some) = arena.alloc_bulk(size, DEFAULT, &mut offsets) {
            count += some as u64;
        }
        let now = stat(&arena);
        assert_eq!(count, 8 * MIB / size, "blocks of {size} bytes");
        assert!(
            now.metadata_bytes <= free_metadata(now.held_bytes),
            "{now:?}"
        );
    }
}

/// If one page of each 4 MiB is kept, the records are four times its size.
fn metadata_of_sparse_pages_counts_against_the_limits() {
    const LIMIT: u64 = 16 * MIB;
    let arena = arena();
    arena.set_limit(LIMIT).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        match arena.alloc_aligned(page(), 22, DEFAULT) {
            Ok(block) => kept.push(block.offset),
            Err(error) => break error,
        }
        let now = stat(&arena);
        let max = LIMIT + free_metadata(now.held_bytes);
        assert!(now.held_bytes + now.metadata_bytes <= max, "{now:?}");
        assert!(kept.len() < 1000, "{now:?}");
    };
    assert_eq!(refused.errno(), Some(Errno::EDQUOT));
    let now = stat(&arena);
    assert!(kept.len() > 400, "{} blocks, {now:?}", kept.len());
    figure!(
        "one page kept of each 4 MiB: {:.2} of the limit is held, metadata beyond its free share included",
        (now.held_bytes + now.metadata_bytes - free_metadata(now.held_bytes)) as f64 / LIMIT as f64
    );
    // Releases return the headroom, but for tables of 20 KiB for each 256 MiB of offsets.
    for offset in kept {
        arena.free(offset).unwrap();
    }
    arena.trim(0).unwrap();
    alloc(&arena, LIMIT - MIB);
    check();
}
