// SPDX-License-Identifier: GPL-2.0

//! The choice among free blocks: a request finds one that fits, however many others there are, and grows if most
//! memory is in use.

use freelist_engine::at_every_page_size;
use freelist_engine::engine::{Admission, Garbage, Policy, Refusal, Request, ALIGN_SHIFT};
use freelist_engine::host::{reuse, Arena};

/// More runs than a request examines one by one.
const MANY: usize = 12;

fn request(size: u64, larger: bool, grow: bool) -> Request {
    Request {
        size,
        policy: reuse(larger, grow),
        ..Request::default()
    }
}

/// Frees blocks of these numbers of pages, the first one first. Returns their offsets.
fn free_runs<const KIB: usize>(arena: &mut Arena<KIB>, pages: &[u64]) -> Vec<u64> {
    let size = |pages: &u64| request(pages * Arena::<KIB>::PAGE, true, true);
    let blocks = pages.iter().map(|pages| {
        let (block, _) = arena.alloc(size(pages)).unwrap();
        // A live page between them keeps them from merging.
        let end = block + pages * Arena::<KIB>::PAGE;
        let mut others = vec![];
        while others.last() != Some(&end) {
            let (other, _) = arena
                .alloc(request(Arena::<KIB>::PAGE, true, true))
                .unwrap();
            others.push(other);
        }
        block
    });
    let blocks: Vec<u64> = blocks.collect();
    for offset in &blocks {
        arena.free(*offset).unwrap();
    }
    arena.drain();
    blocks
}

/// Reserves `pages` pages. Returns their beginning, and the number of missing pages.
fn reserve<const KIB: usize>(arena: &mut Arena<KIB>, pages: u64, grow: bool) -> (u64, u32) {
    let size = pages * Arena::<KIB>::PAGE;
    let pending = arena.reserve(request(size, true, grow)).unwrap();
    let got = (pending.offset(), pending.missing());
    arena.cancel(pending);
    got
}

#[test]
fn a_run_with_enough_is_found_after_many_with_one_page_less() {
    at_every_page_size!(one_page_less);
}

#[test]
fn a_full_run_is_found_after_many_with_one_page_less() {
    at_every_page_size!(full);
}

#[test]
fn a_run_with_enough_is_found_after_many_with_almost_enough() {
    at_every_page_size!(almost_enough);
}

#[test]
fn a_block_grows_after_the_free_run_that_has_most_of_its_pages() {
    at_every_page_size!(most_of_it);
}

#[test]
fn a_subpage_without_flags_comes_from_a_page_that_has_nothing_larger() {
    at_every_page_size!(exact_subpage);
}

#[test]
fn a_block_that_was_just_freed_is_on_the_fast_path() {
    at_every_page_size!(on_fast_path);
}

#[test]
fn a_waiter_is_served_by_a_block_that_was_just_freed() {
    at_every_page_size!(serves);
}

#[test]
fn blocks_merged_from_quick_lists_count_for_whether_a_request_could_be_served() {
    at_every_page_size!(serves_after_merge);
}

#[test]
fn freed_blocks_merge_at_once_while_quick_lists_are_closed() {
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
fn memory_for_a_block_comes_from_a_run_of_a_quarter_of_it() {
    at_every_page_size!(isolated_first);
}

mod generic {
    use super::*;

    pub fn isolated_first<const KIB: usize>() {
        for missing in [64, 1000, 6000, 60_000] {
            isolated_first_for::<KIB>(missing);
        }
    }

    fn isolated_first_for<const KIB: usize>(missing: u32) {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 14);
        let size = |pages: u64| request(pages * page, true, true);
        let lens: [u32; 3] = [2000, 1100, 96];
        // Each keeps the next from joining.
        let runs = lens.map(|pages| {
            let (run, _) = arena.alloc(size(pages.into())).unwrap();
            arena.alloc(size(pages.into())).unwrap();
            run
        });
        for run in runs {
            arena.free(run).unwrap();
        }
        arena.drain();
        let quarter = missing.next_power_of_two() / 4;
        let mut left = lens;
        while let Some(isolated) = arena.isolate_for(64, missing) {
            let first = u64::from(isolated.page()) * page;
            let has = |run: u64, pages: u32| (run..run + u64::from(pages) * page).contains(&first);
            let from = (0..3).find(|at| has(runs[*at], lens[*at])).unwrap();
            // The smallest of those of that order or above, or else one of the longest sixteenth.
            let large = left.iter().filter(|pages| **pages > quarter / 2).min();
            match large {
                Some(smallest) => assert!(left[from] <= smallest + smallest / 16, "{left:?}"),
                None => assert!(left[from] > left.into_iter().max().unwrap() / 16 * 15),
            }
            assert_eq!(isolated.pages(), left[from].min(64));
            left[from] -= isolated.pages();
            arena.remove(isolated);
        }
        assert_eq!(left, [0; 3]);
    }

    pub fn on_fast_path<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let (block, _) = arena.alloc(request(100, true, true)).unwrap();
        arena.free(block).unwrap();
        let before = arena.counters().requested_bytes;
        let exact = reuse(false, false);
        let pending = arena.engine.reserve_fast(100, exact).unwrap();
        assert_eq!((pending.offset(), pending.block_bytes()), (block, 128));
        arena.commit(pending);
        assert_eq!(arena.counters().requested_bytes, before + 100);
        assert!(arena.engine.reserve_fast(100, exact).is_none());
        // Larger ones are runs; nothing small may be kept apart then.
        let large = request(8 << 16, true, true);
        let (block, _) = arena.alloc(large).unwrap();
        arena.free(block).unwrap();
        arena.engine.merge_deferred();
        assert!(arena.engine.reserve_fast(8 << 16, exact).is_none());
        for policy in [reuse(true, false), reuse(false, true), reuse(true, true)] {
            let pending = arena.engine.reserve_fast(8 << 16, policy).unwrap();
            assert_eq!((pending.offset(), pending.missing()), (block, 0));
            assert_eq!(
                pending.stale(),
                pending.block_bytes() as u32 / Arena::<KIB>::PAGE as u32
            );
            arena.commit(pending);
            assert!(arena.engine.reserve_fast(8 << 16, policy).is_none());
            arena.free(block).unwrap();
            arena.engine.merge_deferred();
        }
        let (small, _) = arena.alloc(request(100, true, true)).unwrap();
        arena.free(small).unwrap();
        let policy = reuse(true, true);
        assert!(arena.engine.reserve_fast(8 << 16, policy).is_none());
    }

    pub fn serves<const KIB: usize>() {
        let page = request(Arena::<KIB>::PAGE, false, false);
        let mut arena = Arena::<KIB>::new(1 << 12);
        let (block, _) = arena
            .alloc(request(Arena::<KIB>::PAGE, false, true))
            .unwrap();
        assert!(!arena.could_serve(&page, Admission::Full, 0));
        arena.free(block).unwrap();
        assert!(arena.could_serve(&page, Admission::Full, 0));
    }

    pub fn serves_after_merge<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let blocks = [(); 2].map(|()| arena.alloc(request(64, true, true)).unwrap().0);
        let mut size = 128;
        while size < Arena::<KIB>::PAGE {
            arena.alloc(request(size, true, true)).unwrap();
            size *= 2;
        }
        let could_as = |arena: &mut Arena<KIB>, request| {
            let garbage = &mut Garbage::default();
            arena
                .engine
                .could_serve(&request, Admission::Full, 0, garbage)
        };
        let could = |arena: &mut Arena<KIB>, size| could_as(arena, request(size, true, false));
        assert!(!could(&mut arena, 32));
        arena.free(blocks[0]).unwrap();
        assert!(could(&mut arena, 32));
        arena.free(blocks[1]).unwrap();
        // A request for its own list merges nothing. Merged, both are 128 bytes, and no page.
        let own = request(128, false, false);
        assert!(!could_as(&mut arena, own));
        arena.alloc(own).unwrap_err();
        assert!(!could(&mut arena, Arena::<KIB>::PAGE));
        assert!(could(&mut arena, 128));
        assert!(could_as(&mut arena, own));
        arena.alloc(own).unwrap();
    }

    pub fn joins_at_once<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        for at_once in [true, false] {
            arena.close_quick(at_once);
            let (block, _) = arena.alloc(request(64, true, true)).unwrap();
            arena.free(block).unwrap();
            assert_eq!(arena.engine.free_pages(), at_once.into());
        }
        arena.close_quick(true);
        assert_eq!(arena.engine.free_pages(), 1);
    }

    /// Checks the most halves of pages that are kept: 512 KiB at pages of 1 KiB, less at larger pages, and at least
    /// one.
    pub fn few_are_kept<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        arena.checked = false;
        let half = Arena::<KIB>::PAGE / 2;
        let blocks = [(); 256].map(|()| arena.alloc(request(half, true, true)).unwrap().0);
        for block in blocks {
            arena.free(block).unwrap();
        }
        let max = ((512 << 10) / (KIB as u64 * half)).clamp(1, 64) as u32;
        assert_eq!(arena.engine.free_pages(), 128 - max.div_ceil(2));
        arena.check();
    }

    pub fn large_are_kept<const KIB: usize>() {
        for (kib, max) in [(64, 4), (128, 0), (1024, 0)] {
            let mut arena = Arena::<KIB>::new(1 << 12);
            let size = kib << 10;
            let blocks = [(); 5].map(|()| arena.alloc(request(size, true, true)).unwrap().0);
            for block in blocks {
                arena.free(block).unwrap();
            }
            let joined = u64::from(arena.engine.free_pages()) * Arena::<KIB>::PAGE;
            assert_eq!(joined, (5 - max) * size, "{kib} KiB");
        }
    }

    /// Tries the lengths at which the eighths of an order of runs begin.
    pub fn one_page_less<const KIB: usize>() {
        for enough in (36..64).step_by(4) {
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
        // The other block keeps it from merging with the pages after it.
        let (full, _other) = (alloc().unwrap().0, alloc().unwrap());
        arena.free(full).unwrap();
        arena.drain();
        let mut less = vec![];
        for _ in 0..MANY {
            let size = request(63 * Arena::<KIB>::PAGE, true, true);
            let contiguous = Request {
                policy: Policy::Contiguous,
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
        let page = Arena::<KIB>::PAGE;
        // The pages of the alignment of blocks.
        let unit = ((1 << ALIGN_SHIFT) / page).max(1);
        let mut arena = Arena::<KIB>::new(1 << 12);
        let mut alloc = |units| {
            let (offset, _) = arena
                .alloc(request(units * unit * page, true, true))
                .unwrap();
            offset
        };
        let sizes = [5, 4, 1, 3, 1, 6, 1, 2];
        let [long, hole, _, short, _, longest, _, last] = sizes.map(&mut alloc);
        // Unused address space follows the last block.
        arena.free(last).unwrap();
        arena.free(short).unwrap();
        arena.free(longest).unwrap();
        arena.drain();
        let missing = |units: u64| (units * unit) as u32;
        assert_eq!(reserve(&mut arena, 7 * unit, true), (last, missing(5)));
        // A longer run is followed by enough pages.
        arena.free(hole).unwrap();
        let isolated = loop {
            let isolated = arena.isolate(missing(4)).unwrap();
            if u64::from(isolated.page()) * page == hole {
                break isolated;
            }
            arena.remove(isolated);
        };
        arena.remove(isolated);
        arena.free(long).unwrap();
        arena.drain();
        assert_eq!(reserve(&mut arena, 9 * unit, true), (long, missing(4)));
        assert_eq!(reserve(&mut arena, 8 * unit, true), (long, missing(3)));
    }

    pub fn exact_subpage<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let mut alloc = |size| arena.alloc(request(size, true, true)).unwrap().0;
        let (_, subpage) = (alloc(64), alloc(64));
        let mut size = 128;
        while size < Arena::<KIB>::PAGE {
            alloc(size);
            size *= 2;
        }
        arena.free(subpage).unwrap();
        arena.drain();
        let half = request(32, false, false);
        assert_eq!(arena.alloc(half), Err(Refusal::Empty));
        assert_eq!(arena.alloc(request(64, false, false)), Ok((subpage, 64)));
    }
}
