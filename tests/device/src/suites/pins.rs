// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned for I/O while their blocks are freed, trimmed or reclaimed.

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nix::unistd::pipe;

use super::memory::huge;
use crate::harness::{skip, suite};
use crate::kit::calls::splice_from;
use crate::kit::uring::Pinned;
use crate::kit::{alloc, arena, check, free, stat, system_page, Cgroup, View, DEFAULT, KIB, MIB};

suite!("freelist_pins":
    a_pin_keeps_the_bytes_of_a_trimmed_page,
    pinned_memory_stays_charged_to_its_cgroup,
    a_pin_in_a_huge_page_keeps_its_other_blocks,
    a_pin_keeps_a_page_that_was_never_written,
);

fn a_pin_keeps_the_bytes_of_a_trimmed_page() {
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

/// A trimmed page that a pin keeps counts no more against the arena's limits, but still against the cgroup that
/// it was charged to.
fn pinned_memory_stays_charged_to_its_cgroup() {
    const SIZE: u64 = 8 * MIB;
    let cgroup = Cgroup::new("pins");
    cgroup.run(|| {
        let before = cgroup.current();
        let arena = arena();
        let block = alloc(&arena, SIZE);
        let view = View::shared(&arena, block.offset, SIZE as usize);
        for at in (0..view.len()).step_by(system_page()) {
            view.store(at, 1);
        }
        let pin = match Pinned::new(&view) {
            Ok(pin) => pin,
            Err(Errno::ENOSYS | Errno::EPERM) => skip("this kernel has no io_uring"),
            Err(errno) => panic!("{errno}"),
        };
        free(&arena, block);
        assert_eq!(arena.trim(0).unwrap(), SIZE);
        assert_eq!(stat(&arena).held_bytes, 0);
        drop(arena);
        let pinned = cgroup.current();
        assert!(pinned >= before + SIZE, "{pinned} bytes, {before} before");
        drop(pin);
        // The ring unpins it after a while.
        let gone = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            cgroup.current() < before + SIZE / 2
        });
        assert!(gone, "{} bytes, {before} before", cgroup.current());
    });
}

/// A huge page with a pin in it cannot be divided: no live block is lost, and after the unpin its free pages
/// can be trimmed.
fn a_pin_in_a_huge_page_keeps_its_other_blocks() {
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
    // The ring unpins it after a while.
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
fn a_pin_keeps_a_page_that_was_never_written() {
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
