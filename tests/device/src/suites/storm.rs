// SPDX-License-Identifier: GPL-2.0

//! Storms: the same disturbance again and again; at the end no memory is held without an owner.
//! `--scale 100` is what the report on trust counts.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use freelist::{debugfs, Arena, Flags};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::process::{spawn_child, Child};
use crate::kit::shrinker;
use crate::kit::waiter::waiting;
use crate::kit::{
    alloc, arena, check, free, page, random, random_size, raw, scaled, stat, system_page, thread,
    Cgroup, Ledger, View, DEFAULT, KIB, MIB,
};
use crate::trust;

suite!("freelist_storm":
    processes_that_are_killed_anywhere_hold_nothing,
    a_cgroup_that_is_out_of_memory_again_and_again_holds_nothing,
    forced_shrinks_take_free_memory_only,
);

/// Returns a counter of all arenas, from debugfs.
fn total(name: &str) -> u64 {
    let text = fs::read_to_string(Path::new(debugfs::DIR).join("stats")).expect("debugfs");
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = lines.find(|(key, _)| *key == name).expect("the counter");
    value.trim().parse().expect("a number")
}

/// Checks that no arena is open, and no memory is held.
#[track_caller]
pub(super) fn nothing_is_held() {
    let held = ["arenas", "held_bytes", "live_blocks", "metadata_bytes"];
    // A file may be closed a moment after its process has ended.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = held.map(total);
        if now == [0; 4] {
            return;
        }
        assert!(Instant::now() < deadline, "{held:?} are {now:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Makes calls until the process is killed.
fn be_a_victim(shared: &Arena, seed: u64) -> ! {
    let mut rng = fastrand::Rng::with_seed(seed);
    let own = arena();
    own.set_limit(4 * MIB).unwrap();
    let bytes = 16 * MIB as usize;
    let views = [shared, &own].map(|arena| View::shared(arena, 0, bytes));
    let kind = rng.u8(0..5);
    let mut live = Vec::new();
    let mut offsets = [0; 100];
    loop {
        match kind {
            // In calls of an arena of its own.
            0 => match own.alloc(random_size(&mut rng, 256 * KIB), DEFAULT) {
                Ok(block) => live.push(block),
                Err(_) => live.drain(..).for_each(|block| free(&own, block)),
            },
            // In batches of a shared arena.
            1 => {
                let size = random_size(&mut rng, 2 * page());
                if let Ok(count) = shared.alloc_bulk(size, DEFAULT, &mut offsets) {
                    let _ = shared.free_bulk(&offsets[..count.min(90)]);
                }
            }
            // In faults, of pages that are allocated and trimmed.
            2 => {
                let block = alloc(&own, MIB);
                for at in (0..block.bytes).step_by(page() as usize) {
                    views[1].store((block.offset + at) as usize, 1);
                }
                free(&own, block);
                own.trim(0).unwrap();
            }
            // In resizes: its arena is closed while one is in progress.
            3 => {
                let block = alloc(&own, page());
                for _ in 0..10 {
                    let _ = own.resize(block.offset, page() * rng.u64(1..1000), DEFAULT);
                }
                free(&own, block);
            }
            // In a sleep that only a signal ends, or a free of a block that is not live any more.
            _ => {
                let request = waiting(7 * MIB, DEFAULT | Flags::ZERO, None);
                let _ = raw::alloc(shared, request);
            }
        }
    }
}

fn end(child: Child) {
    let pid = child.pid();
    kill(pid, Signal::SIGKILL).unwrap();
    assert_eq!(
        child.wait(),
        WaitStatus::Signaled(pid, Signal::SIGKILL, false)
    );
}

/// Prior art: vulnerabilities SIGKILL_while_waiting.
fn processes_that_are_killed_anywhere_hold_nothing() {
    const AT_ONCE: usize = 4;
    const BATCH: usize = 10;
    let mut rng = random();
    let mut kills = 0;
    while kills < scaled(120) {
        let shared = arena();
        shared.set_limit(8 * MIB).unwrap();
        let memory = shared.map(shared.info().unwrap().arena_bytes).unwrap();
        let mut ledger = Ledger::new(&shared, &memory);
        for _ in 0..20 {
            ledger
                .alloc(random_size(&mut rng, 64 * KIB), DEFAULT)
                .unwrap();
        }
        for _ in 0..BATCH {
            let victims: Vec<Child> = (0..AT_ONCE)
                .map(|_| {
                    let seed = rng.u64(..);
                    spawn_child(|| be_a_victim(&shared, seed))
                })
                .collect();
            for victim in victims {
                thread::sleep(Duration::from_micros(rng.u64(0..2500)));
                end(victim);
                kills += 1;
            }
        }
        ledger.free_all();
        check();
        // The blocks of killed processes are live until the arena ends here.
        drop(memory);
        drop(shared);
        nothing_is_held();
    }
    if kills >= 10_000 {
        trust!("storm_kills", kills, "kills", ">=10000");
    }
}

/// Prior art: vulnerabilities CVE-2021-3759;
/// reports zfs#2570, zfs#4319.
fn a_cgroup_that_is_out_of_memory_again_and_again_holds_nothing() {
    const MAX: u64 = 24 * MIB;
    let times = scaled(3);
    for _ in 0..times {
        let cgroup = Cgroup::new("storm");
        cgroup.limit(MAX);
        let child = spawn_child(|| {
            cgroup.join();
            let arena = arena();
            let view = View::shared(&arena, 0, 2 * MAX as usize);
            // Ours ends in an error,
            while let Ok(block) = arena.alloc(64 * KIB, DEFAULT) {
                view.store(block.offset as usize, 1);
            }
            assert!(stat(&arena).held_bytes >= MAX / 2);
            // its own in the OOM killer.
            let view = View::anonymous(2 * MAX as usize);
            for at in (0..view.len()).step_by(system_page()) {
                view.store(at, 1);
            }
        });
        let pid = child.pid();
        assert_eq!(
            child.wait(),
            WaitStatus::Signaled(pid, Signal::SIGKILL, false)
        );
        assert_eq!(cgroup.event("oom_kill"), 1);
        nothing_is_held();
        cgroup.remove();
    }
    if times >= 100 {
        trust!("storm_cgroup_kills", times, "kills", ">=100");
    }
}

/// Prior art: shrinkers ttm_pool_shrinker_scan, binder_shrink_scan.
fn forced_shrinks_take_free_memory_only() {
    let shrinks = scaled(100);
    let mut forced = 0;
    let shared = arena();
    shared.set_limit(16 * MIB).unwrap();
    let memory = shared.map(shared.info().unwrap().arena_bytes).unwrap();
    let mut rng = random();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for key in 1..=2 {
            let (mut rng, shared, memory, done) = (rng.fork(), &shared, &memory, &done);
            scope.spawn(move || {
                let mut ledger = Ledger::new(shared, memory).with_key(key);
                while !done.load(Relaxed) {
                    let size = random_size(&mut rng, 512 * KIB);
                    if ledger.len() < 60 && rng.bool() {
                        // The other one may have all that the limit allows.
                        let _ = ledger.alloc(size, DEFAULT);
                    } else if ledger.len() > 0 {
                        ledger.free(ledger.nth(rng.usize(0..ledger.len())));
                    }
                }
                ledger.free_all();
            });
        }
        let dir = shrinker::of_module();
        // On a busy machine they may be done before there is anything to reclaim.
        let none_yet = || shared.stat().unwrap().shrinks == 0;
        while forced < shrinks || forced < 100 * shrinks && none_yet() {
            shrinker::force(dir.as_deref());
            forced += 1;
        }
        done.store(true, Relaxed);
    });
    let stat = stat(&shared);
    assert_eq!(stat.live_blocks, 0);
    assert!(stat.shrinks > 0, "nothing was shrunk");
    drop(memory);
    drop(shared);
    nothing_is_held();
    if shrinks >= 10_000 {
        trust!("storm_shrinks", shrinks, "shrinks", ">=10000");
    }
}
