// SPDX-License-Identifier: GPL-2.0

//! An arena's memory as the kernel has it: page cache of a file, in folios of up to a huge page, that the kernel
//! maps, moves, charges and reclaims like any other.

use std::fs;

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;
use nix::unistd::pipe;

use crate::harness::{skip, suite};
use crate::kit::pages::frames;
use crate::kit::process::{faults, signal_of, spawn_child};
use crate::kit::shared::{on_a_stack, Mutex};
use crate::kit::uring::Pinned;
use crate::kit::view::splice_from;
use crate::kit::{
    alloc, arena, check, free, meminfo, page, stat, system_page, touch_all, Cgroup, View, DEFAULT,
    KIB, MIB,
};
use crate::{figure, trust};

suite!("freelist_memory":
    large_blocks_are_huge_pages,
    new_memory_costs_a_fault_a_huge_page,
    a_part_that_leaves_divides_a_huge_page,
    a_mapping_may_divide_a_huge_page,
    a_mutex_in_a_block_is_shared_and_robust,
    a_thread_has_its_stack_in_a_block,
    compaction_keeps_every_byte,
    a_bad_page_of_a_live_block_is_sigbus_and_no_other,
    a_poisoned_free_page_is_never_allocated,
    a_page_that_is_taken_offline_keeps_its_bytes,
    free_memory_is_available,
    mapped_pages_count_as_resident_memory,
    one_charge_beyond_a_full_cgroup_costs_it_little,
    pinned_memory_is_the_pins_when_it_leaves,
    a_pin_keeps_what_is_beside_it,
    a_pin_keeps_what_nobody_has_written,
);

/// Bytes of a huge page; none where the kernel has none.
fn huge() -> u64 {
    let path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().expect("bytes"),
        Err(_) => skip("this kernel has no huge pages"),
    }
}

/// A line of the smaps of a view, in bytes.
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

fn a_part_that_leaves_divides_a_huge_page() {
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
        // And dies with it.
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

fn compaction_keeps_every_byte() {
    let compact = "/proc/sys/vm/compact_memory";
    if fs::metadata(compact).is_err() {
        skip("this kernel does not compact its memory");
    }
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let blocks: Vec<_> = (0..512).map(|_| alloc(&arena, 12 * KIB)).collect();
    let byte = |at: u64| (at / page()) as u8 ^ 0x5a;
    for block in &blocks {
        for at in (block.offset..block.offset + block.bytes).step_by(page() as usize) {
            view.store(at as usize, byte(at));
        }
    }
    // Holes, so that there is something to do.
    for block in blocks.iter().step_by(2) {
        free(&arena, *block);
    }
    arena.trim(0).unwrap();
    for _ in 0..5 {
        fs::write(compact, "1").unwrap();
        for block in blocks.iter().skip(1).step_by(2) {
            for at in (block.offset..block.offset + block.bytes).step_by(page() as usize) {
                assert_eq!(view.load(at as usize), byte(at), "byte {at:#x}");
            }
        }
    }
    check();
}

/// MADV_HWPOISON and MADV_SOFT_OFFLINE of linux/mman.h.
const HWPOISON: i32 = 100;
const SOFT_OFFLINE: i32 = 101;

/// The page of byte `at` turns out to be bad. The process that finds out dies of it.
#[track_caller]
pub(super) fn poison(view: &View, at: usize) {
    let page = system_page();
    let status = crate::kit::process::fork_child(|| {
        view.touch(at);
        if view.advise_raw(at..at + page, HWPOISON).is_err() {
            // Told apart below.
            nix::sys::signal::raise(Signal::SIGKILL).unwrap();
        }
    });
    use nix::sys::wait::WaitStatus::{Exited, Signaled};
    match status {
        Signaled(_, Signal::SIGBUS, _) | Exited(_, 0) => {}
        Signaled(_, Signal::SIGKILL, _) => skip("this kernel knows no bad pages"),
        status => panic!("{status:?}"),
    }
}

fn a_bad_page_of_a_live_block_is_sigbus_and_no_other() {
    for (size, bad) in [(8 * MIB, 700), (64 * KIB, 3), (page(), 0), (page() / 4, 0)] {
        let arena = arena();
        let view = View::shared(&arena, 0, 16 * MIB as usize);
        let beside = alloc(&arena, 64 * KIB);
        let block = alloc(&arena, size);
        let first = block.offset / page();
        let pages = block.bytes.div_ceil(page());
        for index in 0..pages {
            view.store(((first + index) * page()) as usize, index as u8);
        }
        view.store(beside.offset as usize, 9);
        let held = stat(&arena).held_bytes;
        let at = ((first + bad) * page()) as usize;
        poison(&view, at);
        // The block has its bytes still, of which one page is not there.
        let now = arena.stat().unwrap();
        assert_eq!(now.held_bytes, held - page(), "{size} bytes");
        assert_eq!(now.live_bytes, block.bytes + beside.bytes);
        check();
        let signal = signal_of(|| view.touch(at));
        assert_eq!(signal, Some(Signal::SIGBUS), "{size} bytes");
        for index in (0..pages).filter(|index| *index != bad) {
            let at = ((first + index) * page()) as usize;
            assert_eq!(view.load(at), index as u8, "page {index}");
        }
        assert_eq!(view.load(beside.offset as usize), 9);
        // The block goes, and the next one has all its memory.
        free(&arena, block);
        check();
        let again = alloc(&arena, size);
        for at in (again.offset..again.offset + again.bytes).step_by(page() as usize) {
            view.store(at as usize, 1);
        }
        free(&arena, again);
        arena.trim(0).unwrap();
        check();
        assert_eq!(stat(&arena).held_bytes, 64 * KIB);
    }
}

fn a_poisoned_free_page_is_never_allocated() {
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let block = alloc(&arena, 4 * MIB);
    let held = stat(&arena).held_bytes;
    free(&arena, block);
    poison(&view, (5 * page()) as usize);
    let now = stat(&arena);
    assert_eq!(now.held_bytes, held - page());
    assert_eq!(now.free_bytes, held - page());
    check();
    for size in [4 * MIB, 64 * KIB, page()] {
        let block = alloc(&arena, size);
        for at in (block.offset..block.offset + block.bytes).step_by(page() as usize) {
            view.store(at as usize, 1);
        }
        free(&arena, block);
    }
    assert!(arena.trim(0).unwrap() >= held - page());
    assert_eq!(stat(&arena).held_bytes, 0);
}

fn a_page_that_is_taken_offline_keeps_its_bytes() {
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let block = alloc(&arena, 4 * MIB);
    for at in (0..block.bytes as usize).step_by(system_page()) {
        view.store(at, (at / system_page()) as u8);
    }
    let page = system_page();
    if view.advise_raw(9 * page..10 * page, SOFT_OFFLINE).is_err() {
        skip("this kernel takes no pages offline");
    }
    for at in (0..block.bytes as usize).step_by(page) {
        assert_eq!(view.load(at), (at / page) as u8, "byte {at:#x}");
    }
    assert_eq!(stat(&arena).held_bytes, 4 * MIB);
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
    // In batches of that many pages; other memory comes and goes.
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

fn pinned_memory_is_the_pins_when_it_leaves() {
    for size in [64 * KIB, 2 * MIB] {
        let arena = arena();
        let block = alloc(&arena, size);
        let view = View::shared(&arena, block.offset, size as usize);
        view.set_bytes(0, b"mine");
        let (read, write) = pipe().unwrap();
        assert_eq!(splice_from(&write, view.address(0), 4), Ok(4));
        free(&arena, block);
        assert_eq!(arena.trim(0).unwrap(), size);
        assert_eq!(stat(&arena).held_bytes, 0);
        let again = alloc(&arena, size);
        assert_eq!(again.offset, block.offset);
        assert_eq!(view.bytes(0, 4), [0; 4]);
        view.set_bytes(0, b"next");
        let mut bytes = [0; 4];
        assert_eq!(nix::unistd::read(&read, &mut bytes), Ok(4));
        assert_eq!(&bytes, b"mine", "of {size} bytes");
    }
}

/// A huge page with a pin in it cannot be divided: nothing that is live is lost, and once the pin has
/// gone all is as ever.
fn a_pin_keeps_what_is_beside_it() {
    let huge = huge();
    let arena = arena();
    let view = View::shared(&arena, 0, 4 * huge as usize);
    let block = alloc(&arena, huge);
    for at in (0..huge as usize).step_by(system_page()) {
        view.store(at, (at / system_page()) as u8);
    }
    let part = View::shared(&arena, 0, system_page());
    let pin = match Pinned::new(&part) {
        Ok(pin) => pin,
        Err(Errno::ENOSYS | Errno::EPERM) => skip("this kernel has no io_uring"),
        Err(errno) => panic!("{errno}"),
    };
    let half = huge / 2;
    arena.resize(block.offset, half, DEFAULT).unwrap();
    let kept = arena.trim(0).unwrap();
    assert_eq!(kept, 0, "it cannot be divided");
    assert_eq!(stat(&arena).free_bytes, half);
    for at in (0..half as usize).step_by(system_page()) {
        assert_eq!(view.load(at), (at / system_page()) as u8, "byte {at:#x}");
    }
    // Pages that stayed serve other blocks.
    let other = alloc(&arena, half);
    assert_eq!(stat(&arena).held_bytes, huge);
    free(&arena, other);
    drop(pin);
    // The ring lets go of it after a while.
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        arena.trim(0).unwrap() == half
    });
    assert!(gone, "{:?}", stat(&arena));
    for at in (0..half as usize).step_by(system_page()) {
        assert_eq!(view.load(at), (at / system_page()) as u8, "byte {at:#x}");
    }
    check();
}

/// Memory that was never written has no content for the kernel to drop.
fn a_pin_keeps_what_nobody_has_written() {
    let huge = huge();
    let arena = arena();
    let view = View::map(
        &arena,
        0,
        4 * huge as usize,
        ProtFlags::PROT_READ,
        nix::sys::mman::MapFlags::MAP_SHARED,
    )
    .unwrap();
    let block = alloc(&arena, huge);
    let (read, write) = pipe().unwrap();
    assert_eq!(splice_from(&write, view.address(0), 4), Ok(4));
    arena.resize(block.offset, huge / 2, DEFAULT).unwrap();
    arena.trim(0).unwrap();
    for at in (0..huge as usize / 2).step_by(system_page()) {
        assert_eq!(view.probe(at), Ok(0), "byte {at:#x}");
    }
    drop((read, write));
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, huge / 2);
}
