// SPDX-License-Identifier: GPL-2.0

//! Touches of lazy memory and discards, each beside each call and event that changes the same pages.
//!
//! Two threads touch or discard parts of a region at random, until the other side has done its work
//! often enough; both sides are counted. A block of known bytes lies beside the region.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use freelist::debugfs::Stats;
use freelist::{Arena, Block, Flags, Stat};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::WaitStatus;

use crate::figure;
use crate::harness::suite;
use crate::kit::process::{fork_beside_threads, signal_of, spawn_child};
use crate::kit::{
    arena, check, free, page, random, scaled, shrinker, thread, touch_all, Cgroup, View, DEFAULT,
    KIB, MIB,
};

suite!("freelist_pairs":
    touches_beside_frees,
    touches_beside_resizes,
    touches_beside_trims,
    touches_beside_moves,
    touches_beside_reclaim,
    touches_beside_forks,
    touches_beside_closes,
    discards_beside_frees,
    discards_beside_resizes,
    discards_beside_trims,
    discards_beside_moves,
    discards_beside_reclaim,
    discards_beside_forks,
    discards_beside_closes,
    a_touch_where_no_process_may_be_killed_is_sigbus,
);

const LAZY: Flags = Flags::from_bits_retain(Flags::DEFAULT.bits() | Flags::LAZY.bits());
/// The bytes of the region.
const REGION: u64 = 4 * MIB;
/// The bytes of a lazy block at the beginning of the region, which stays live.
const STAYS: u64 = MIB;
/// The number of times that each side has to do its work.
const MIN_ROUNDS: u64 = 20;

/// The work of two threads at random places of the region.
#[derive(Clone, Copy)]
enum Side {
    Touch,
    Discard,
}

impl Side {
    /// Does the work once. Returns whether it could have an effect: there was a lazy page, or a live block.
    fn act(self, rng: &mut fastrand::Rng, arena: &Arena, view: &View) -> bool {
        let at = rng.u64(0..REGION);
        match self {
            Self::Touch => view.probe(at as usize).is_ok(),
            Self::Discard => {
                let bytes = rng.u64(page()..=64 * page()).min(REGION - at);
                // A page with memory, which the discard drops.
                let _ = view.probe((at + bytes / 2) as usize);
                match arena.discard(at, bytes) {
                    Ok(()) => true,
                    Err(error) => {
                        assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}");
                        false
                    }
                }
            }
        }
    }
}

/// Returns the counters of an arena whose live blocks have not all their memory.
fn stat(arena: &Arena) -> Stat {
    arena.stat().expect("STAT")
}

/// Runs `other` until it has done its work often enough, beside two threads of `side`. `other` returns the number
/// of times that it did the work in this call.
fn beside(side: Side, mut other: impl FnMut(&Arena, &View, &mut fastrand::Rng) -> u64) {
    let mut rng = random();
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let stays = arena.alloc(STAYS, LAZY).unwrap();
    assert_eq!(stays.offset, 0);
    // Beyond the region, so that no discard hits it.
    let known = arena.alloc_aligned(64 * KIB, 25, DEFAULT).unwrap();
    assert!(known.offset >= REGION);
    let bytes = vec![0x5a; known.bytes as usize];
    view.set_bytes(known.offset as usize, &bytes);
    let (done, acts) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut rounds, start) = (0, Instant::now());
    thread::scope(|scope| {
        for seed in [rng.u64(..), rng.u64(..)] {
            let (arena, view, done, acts) = (&arena, &view, &done, &acts);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                while !done.load(Ordering::Relaxed) {
                    acts.fetch_add(side.act(&mut rng, arena, view).into(), Ordering::Relaxed);
                }
            });
        }
        // After a panic, too, the other threads are waited for.
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let enough = || acts.load(Ordering::Relaxed) >= MIN_ROUNDS;
            while (rounds < scaled(MIN_ROUNDS as usize) as u64
                || !enough()
                || start.elapsed() < Duration::from_millis(500))
                && start.elapsed() < Duration::from_secs(25)
            {
                rounds += other(&arena, &view, &mut rng);
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(cause) = result {
            panic::resume_unwind(cause);
        }
    });
    let acts = acts.into_inner();
    figure!("{rounds} beside {acts} at the same pages");
    assert!(
        rounds >= MIN_ROUNDS && acts >= MIN_ROUNDS,
        "{rounds} {acts}"
    );
    assert_eq!(view.bytes(known.offset as usize, bytes.len()), bytes);
    free(&arena, known);
    free(&arena, stays);
    let now = stat(&arena);
    assert_eq!((now.live_blocks, now.live_bytes), (0, 0));
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
}

/// Allocates a lazy block and touches a page of it.
fn touched(arena: &Arena, view: &View, rng: &mut fastrand::Rng) -> Block {
    let block = arena.alloc(rng.u64(1..=100) * page(), LAZY).unwrap();
    view.store((block.offset + rng.u64(0..block.bytes)) as usize, 1);
    block
}

fn frees(side: Side) {
    beside(side, |arena, view, rng| {
        let blocks = [(); 4].map(|()| touched(arena, view, rng));
        blocks.into_iter().for_each(|block| free(arena, block));
        4
    });
}

fn resizes(side: Side) {
    beside(side, |arena, view, rng| {
        let block = touched(arena, view, rng);
        let mut resized = 0;
        for _ in 0..8 {
            match arena.resize(block.offset, rng.u64(1..=200) * page(), LAZY) {
                Ok(_) => resized += 1,
                // A touch has just taken the free memory after the block for its own page.
                Err(error) => assert_eq!(error.errno(), Some(Errno::ENOSPC)),
            }
        }
        free(arena, block);
        resized
    });
}

fn trims(side: Side) {
    beside(side, |arena, view, rng| {
        let block = touched(arena, view, rng);
        free(arena, block);
        (arena.trim(0).unwrap() > 0).into()
    });
}

/// Fills the limit with small blocks and frees every other one, so that a larger one takes their memory.
fn moves(side: Side) {
    beside(side, |arena, view, _| {
        let pieces: Vec<_> = (0..16)
            .map(|_| arena.alloc(64 * KIB, DEFAULT).unwrap())
            .collect();
        for piece in &pieces {
            touch_all(view, piece.offset, piece.bytes);
        }
        let now = stat(arena);
        // All memory that is live or free, so that no headroom is left.
        arena.set_limit(now.live_bytes + now.free_bytes).unwrap();
        for piece in pieces.iter().step_by(2) {
            free(arena, *piece);
        }
        let before = stat(arena).moved_bytes;
        // A touch may take a part of the memory in between.
        if let Ok(large) = arena.alloc(512 * KIB, DEFAULT) {
            free(arena, large);
        }
        for piece in pieces.iter().skip(1).step_by(2) {
            free(arena, *piece);
        }
        let moved = stat(arena).moved_bytes > before;
        arena.trim(0).unwrap();
        arena.set_limit(64 * MIB).unwrap();
        moved.into()
    });
}

fn reclaim(side: Side) {
    let module = shrinker::of_module();
    beside(side, |arena, view, rng| {
        let block = touched(arena, view, rng);
        free(arena, block);
        let before = stat(arena).shrinks;
        shrinker::force(module.as_deref());
        (stat(arena).shrinks > before).into()
    });
}

/// Forks a child that has the mapping, and reads a byte of it.
fn forks(side: Side) {
    beside(side, |_, view, _| match fork_beside_threads(view) {
        WaitStatus::Exited(..) => 1,
        status => panic!("{status:?}"),
    });
}

/// Kills a process in the middle of the work that has the last reference to its arena.
fn closes(side: Side) {
    let mut rng = random();
    let count = || Stats::read().unwrap().get("arenas");
    let (before, mut acts) = (count(), 0);
    for _ in 0..scaled(MIN_ROUNDS as usize) {
        let (mine, counts) = (arena(), arena());
        let view = View::shared(&mine, 0, 64 * MIB as usize);
        let counter = counts.alloc(page(), DEFAULT).unwrap();
        let counted = View::shared(&counts, counter.offset, page() as usize);
        mine.alloc(REGION, LAZY).unwrap();
        let seed = rng.u64(..);
        let child = spawn_child(|| {
            let mut rng = fastrand::Rng::with_seed(seed);
            loop {
                let acted = side.act(&mut rng, &mine, &view);
                counted.store(0, counted.load(0).saturating_add(acted.into()));
            }
        });
        drop(view);
        drop(mine);
        let start = Instant::now();
        while counted.load(0) < 5 && start.elapsed() < Duration::from_secs(5) {
            thread::yield_now();
        }
        acts += u64::from(counted.load(0));
        let pid = child.pid();
        kill(pid, Signal::SIGKILL).unwrap();
        assert_eq!(
            child.wait(),
            WaitStatus::Signaled(pid, Signal::SIGKILL, false)
        );
    }
    figure!("{MIN_ROUNDS} closes beside {acts} at the same pages");
    assert!(acts >= MIN_ROUNDS, "{acts}");
    // A file may be closed shortly after its process has ended.
    let start = Instant::now();
    while count() != before && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(count(), before);
    check();
}

macro_rules! pairs {
    ($($name:ident = $other:ident($side:ident);)*) => { $(fn $name() { $other(Side::$side); })* };
}

pairs! {
    touches_beside_frees = frees(Touch);
    touches_beside_resizes = resizes(Touch);
    touches_beside_trims = trims(Touch);
    touches_beside_moves = moves(Touch);
    touches_beside_reclaim = reclaim(Touch);
    touches_beside_forks = forks(Touch);
    touches_beside_closes = closes(Touch);
    discards_beside_frees = frees(Discard);
    discards_beside_resizes = resizes(Discard);
    discards_beside_trims = trims(Discard);
    discards_beside_moves = moves(Discard);
    discards_beside_reclaim = reclaim(Discard);
    discards_beside_forks = forks(Discard);
    discards_beside_closes = closes(Discard);
}

fn a_touch_where_no_process_may_be_killed_is_sigbus() {
    let group = Cgroup::new("lazy-none");
    group.limit(32 * MIB);
    let end = signal_of(|| {
        std::fs::write("/proc/self/oom_score_adj", "-1000").expect("root may write it");
        group.join();
        let arena = arena();
        let view = View::shared(&arena, 0, 256 * MIB as usize);
        let block = arena.alloc(128 * MIB, LAZY).unwrap();
        touch_all(&view, block.offset, 128 * MIB);
    });
    assert_eq!(end, Some(Signal::SIGBUS));
    assert_eq!(group.event("oom_kill"), 0);
    group.remove();
    check();
}
