// SPDX-License-Identifier: GPL-2.0

//! The deferred block: of the blocks too large for the quick lists, the one that was freed last. A request
//! for its length gets it without a split or a merge; all other calls find it merged.

use freelist_engine::at_every_page_size;
use freelist_engine::engine::{Admission, Content, Garbage, Loss, Request, ResizeError, Resized};
use freelist_engine::host::{request, reuse, Arena};

/// Bytes of two blocks too large for the quick lists at any page size. The second is taken from the end
/// of a run.
const FIRST: u64 = 1 << 20;
const SECOND: u64 = 192 << 10;

/// An arena with two adjacent large blocks before a live one. The second was taken from a run.
struct Pair<const KIB: usize> {
    arena: Arena<KIB>,
    first: u64,
    second: u64,
}

impl<const KIB: usize> Pair<KIB> {
    fn new() -> Self {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let [first, second, _] = [FIRST, SECOND, SECOND].map(|size| alloc(&mut arena, size));
        assert_eq!(second, first + FIRST);
        arena.free(second).unwrap();
        assert_eq!(alloc(&mut arena, SECOND), second);
        Self {
            arena,
            first,
            second,
        }
    }

    /// Makes a pair whose blocks are free: the first is merged, the second is deferred.
    fn freed() -> Self {
        let mut pair = Self::new();
        pair.arena.free(pair.first).unwrap();
        pair.arena.free(pair.second).unwrap();
        assert_eq!(alloc(&mut pair.arena, SECOND), pair.second);
        let merges = pair.arena.counters().merges;
        pair.arena.free(pair.second).unwrap();
        assert_eq!(pair.arena.counters().merges, merges, "it is merged");
        pair
    }

    fn pages(bytes: u64) -> u32 {
        (bytes / Arena::<KIB>::PAGE) as u32
    }
}

fn alloc<const KIB: usize>(arena: &mut Arena<KIB>, size: u64) -> u64 {
    arena.alloc(request(size)).unwrap().0
}

/// Allocates `size` bytes from free runs alone.
fn alloc_free<const KIB: usize>(arena: &mut Arena<KIB>, size: u64) -> u64 {
    let held = arena.counters().held_bytes;
    let reused = Request {
        policy: reuse(true, false),
        ..request(size)
    };
    let (block, _) = arena.alloc(reused).expect("a run has that much");
    assert_eq!(arena.counters().held_bytes, held);
    assert_eq!(arena.moved, 0);
    block
}

#[test]
fn a_large_block_allocated_again_is_neither_split_nor_merged() {
    at_every_page_size!(again);
}

#[test]
fn a_block_is_merged_at_once_if_a_run_has_changed_since_its_allocation() {
    at_every_page_size!(merged_at_once);
}

#[test]
fn a_block_that_has_grown_into_new_address_space_is_merged_whole() {
    at_every_page_size!(grown);
}

#[test]
fn a_request_of_another_length_or_policy_finds_no_deferred_block() {
    at_every_page_size!(other_requests);
}

#[test]
fn a_change_of_its_run_ends_the_deferral_of_a_block() {
    at_every_page_size!(run_changes);
}

#[test]
fn a_request_for_both_neighbours_finds_one_run() {
    at_every_page_size!(one_run);
}

#[test]
fn a_smaller_request_splits_the_run_that_the_deferred_block_is_a_part_of() {
    at_every_page_size!(smaller);
}

#[test]
fn a_request_for_its_own_list_finds_the_merged_run() {
    at_every_page_size!(own_list);
}

#[test]
fn an_aligned_request_gets_no_misaligned_deferred_block() {
    at_every_page_size!(aligned);
}

#[test]
fn the_deferred_block_counts_as_free_pages() {
    at_every_page_size!(counts);
}

#[test]
fn reclaim_takes_the_deferred_block() {
    at_every_page_size!(reclaim);
}

#[test]
fn a_block_grows_into_the_deferred_block() {
    at_every_page_size!(grows_into);
}

#[test]
fn a_lost_page_of_the_deferred_block_is_unbacked() {
    at_every_page_size!(lost);
}

#[test]
fn while_there_are_waiters_no_block_is_deferred() {
    at_every_page_size!(waiters);
}

#[test]
fn a_deferred_block_is_not_live() {
    at_every_page_size!(not_live);
}

mod generic {
    use super::*;

    pub fn again<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        let before = pair.arena.counters();
        for _ in 0..3 {
            assert_eq!(alloc(&mut pair.arena, SECOND), pair.second);
            pair.arena.free(pair.second).unwrap();
            let fast = pair.arena.engine.reserve_fast(SECOND, reuse(true, true));
            let fast = fast.expect("it is on the fast path");
            assert_eq!((fast.offset(), fast.missing()), (pair.second, 0));
            assert_eq!(fast.stale(), Pair::<KIB>::pages(SECOND));
            pair.arena.commit(fast);
            pair.arena.free(pair.second).unwrap();
        }
        let after = pair.arena.counters();
        assert_eq!((after.splits, after.merges), (before.splits, before.merges));
        assert_eq!(after.free_bytes, before.free_bytes);
        // A block that the fast path took from a run is deferred, too.
        pair.arena.engine.merge_deferred();
        let fast = pair.arena.engine.reserve_fast(SECOND, reuse(true, true));
        let fast = fast.expect("a run has so much");
        assert_eq!(fast.offset(), pair.second);
        pair.arena.commit(fast);
        let merges = pair.arena.counters().merges;
        pair.arena.free(pair.second).unwrap();
        assert_eq!(pair.arena.counters().merges, merges);
    }

    pub fn merged_at_once<const KIB: usize>() {
        // Another block of that length.
        let mut pair = Pair::<KIB>::new();
        pair.arena.free(pair.second + SECOND).unwrap();
        assert!(pair
            .arena
            .live_page(Pair::<KIB>::pages(pair.second))
            .is_some());
        let mut pair = Pair::<KIB>::new();
        pair.arena.free(pair.first).unwrap();
        let merges = pair.arena.counters().merges;
        pair.arena.free(pair.second).unwrap();
        assert_eq!(pair.arena.counters().merges, merges + 1);
    }

    pub fn grown<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 12);
        let block = alloc(&mut arena, SECOND);
        arena.free(block).unwrap();
        assert_eq!(alloc(&mut arena, SECOND), block);
        assert_eq!(arena.resize(block, FIRST), Ok(FIRST));
        arena.free(block).unwrap();
        arena.drain();
        assert_eq!(arena.counters().free_bytes, FIRST);
        assert_eq!(alloc_free(&mut arena, FIRST), block);
    }

    pub fn other_requests<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        let (_, bytes) = pair.arena.alloc(request(SECOND - (64 << 10))).unwrap();
        assert_eq!(bytes, SECOND - (64 << 10));
        let whole_runs = Request {
            policy: reuse(false, true),
            ..request(SECOND)
        };
        let mut pair = Pair::<KIB>::freed();
        assert_ne!(pair.arena.alloc(whole_runs).unwrap().0, pair.second);
        let mut pair = Pair::<KIB>::freed();
        let admission = Admission::SubpageOrGrow;
        let (block, _) = pair.arena.alloc_as(request(SECOND), admission).unwrap();
        assert_ne!(block, pair.second);
    }

    pub fn run_changes<const KIB: usize>() {
        let mut pair = Pair::<KIB>::new();
        pair.arena.free(pair.first).unwrap();
        let isolated = pair.arena.isolate(1).unwrap();
        // The isolation changes a run. Later the second block is deferred again.
        pair.arena.free(pair.second).unwrap();
        assert_eq!(alloc(&mut pair.arena, SECOND), pair.second);
        pair.arena.free(pair.second).unwrap();
        let merges = pair.arena.counters().merges;
        pair.arena.putback(isolated);
        let merged = pair.arena.counters().merges;
        assert_eq!(alloc(&mut pair.arena, SECOND), pair.second);
        assert!(pair.arena.counters().merges > merged.max(merges));
    }

    pub fn one_run<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        let both = alloc_free(&mut pair.arena, FIRST + SECOND);
        assert_eq!(both, pair.first);
        // The fast path finds it, too.
        pair.arena.free(both).unwrap();
        alloc(&mut pair.arena, FIRST);
        pair.arena.free(both).unwrap();
        let mut pair = Pair::<KIB>::freed();
        let fast = pair
            .arena
            .engine
            .reserve_fast(FIRST + SECOND, reuse(true, false));
        let fast = fast.expect("a run has that much");
        assert_eq!(fast.offset(), pair.first);
        pair.arena.commit(fast);
    }

    pub fn smaller<const KIB: usize>() {
        for size in [32, Arena::<KIB>::PAGE, 64 << 10, SECOND / 2] {
            let mut pair = Pair::<KIB>::freed();
            let block = alloc_free(&mut pair.arena, size);
            assert!(block >= pair.second, "it is taken from the end of the run");
        }
    }

    pub fn own_list<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        let exact = |size| Request {
            policy: reuse(false, false),
            ..request(size)
        };
        let policy = reuse(false, false);
        let garbage = &mut Garbage::default();
        let both = exact(FIRST + SECOND);
        let engine = &mut pair.arena.engine;
        assert!(engine.could_serve(&both, Admission::Full, 0, garbage));
        let mut pair = Pair::<KIB>::freed();
        assert!(pair.arena.engine.reserve_fast(SECOND, policy).is_none());
        pair.arena.alloc(exact(SECOND)).unwrap_err();
        let (both, _) = pair.arena.alloc(exact(FIRST + SECOND)).unwrap();
        assert_eq!(both, pair.first);
    }

    pub fn aligned<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        let aligned = Request {
            align_shift: 21,
            ..request(SECOND)
        };
        assert_ne!(pair.second % (2 << 20), 0);
        let (block, _) = pair.arena.alloc(aligned).unwrap();
        assert_eq!(block % (2 << 20), 0);
    }

    pub fn counts<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        let pages = Pair::<KIB>::pages(FIRST + SECOND);
        pair.arena.engine.take_changes();
        assert_eq!(pair.arena.engine.free_pages(), pages);
        assert_eq!(pair.arena.counters().free_bytes, FIRST + SECOND);
        assert_eq!(pair.arena.counters().pending_bytes, 0);
        let map = pair.arena.map();
        let free = map.iter().filter(|extent| extent.content == Content::Free);
        assert_eq!(free.map(|extent| extent.pages).sum::<u32>(), pages);
        // Each change is reported, for the published number.
        alloc(&mut pair.arena, SECOND);
        assert!(pair.arena.engine.take_changes().free);
        assert_eq!(pair.arena.engine.free_pages(), Pair::<KIB>::pages(FIRST));
        pair.arena.free(pair.second).unwrap();
        assert!(pair.arena.engine.take_changes().free);
        assert_eq!(pair.arena.engine.free_pages(), pages);
        pair.arena.engine.set_slack_permille(Some(0));
        assert_eq!(pair.arena.engine.reuse_target(2 * pages, 0), pages);
        pair.arena.drain();
        assert_eq!(pair.arena.engine.free_pages(), pages);
        let classes = (5..40).map(|shift| pair.arena.engine.class(shift));
        assert_eq!(classes.map(|class| class.free).sum::<u64>(), 1);
    }

    pub fn reclaim<const KIB: usize>() {
        let pages = Pair::<KIB>::pages(FIRST + SECOND);
        let mut pair = Pair::<KIB>::freed();
        let isolated = pair.arena.isolate(u32::MAX).unwrap();
        assert_eq!(isolated.pages(), pages);
        pair.arena.remove(isolated);
        let mut pair = Pair::<KIB>::freed();
        let mut cursor = u32::MAX;
        let isolated = pair.arena.engine.isolate_below(&mut cursor, u32::MAX, 1);
        let isolated = isolated.expect("a run is free");
        assert_eq!(isolated.pages(), pages);
        pair.arena.remove(isolated);
        pair.arena.check();
    }

    pub fn grows_into<const KIB: usize>() {
        let mut pair = Pair::<KIB>::new();
        pair.arena.free(pair.second).unwrap();
        let held = pair.arena.counters().held_bytes;
        match pair.arena.start_resize(pair.first, FIRST + SECOND) {
            Ok(Resized::Growing(growth)) => assert!(pair.arena.commit_growth(growth)),
            other => panic!("{other:?}"),
        }
        assert_eq!(pair.arena.counters().held_bytes, held);
        let further = pair.arena.start_resize(pair.first, FIRST + 2 * SECOND);
        assert_eq!(further.unwrap_err(), ResizeError::InUse);
    }

    pub fn lost<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        let page = Pair::<KIB>::pages(pair.second);
        assert_eq!(pair.arena.engine.lose(page, false), Loss::Free);
        pair.arena.backed.remove(&page);
        pair.arena.check();
        // So no request gets it.
        let block = alloc(&mut pair.arena, SECOND);
        assert_ne!(block, pair.second);
    }

    pub fn waiters<const KIB: usize>() {
        let mut pair = Pair::<KIB>::new();
        pair.arena.close_quick(true);
        pair.arena.free(pair.second).unwrap();
        let shift = SECOND.next_power_of_two().ilog2();
        assert_eq!(pair.arena.engine.class(shift).largest, SECOND);
    }

    pub fn not_live<const KIB: usize>() {
        let mut pair = Pair::<KIB>::freed();
        pair.arena.free(pair.second).unwrap_err();
        assert!(pair
            .arena
            .live_page(Pair::<KIB>::pages(pair.second))
            .is_none());
        let resized = pair.arena.start_resize(pair.second, FIRST);
        assert!(matches!(resized, Err(ResizeError::Offset(_))));
    }
}
