// SPDX-License-Identifier: GPL-2.0

//! Which of several free blocks a request gets: what is there is found, however many others there
//! are, and where most is there already it grows.

use freelist_engine::at_every_page_size;
use freelist_engine::engine::{Counters, Refusal, Request};
use freelist_engine::host::Arena;

/// More runs than are looked at one by one.
const MANY: usize = 12;

fn request(size: u64, larger: bool, grow: bool) -> Request {
    Request {
        size,
        larger,
        grow,
        ..Request::default()
    }
}

/// Frees blocks of so many pages each, the first one first. Gives where each was.
fn free_runs<const KIB: usize>(arena: &mut Arena<KIB>, pages: &[u64]) -> Vec<u64> {
    let size = |pages: &u64| request(pages * Arena::<KIB>::PAGE, true, true);
    let blocks = pages
        .iter()
        .map(|pages| arena.alloc(size(pages)).unwrap().0);
    let blocks: Vec<u64> = blocks.collect();
    for offset in &blocks {
        arena.free(*offset).unwrap();
    }
    arena.drain();
    blocks
}

/// What is reserved for so many pages: where, and how many of them are still missing.
fn reserve<const KIB: usize>(arena: &mut Arena<KIB>, pages: u64, grow: bool) -> (u64, u32) {
    let size = pages * Arena::<KIB>::PAGE;
    let pending = arena.reserve(request(size, true, grow)).unwrap();
    let got = (pending.offset(), pending.missing());
    arena.cancel(pending);
    got
}

#[test]
fn a_run_with_enough_is_found_behind_many_with_one_page_less() {
    at_every_page_size!(one_page_less);
}

#[test]
fn a_full_run_is_found_behind_many_with_one_page_less() {
    at_every_page_size!(full);
}

#[test]
fn a_run_with_enough_is_found_behind_many_with_almost_enough() {
    at_every_page_size!(almost_enough);
}

#[test]
fn a_block_grows_where_most_of_it_is_there_already() {
    at_every_page_size!(most_of_it);
}

#[test]
fn a_part_without_flags_comes_from_a_page_that_has_nothing_larger() {
    at_every_page_size!(exact_part);
}

#[test]
fn a_block_that_was_just_freed_is_at_hand() {
    at_every_page_size!(at_hand);
}

#[test]
fn who_waits_is_served_by_a_block_that_was_just_freed() {
    at_every_page_size!(serves);
}

#[test]
fn blocks_join_at_once_where_they_are_told_to() {
    at_every_page_size!(joins_at_once);
}

#[test]
fn few_pages_are_kept_from_joining() {
    at_every_page_size!(few_are_kept);
}

#[test]
fn some_large_blocks_are_kept_from_joining() {
    at_every_page_size!(large_are_kept);
}

#[test]
fn a_large_run_stays_whole_while_smaller_ones_suffice() {
    at_every_page_size!(stays_whole);
}

#[test]
fn a_large_run_is_divided_where_no_address_space_is_left() {
    at_every_page_size!(divided_without_space);
}

#[test]
fn memory_leaves_from_the_smallest_run_of_several_pages_first() {
    at_every_page_size!(leaves_first);
}

/// A free run of 512 pages, and `count` of `small` pages that cannot join: where the first is.
fn large_and_small<const KIB: usize>(arena: &mut Arena<KIB>, count: usize, small: u64) -> u64 {
    let size = |pages| request(pages * Arena::<KIB>::PAGE, true, true);
    let (large, _) = arena.alloc(size(512)).unwrap();
    let blocks: Vec<u64> = (0..2 * count)
        .map(|_| arena.alloc(size(small)).unwrap().0)
        .collect();
    arena.free(large).unwrap();
    for offset in blocks.iter().step_by(2) {
        arena.free(*offset).unwrap();
    }
    arena.drain();
    large
}

mod generic {
    use super::*;

    pub fn stays_whole<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for ((count, small), pages, whole) in [
            ((8, 8), 64, true),
            // They do not suffice.
            ((7, 8), 64, false),
            ((8, 8), 65, false),
            // The run is not that much larger.
            ((17, 8), 65, false),
            // As large as the block, but for some pages.
            ((2, 5), 8, true),
            // What a smaller block leaves of it serves as well.
            ((2, 4), 8, true),
            ((2, 4), 7, false),
            // Single pages are left to small blocks.
            ((4, 2), 8, true),
            ((64, 1), 8, false),
        ] {
            let mut arena = Arena::<KIB>::new(1 << 12);
            let large = large_and_small(&mut arena, count, small);
            let is_part = |offset| (large..large + 512 * page).contains(&offset);
            let (offset, _) = reserve(&mut arena, pages, true);
            assert_eq!(!is_part(offset), whole, "{pages} of {count} times {small}");
            // Who may not grow divides it: all would have to be moved.
            assert_eq!(reserve(&mut arena, pages, false), (large, 0));
            // It costs little: no more is held than may be, and the large one is served at once.
            arena.alloc(request(pages * page, true, true)).unwrap();
            let Counters {
                held_bytes,
                peak_bytes,
                ..
            } = arena.counters();
            assert!(held_bytes <= peak_bytes + peak_bytes / 100);
            let (offset, missing) = reserve(&mut arena, 512, true);
            assert_eq!((offset, missing) == (large, 0), whole);
        }
    }

    pub fn divided_without_space<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        // 512 pages, and 16 blocks of 8.
        let mut arena = Arena::<KIB>::new(512 + 16 * 8);
        let large = large_and_small(&mut arena, 8, 8);
        assert_eq!(reserve(&mut arena, 64, true), (large, 0));
        let contiguous = Request {
            contiguous: true,
            ..request(64 * page, true, true)
        };
        assert_eq!(arena.reserve(contiguous).unwrap_err(), Refusal::NoSpace);
        let whole = request(1024 * page, true, true);
        assert_eq!(arena.reserve(whole).unwrap_err(), Refusal::NoSpace);
    }

    pub fn leaves_first<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let size = |pages| request(pages * page, true, true);
        // Each keeps the next from joining.
        let runs = [512, 64, 2, 1].map(|pages| {
            let (run, _) = arena.alloc(size(pages)).unwrap();
            arena.alloc(size(pages)).unwrap();
            run
        });
        for run in runs {
            arena.free(run).unwrap();
        }
        arena.drain();
        let mut left = Vec::new();
        while let Some(isolated) = arena.isolate(64) {
            let first = u64::from(isolated.page()) * page;
            let from = runs.iter().rposition(|&run| run <= first).unwrap();
            left.push((from, isolated.pages()));
            arena.remove_isolated(isolated);
        }
        let of_large = [(0, 64); 8];
        assert_eq!(left[..2], [(2, 2), (1, 64)]);
        assert_eq!(left[2..10], of_large);
        assert_eq!(left[10..], [(3, 1)]);
    }

    pub fn at_hand<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let (block, _) = arena.alloc(request(100, true, true)).unwrap();
        arena.free(block).unwrap();
        let before = arena.counters().requested_bytes;
        let pending = arena.engine.reserve_fast(100).unwrap();
        assert_eq!((pending.offset(), pending.block_bytes()), (block, 128));
        arena.commit(pending);
        assert_eq!(arena.counters().requested_bytes, before + 100);
        assert!(arena.engine.reserve_fast(100).is_none());
    }

    pub fn serves<const KIB: usize>() {
        let page = request(Arena::<KIB>::PAGE, false, false);
        let mut arena = Arena::<KIB>::new(1 << 12);
        let (block, _) = arena.alloc(Request { grow: true, ..page }).unwrap();
        assert!(!arena.engine.could_serve(&page, 0, &mut arena.kit));
        arena.free(block).unwrap();
        assert!(arena.engine.could_serve(&page, 0, &mut arena.kit));
    }

    pub fn joins_at_once<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        for at_once in [true, false] {
            arena.engine.merge_at_once(at_once, &mut arena.kit);
            let (block, _) = arena.alloc(request(64, true, true)).unwrap();
            arena.free(block).unwrap();
            assert_eq!(arena.engine.run_pages(), at_once.into());
        }
        arena.engine.merge_at_once(true, &mut arena.kit);
        assert_eq!(arena.engine.run_pages(), 1);
    }

    /// Of halves of pages at most 512 KiB at pages of 1 KiB, and less the larger a page is; one at
    /// least.
    pub fn few_are_kept<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        arena.checked = false;
        let half = Arena::<KIB>::PAGE / 2;
        let blocks = [(); 256].map(|()| arena.alloc(request(half, true, true)).unwrap().0);
        for block in blocks {
            arena.free(block).unwrap();
        }
        let most = ((512 << 10) / (KIB as u64 * half)).clamp(1, 64) as u32;
        assert_eq!(arena.engine.run_pages(), 128 - most.div_ceil(2));
        arena.check();
    }

    pub fn large_are_kept<const KIB: usize>() {
        for (kib, most) in [(64, 4), (128, 2), (256, 1), (512, 1), (1024, 1), (2048, 0)] {
            let mut arena = Arena::<KIB>::new(1 << 12);
            let size = kib << 10;
            let blocks = [(); 5].map(|()| arena.alloc(request(size, true, true)).unwrap().0);
            for block in blocks {
                arena.free(block).unwrap();
            }
            let joined = u64::from(arena.engine.run_pages()) * Arena::<KIB>::PAGE;
            assert_eq!(joined, (5 - most) * size, "{kib} KiB");
        }
    }

    /// The eighths into which a list of runs is divided begin at these lengths.
    pub fn one_page_less<const KIB: usize>() {
        for enough in (37..64).step_by(4) {
            let mut arena = Arena::<KIB>::new(1 << 12);
            arena.checked = false;
            let mut pages = vec![enough];
            pages.extend([enough - 1; MANY]);
            let found = free_runs(&mut arena, &pages)[0];
            assert_eq!(reserve(&mut arena, enough, false), (found, 0), "{enough}");
            arena.check();
        }
    }

    pub fn full<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        arena.checked = false;
        let mut alloc = || arena.alloc(request(64 * Arena::<KIB>::PAGE, true, true));
        // The other keeps it from joining what comes behind it.
        let (full, _other) = (alloc().unwrap().0, alloc().unwrap());
        arena.free(full).unwrap();
        arena.drain();
        let mut less = vec![];
        for _ in 0..MANY {
            let size = request(63 * Arena::<KIB>::PAGE, true, true);
            let contiguous = Request {
                contiguous: true,
                ..size
            };
            less.push(arena.alloc(contiguous).unwrap().0);
        }
        for offset in less {
            arena.free(offset).unwrap();
        }
        arena.drain();
        assert_eq!(reserve(&mut arena, 64, false), (full, 0));
    }

    pub fn almost_enough<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        arena.checked = false;
        let mut pages = vec![50];
        pages.extend([37; MANY]);
        let found = free_runs(&mut arena, &pages)[0];
        assert_eq!(reserve(&mut arena, 40, false), (found, 0));
    }

    pub fn most_of_it<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let most = free_runs(&mut arena, &[49, 33, 41])[0];
        assert_eq!(reserve(&mut arena, 60, true), (most, 60 - 49));
    }

    pub fn exact_part<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let mut alloc = |size| arena.alloc(request(size, true, true)).unwrap().0;
        let (_, part) = (alloc(64), alloc(64));
        let mut size = 128;
        while size < Arena::<KIB>::PAGE {
            alloc(size);
            size *= 2;
        }
        arena.free(part).unwrap();
        arena.drain();
        let half = request(32, false, false);
        assert_eq!(arena.alloc(half), Err(Refusal::Empty));
        assert_eq!(arena.alloc(request(64, false, false)), Ok((part, 64)));
    }
}
