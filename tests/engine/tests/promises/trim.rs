// SPDX-License-Identifier: GPL-2.0

//! Free pages that are reclaimed, with their metadata.

use freelist_engine::engine::{FreeError, Refusal};
use freelist_engine::host::Arena;

use super::{comb, request, DEFAULT, GROW, LARGER};

at_every_page_size! {
    a_trimmed_arena_serves_from_offset_0;
    an_arena_that_ends_loses_no_page;
    a_trimmed_arena_keeps_live_blocks_and_keep_bytes;
    metadata_is_freed_with_its_memory;
    pages_in_removal_are_allocated_to_no_request;
    pages_that_stay_of_an_isolated_range_are_free_again;
}

mod generic {
    use super::*;

    pub fn a_trimmed_arena_serves_from_offset_0<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for pages in [1, 3, 16, 100] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            for _ in 0..3 {
                let (offset, _) = arena.alloc(request(pages * page, DEFAULT)).unwrap();
                assert_eq!(offset, 0);
                arena.free(offset).unwrap();
                arena.trim(0);
            }
        }
    }

    pub fn an_arena_that_ends_loses_no_page<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        for size in [32, page, 5 * page, 3000 * page, 100] {
            arena.alloc(request(size, DEFAULT)).unwrap();
        }
        let pending = arena.reserve(request(7 * page, DEFAULT)).unwrap();
        drop(pending);
        assert!(arena.backed.len() > 3000);
        arena.end();
    }

    pub fn a_trimmed_arena_keeps_live_blocks_and_keep_bytes<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let kept = comb(&mut arena, 600);
        assert_eq!(arena.trim(300), 0);
        assert_eq!(arena.trim(200), 100);
        assert_eq!(arena.trim(0), 200);
        assert_eq!(arena.trim(0), 0);
        assert_eq!(arena.counters().held_bytes, 300 * page);
        for offset in kept {
            arena.free(offset).unwrap();
        }
        assert_eq!(arena.trim(0), 300);
        assert_eq!(arena.counters().held_bytes, 0);
        arena.end();
    }

    pub fn metadata_is_freed_with_its_memory<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = [1, 900, 1024, 3000, 2049, 5]
            .map(|pages| arena.alloc(request(pages * page, GROW)).unwrap().0)
            .into();
        assert!(arena.counters().metadata.chunks >= 7);
        for offset in &blocks[1..] {
            arena.free(*offset).unwrap();
        }
        arena.trim(0);
        // The chunk of the first block.
        assert_eq!(arena.counters().metadata.chunks, 1);
        arena.free(blocks[0]).unwrap();
        arena.trim(0);
        assert_eq!(arena.counters().metadata.chunks, 0);
        // The removed range begins and ends anywhere in a chunk.
        for pages in [1024, 1025, 2048, 3071] {
            let (block, _) = arena.alloc(request(pages * page, GROW)).unwrap();
            arena.free(block).unwrap();
            arena.trim(0);
            assert_eq!(arena.counters().metadata.chunks, 0, "{pages}");
        }
        // A cancelled block leaves no record, however many of its pages were backed.
        for backed in [0, 1, 1023, 1024, 1025, 2048, 3000] {
            let mut pending = arena.reserve(request(3000 * page, GROW)).unwrap();
            arena.back(&mut pending, backed);
            arena.cancel(pending);
            assert_eq!(arena.counters().metadata.chunks, 0);
        }
    }

    pub fn pages_in_removal_are_allocated_to_no_request<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (block, _) = arena.alloc(request(4 * page, GROW)).unwrap();
        arena.free(block).unwrap();
        arena.drain();
        let isolated = arena.isolate(64).unwrap();
        assert_eq!(
            (isolated.page(), isolated.pages()),
            ((block / page) as u32, 4)
        );
        for size in [32, page, 4 * page] {
            assert_eq!(arena.alloc(request(size, LARGER)), Err(Refusal::Empty));
        }
        assert_eq!(arena.free(block), Err(FreeError::NotLive));
        assert!(arena.live_page(isolated.page()).is_none());
        assert!(arena.isolate(64).is_none());
        arena.putback(isolated);
        let (again, _) = arena.alloc(request(4 * page, LARGER)).unwrap();
        assert_eq!(again, block);
    }

    pub fn pages_that_stay_of_an_isolated_range_are_free_again<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (block, _) = arena.alloc(request(1500 * page, DEFAULT)).unwrap();
        arena.alloc(request(page, DEFAULT)).unwrap();
        let first = (block / page) as u32;
        arena.free(block).unwrap();
        let isolated = arena.isolate(u32::MAX).unwrap();
        assert_eq!(isolated.range(), first..first + 1500);
        let stays = |page: u32| {
            (600..603).contains(&page) || [first, 1023, 1024, first + 1499].contains(&page)
        };
        assert_eq!(arena.remove_but(isolated, stays), 1500 - 7);
        arena.check();
        assert_eq!(arena.engine.free_pages(), 7);
        for page in first..first + 1500 {
            assert_eq!(arena.engine.is_backed(page), stays(page));
        }
        // Pages that stayed can be allocated.
        let (offset, _) = arena.alloc(request(3 * page, LARGER)).unwrap();
        assert_eq!(offset / page, 600);
        arena.trim(0);
        arena.free(offset).unwrap();
        arena.trim(0);
        assert_eq!(arena.counters().held_bytes, page);
        arena.end();
    }
}
