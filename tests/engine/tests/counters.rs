// SPDX-License-Identifier: GPL-2.0

//! The exact values of the engine's counters and statistics.

use freelist_engine::at_every_page_size;
use freelist_engine::engine::{
    Batch, Entry, Part, Record, Request, Tree, CHUNK_PAGES, PART_LEN, ROOT_LEN,
};
use freelist_engine::host::{request, Arena, Host};

#[test]
fn each_halving_and_joining_is_counted_once_and_for_its_class() {
    at_every_page_size!(splits_and_merges);
}

#[test]
fn runs_are_halved_and_joined_for_their_class() {
    at_every_page_size!(halves_of_runs);
}

#[test]
fn joining_address_space_is_no_merge() {
    at_every_page_size!(no_merge);
}

#[test]
fn only_requests_that_take_new_pages_are_counted_as_grows() {
    at_every_page_size!(grows);
}

#[test]
fn a_twentieth_more_than_the_peak_may_be_held_and_no_page_more() {
    at_every_page_size!(slack);
}

#[test]
fn the_need_follows_the_length_of_a_resized_block() {
    at_every_page_size!(resized);
}

#[test]
fn totals_wrap_and_current_values_stay_exact() {
    at_every_page_size!(totals_wrap);
}

#[test]
fn the_end_of_an_arena_hands_out_all_of_its_records() {
    at_every_page_size!(dismantled);
}

#[test]
fn moved_bytes_are_counted() {
    at_every_page_size!(moved);
}

#[test]
fn a_request_is_for_a_subpage_up_to_half_a_page_with_its_header() {
    at_every_page_size!(parts);
}

#[test]
fn a_chunk_of_address_space_has_no_record_before_its_pages_are_backed() {
    at_every_page_size!(no_record);
}

#[test]
fn a_cancelled_block_leaves_its_neighbour_alone() {
    at_every_page_size!(neighbour);
}

#[test]
fn the_last_page_of_a_block_needs_no_metadata_of_the_next_one() {
    at_every_page_size!(last_page);
}

#[test]
fn a_batch_has_the_offsets_and_bytes_of_its_blocks() {
    at_every_page_size!(batch);
}

#[test]
fn blocks_that_are_alike_are_freed_together() {
    at_every_page_size!(alike);
}

/// The metadata of an arena of small blocks is a record for each page and a tree for each divided page, however
/// small the blocks are.
#[test]
fn metadata_is_two_percent_with_small_blocks_and_half_a_percent_with_pages() {
    at_every_page_size!(metadata);
}

mod generic {
    use super::*;

    pub fn metadata<const KIB: usize>() {
        let (page, mib) = (Arena::<KIB>::PAGE, 64 << 20);
        for (size, max) in [(page / 2, 2.0), (page, 0.5), (1 << 20, 0.5)] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            arena.checked = false;
            for _ in 0..mib / size {
                arena.alloc(request(size)).unwrap();
            }
            let counters = arena.counters();
            assert_eq!(counters.held_bytes, mib);
            let counts = counters.metadata;
            let bytes = counts.roots as usize * ROOT_LEN * size_of::<Part<Host, KIB>>()
                + counts.parts as usize * PART_LEN * size_of::<Entry<Host, KIB>>()
                + counts.chunks as usize * CHUNK_PAGES * size_of::<Record<Host, KIB>>()
                + counts.trees as usize * size_of::<Tree<KIB>>();
            let percent = 100.0 * bytes as f64 / mib as f64;
            println!("pages of {KIB} KiB, blocks of {size} B: {percent:.2} % of metadata");
            assert!(percent <= max, "{KIB} KiB, {size} B: {percent}");
        }
    }

    pub fn dismantled<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        for pages in [3, 5000, 70_000] {
            arena.alloc(request(pages * page)).unwrap();
        }
        let chunks = arena.counters().metadata.chunks;
        assert!(chunks > 70);
        let handed_out = std::iter::from_fn(|| arena.engine.dismantle());
        assert_eq!(handed_out.count() as u64, chunks);
    }

    pub fn totals_wrap<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let mut blocks = vec![arena.alloc(request(64)).unwrap().0];
        arena.engine.seed_totals(u64::MAX - 2);
        for size in [64, 100, page, 3 * page, 8 * page] {
            for _ in 0..4 {
                blocks.push(arena.alloc(request(size)).unwrap().0);
                arena.engine.count_wait(&request(size));
            }
            arena.engine.count_moved(4);
        }
        // More of a class than were freed since: no counter is below zero.
        let counters = arena.counters();
        assert_eq!(counters.live_blocks, blocks.len() as u64);
        assert!(counters.requested_bytes < 100 * page);
        assert_eq!(counters.moved_bytes, 20 * page - 3);
        assert_eq!(arena.engine.class(7).waits, 1);
        for offset in blocks {
            arena.free(offset).unwrap();
        }
        arena.drain();
        assert_eq!(arena.counters().live_blocks, 0);
        arena.end();
    }

    pub fn moved<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let blocks = [(); 40].map(|()| arena.alloc(request(page)).unwrap().0);
        for offset in blocks.iter().step_by(2) {
            arena.free(*offset).unwrap();
        }
        arena.limit = 40;
        arena.alloc(request(16 * page)).unwrap();
        assert_eq!(arena.counters().moved_bytes, 16 * page);
        arena.end();
    }

    pub fn last_page<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 14);
        let (offset, _) = arena.alloc(request(1024 * Arena::<KIB>::PAGE)).unwrap();
        assert_eq!(arena.counters().metadata.chunks, 1);
        arena.free(offset).unwrap();
        arena.end();
    }

    pub fn batch<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let mut starts = [0; 4];
        let mut batch = Batch::new(&mut starts);
        assert!(!arena.engine.reserve_batch(100, 4, &mut batch));
        let (block, _) = arena.alloc(request(100)).unwrap();
        arena.free(block).unwrap();
        assert!(arena.engine.reserve_batch(100, 4, &mut batch));
        assert_eq!((batch.offsets(), batch.block_bytes()), (&[block][..], 128));
        arena.engine.commit_batch(&mut batch);
        arena.check();
    }

    pub fn alike<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let blocks = [(); 4].map(|()| arena.alloc(request(64)).unwrap().0);
        assert_eq!(arena.free_alike(&blocks[1..]), 3);
        assert_eq!(arena.free_alike(&blocks[..1]), 1);
        assert_eq!(arena.counters().live_blocks, 0);
    }

    pub fn splits_and_merges<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let halvings = u64::from(page.ilog2() - 6);
        let mut arena = Arena::<KIB>::new(1 << 12);
        let of_classes = |arena: &Arena<KIB>| {
            let classes = (7..=page.ilog2()).map(|shift| arena.engine.class(shift));
            classes
                .map(|class| (class.splits, class.merges))
                .collect::<Vec<_>>()
        };
        let one = arena.alloc(request(64)).unwrap().0;
        let other = arena.alloc(request(64)).unwrap().0;
        assert_eq!(arena.counters().splits, halvings);
        assert_eq!(of_classes(&arena), vec![(1, 0); halvings as usize]);
        arena.free(one).unwrap();
        arena.free(other).unwrap();
        arena.drain();
        assert_eq!(arena.counters().merges, halvings);
        assert_eq!(of_classes(&arena), vec![(1, 1); halvings as usize]);
    }

    /// Splits and merges of blocks of 1, 2, 4 and 8 pages.
    fn of_pages<const KIB: usize>(arena: &Arena<KIB>) -> [(u64, u64); 4] {
        let shift = Arena::<KIB>::PAGE.ilog2();
        [0, 1, 2, 3].map(|order| {
            let class = arena.engine.class(shift + order);
            (class.splits, class.merges)
        })
    }

    pub fn halves_of_runs<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let block = arena.alloc(request(4 * page)).unwrap().0;
        arena.free(block).unwrap();
        arena.drain();
        assert_eq!(of_pages(&arena), [(0, 0); 4]);
        let block = arena.alloc(request(page)).unwrap().0;
        assert_eq!(of_pages(&arena), [(0, 0), (0, 0), (1, 0), (0, 0)]);
        arena.free(block).unwrap();
        arena.drain();
        assert_eq!(of_pages(&arena), [(0, 0), (0, 0), (1, 1), (0, 0)]);
    }

    pub fn no_merge<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let mut alloc = |pages| arena.alloc(request(pages * page)).unwrap().0;
        let [one, other, _last] = [4, 4, 1].map(&mut alloc);
        arena.free(one).unwrap();
        arena.trim(0);
        // Memory beside address space, and address space beside address space.
        arena.free(other).unwrap();
        arena.drain();
        assert_eq!(arena.counters().merges, 0);
        arena.trim(0);
        assert_eq!(arena.counters().merges, 0);
        // The run has merged even so.
        let pending = arena.reserve(request(8 * page)).unwrap();
        assert_eq!((pending.offset(), pending.missing()), (0, 8));
        arena.cancel(pending);
        assert_eq!(arena.counters().merges, 0);
        arena.end();
        // A cancelled block merges its memory with the run before it: one merge.
        let mut arena = Arena::<KIB>::new(1 << 12);
        let mut alloc = |pages| arena.alloc(request(pages * page)).unwrap().0;
        let [eight, four, _last] = [8, 4, 1].map(&mut alloc);
        arena.free(four).unwrap();
        arena.drain();
        let pending = arena.reserve(request(4 * page)).unwrap();
        assert_eq!((pending.offset(), pending.missing()), (four, 0));
        arena.free(eight).unwrap();
        arena.drain();
        assert_eq!(arena.counters().merges, 0);
        arena.cancel(pending);
        assert_eq!(arena.counters().merges, 1);
        assert_eq!(of_pages(&arena), [(0, 0); 4]);
        arena.end();
    }

    pub fn grows<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let grows = |arena: &Arena<KIB>, size: u64| {
            let shift = size.next_power_of_two().ilog2();
            (arena.counters().grows, arena.engine.class(shift).grows)
        };
        let small = arena.alloc(request(64)).unwrap().0;
        assert_eq!(grows(&arena, 64), (1, 1));
        arena.alloc(request(64)).unwrap();
        assert_eq!(grows(&arena, 64), (1, 1));
        arena.free(small).unwrap();
        let large = arena.alloc(request(3 * page)).unwrap().0;
        assert_eq!(grows(&arena, 3 * page), (2, 1));
        arena.free(large).unwrap();
        arena.alloc(request(3 * page)).unwrap();
        assert_eq!(grows(&arena, 3 * page), (2, 1));
        assert_eq!(arena.counters().metadata.parts, 1);
    }

    pub fn slack<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let block = arena.alloc(request(1000 * page)).unwrap().0;
        arena.free(block).unwrap();
        arena.drain();
        let target = |arena: &Arena<KIB>, missing, promised| {
            arena.engine.reuse_target(missing, promised * page)
        };
        let some = [(50, 0), (51, 0), (70, 0), (49, 1), (50, 1), (5, 50)];
        let targets = some.map(|(missing, promised)| target(&arena, missing, promised));
        assert_eq!(targets, [0, 1, 20, 0, 1, 5]);
        for (slack, targets) in [
            (Some(0), [1, 51]),
            (Some(10), [0, 41]),
            (Some(49), [0, 2]),
            (Some(999), [0, 0]),
            (None, [0, 0]),
        ] {
            arena.engine.set_slack_permille(slack);
            assert_eq!(arena.engine.slack_permille(), slack);
            assert_eq!([1, 51].map(|missing| target(&arena, missing, 0)), targets);
        }
        // No more pages than there are.
        arena.engine.set_slack_permille(Some(0));
        assert_eq!(target(&arena, 5000, 0), 1000);
    }

    pub fn resized<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 12);
        let (block, _) = arena.alloc(request(100 * page)).unwrap();
        arena.resize(block, 1000 * page).unwrap();
        assert_eq!(arena.counters().peak_bytes, 1000 * page);
        // Half of it is free, and all of it was needed: 50 pages more are within the slack.
        arena.resize(block, 500 * page).unwrap();
        assert_eq!(arena.engine.reuse_target(51, 0), 1);
        // The need is now twice as large, not half as large again.
        let (other, _) = arena.alloc(request(500 * page)).unwrap();
        assert_eq!(arena.counters().peak_bytes, 1000 * page);
        arena.free(other).unwrap();
        arena.free(block).unwrap();
        arena.end();
    }

    pub fn parts<const KIB: usize>() {
        let half = Arena::<KIB>::PAGE / 2;
        let arena = Arena::<KIB>::new(1 << 12);
        let is_part = |size, headed| {
            arena.engine.is_subpage(&Request {
                headed,
                ..request(size)
            })
        };
        let plain = [0, 1, half, half + 1, 2 * half].map(|size| is_part(size, false));
        assert_eq!(plain, [false, true, true, false, false]);
        let headed = [half - 16, half - 15].map(|size| is_part(size, true));
        assert_eq!(headed, [true, false]);
    }

    pub fn no_record<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 14);
        let chunk = 1024 * Arena::<KIB>::PAGE;
        let pending = arena.reserve(request(chunk)).unwrap();
        assert_eq!(arena.counters().metadata.chunks, 0);
        arena.cancel(pending);
        arena.end();
    }

    pub fn neighbour<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 14);
        let mut pending = arena.reserve(request(1024 * page)).unwrap();
        arena.back(&mut pending, 1024);
        let end = pending.extent().end;
        let (next, _) = arena.alloc(request(page)).unwrap();
        assert_eq!(next, end);
        arena.cancel(pending);
        assert!(arena.live_page((end / page) as u32).is_some());
        arena.free(next).unwrap();
        arena.end();
    }
}
