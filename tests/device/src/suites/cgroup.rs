// SPDX-License-Identifier: GPL-2.0

//! The arena's memory is charged to a memory cgroup.
//! Prior art: vulnerabilities CVE-2021-3759.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Barrier;

use freelist::{Arena, Flags, Timeout};
use nix::errno::Errno;
use nix::sys::mman::{mlockall, MlockAllFlags};
use nix::sys::wait::WaitStatus;

use super::pressure::Idle;
use crate::harness::suite;
use crate::kit::process::{in_same_memory, spawn_child};
use crate::kit::waiter::WHILE;
use crate::kit::{alloc, arena, page, stat, thread, Cgroup, View, DEFAULT, KIB, MIB};

suite!("freelist_cgroup":
    pages_are_charged_to_the_cgroup_and_uncharged,
    pages_are_charged_to_the_opener_of_the_arena,
    metadata_is_charged_to_the_cgroup_and_uncharged,
    one_cgroup_is_charged_where_a_process_and_its_memory_have_two,
    a_full_cgroup_is_enomem_and_no_process_is_killed,
    a_waiter_in_a_full_cgroup_is_not_killed,
    populate_in_a_full_cgroup_kills_no_process_for_page_tables,
    page_tables_of_faults_take_the_arenas_free_memory,
);

/// The kernel counts in batches, so a little is missing or too much.
const SLACK: u64 = MIB;

/// Prior art: vulnerabilities CVE-2021-3759.
fn pages_are_charged_to_the_cgroup_and_uncharged() {
    let cgroup = Cgroup::new("charged");
    cgroup.run(|| {
        let before = cgroup.current();
        let arena = arena();
        alloc(&arena, 8 * MIB);
        let after = cgroup.current();
        assert!(after >= before + 8 * MIB - SLACK, "{before} to {after}");
        drop(arena);
        let end = cgroup.current();
        assert!(end <= before + SLACK, "{before} to {after} to {end}");
    });
}

/// An arena that was passed on cannot be used to fill another one's cgroup.
fn pages_are_charged_to_the_opener_of_the_arena() {
    let (opener, other) = (Cgroup::new("opener"), Cgroup::new("other"));
    opener.run(|| {
        let arena = arena();
        other.join();
        let before = [opener.current(), other.current()];
        alloc(&arena, 8 * MIB);
        let after = [opener.current(), other.current()];
        assert!(
            after[0] >= before[0] + 8 * MIB - SLACK && after[1] <= before[1] + SLACK,
            "opener and other: {before:?} to {after:?}"
        );
    });
}

/// A process that shares another one's memory (`CLONE_VM`) is in two cgroups: that of the memory's owner is charged
/// for its pages, its own for what the kernel allocates beside them.
fn one_cgroup_is_charged_where_a_process_and_its_memory_have_two() {
    let (of_memory, of_process) = (Cgroup::new("of-memory"), Cgroup::new("of-process"));
    of_memory.run(|| {
        let status = in_same_memory(|| {
            of_process.join();
            let before = [of_memory.current(), of_process.current()];
            // Each has tables and entries of its own, and some memory.
            let arenas: Vec<Arena> = (0..200).map(|_| arena()).collect();
            for arena in &arenas {
                alloc(arena, 64 * KIB);
            }
            let after = [of_memory.current(), of_process.current()];
            assert!(
                after[0] >= before[0] + 200 * 64 * KIB && after[1] <= before[1] + SLACK,
                "memory and process: {before:?} to {after:?}"
            );
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    });
}

/// Divided pages need the most metadata.
/// Prior art: kasan kmem_cache_accounted.
fn metadata_is_charged_to_the_cgroup_and_uncharged() {
    let cgroup = Cgroup::new("metadata");
    cgroup.run(|| {
        let arena = arena();
        let before = cgroup.current();
        let mut offsets = vec![0; (128 * MIB / (page() / 2)) as usize];
        let done = arena.alloc_bulk(page() / 2, DEFAULT, &mut offsets).unwrap();
        assert_eq!(done, offsets.len());
        let stat = stat(&arena);
        let after = cgroup.current();
        assert!(stat.metadata_bytes >= 2 * SLACK, "{stat:?}");
        assert!(
            after >= before + stat.held_bytes + stat.metadata_bytes - SLACK,
            "{before} to {after}: {stat:?}"
        );
        drop(arena);
        let end = cgroup.current();
        assert!(end <= before + SLACK, "{before} to {after} to {end}");
    });
}

fn a_full_cgroup_is_enomem_and_no_process_is_killed() {
    let cgroup = Cgroup::new("full");
    cgroup.run(|| {
        let max = cgroup.current() + 16 * MIB;
        let arena = arena();
        // A call that fails releases the memory that it grew by, so that this process gets pages of its own.
        cgroup.limit(max);
        let mut got = 0;
        let errno = loop {
            match arena.alloc(MIB, DEFAULT) {
                Ok(block) => got += block.bytes,
                Err(error) => break error.errno(),
            }
            assert!(got <= 32 * MIB, "more than the cgroup may have");
        };
        assert_eq!(errno, Some(Errno::ENOMEM));
        assert!(got >= 8 * MIB, "{got} bytes of 16 MiB");
        assert_eq!(cgroup.event("oom_kill"), 0);
        // No memory is lost: it is live, or serves small blocks.
        let stat = stat(&arena);
        assert_eq!(stat.live_bytes, got);
        arena.free(0).expect("the first block");
        alloc(&arena, 64 * KIB);
    });
}

/// Neither the metadata of a waiter nor the buffer of a large batch makes the OOM killer kill a process.
fn a_waiter_in_a_full_cgroup_is_not_killed() {
    const THREADS: usize = 300;
    let cgroup = Cgroup::new("waiters");
    cgroup.run(|| {
        let arena = arena();
        let [ready, full, done] = [(); 3].map(|()| Barrier::new(THREADS + 1));
        let refused = AtomicUsize::new(0);
        let ask = |kind: usize, size: u64, timeout| {
            let flags = DEFAULT;
            let mut offsets = [0; 100];
            let served = match kind {
                0 => arena.alloc_bulk(size, flags, &mut offsets).is_ok(),
                1 => arena.alloc(size, flags).is_ok(),
                _ => arena
                    .alloc_wait(size, flags, &mut Timeout::from(timeout))
                    .is_ok(),
            };
            refused.fetch_add(usize::from(!served), Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (ask, ready, full, done) = (&ask, &ready, &full, &done);
                scope.spawn(move || {
                    // From here on it touches no new memory of its own until the end.
                    ask(number % 3, 32, WHILE);
                    ready.wait();
                    full.wait();
                    ask(number % 3, 64 * KIB, 10 * WHILE);
                    done.wait();
                });
            }
            ready.wait();
            cgroup.limit(cgroup.current() + 8 * MIB);
            full.wait();
            done.wait();
            cgroup.limit(1 << 40);
        });
        let refused = refused.into_inner();
        eprintln!("{refused} of {} requests were refused", 2 * THREADS);
        assert!(refused > THREADS / 2);
        assert_eq!(cgroup.event("oom_kill"), 0);
    });
}

/// Pages that cannot be mapped at once are mapped by faults.
fn populate_in_a_full_cgroup_kills_no_process_for_page_tables() {
    /// More bytes than the cgroup may have.
    const BYTES: u64 = 64 * MIB;
    let cgroup = Cgroup::new("tables");
    cgroup.run(|| {
        let arena = arena();
        // This process allocates all its own memory before the cgroup is full.
        let mut offsets = vec![u64::MAX; (BYTES / page()) as usize];
        mlockall(MlockAllFlags::MCL_CURRENT).expect("root may");
        let _view = View::shared(&arena, 0, BYTES as usize);
        let limit = cgroup.open_limit();
        cgroup.limit(cgroup.current() + BYTES / 4);
        // No assertion from here on: its message would need memory.
        let got = arena.alloc_bulk(page(), DEFAULT, &mut offsets);
        while arena.alloc(page(), DEFAULT).is_ok() {}
        let got = got.unwrap_or(0);
        let (mut freed, mut served) = (0, 0);
        for offset in offsets[..got].iter().step_by(97) {
            // There is memory for the block, and none for a page table.
            freed += usize::from(arena.free(*offset).is_ok());
            served += usize::from(arena.alloc(page(), DEFAULT | Flags::POPULATE).is_ok());
        }
        limit.remove();
        assert!(freed == got.div_ceil(97) && freed > 10, "{freed} of {got}");
        assert!(served > freed / 2, "{served} of {freed}");
        assert_eq!(cgroup.event("oom_kill"), 0);
    });
}

/// A fault holds the lock of a folio while it allocates a page table, so the shrinker must wait for no folio.
fn page_tables_of_faults_take_the_arenas_free_memory() {
    /// Mappings of the arena, each of which has page tables of its own.
    const MAPPINGS: usize = 80;
    let cgroup = Cgroup::new("faults");
    cgroup.run(|| {
        let idle = Idle::new(32 * MIB);
        mlockall(MlockAllFlags::MCL_CURRENT).expect("root may");
        // Mapped after mlockall(), which would allocate their page tables.
        let views: Vec<View> = (0..MAPPINGS)
            .map(|_| View::shared(&idle.arena, 0, idle.view.len()))
            .collect();
        cgroup.limit(cgroup.current() + 256 * KIB);
        // The kernel moves pages meanwhile, which are locked then.
        let compactor = spawn_child(|| {
            while idle.view.load(idle.live[0].offset as usize) == 0 {
                let _ = std::fs::write("/proc/sys/vm/compact_memory", "1");
            }
        });
        for view in &views {
            for (index, block) in idle.live.iter().enumerate() {
                let last = (block.offset + block.bytes) as usize - 1;
                assert_eq!(view.load(last), !(index as u8));
            }
        }
        idle.view.store(idle.live[0].offset as usize, 1);
        compactor.succeed();
        idle.view.store(idle.live[0].offset as usize, 0);
        let released = idle.released();
        assert!(released >= MIB, "{released} bytes for the tables");
    });
    assert_eq!(cgroup.event("oom_kill"), 0);
}
