// SPDX-License-Identifier: GPL-2.0

//! Pages of live blocks that are discarded.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use freelist::Flags;
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::lazy::stat;
use crate::kit::uring::Pinned;
use crate::kit::{
    alloc, arena, check, free, largest_folio, page, refused, system_page, View, DEFAULT, MIB,
};

suite!("freelist_discard":
    discarded_pages_read_as_zero,
    a_discard_takes_whole_pages_alone,
    discards_outside_live_blocks_are_refused,
    a_pinned_page_is_zeroed_and_stays,
);

fn discarded_pages_read_as_zero() {
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
    let pages = largest_folio().min(4 * page());
    let contiguous = arena.alloc(pages, DEFAULT | Flags::CONTIG).unwrap();
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
    // A write through the pin shows in the block.
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
