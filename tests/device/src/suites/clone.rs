// SPDX-License-Identifier: GPL-2.0

//! Copies of an arena: the same blocks at the same offsets, with their content.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use freelist::debugfs::Stats;
use freelist::{Arena, Block, Error, Flags};
use nix::errno::Errno;

use super::memory::huge;
use crate::harness::suite;
use crate::kit::process::signal_of;
use crate::kit::{
    alloc, arena, check, free, largest_folio, page, random, random_size, refused, scaled, stat,
    thread, View, DEFAULT, GROW, KIB, MIB,
};

suite!("freelist_clone":
    a_copy_has_the_same_blocks_and_bytes,
    a_copy_of_an_empty_arena_is_empty,
    writes_do_not_show_on_the_other_side,
    a_copy_has_no_freed_blocks,
    a_page_with_small_blocks_serves_what_is_free_in_it,
    headers_are_right_or_overwritten_as_they_were,
    contiguous_blocks_stay_contiguous,
    huge_pages_stay_huge,
    lazy_blocks_stay_lazy,
    a_copy_of_a_copy_is_the_same,
    a_copy_outlives_its_source,
    pinned_pages_are_copied,
    beside_a_thread_that_allocates_and_frees_each_block_is_whole,
);

/// Fills a block with bytes that no other block has there.
pub(super) fn fill(view: &View, block: Block, key: u8) {
    let mark = (block.offset / 32) as u8 ^ key;
    view.set_bytes(block.offset as usize, &vec![mark | 1; block.bytes as usize]);
}

pub(super) fn has_its_bytes(view: &View, block: Block, key: u8) -> bool {
    let mark = (block.offset / 32) as u8 ^ key;
    let bytes = view.bytes(block.offset as usize, block.bytes as usize);
    bytes.iter().all(|byte| *byte == mark | 1)
}

/// Allocates blocks of many sizes, and frees some of them again.
fn mixed(arena: &Arena, view: &View, rng: &mut fastrand::Rng, count: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    for _ in 0..count {
        let size = random_size(rng, 512 * KIB);
        let flags = match rng.u8(0..8) {
            0 => DEFAULT | Flags::HEADER,
            1 if size <= largest_folio() => GROW | Flags::CONTIG,
            _ => DEFAULT,
        };
        let block = arena.alloc(size, flags).unwrap();
        fill(view, block, 0);
        blocks.push(block);
        if rng.u8(0..3) == 0 {
            free(arena, blocks.swap_remove(rng.usize(0..blocks.len())));
        }
    }
    blocks
}

/// Bytes of an arena that a view shows.
pub(super) const SPAN: usize = 256 << 20;

/// Returns the present totals of all arenas from debugfs.
pub(super) fn now() -> [Option<u64>; 4] {
    let stats = Stats::read().unwrap();
    ["arenas", "live_blocks", "held_bytes", "metadata_bytes"].map(|name| stats.get(name))
}

/// Runs `work`, and checks that nothing has changed afterwards.
#[track_caller]
pub(super) fn leaves_nothing(work: impl FnOnce()) {
    let before = now();
    let files = fs::read_dir("/proc/self/fd").unwrap().count();
    work();
    assert_eq!(now(), before);
    assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), files);
    check();
}

fn a_copy_has_the_same_blocks_and_bytes() {
    let mut rng = random();
    for count in [1, 30, 300] {
        let source = arena();
        let view = View::shared(&source, 0, SPAN);
        let blocks = mixed(&source, &view, &mut rng, scaled(count));
        let before = stat(&source);
        let copy = source.copy().unwrap();
        check();
        assert_eq!(stat(&source), before, "the source is unchanged");
        let now = stat(&copy);
        assert_eq!(now.live_blocks, before.live_blocks);
        assert_eq!(now.live_bytes, before.live_bytes);
        assert!(now.held_bytes <= before.held_bytes);
        let theirs = View::shared(&copy, 0, SPAN);
        for block in &blocks {
            assert!(has_its_bytes(&view, *block, 0));
            assert!(has_its_bytes(&theirs, *block, 0), "{block:?}");
            copy.free(block.offset).unwrap();
            refused(copy.free(block.offset), Errno::ENOENT);
        }
        copy.trim(0).unwrap();
        assert_eq!(stat(&copy).held_bytes, 0);
        assert_eq!(stat(&source), before);
        check();
    }
}

fn a_copy_of_an_empty_arena_is_empty() {
    let source = arena();
    let copy = source.copy().unwrap();
    assert_eq!(stat(&copy).held_bytes, 0);
    let block = alloc(&source, MIB);
    free(&source, block);
    assert!(stat(&source).held_bytes > 0);
    let copy = source.copy().unwrap();
    let now = stat(&copy);
    assert_eq!((now.held_bytes, now.live_blocks, now.allocs), (0, 0, 0));
    alloc(&copy, MIB);
}

fn writes_do_not_show_on_the_other_side() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    let blocks = [32, 3 * page(), 4 * MIB].map(|size| alloc(&source, size));
    for block in blocks {
        fill(&view, block, 0);
    }
    let copy = source.copy().unwrap();
    let theirs = View::shared(&copy, 0, SPAN);
    for block in blocks {
        fill(&theirs, block, 0x80);
        assert!(has_its_bytes(&view, block, 0));
        fill(&view, block, 0x40);
        assert!(has_its_bytes(&theirs, block, 0x80));
    }
}

fn a_copy_has_no_freed_blocks() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    for size in [32, 2048, page(), 20 * page(), 3 * MIB] {
        let blocks = [(); 4].map(|()| alloc(&source, size));
        free(&source, blocks[1]);
        free(&source, blocks[3]);
        for block in [blocks[0], blocks[2]] {
            fill(&view, block, 0);
        }
        let copy = source.copy().unwrap();
        let theirs = View::shared(&copy, 0, SPAN);
        for block in [blocks[1], blocks[3]] {
            refused(copy.free(block.offset), Errno::ENOENT);
        }
        if size >= page() {
            let gone = blocks[1].offset as usize;
            assert_eq!(
                signal_of(|| theirs.touch(gone)),
                Some(nix::sys::signal::Signal::SIGBUS)
            );
        }
        for block in [blocks[0], blocks[2]] {
            assert!(has_its_bytes(&theirs, block, 0));
            free(&copy, block);
            free(&source, block);
        }
        assert_eq!(stat(&copy).live_bytes, 0);
    }
}

fn a_page_with_small_blocks_serves_what_is_free_in_it() {
    let source = arena();
    let blocks: Vec<_> = (0..page() / 64).map(|_| alloc(&source, 64)).collect();
    for block in &blocks[1..] {
        free(&source, *block);
    }
    let copy = source.copy().unwrap();
    assert_eq!(stat(&copy).held_bytes, page());
    for _ in 1..blocks.len() {
        let block = alloc(&copy, 64);
        assert!(blocks.contains(&block));
    }
    let now = stat(&copy);
    assert_eq!((now.held_bytes, now.live_bytes), (page(), page()));
    check();
}

fn headers_are_right_or_overwritten_as_they_were() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    for size in [20, 1000, page(), 100_000] {
        let flags = DEFAULT | Flags::HEADER;
        let [right, wrong] = [(); 2].map(|()| source.alloc(size, flags).unwrap());
        view.store(wrong.offset as usize - 1, 0xee);
        for copy in [
            source.copy().unwrap(),
            source.copy().unwrap().copy().unwrap(),
        ] {
            copy.free(right.offset).unwrap();
            refused(copy.free(wrong.offset), Errno::EUCLEAN);
            refused(copy.free(wrong.offset), Errno::ENOENT);
        }
        source.free(right.offset).unwrap();
        refused(source.free(wrong.offset), Errno::EUCLEAN);
    }
    // A block that is written in the copy shows it there.
    let copy = source.copy().unwrap();
    let theirs = View::shared(&copy, 0, SPAN);
    let block = copy.alloc(5000, DEFAULT | Flags::HEADER).unwrap();
    theirs.store(block.offset as usize - 1, 0xee);
    refused(copy.free(block.offset), Errno::EUCLEAN);
}

fn contiguous_blocks_stay_contiguous() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    let mut blocks = Vec::new();
    for bytes in [1, 2, 16, 64].map(|pages| largest_folio().min(pages * page())) {
        alloc(&source, page());
        let block = source.alloc(bytes, GROW | Flags::CONTIG).unwrap();
        fill(&view, block, 0);
        blocks.push(block);
    }
    let copy = source.copy().unwrap();
    let theirs = View::shared(&copy, 0, SPAN);
    for block in blocks {
        assert!(has_its_bytes(&theirs, block, 0));
        let pages = (block.bytes / page()) as usize;
        let frames = crate::kit::pages::frames(&theirs, block.offset as usize, pages);
        let side_by_side = frames
            .windows(2)
            .all(|two| matches!(two, [Some(one), Some(next)] if one + 1 == *next));
        assert!(side_by_side, "{frames:x?}");
        refused(copy.resize(block.offset, page(), DEFAULT), Errno::EINVAL);
    }
}

fn huge_pages_stay_huge() {
    let huge = huge();
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    // One block, and many neighbouring ones.
    let mut blocks = vec![alloc(&source, 8 * huge)];
    let quarter = huge / 4;
    blocks.extend((0..32).map(|_| alloc(&source, quarter)));
    for block in &blocks {
        fill(&view, *block, 0);
    }
    let before = stat(&source);
    assert!(before.huge_bytes >= 8 * huge);
    let copy = source.copy().unwrap();
    let now = stat(&copy);
    assert_eq!(now.huge_bytes, 16 * huge);
    assert_eq!(now.held_bytes, before.held_bytes);
    let theirs = View::shared(&copy, 0, SPAN);
    for block in blocks {
        assert!(has_its_bytes(&theirs, block, 0));
    }
}

fn lazy_blocks_stay_lazy() {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let block = arena.alloc(32 * MIB, DEFAULT | Flags::LAZY).unwrap();
    view.store((block.offset + 20 * MIB) as usize, 7);
    let copy = arena.copy().unwrap();
    let held = |arena: &Arena| arena.stat().unwrap().held_bytes;
    assert_eq!((held(&arena), held(&copy)), (page(), page()));
    let other = View::shared(&copy, 0, 64 * MIB as usize);
    assert_eq!(other.load((block.offset + 20 * MIB) as usize), 7);
    other.store((block.offset + 5 * MIB) as usize, 1);
    assert_eq!((held(&arena), held(&copy)), (page(), 2 * page()));
    assert_eq!(view.load((block.offset + 5 * MIB) as usize), 0);
    copy.free(block.offset).unwrap();
    copy.trim(0).unwrap();
    assert_eq!(held(&copy), 0);
    check();
}

fn a_copy_of_a_copy_is_the_same() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    let blocks = mixed(&source, &view, &mut random(), 100);
    let mut copy = source.copy().unwrap();
    for _ in 0..3 {
        copy = copy.copy().unwrap();
    }
    drop(source);
    let theirs = View::shared(&copy, 0, SPAN);
    for block in blocks {
        assert!(has_its_bytes(&theirs, block, 0));
        free(&copy, block);
    }
    assert_eq!(stat(&copy).live_bytes, 0);
}

fn a_copy_outlives_its_source() {
    leaves_nothing(|| {
        let source = arena();
        let block = alloc(&source, MIB);
        let copy = {
            let view = View::shared(&source, 0, SPAN);
            fill(&view, block, 0);
            source.copy().unwrap()
        };
        drop(source);
        let theirs = View::shared(&copy, 0, SPAN);
        assert!(has_its_bytes(&theirs, block, 0));
    });
}

fn pinned_pages_are_copied() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    let block = alloc(&source, 16 * page());
    fill(&view, block, 0);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let len = 4 * page() as usize;
    let at = view.address(block.offset as usize);
    let spliced = crate::kit::calls::splice_from(&writer, at, len).unwrap();
    assert_eq!(spliced, len);
    let copy = source.copy().unwrap();
    let theirs = View::shared(&copy, 0, SPAN);
    assert!(has_its_bytes(&theirs, block, 0));
    free(&source, block);
    source.trim(0).unwrap();
    assert!(has_its_bytes(&theirs, block, 0));
    drop(reader);
}

fn beside_a_thread_that_allocates_and_frees_each_block_is_whole() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    let mut rng = random();
    let stay = mixed(&source, &view, &mut rng, 200);
    let (done, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut copies = 0;
    let mut during = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut mine = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let size = random_size(&mut rng, 512 * KIB);
                if mine.len() < 60 {
                    let block = alloc(&source, size);
                    fill(&view, block, 0);
                    mine.push(block);
                }
                let index = rng.usize(0..mine.len());
                match rng.u8(0..4) {
                    0 => {
                        let grown = source.resize(mine[index].offset, size, DEFAULT);
                        if let Ok(bytes) = grown {
                            mine[index].bytes = bytes;
                            fill(&view, mine[index], 0);
                        }
                    }
                    1 => drop(source.trim(0).unwrap()),
                    _ => free(&source, mine.swap_remove(index)),
                }
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        while copies < scaled(60) || changes.load(Ordering::Relaxed) < 2000 {
            let before = changes.load(Ordering::Relaxed);
            let copy = match source.copy() {
                Ok(copy) => copy,
                Err(Error::Refused { errno, .. }) => panic!("{errno}"),
                Err(error) => panic!("{error}"),
            };
            during += u64::from(changes.load(Ordering::Relaxed) > before);
            copies += 1;
            let theirs = View::shared(&copy, 0, SPAN);
            for block in &stay {
                assert!(has_its_bytes(&theirs, *block, 0), "{block:?}");
                free(&copy, *block);
            }
            if copies % 16 == 0 {
                check();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    eprintln!("{copies} copies, {during} with changes meanwhile");
    assert!(during > 0, "the other thread never ran during a copy");
    check();
}
