// SPDX-License-Identifier: GPL-2.0

//! Random calls, held to a reference model after every one. FREELIST_SEED
//! repeats a run.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use freelist::{Arena, Flags};
use nix::errno::Errno;

use crate::harness::{skip, suite};
use crate::kit::{
    arena, check, largest_block, random, random_size, refused, scaled, stat, thread, Ledger,
    DEFAULT, GROW, KIB, LARGER,
};

suite!("freelist_random":
    random_calls_agree_with_the_model,
    random_calls_agree_with_the_model_while_processors_come_and_go,
    random_calls_agree_with_the_model_while_memory_is_compacted,
    random_holes_and_mappings_keep_the_bytes,
);

/// Returns the errno that the contract has for a free of `offset`.
fn model_of_free(ledger: &Ledger<'_>, offset: u64, arena_bytes: u64) -> Result<(), Errno> {
    if ledger.starts(offset) {
        Ok(())
    } else if offset % 16 != 0 || offset >= arena_bytes || ledger.covers(offset) {
        Err(Errno::EINVAL)
    } else {
        Err(Errno::ENOENT)
    }
}

/// Prior art: snmalloc memory; scudo list_test.
fn random_calls_agree_with_the_model() {
    calls_agree_with_the_model(scaled(1500));
}

/// The counters and caches of a processor move to others when it is taken offline.
fn random_calls_agree_with_the_model_while_processors_come_and_go() {
    let online = "/sys/devices/system/cpu/cpu1/online";
    if fs::write(online, "1").is_err() {
        skip("there is one processor, or it stays");
    }
    calls_agree_with_the_model_beside(|| {
        fs::write(online, "0").expect("another is there");
        thread::sleep(Duration::from_millis(5));
        fs::write(online, "1").expect("it was there before");
    });
}

/// The kernel moves pages to others, beside every call.
fn random_calls_agree_with_the_model_while_memory_is_compacted() {
    let compact = "/proc/sys/vm/compact_memory";
    if fs::metadata(compact).is_err() {
        skip("this kernel does not compact its memory");
    }
    calls_agree_with_the_model_beside(|| fs::write(compact, "1").expect("root may write it"));
}

/// Makes random calls until `other` was called some times, in another thread.
fn calls_agree_with_the_model_beside(other: impl Fn() + Sync) {
    const TURNS: usize = 10;
    let turns = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while turns.load(Ordering::Relaxed) < TURNS {
                other();
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        while turns.load(Ordering::Relaxed) < TURNS {
            calls_agree_with_the_model(scaled(300));
        }
    });
    check();
}

/// Makes a call that is refused with `EINVAL` or `E2BIG`.
fn wrong_call(arena: &Arena, rng: &mut fastrand::Rng, arena_bytes: u64) {
    match rng.u8(0..3) {
        0 => refused(arena.alloc(0, DEFAULT), Errno::EINVAL),
        1 => refused(
            arena.alloc(rng.u64(largest_block() + 1..), DEFAULT),
            Errno::E2BIG,
        ),
        _ => {
            let offset = rng.u64(arena_bytes..);
            refused(arena.free(offset), Errno::EINVAL);
        }
    }
}

/// Returns an offset near a live block, where it is interesting.
fn near_a_block(ledger: &Ledger<'_>, rng: &mut fastrand::Rng) -> u64 {
    let near = match ledger.len() {
        0 => 0,
        len => ledger.nth(rng.usize(0..len)),
    };
    near.saturating_add_signed(rng.i64(-300..300) * [1, 16, 32][rng.usize(0..3)])
}

fn calls_agree_with_the_model(count: usize) {
    let mut rng = random();
    let arena = arena();
    let arena_bytes = arena.info().unwrap().arena_bytes;
    let memory = arena.map(arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    let (mut allocs, mut frees, mut failures, mut requested) = (0, 0, 0, 0);
    for _ in 0..count {
        let held = stat(&arena).held_bytes;
        match rng.u8(0..10) {
            0..=3 if ledger.len() < 200 => {
                let size = random_size(&mut rng, 192 * KIB);
                let flags = [DEFAULT, DEFAULT, LARGER, GROW, Flags::empty()][rng.usize(0..5)];
                match ledger.alloc(size, flags) {
                    Ok(_) => {
                        allocs += 1;
                        requested += size;
                    }
                    Err(error) => {
                        failures += 1;
                        assert_eq!(error.errno(), Some(Errno::ENOMEM), "{error}");
                        assert!(!flags.contains(GROW), "{error}");
                    }
                }
                if !flags.contains(GROW) {
                    assert_eq!(stat(&arena).held_bytes, held, "{flags}");
                }
            }
            4..=6 if ledger.len() > 0 => {
                ledger.free(ledger.nth(rng.usize(0..ledger.len())));
                frees += 1;
            }
            7 => {
                failures += 1;
                wrong_call(&arena, &mut rng, arena_bytes);
            }
            _ => {
                let offset = near_a_block(&ledger, &mut rng);
                if let Err(errno) = model_of_free(&ledger, offset, arena_bytes) {
                    failures += 1;
                    refused(arena.free(offset), errno);
                }
            }
        }
        let stat = stat(&arena);
        assert_eq!(stat.live_blocks, ledger.len() as u64);
        assert_eq!(stat.live_bytes, ledger.bytes());
        assert_eq!(stat.allocs, allocs);
        assert_eq!(stat.frees, frees);
        assert_eq!(stat.requested_bytes, requested);
        assert_eq!(stat.failures, failures);
    }
    ledger.free_all();
    assert_eq!(stat(&arena).live_bytes, 0);
}

fn random_holes_and_mappings_keep_the_bytes() {
    let mut rng = random();
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    for _ in 0..scaled(100) {
        ledger
            .alloc(random_size(&mut rng, 64 * KIB), DEFAULT)
            .unwrap();
    }
    for _ in 0..scaled(50) {
        let offset = ledger.nth(rng.usize(0..ledger.len()));
        ledger.free(offset);
        ledger
            .alloc(random_size(&mut rng, 64 * KIB), DEFAULT)
            .unwrap();
        let other = arena.map(arena.info().unwrap().arena_bytes).unwrap();
        let seen = ledger.nth(rng.usize(0..ledger.len()));
        assert_eq!(other.byte(seen).unwrap(), memory.byte(seen).unwrap());
        ledger.check(seen);
    }
    ledger.free_all();
}
