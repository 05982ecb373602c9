// SPDX-License-Identifier: GPL-2.0

//! When memory is short, arenas release their free pages. The figures are printed.

use std::fs;

use freelist::{Arena, Block};
use nix::sys::mman::MmapAdvise;

use crate::harness::{skip, suite};
use crate::kit::process::spawn_child;
use crate::kit::shrinker;
use crate::kit::{
    alloc, arena, free, free_memory, meminfo, page, stat, system_page, Cgroup, View, KIB, MIB,
};
use crate::{figure, trust};

suite!("freelist_pressure":
    free_blocks_of_an_idle_process_are_reclaimed_for_another_one,
    free_blocks_of_an_idle_process_are_reclaimed_for_its_cgroup,
    another_cgroups_arena_is_left_alone,
    a_forced_scan_takes_free_pages_and_no_others,
    an_arena_that_grows_under_pressure_uses_its_own_free_pages,
);

/// The bytes of memory above which it takes too long to use all of a machine's memory.
const SMALL_MACHINE: u64 = 400 * MIB;

/// Returns the number of processes that the kernel has killed for lack of memory.
pub(super) fn oom_kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.expect("vmstat has oom_kill").parse().unwrap()
}

/// Uses `bytes` of this process's own memory.
fn use_up(bytes: u64) {
    let view = View::anonymous(bytes as usize);
    let _ = view.advise(0..view.len(), MmapAdvise::MADV_NOHUGEPAGE);
    for at in (0..view.len()).step_by(system_page()) {
        view.store(at, 1);
    }
}

/// An idle arena with free memory between its live blocks.
pub(super) struct Idle {
    pub(super) arena: Arena,
    pub(super) live: Vec<Block>,
    pub(super) view: View,
}

impl Idle {
    pub(super) fn new(bytes: u64) -> Self {
        let arena = arena();
        // No page is allocated beyond the blocks' need.
        arena.set_slack_permille(Some(1)).unwrap();
        let piece = 128 * KIB;
        let view = View::shared(&arena, 0, 4 * bytes as usize);
        let pairs: Vec<_> = (0..bytes / piece)
            .map(|_| (alloc(&arena, piece), alloc(&arena, 2 * page())))
            .collect();
        let live: Vec<Block> = pairs.iter().map(|(_, live)| *live).collect();
        for (i, block) in live.iter().enumerate() {
            view.store(block.offset as usize, i as u8);
            view.store((block.offset + block.bytes) as usize - 1, !(i as u8));
        }
        for (block, _) in pairs {
            // Mapped, as memory that was in use is.
            view.store(block.offset as usize, 1);
            free(&arena, block);
        }
        assert_eq!(stat(&arena).free_bytes, bytes);
        Self { arena, live, view }
    }

    /// Makes one with half of the available memory. Returns it, its free bytes, and the bytes of unused memory
    /// beside these.
    pub(super) fn of_half_of_memory() -> (Self, u64, u64) {
        let limit = arena().info().unwrap().limit_bytes;
        let bytes = (meminfo("MemAvailable") / 2).min(limit / 4 * 3) / MIB * MIB;
        let idle = Self::new(bytes);
        (idle, bytes, free_memory())
    }

    /// Checks that nothing live was lost. Returns the bytes that were released under pressure.
    #[track_caller]
    pub(super) fn released(&self) -> u64 {
        let stat = stat(&self.arena);
        for (i, block) in self.live.iter().enumerate() {
            assert_eq!(self.view.load(block.offset as usize), i as u8);
            let last = (block.offset + block.bytes) as usize - 1;
            assert_eq!(self.view.load(last), !(i as u8));
        }
        assert_eq!(stat.live_blocks, self.live.len() as u64);
        stat.shrinks * page()
    }
}

/// Prior art: shrinkers ttm_pool_shrinker_scan, binder_shrink_scan;
/// reports zfs#14686.
fn free_blocks_of_an_idle_process_are_reclaimed_for_another_one() {
    if meminfo("MemTotal") > SMALL_MACHINE {
        skip("too much memory to use up; needs a machine of at most 400 MiB");
    }
    let kills = oom_kills();
    let (idle, bytes, unused) = Idle::of_half_of_memory();
    let needs = unused + bytes / 4 * 3;
    spawn_child(|| use_up(needs)).succeed();
    let released = idle.released();
    figure!(
        "{} MiB unused, {} MiB more in free blocks: {} MiB used by another, {} MiB released",
        unused / MIB,
        bytes / MIB,
        needs / MIB,
        released / MIB
    );
    trust!("handed_over_under_pressure", released / MIB, "MiB", ">=1");
    assert_eq!(oom_kills(), kills, "the OOM killer was called");
    assert!(released >= bytes / 2, "{released} bytes of {bytes}");
}

/// Prior art: reports zfs#4726.
fn free_blocks_of_an_idle_process_are_reclaimed_for_its_cgroup() {
    let cgroup = Cgroup::new("shared");
    let (max, bytes) = (64 * MIB, 40 * MIB);
    cgroup.limit(max);
    cgroup.run(|| {
        let idle = Idle::new(bytes);
        let needs = 48 * MIB;
        spawn_child(|| use_up(needs)).succeed();
        let released = idle.released();
        figure!(
            "a cgroup of {} MiB, {} MiB in free blocks: {} MiB used by another, {} MiB released",
            max / MIB,
            bytes / MIB,
            needs / MIB,
            released / MIB
        );
        trust!("handed_over_in_a_cgroup", released / MIB, "MiB", ">=1");
        assert!(released >= needs + bytes - max, "{released} bytes");
    });
    assert_eq!(cgroup.event("oom_kill"), 0);
}

fn another_cgroups_arena_is_left_alone() {
    let (full, other) = (Cgroup::new("full"), Cgroup::new("alone"));
    other.run(|| {
        let idle = Idle::new(8 * MIB);
        full.limit(32 * MIB);
        full.join();
        let own = Idle::new(16 * MIB);
        spawn_child(|| use_up(24 * MIB)).succeed();
        assert!(own.released() >= 8 * MIB);
        assert_eq!(idle.released(), 0, "of another cgroup");
    });
    assert_eq!(full.event("oom_kill"), 0);
}

/// Prior art: shrinkers ttm_pool_debugfs_shrink, ttm_pool_shrinker_scan, binder_shrink_scan.
fn a_forced_scan_takes_free_pages_and_no_others() {
    let Some(shrinker) = shrinker::of_module() else {
        skip("this kernel does not show its shrinkers (CONFIG_SHRINKER_DEBUG)");
    };
    let cgroup = Cgroup::new("scanned");
    let inode = cgroup.inode();
    cgroup.run(|| {
        let bytes = 4 * MIB;
        let idle = Idle::new(bytes);
        // Lines `INODE COUNT...`, a count a node.
        let counts = fs::read_to_string(shrinker.join("count")).unwrap();
        let own = counts
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{inode} ")));
        let own = own.unwrap_or_else(|| panic!("{inode} in {counts}"));
        let counts: Vec<u64> = own
            .split_whitespace()
            .map(|count| count.parse().unwrap())
            .collect();
        assert_eq!(counts.iter().sum::<u64>(), bytes / page());
        let scan_of = |node: usize, pages: u64| {
            fs::write(shrinker.join("scan"), format!("{inode} {node} {pages}")).unwrap();
        };
        let scan = |pages: u64| (0..counts.len()).for_each(|node| scan_of(node, pages));
        let fullest = (0..counts.len()).max_by_key(|node| counts[*node]).unwrap();
        scan_of(fullest, 64);
        let some = idle.released();
        assert!(
            (1..=64 * page()).contains(&some),
            "{some} bytes for 64 pages"
        );
        for _ in 0..200 {
            scan(1 << 20);
        }
        assert_eq!(idle.released(), bytes);
        assert_eq!(stat(&idle.arena).free_bytes, 0);
    });
}

/// Reclaim that a call on the arena begins takes free pages of the same arena.
///
/// Prior art: vulnerabilities shrinker_recursion.
fn an_arena_that_grows_under_pressure_uses_its_own_free_pages() {
    let cgroup = Cgroup::new("itself");
    cgroup.run(|| {
        let idle = Idle::new(16 * MIB);
        cgroup.limit(cgroup.current() + MIB);
        // Contiguous memory in 128 KiB pieces only, and nothing else to reclaim.
        for _ in 0..10 {
            alloc(&idle.arena, MIB);
        }
        let live = stat(&idle.arena).live_bytes;
        assert!(live >= 10 * MIB);
    });
    assert_eq!(cgroup.event("oom_kill"), 0);
}
