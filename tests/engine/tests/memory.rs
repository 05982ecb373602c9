// SPDX-License-Identifier: GPL-2.0

//! Memory that is backed beyond a block, reclaimed from the end of the arena, or lost by a memory failure.

use freelist_engine::at_every_page_size;
use freelist_engine::engine::{Content, Loss, CHUNK_PAGES};
use freelist_engine::host::{request, Arena};
use proptest::prelude::*;

#[test]
fn a_surplus_is_free_memory_after_its_block() {
    at_every_page_size!(a_surplus_is_free_memory_after_its_block);
}

#[test]
fn a_surplus_without_memory_is_address_space_again() {
    at_every_page_size!(a_surplus_without_memory_is_address_space_again);
}

#[test]
fn a_surplus_takes_nothing_that_is_in_use() {
    at_every_page_size!(a_surplus_takes_nothing_that_is_in_use);
}

#[test]
fn a_reserved_block_keeps_its_records() {
    at_every_page_size!(a_reserved_block_keeps_its_records);
}

#[test]
fn half_of_the_slack_admits_a_surplus() {
    at_every_page_size!(half_of_the_slack_admits_a_surplus);
}

#[test]
fn a_surplus_does_not_admit_the_next() {
    at_every_page_size!(a_surplus_does_not_admit_the_next);
}

#[test]
fn memory_is_isolated_from_the_end_and_each_run_once() {
    at_every_page_size!(memory_is_isolated_from_the_end_and_each_run_once);
}

#[test]
fn a_lost_free_page_is_address_space() {
    at_every_page_size!(a_lost_free_page_is_address_space);
}

#[test]
fn a_block_keeps_its_hole_until_it_is_freed() {
    at_every_page_size!(a_block_keeps_its_hole_until_it_is_freed);
}

#[test]
fn a_lost_divided_page_serves_no_request() {
    at_every_page_size!(a_lost_divided_page_serves_no_request);
}

mod generic {
    use super::*;

    pub fn a_surplus_is_free_memory_after_its_block<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for (pages, more) in [(1, 3), (300, 212), (1000, 3096)] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let mut pending = arena.reserve(request(pages * page)).unwrap();
            let end = pending.end_page();
            let surplus = arena.claim_surplus(&pending, more).unwrap();
            assert_eq!(surplus.pages(), more);
            arena.back(&mut pending, u32::MAX);
            arena.back_surplus(end, surplus);
            arena.commit(pending);
            let counters = arena.counters();
            assert_eq!(counters.free_bytes, u64::from(more) * page);
            assert_eq!(counters.held_bytes, (pages + u64::from(more)) * page);
            // The page serves the next block, with old bytes.
            let pending = arena.reserve(request(page)).unwrap();
            assert_eq!((pending.missing(), pending.stale()), (0, 1));
            arena.commit(pending);
            arena.end();
        }
    }

    pub fn a_surplus_without_memory_is_address_space_again<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let mut pending = arena.reserve(request(3 * page)).unwrap();
        for more in [1, 13, 2 * CHUNK_PAGES as u32] {
            let surplus = arena.claim_surplus(&pending, more).unwrap();
            arena.release_surplus(surplus);
        }
        arena.back(&mut pending, u32::MAX);
        arena.commit(pending);
        assert_eq!(arena.counters().held_bytes, 3 * page);
        assert_eq!(arena.map().len(), 1);
        arena.end();
    }

    pub fn a_surplus_takes_nothing_that_is_in_use<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 10);
        let (first, _) = arena.alloc(request(64 * page)).unwrap();
        arena.alloc(request(page)).unwrap();
        arena.free(first).unwrap();
        arena.trim(0);
        let pending = arena.reserve(request(60 * page)).unwrap();
        assert_eq!(pending.offset(), first);
        assert!(arena.claim_surplus(&pending, 0).is_none());
        assert!(
            arena.claim_surplus(&pending, 5).is_none(),
            "a block is there"
        );
        let surplus = arena.claim_surplus(&pending, 4).unwrap();
        assert!(arena.claim_surplus(&pending, 1).is_none(), "it is taken");
        arena.release_surplus(surplus);
        arena.cancel(pending);
        let pending = arena.reserve(request((1 << 9) * page)).unwrap();
        assert!(arena.claim_surplus(&pending, 1 << 9).is_none(), "the end");
        arena.cancel(pending);
        arena.end();
    }

    /// The memory of a reserved block is allocated without the lock, while its neighbours are allocated and freed.
    pub fn a_reserved_block_keeps_its_records<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let chunk = CHUNK_PAGES as u64;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let first = arena.alloc(request((chunk - 64) * page)).unwrap().0;
        let mut pending = arena.reserve(request(128 * page)).unwrap();
        assert_eq!(pending.extent(), (chunk - 64) * page..(chunk + 64) * page);
        arena.ensure_backing(&pending, u32::MAX);
        let next = arena.reserve(request(64 * page)).unwrap();
        assert_eq!(next.offset(), (chunk + 64) * page);
        arena.cancel(next);
        arena.back_ensured(&mut pending, u32::MAX);
        let second = pending.offset();
        arena.commit(pending);
        // The reservation loses no free page.
        arena.free(first).unwrap();
        arena.free(second).unwrap();
        arena.alloc(request((chunk + 64) * page)).unwrap();
        assert_eq!(arena.counters().held_bytes, (chunk + 64) * page);
        arena.end();

        // A divided page keeps its records, too.
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.alloc(request(chunk * page)).unwrap();
        let mut pending = arena.reserve(request(32)).unwrap();
        assert_eq!(pending.offset(), chunk * page);
        arena.ensure_backing(&pending, u32::MAX);
        let next = arena.reserve(request(64 * page)).unwrap();
        arena.cancel(next);
        arena.back_ensured(&mut pending, u32::MAX);
        arena.commit(pending);
        arena.end();
    }

    pub fn half_of_the_slack_admits_a_surplus<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.alloc(request(1000 * page)).unwrap();
        for (slack, max) in [(Some(50), 25), (Some(1), 0), (Some(1000), 500), (None, 25)] {
            arena.engine.set_slack_permille(slack);
            assert!(arena.engine.admits_surplus(max, 0), "{slack:?}");
            assert!(!arena.engine.admits_surplus(max + 1, 0), "{slack:?}");
            assert!(!arena.engine.admits_surplus(max, 1), "{slack:?}");
        }
    }

    pub fn a_surplus_does_not_admit_the_next<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let mut pending = arena.reserve(request(1000 * page)).unwrap();
        let end = pending.end_page();
        let surplus = arena.claim_surplus(&pending, 25).unwrap();
        arena.back(&mut pending, u32::MAX);
        arena.back_surplus(end, surplus);
        arena.commit(pending);
        assert!(arena.engine.admits_surplus(0, 0));
        assert!(!arena.engine.admits_surplus(1, 0));
        // Nor does it let the arena grow by more than the other half of the slack.
        assert_eq!(arena.engine.reuse_target(25, 0), 0);
        assert_eq!(arena.engine.reuse_target(26, 0), 1);
        arena.end();
    }

    pub fn memory_is_isolated_from_the_end_and_each_run_once<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let blocks: Vec<u64> = (0..600)
            .map(|_| arena.alloc(request(16 * page)).unwrap().0)
            .collect();
        for block in blocks.iter().step_by(2) {
            arena.free(*block).unwrap();
        }
        arena.drain();
        let mut cursor = u32::MAX;
        let (mut seen, mut calls) = (Vec::new(), 0);
        while cursor > 0 {
            calls += 1;
            let before = cursor;
            if let Some(isolated) = arena.engine.isolate_below(&mut cursor, 10, 8) {
                assert!(isolated.range().end <= before && isolated.range().start == cursor);
                // The pieces of a run begin at multiples of 8.
                assert_eq!(isolated.pages(), 8);
                seen.push(isolated.range());
                arena.putback(isolated);
            }
        }
        assert_eq!(seen.len(), 2 * 300);
        assert!(calls < 700, "{calls} calls");
        assert!(seen.is_sorted_by(|one, next| next.end <= one.start));
        arena.check();
        arena.end();
    }

    /// Poisons a page, as the kernel's memory failure does.
    fn lose<const KIB: usize>(arena: &mut Arena<KIB>, page: u32) -> Loss {
        let loss = arena.engine.lose(page, false);
        if matches!(loss, Loss::Free | Loss::Block) {
            arena.backed.remove(&page).expect("it was there");
        }
        arena.check();
        loss
    }

    pub fn a_lost_free_page_is_address_space<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for lost in [0, 1, 10, 98, 99] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let (block, _) = arena.alloc(request(100 * page)).unwrap();
            let (end, _) = arena.alloc(request(page)).unwrap();
            arena.free(block).unwrap();
            arena.drain();
            assert_eq!(lose(&mut arena, lost), Loss::Free);
            assert_eq!(lose(&mut arena, lost), Loss::Nothing);
            assert_eq!(arena.counters().free_bytes, 99 * page);
            // The whole range can be allocated again, with new memory for the hole.
            arena.alloc(request(100 * page)).unwrap();
            arena.free(end).unwrap();
            arena.trim(0);
            assert_eq!(arena.counters().held_bytes, 100 * page);
            arena.end();
        }
        // The last page of all.
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (block, _) = arena.alloc(request(100 * page)).unwrap();
        arena.free(block).unwrap();
        arena.drain();
        assert_eq!(lose(&mut arena, 99), Loss::Free);
        assert!(arena
            .map()
            .iter()
            .all(|extent| extent.content == Content::Free));
        assert_eq!(lose(&mut arena, 1 << 19), Loss::Nothing);
        arena.end();
    }

    pub fn a_block_keeps_its_hole_until_it_is_freed<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for pages in [1, 2, 8, 300] {
            for lost in [0, pages / 2, pages - 1] {
                let mut arena = Arena::<KIB>::new(1 << 20);
                let (block, _) = arena.alloc(request(u64::from(pages) * page)).unwrap();
                assert_eq!(lose(&mut arena, lost), Loss::Block);
                assert_eq!(arena.counters().live_bytes, u64::from(pages) * page);
                let held = u64::from(pages - 1) * page;
                assert_eq!(arena.counters().held_bytes, held);
                arena.free(block).unwrap();
                arena.check();
                assert_eq!(arena.counters().free_bytes, held);
                assert_eq!(arena.counters().pending_bytes, 0);
                // The hole is in no block.
                let (again, bytes) = arena.alloc(request(u64::from(pages) * page)).unwrap();
                let first = (again / page) as u32;
                let all = first..first + (bytes / page) as u32;
                assert!(all.into_iter().all(|page| arena.engine.is_backed(page)));
                arena.end();
            }
        }
        // A block on a quick list is drained first.
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (block, _) = arena.alloc(request(page)).unwrap();
        arena.free(block).unwrap();
        assert_eq!(lose(&mut arena, 0), Loss::Quick);
        arena.drain();
        assert_eq!(lose(&mut arena, 0), Loss::Free);
        assert_eq!(arena.counters().held_bytes, 0);
        // While it is isolated, and as a part of a block that shrinks.
        let (block, _) = arena.alloc(request(40 * page)).unwrap();
        assert_eq!(lose(&mut arena, (block / page) as u32 + 30), Loss::Block);
        arena.resize(block, 10 * page).unwrap();
        let isolated = arena.isolate(u32::MAX).unwrap();
        let first = isolated.range().start;
        assert_eq!(lose(&mut arena, first), Loss::Block);
        arena.putback(isolated);
        arena.trim(0);
        assert_eq!(arena.counters().held_bytes, 10 * page);
        arena.end();
    }

    pub fn a_lost_divided_page_serves_no_request<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (first, _) = arena.alloc(request(64)).unwrap();
        let (second, _) = arena.alloc(request(300)).unwrap();
        assert_eq!(lose(&mut arena, 0), Loss::Block);
        assert_eq!(arena.counters().held_bytes, 0);
        assert_eq!(arena.counters().free_bytes, 0);
        let (other, _) = arena.alloc(request(64)).unwrap();
        assert!(other >= Arena::<KIB>::PAGE, "of another page");
        arena.free(first).unwrap();
        arena.check();
        let (other, _) = arena.alloc(request(64)).unwrap();
        assert!(other >= Arena::<KIB>::PAGE, "of another page");
        arena.free(second).unwrap();
        arena.check();
        // The page is whole again, without memory.
        assert!(!arena.engine.is_backed(0));
        assert_eq!(arena.counters().metadata.trees, 1);
        arena.end();
    }
}

proptest! {
    /// Pages in any state are lost at any time.
    #[test]
    fn counters_are_exact_after_any_loss(
        steps in prop::collection::vec((0..5u8, any::<u32>()), 1..300),
    ) {
        let mut arena = Arena::<4>::new(1 << 12);
        let mut live = Vec::new();
        for (what, number) in steps {
            match what {
                0 | 1 => {
                    let size = [40, 700, 4096, 12_000, 100_000, 1 << 20][number as usize % 6];
                    live.extend(arena.alloc(request(size)).map(|(offset, _)| offset));
                }
                2 if !live.is_empty() => {
                    let offset = live.swap_remove(number as usize % live.len());
                    arena.free(offset).unwrap();
                }
                3 => {
                    arena.trim(number % 100);
                }
                _ => {
                    let all: Vec<u32> = arena.backed.keys().copied().collect();
                    let Some(page) = all.get(number as usize % all.len().max(1)) else {
                        continue;
                    };
                    let mut loss = arena.engine.lose(*page, false);
                    if loss == Loss::Quick {
                        arena.drain();
                        loss = arena.engine.lose(*page, true);
                    }
                    prop_assert!(matches!(loss, Loss::Free | Loss::Block));
                    arena.backed.remove(page);
                    // The arena checks all other steps itself.
                    arena.check();
                }
            }
        }
        for offset in live {
            arena.free(offset).unwrap();
        }
        arena.trim(0);
        prop_assert_eq!(arena.counters().held_bytes, 0);
        arena.end();
    }
}
