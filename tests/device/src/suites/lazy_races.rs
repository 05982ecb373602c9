// SPDX-License-Identifier: GPL-2.0

//! Lazy blocks that are freed, resized or discarded while other threads touch them.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use freelist::{Arena, Block};
use nix::errno::Errno;

use crate::figure;
use crate::harness::suite;
use crate::kit::lazy::{alloc_lazy, stat, LAZY};
use crate::kit::{arena, check, free, page, random, thread, View, MIB};

suite!("freelist_lazy_races":
    touches_and_releases_at_once_lose_nothing,
    touches_and_resizes_at_once_lose_nothing,
    touches_and_discards_at_once_lose_nothing,
);

/// Probes pages of an arena at random while `work` runs. Returns how many had memory, and how many had none.
fn with_probes(arena: &Arena, bytes: u64, work: impl FnOnce(&View)) -> (u64, u64) {
    let view = View::shared(arena, 0, bytes as usize);
    let done = AtomicBool::new(false);
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut rng = fastrand::Rng::new();
                while !done.load(Ordering::Relaxed) {
                    let at = rng.usize(0..bytes as usize);
                    let here = view.probe(at).is_ok();
                    counts[usize::from(!here)].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Also when it panics: the others are waited for.
        let result = panic::catch_unwind(AssertUnwindSafe(|| work(&view)));
        done.store(true, Ordering::Relaxed);
        if let Err(cause) = result {
            panic::resume_unwind(cause);
        }
    });
    let [here, not] = counts.map(AtomicU64::into_inner);
    (here, not)
}

/// Writes a byte to some pages of a block, and checks that it stays.
fn use_some(rng: &mut fastrand::Rng, view: &View, block: Block, with: u8) {
    for _ in 0..8 {
        let at = (block.offset + rng.u64(0..block.bytes)) as usize;
        view.store(at, with);
        assert_eq!(view.load(at), with);
    }
}

fn touches_and_releases_at_once_lose_nothing() {
    let mut rng = random();
    let arena = arena();
    let mut rounds = 0u32;
    let start = std::time::Instant::now();
    let (here, not) = with_probes(&arena, 4 * MIB, |view| {
        while rounds < 40 || start.elapsed().as_secs() < 2 {
            let blocks: Vec<_> = (0..4)
                .map(|_| alloc_lazy(&arena, rng.u64(1..100) * page()))
                .collect();
            for block in &blocks {
                if block.offset + block.bytes <= 4 * MIB {
                    use_some(&mut rng, view, *block, 3);
                }
            }
            for block in blocks {
                free(&arena, block);
            }
            if rounds % 4 == 0 {
                arena.trim(0).unwrap();
            }
            rounds += 1;
        }
    });
    figure!("lazy blocks: {rounds} rounds beside {here} touches, and {not} where nothing is");
    assert!(rounds > 20 && here > 20 && not > 20);
    arena.trim(0).unwrap();
    let now = stat(&arena);
    assert_eq!((now.held_bytes, now.live_bytes), (0, 0));
    check();
}

fn touches_and_resizes_at_once_lose_nothing() {
    let mut rng = random();
    let arena = arena();
    let mut rounds = 0u32;
    let start = std::time::Instant::now();
    let block = alloc_lazy(&arena, page());
    let (here, not) = with_probes(&arena, 4 * MIB, |view| {
        while rounds < 40 || start.elapsed().as_secs() < 2 {
            let bytes = rng.u64(1..1000) * page();
            match arena.resize(block.offset, bytes, LAZY) {
                Ok(now) => assert_eq!(now, bytes),
                // A touch has just taken the free memory after the block for its own page.
                Err(error) => {
                    assert_eq!(error.errno(), Some(Errno::ENOSPC));
                    continue;
                }
            }
            let now = Block { bytes, ..block };
            use_some(&mut rng, view, now, rounds as u8);
            rounds += 1;
        }
    });
    assert!(
        rounds > 20 && here > 20 && not > 20,
        "{rounds} {here} {not}"
    );
    free(&arena, block);
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
}

fn touches_and_discards_at_once_lose_nothing() {
    let mut rng = random();
    let arena = arena();
    let block = alloc_lazy(&arena, 4 * MIB);
    let mut rounds = 0u32;
    let start = std::time::Instant::now();
    let (here, not) = with_probes(&arena, 4 * MIB, |view| {
        while rounds < 40 || start.elapsed().as_secs() < 2 {
            let from = rng.u64(0..4 * MIB);
            let bytes = rng.u64(1..=4 * MIB - from);
            view.store(from as usize, 8);
            arena.discard(from, bytes).unwrap();
            let first = from.next_multiple_of(page());
            let end = (from + bytes) / page() * page();
            if first < end {
                let at = rng.u64(first..end) as usize;
                assert_eq!(view.load(at), 0, "round {rounds}");
                view.store(at, 1);
            }
            rounds += 1;
        }
    });
    assert!(
        rounds > 20 && here > 20 && not == 0,
        "{rounds} {here} {not}"
    );
    arena.discard(0, 4 * MIB).unwrap();
    check();
    free(&arena, block);
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
}
