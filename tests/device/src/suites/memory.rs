// SPDX-License-Identifier: GPL-2.0

//! An arena's memory as the kernel has it: page cache of a file, in folios of up to a huge page, that the kernel
//! maps, moves, charges and reclaims like any other.

use std::fs;

use freelist::{Block, Flags};
use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;

use crate::harness::{skip, suite};
use crate::kit::pages::frames;
use crate::kit::process::{faults, signal_of, spawn_child};
use crate::kit::shared::{on_a_stack, Mutex};
use crate::kit::{
    alloc, arena, check, free, huge_page, meminfo, page, stat, system_page, touch_all, Cgroup,
    View, DEFAULT, KIB, MIB,
};
use crate::{figure, trust};

suite!("freelist_memory":
    large_blocks_are_huge_pages,
    huge_pages_are_mapped_whatever_the_policy_for_anonymous_memory,
    new_memory_costs_a_fault_a_huge_page,
    removal_of_a_part_divides_a_huge_page,
    a_mapping_may_divide_a_huge_page,
    a_mutex_in_a_block_is_shared_and_robust,
    a_thread_has_its_stack_in_a_block,
    compaction_keeps_every_byte,
    free_memory_is_available,
    mapped_pages_count_as_resident_memory,
    one_charge_beyond_a_full_cgroup_costs_it_little,
);

/// Returns the bytes of a huge page; skips if the kernel has none.
pub(super) fn huge() -> u64 {
    huge_page().unwrap_or_else(|| skip("this kernel has no huge pages"))
}

/// Returns a line of the smaps of a view, in bytes.
fn smaps(view: &View, name: &str) -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let base = format!("{:x}-", view.address(0).get());
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&base));
    let found = lines.find_map(|line| line.strip_prefix(name));
    let found = found.unwrap_or_else(|| panic!("no {name}"));
    let kib = found.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") * KIB
}

fn large_blocks_are_huge_pages() {
    let huge = huge();
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * huge as usize);
    let block = alloc(&arena, 4 * huge);
    assert_eq!(block.offset % huge, 0, "in an empty arena");
    assert_eq!(stat(&arena).huge_bytes, 4 * huge);
    touch_all(&view, 0, 4 * huge);
    assert_eq!(smaps(&view, "FilePmdMapped"), 4 * huge);
    let first = frames(&view, 0, 1)[0].expect("it is mapped");
    assert_eq!(first * page() % huge, 0, "naturally aligned");
    free(&arena, block);
    assert_eq!(stat(&arena).huge_bytes, 4 * huge);
    assert_eq!(arena.trim(0).unwrap(), 4 * huge);
    assert_eq!(stat(&arena).huge_bytes, 0);
}

fn huge_pages_are_mapped_whatever_the_policy_for_anonymous_memory() {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let huge = huge();
    let text = fs::read_to_string(path).unwrap();
    let (_, before) = text.split_once('[').expect("one is chosen");
    let (before, _) = before.split_once(']').expect("one is chosen");
    for policy in ["always", "madvise", "never"] {
        fs::write(path, policy).unwrap();
        let arena = arena();
        let view = View::shared(&arena, 0, 16 * huge as usize);
        alloc(&arena, 4 * huge);
        touch_all(&view, 0, 4 * huge);
        let seen = [stat(&arena).huge_bytes, smaps(&view, "FilePmdMapped")];
        fs::write(path, before).unwrap();
        assert_eq!(seen, [4 * huge; 2], "{policy}");
    }
}

fn new_memory_costs_a_fault_a_huge_page() {
    let huge = huge();
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * huge as usize);
    alloc(&arena, 8 * huge);
    let before = faults();
    touch_all(&view, 0, 8 * huge);
    let count = faults() - before;
    figure!("{count} faults for 8 huge pages of new memory");
    assert!(count < 16, "{count} faults");
}

fn removal_of_a_part_divides_a_huge_page() {
    let huge = huge();
    let arena = arena();
    let view = View::shared(&arena, 0, 4 * huge as usize);
    let block = alloc(&arena, huge);
    let pages = huge / page();
    for index in 0..pages {
        view.store((index * page()) as usize, index as u8);
    }
    for kept in [pages - 1, pages / 2 + 3, 5, 1] {
        arena.resize(block.offset, kept * page(), DEFAULT).unwrap();
        arena.trim(0).unwrap();
        let stat = stat(&arena);
        assert_eq!((stat.held_bytes, stat.huge_bytes), (kept * page(), 0));
        for index in 0..kept {
            assert_eq!(view.load((index * page()) as usize), index as u8);
        }
        let beyond = view.probe((kept * page()) as usize);
        assert_eq!(beyond, Err(Errno::EFAULT), "{kept} pages");
    }
    check();
}

fn a_mapping_may_divide_a_huge_page() {
    let huge = huge() as usize;
    let arena = arena();
    let block = alloc(&arena, 2 * huge as u64);
    let page = system_page();
    let mut view = View::shared(&arena, block.offset, 2 * huge);
    let byte = |at: usize| (at / page) as u8;
    for at in (0..2 * huge).step_by(page) {
        view.store(at, byte(at));
    }
    view.protect(3 * page..5 * page, ProtFlags::PROT_READ)
        .unwrap();
    let signal = signal_of(|| view.store(4 * page, 1));
    assert_eq!(signal, Some(Signal::SIGSEGV));
    view.unmap(7 * page..9 * page).unwrap();
    view.unmap(huge - page..huge + page).unwrap();
    for at in (0..2 * huge).step_by(page) {
        let hole = (7 * page..9 * page).contains(&at) || (huge - page..huge + page).contains(&at);
        if !hole {
            assert_eq!(view.load(at), byte(at), "byte {at:#x}");
        }
    }
    let mut other = View::shared(&arena, block.offset, 2 * huge);
    other.move_to_elsewhere(2 * huge).unwrap();
    for at in (0..2 * huge).step_by(page) {
        assert_eq!(other.load(at), byte(at), "byte {at:#x} elsewhere");
    }
}

fn a_mutex_in_a_block_is_shared_and_robust() {
    let arena = arena();
    let block = alloc(&arena, 64 * KIB);
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let mutex = Mutex::new(&view, 0);
    mutex.lock().unwrap();
    let child = spawn_child(|| {
        view.store(4096, 1);
        // Sleeps in the kernel until its parent is done.
        mutex.lock().unwrap();
        assert_eq!(view.load(8192), 7);
        // The child ends and still holds the mutex.
    });
    while view.load(4096) == 0 {
        std::thread::yield_now();
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    view.store(8192, 7);
    mutex.unlock().unwrap();
    child.succeed();
    assert_eq!(mutex.lock(), Err(Errno::EOWNERDEAD));
    mutex.repair().unwrap();
    mutex.unlock().unwrap();
    mutex.lock().unwrap();
    mutex.unlock().unwrap();
}

fn a_thread_has_its_stack_in_a_block() {
    let arena = arena();
    let block = alloc(&arena, MIB);
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    assert_eq!(on_a_stack(&view, 0, view.len(), 1000), 1000);
    free(&arena, block);
}

/// Returns the offsets of a block's pages.
fn offsets_of(block: &Block) -> impl Iterator<Item = u64> {
    (block.offset..block.offset + block.bytes).step_by(page() as usize)
}

/// Returns the numbers of the pages of each block, all of which were touched.
fn frames_of(view: &View, blocks: &[Block]) -> Vec<Vec<u64>> {
    let of = |block: &Block| {
        let count = (block.bytes / page()) as usize;
        let frames = frames(view, block.offset as usize, count).into_iter();
        frames.map(|frame| frame.expect("it was touched")).collect()
    };
    blocks.iter().map(of).collect()
}

/// Blocks whose pages are contiguous move as a whole, and stay contiguous.
fn compaction_keeps_every_byte() {
    let compact = "/proc/sys/vm/compact_memory";
    if fs::metadata(compact).is_err() {
        skip("this kernel does not compact its memory");
    }
    let arena = arena();
    let view = View::shared(&arena, 0, 128 * MIB as usize);
    let flags = [DEFAULT, DEFAULT | Flags::CONTIG];
    let blocks = (0..4096).map(|index| arena.alloc(12 * KIB, flags[index / 2 % 2]).unwrap());
    let blocks: Vec<_> = blocks.collect();
    let byte = |at: u64| (at / page()) as u8 ^ 0x5a;
    for at in blocks.iter().flat_map(offsets_of) {
        view.store(at as usize, byte(at));
    }
    // Compaction does not find free pages on the lists of a CPU: these lists are kept short.
    let lists = "/proc/sys/vm/percpu_pagelist_high_fraction";
    fs::write(lists, "1000000").unwrap();
    let (freed, live): (Vec<_>, Vec<_>) =
        blocks.chunks_exact(2).map(|two| (two[0], two[1])).unzip();
    for block in freed {
        free(&arena, block);
    }
    arena.trim(0).unwrap();
    let before = frames_of(&view, &live);
    for _ in 0..5 {
        fs::write(compact, "1").unwrap();
        for at in live.iter().flat_map(offsets_of) {
            assert_eq!(view.load(at as usize), byte(at), "byte {at:#x}");
        }
    }
    fs::write(lists, "0").unwrap();
    let after = frames_of(&view, &live);
    let moved = |contiguous: usize| {
        let pairs = before.iter().zip(&after).skip(contiguous).step_by(2);
        pairs.filter(|(before, after)| before != after).count()
    };
    figure!(
        "of {} blocks, half of which are contiguous, {} and {} are moved",
        live.len(),
        moved(0),
        moved(1)
    );
    assert!(moved(0) > 0 && moved(1) > 0, "nothing was moved");
    for frames in after.iter().skip(1).step_by(2) {
        let is_contiguous = frames.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        assert!(is_contiguous, "{frames:?}");
    }
    check();
}

/// Returns the sum of the low watermarks, which the kernel takes off what it says to be available.
fn low_watermarks() -> u64 {
    let zones = fs::read_to_string("/proc/zoneinfo").unwrap();
    let low = zones
        .lines()
        .filter_map(|line| line.trim().strip_prefix("low "));
    low.map(|pages| pages.trim().parse::<u64>().unwrap())
        .sum::<u64>()
        * page()
}

/// Prior art: reports zfs#10255.
fn free_memory_is_available() {
    let bytes = (meminfo("MemAvailable") / 3).min(512 * MIB) / MIB * MIB;
    let arena = arena();
    arena.set_slack_permille(Some(1)).unwrap();
    let block = alloc(&arena, bytes);
    let low = low_watermarks();
    // The kernel's computation (si_mem_available).
    let counts = |reclaimable: u64| reclaimable - (reclaimable / 2).min(low);
    let before = ["KReclaimable", "MemAvailable"].map(meminfo);
    free(&arena, block);
    let after = ["KReclaimable", "MemAvailable"].map(meminfo);
    // The kernel counts in batches of that many pages; other memory is allocated and freed meanwhile.
    let rise = after[0] - before[0];
    assert!(rise.abs_diff(bytes) <= 256 * page() + 4 * MIB, "{rise}");
    let expected = counts(before[0] + bytes) - counts(before[0]);
    let rise = after[1].saturating_sub(before[1]);
    figure!(
        "{} MiB freed: MemAvailable rises by {} MiB of {}",
        bytes / MIB,
        rise / MIB,
        expected / MIB
    );
    trust!(
        "available_after_free",
        rise * 100 / expected,
        "percent",
        ">=95"
    );
    assert!(
        rise.abs_diff(expected) <= bytes / 20,
        "{rise} of {expected}"
    );
    assert_eq!(arena.trim(0).unwrap(), bytes);
    let left = meminfo("KReclaimable").saturating_sub(before[0]);
    assert!(left <= 256 * page() + 4 * MIB, "{left}");
}

fn mapped_pages_count_as_resident_memory() {
    let rss = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * KIB
    };
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    alloc(&arena, 8 * MIB);
    let before = rss();
    for at in (0..8 * MIB as usize).step_by(system_page()) {
        view.store(at, 1);
    }
    assert!(rss() - before >= 8 * MIB);
}

fn one_charge_beyond_a_full_cgroup_costs_it_little() {
    let cgroup = Cgroup::new("beyond");
    cgroup.run(|| {
        let arena = arena();
        let view = View::shared(&arena, 0, 128 * MIB as usize);
        let block = alloc(&arena, 64 * MIB);
        for at in (0..block.bytes as usize).step_by(system_page()) {
            view.store(at, 1);
        }
        free(&arena, block);
        let more = View::anonymous(MIB as usize);
        cgroup.limit(cgroup.current() + 256 * KIB);
        let held = stat(&arena).held_bytes;
        for at in (0..more.len()).step_by(system_page()) {
            more.store(at, 1);
        }
        let gone = held - stat(&arena).held_bytes;
        figure!(
            "1 MiB in a full cgroup cost {} KiB of free memory",
            gone / KIB
        );
        trust!("gone_for_one_mib", gone / KIB, "KiB", "<=4096");
        assert!((512 * KIB..=4 * MIB).contains(&gone), "{gone} bytes");
    });
    assert_eq!(cgroup.event("oom_kill"), 0);
}
