// SPDX-License-Identifier: GPL-2.0

//! Allocation: a request gets its size class or its pages, aligned, from the sources that its flags allow.

use freelist_engine::engine::{
    max_shift, Refusal, Request, ALIGN_SHIFT, MAX_ALIGN_SHIFT, MAX_PAGES, MIN_SHIFT,
};
use freelist_engine::host::Arena;

use super::{largest, request, DEFAULT, GROW, LARGER, NONE};

at_every_page_size! {
    an_empty_arena_holds_nothing;
    a_block_is_its_size_class_up_to_half_a_page_and_whole_pages_above;
    every_size_class_is_served_and_aligned_to_its_size_up_to_64_kib;
    a_block_is_aligned_as_requested;
    sizes_out_of_range_are_refused;
    without_flags_only_the_own_list_is_used;
    without_grow_no_page_is_allocated;
    larger_splits_a_larger_block_and_wastes_nothing;
    grow_alone_leaves_larger_blocks_whole;
    low_offsets_are_used_first;
    the_largest_request_of_a_class_is_served_from_its_own_list;
}

mod generic {
    use super::*;

    pub fn an_empty_arena_holds_nothing<const KIB: usize>() {
        let arena = Arena::<KIB>::new(1 << 20);
        arena.check();
        assert_eq!(arena.counters(), Default::default());
        arena.end();
    }

    pub fn a_block_is_its_size_class_up_to_half_a_page_and_whole_pages_above<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        for shift in 0..=25 {
            for size in [(1 << shift) - 1, 1 << shift, (1u64 << shift) + 1] {
                if size == 0 {
                    continue;
                }
                let (offset, bytes) = arena.alloc(request(size, DEFAULT)).unwrap();
                let class = size.next_power_of_two().max(32);
                let expected = if size <= page / 2 {
                    class
                } else {
                    size.div_ceil(page) * page
                };
                assert_eq!(bytes, expected, "of {size} bytes");
                assert_eq!(
                    offset % expected.next_power_of_two().min(1 << ALIGN_SHIFT),
                    0
                );
                arena.free(offset).unwrap();
            }
        }
        arena.check();
    }

    pub fn every_size_class_is_served_and_aligned_to_its_size_up_to_64_kib<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(MAX_PAGES);
        arena.checked = false;
        for shift in MIN_SHIFT..=max_shift(KIB) {
            let mut pending = arena.reserve(request(1 << shift, DEFAULT)).unwrap();
            let extent = pending.extent();
            assert_eq!(extent.end - extent.start, 1 << shift);
            assert_eq!(extent.start % (1 << shift.min(ALIGN_SHIFT)), 0);
            // The largest would take all memory of the host.
            if shift > 27 {
                arena.cancel(pending);
                continue;
            }
            arena.back(&mut pending, u32::MAX);
            arena.commit(pending);
            assert_eq!(arena.engine.class(shift).live, 1);
        }
        arena.check();
    }

    pub fn a_block_is_aligned_as_requested<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(MAX_PAGES);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        for size in [1, 100, page / 2, page, 3 * page, 40 * page] {
            for align_shift in 0..=MAX_ALIGN_SHIFT {
                let aligned = Request {
                    align_shift,
                    ..request(size, DEFAULT)
                };
                // Blocks of all alignments before it, and blocks on quick lists.
                for _ in 0..2 {
                    let (offset, bytes) = arena.alloc(aligned).unwrap();
                    assert_eq!(offset % (1 << align_shift), 0, "{aligned:?}");
                    assert!(bytes >= size);
                    // No more than the class, or a page.
                    let max = size.next_power_of_two().max(32);
                    assert!(
                        bytes <= max.max((1 << align_shift).min(page)),
                        "{aligned:?}"
                    );
                    arena.alloc(request(size, DEFAULT)).unwrap();
                    arena.free(offset).unwrap();
                }
            }
        }
        arena.check();
        let aligned = Request {
            align_shift: MAX_ALIGN_SHIFT + 1,
            ..request(1, DEFAULT)
        };
        assert_eq!(arena.alloc(aligned), Err(Refusal::Alignment));
    }

    pub fn sizes_out_of_range_are_refused<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for (size, refusal) in [
            (0, Refusal::Zero),
            (largest::<KIB>() + 1, Refusal::TooBig),
            (u64::MAX, Refusal::TooBig),
        ] {
            assert_eq!(arena.alloc(request(size, DEFAULT)), Err(refusal));
        }
        assert_eq!(arena.counters(), Default::default());
    }

    pub fn without_flags_only_the_own_list_is_used<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for size in [page / 2, page, 5 * page, 8 * page] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            // No memory is moved from one list to another.
            arena.engine.set_slack_permille(None);
            let (large, _) = arena.alloc(request(16 * page, GROW)).unwrap();
            // A live page keeps the block that is freed below from continuing it.
            arena.alloc(request(page, GROW)).unwrap();
            arena.free(large).unwrap();
            assert_eq!(arena.alloc(request(size, NONE)), Err(Refusal::Empty));
            let (offset, _) = arena.alloc(request(size, GROW)).unwrap();
            if size < page {
                // Keeps the page divided.
                arena.alloc(request(16, DEFAULT)).unwrap();
            }
            arena.free(offset).unwrap();
            assert_eq!(
                arena.alloc(request(size, NONE)).map(|(offset, _)| offset),
                Ok(offset)
            );
        }
    }

    pub fn without_grow_no_page_is_allocated<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [32, 4096, 1 << 20] {
            assert_eq!(arena.alloc(request(size, LARGER)), Err(Refusal::Empty));
        }
        assert_eq!(arena.counters().held_bytes, 0);
    }

    pub fn larger_splits_a_larger_block_and_wastes_nothing<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (offset, _) = arena.alloc(request(16 * page, GROW)).unwrap();
        arena.free(offset).unwrap();
        let mut taken = Vec::new();
        while let Ok((offset, bytes)) = arena.alloc(request(page / 4, LARGER)) {
            assert_eq!(bytes, page / 4);
            taken.push(offset);
        }
        assert_eq!(taken.len(), 64);
        assert_eq!(arena.counters().free_bytes, 0);
        assert_eq!(arena.counters().held_bytes, 16 * page);
    }

    pub fn grow_alone_leaves_larger_blocks_whole<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (large, _) = arena.alloc(request(16 * page, GROW)).unwrap();
        arena.free(large).unwrap();
        for size in [32, page, 3 * page] {
            let mut pending = arena.reserve(request(size, GROW)).unwrap();
            arena.back(&mut pending, u32::MAX);
            arena.commit(pending);
        }
        assert_eq!(arena.counters().held_bytes, 21 * page);
        assert_eq!(
            arena.alloc(request(16 * page, NONE)),
            Ok((large, 16 * page))
        );
    }

    pub fn low_offsets_are_used_first<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for index in 0..40u64 {
            let (offset, _) = arena.alloc(request(page, DEFAULT)).unwrap();
            assert_eq!(offset, index * page);
        }
    }

    pub fn the_largest_request_of_a_class_is_served_from_its_own_list<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let mut held = Vec::new();
        for pages in [5, 6, 7, 5, 33, 47, 64, 50, 3] {
            held.push(arena.alloc(request(pages * page, GROW)).unwrap().0);
            // Live pages keep them from merging.
            arena.alloc(request(page, GROW)).unwrap();
        }
        held.push(arena.alloc(request(96, GROW)).unwrap().0);
        arena.alloc(request(96, DEFAULT)).unwrap();
        for offset in held {
            arena.free(offset).unwrap();
        }
        let mut classes = 0;
        for shift in MIN_SHIFT..=max_shift(KIB) {
            let class = arena.engine.class(shift);
            assert_eq!(class.free > 0, class.largest > 0, "class {shift}");
            if class.largest > 0 && shift >= page.ilog2() {
                classes += 1;
                assert!(class.largest > 1 << (shift - 1) && class.largest <= 1 << shift);
                let (offset, bytes) = arena.alloc(request(class.largest, NONE)).unwrap();
                assert_eq!(bytes, class.largest);
                arena.free(offset).unwrap();
            }
        }
        assert!(classes >= 3);
        assert_eq!(arena.engine.class(MIN_SHIFT - 1), Default::default());
        assert_eq!(arena.engine.class(max_shift(KIB) + 1), Default::default());
    }
}
