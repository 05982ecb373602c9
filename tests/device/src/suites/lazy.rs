// SPDX-License-Identifier: GPL-2.0

//! Blocks whose pages get their memory when they are touched, and pages that are discarded.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use freelist::{Arena, Block, Flags, Stat};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use crate::figure;
use crate::harness::suite;
use crate::kit::process::{faults, signal_of, spawn_child};
use crate::kit::uring::Pinned;
use crate::kit::{
    alloc, arena, check, free, page, random, refused, system_page, thread, touch_all, Cgroup, View,
    DEFAULT, KIB, LARGER, MIB,
};

suite!("freelist_lazy":
    a_lazy_block_holds_what_was_touched,
    a_byte_of_512_mib_costs_little,
    memory_that_is_touched_in_order_comes_in_ever_larger_folios,
    little_is_held_beyond_what_is_touched,
    a_lazy_block_takes_free_memory_first,
    a_lazy_block_has_its_room_at_once,
    what_lazy_blocks_are_promised_has_a_bound,
    a_lazy_block_reads_as_zero_where_it_is_new,
    flags_that_exclude_lazy_are_refused,
    lazy_blocks_come_in_bulk,
    a_lazy_block_is_resized,
    what_is_discarded_reads_as_zero,
    a_discard_takes_whole_pages_alone,
    discards_outside_live_blocks_are_refused,
    a_pinned_page_is_zeroed_and_stays,
    a_child_shares_what_it_touches,
    touches_and_releases_at_once_lose_nothing,
    touches_and_resizes_at_once_lose_nothing,
    touches_and_discards_at_once_lose_nothing,
    a_touch_in_a_full_cgroup_takes_free_memory_first,
    a_touch_in_a_full_cgroup_kills_as_anonymous_memory_does,
);

const LAZY: Flags = Flags::from_bits_retain(Flags::DEFAULT.bits() | Flags::LAZY.bits());

/// Returns the counters. Of live blocks not all bytes are held.
#[track_caller]
fn stat(arena: &Arena) -> Stat {
    let stat = arena.stat().expect("STAT");
    assert!(
        stat.held_bytes <= stat.live_bytes + stat.free_bytes,
        "{stat:?}"
    );
    stat
}

#[track_caller]
fn alloc_lazy(arena: &Arena, size: u64) -> Block {
    let block = arena.alloc(size, LAZY);
    block.unwrap_or_else(|error| panic!("{error}"))
}

fn a_lazy_block_holds_what_was_touched() {
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

fn a_byte_of_512_mib_costs_little() {
    let arena = arena();
    // As much as the limit allows where that is less.
    let bytes = (512 * MIB).min(stat(&arena).limit_bytes / 2);
    let view = View::shared(&arena, 0, 512 * MIB as usize);
    alloc_lazy(&arena, bytes);
    view.store((bytes / 2) as usize, 1);
    assert!(stat(&arena).held_bytes <= 2 * MIB, "{:?}", stat(&arena));
    assert!(stat(&arena).metadata_bytes <= MIB);
}

fn memory_that_is_touched_in_order_comes_in_ever_larger_folios() {
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

fn little_is_held_beyond_what_is_touched() {
    // Always the same sizes: the bounds are of these.
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

fn a_lazy_block_has_its_room_at_once() {
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
    // It is the block's still.
    refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
    free(&arena, block);
    // Free memory makes way for what is only promised.
    free(&arena, other);
    alloc_lazy(&arena, 9 * MIB + page());
    assert!(stat(&arena).held_bytes <= 10 * MIB);
    check();
}

/// Half of the default limit, unless the module's parameter says otherwise.
///
/// Peer: reports binder-CVE-2026-43435.
fn what_lazy_blocks_are_promised_has_a_bound() {
    let arena = arena();
    let bound = stat(&arena).limit_bytes / 2 / page() * page();
    let view = View::shared(&arena, 0, 16 * page() as usize);
    let first = alloc_lazy(&arena, 16 * page());
    refused(arena.alloc(bound - 15 * page(), LAZY), Errno::EDQUOT);
    let large = alloc_lazy(&arena, bound - 16 * page());
    refused(arena.alloc(page(), LAZY), Errno::EDQUOT);
    // What is touched is promised no more, and what comes at once never was.
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
    // What is populated is there at once.
    let block = arena.alloc(MIB, LAZY | Flags::POPULATE).unwrap();
    assert_eq!(stat(&arena).held_bytes, MIB);
    refused(
        arena.resize(block.offset, 2 * MIB, Flags::LAZY),
        Errno::EINVAL,
    );
    assert_eq!(stat(&arena).held_bytes, MIB);
    // Below a page it says nothing.
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
    // What is added without the flag has its memory.
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

fn what_is_discarded_reads_as_zero() {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let other = View::shared(&arena, 0, 64 * MIB as usize);
    let block = alloc(&arena, 8 * MIB);
    let bytes = 8 * MIB as usize;
    view.set_bytes(0, &vec![5; bytes]);
    assert_eq!(other.load(3 * MIB as usize), 5);
    let (from, to) = (MIB + 3 * page(), 6 * MIB + 5 * page());
    arena.discard(block.offset + from, to - from).unwrap();
    assert_eq!(stat(&arena).held_bytes, 8 * MIB - (to - from));
    assert_eq!(stat(&arena).live_bytes, 8 * MIB);
    for (at, byte) in view.bytes(0, bytes).into_iter().enumerate() {
        let inside = (from..to).contains(&(at as u64));
        assert_eq!(byte, if inside { 0 } else { 5 }, "at {at}");
    }
    assert_eq!(other.load(3 * MIB as usize), 0);
    view.store(3 * MIB as usize, 6);
    assert_eq!(other.load(3 * MIB as usize), 6);
    arena.discard(block.offset, 8 * MIB).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
    free(&arena, block);
    check();
}

fn a_discard_takes_whole_pages_alone() {
    let arena = arena();
    let view = View::shared(&arena, 0, MIB as usize);
    let [one, two] = [(); 2].map(|()| alloc(&arena, 16 * page()));
    assert_eq!(two.offset, one.offset + one.bytes, "side by side");
    let all = 32 * page();
    view.set_bytes(0, &vec![5; all as usize]);
    for (offset, bytes) in [(1, page() - 1), (page() - 1, 2), (10, 1), (0, page() - 1)] {
        arena.discard(offset, bytes).unwrap();
        assert_eq!(stat(&arena).held_bytes, all);
    }
    // A range may lie in several blocks.
    let from = one.offset + 15 * page() - 1;
    arena.discard(from, 3 * page()).unwrap();
    assert_eq!(stat(&arena).held_bytes, all - 2 * page());
    let bytes = view.bytes(0, all as usize);
    assert_eq!(
        bytes.iter().filter(|byte| **byte == 0).count() as u64,
        2 * page()
    );
    check();
}

fn discards_outside_live_blocks_are_refused() {
    let arena = arena();
    let plain = alloc(&arena, 4 * page());
    let gone = alloc(&arena, 4 * page());
    let last = alloc(&arena, 4 * page());
    free(&arena, gone);
    let headed = arena.alloc(3 * page(), DEFAULT | Flags::HEADER).unwrap();
    let contiguous = arena.alloc(4 * page(), DEFAULT | Flags::CONTIG).unwrap();
    let small = alloc(&arena, 100);
    let held = stat(&arena).held_bytes;
    for (offset, bytes) in [
        (plain.offset, 0),
        (plain.offset, 5 * page()),
        (plain.offset, last.offset + page() - plain.offset),
        (gone.offset, page()),
        (headed.offset, page()),
        (contiguous.offset, page()),
        (small.offset, 100),
        (40 * MIB, page()),
        (u64::MAX - page(), page()),
        (u64::MAX, 2),
        (plain.offset, u64::MAX),
        (64 << 30, page()),
    ] {
        refused(arena.discard(offset, bytes), Errno::EINVAL);
    }
    assert_eq!(stat(&arena).held_bytes, held);
    check();
}

fn a_pinned_page_is_zeroed_and_stays() {
    let arena = arena();
    let block = alloc(&arena, 4 * MIB);
    let view = View::shared(&arena, block.offset, 4 * MIB as usize);
    view.set_bytes(0, &vec![5; 4 * MIB as usize]);
    let part = View::shared(&arena, block.offset + 2 * MIB, 2 * system_page());
    let mut pin = Pinned::new(&part).expect("buffers can be registered");
    // A part of a folio that cannot be split: the folio stays, and is larger than the range.
    let inside = 2 * MIB + 4 * page();
    arena.discard(block.offset + inside, page()).unwrap();
    let around = view.bytes((inside - page()) as usize, 3 * page() as usize);
    let is_zero = |number: usize| {
        around
            .chunks(page() as usize)
            .nth(number)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    };
    assert_eq!([0, 1, 2].map(is_zero), [false, true, false]);
    arena.discard(block.offset, block.bytes).unwrap();
    let held = stat(&arena).held_bytes;
    assert!(held >= 2 * page() && held <= 2 * MIB, "{held} bytes stay");
    assert!(view
        .bytes(0, 4 * MIB as usize)
        .iter()
        .all(|byte| *byte == 0));
    // What comes through the pin is seen.
    let mut file = tempfile();
    file.write_all(&[9; 100]).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(pin.read_from(&file, 0..100), Ok(100));
    assert_eq!(view.load(2 * MIB as usize + 99), 9);
    drop(pin);
    check();
}

fn tempfile() -> fs::File {
    let fd = nix::sys::memfd::memfd_create(c"freelist", nix::sys::memfd::MFdFlags::empty());
    fs::File::from(fd.expect("a file in memory"))
}

fn a_child_shares_what_it_touches() {
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

/// Probes pages of an arena at random while `work` runs. Returns how many were there, and were not.
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

/// Writes a byte to some pages of a block, and looks whether it stays.
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
                // A touch has just taken free memory behind the block away, for its own page.
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
