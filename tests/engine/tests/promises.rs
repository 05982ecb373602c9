// SPDX-License-Identifier: GPL-2.0

//! What the engine promises, one test a promise, at every page size.

use freelist_engine::engine::{
    max_shift, Admission, FreeError, Policy, Refusal, Request, ResizeError, Resized, ALIGN_SHIFT,
    BATCH, MAX_ALIGN_SHIFT, MAX_PAGES, MIN_SHIFT,
};
use freelist_engine::host::{reuse, Arena};

/// Bytes of the largest block.
const fn largest<const KIB: usize>() -> u64 {
    1 << max_shift(KIB)
}

const NONE: (bool, bool) = (false, false);
const LARGER: (bool, bool) = (true, false);
const GROW: (bool, bool) = (false, true);
const DEFAULT: (bool, bool) = (true, true);

fn request(size: u64, (larger, grow): (bool, bool)) -> Request {
    Request {
        size,
        policy: reuse(larger, grow),
        ..Request::default()
    }
}

fn headed(size: u64, flags: (bool, bool)) -> Request {
    Request {
        headed: true,
        ..request(size, flags)
    }
}

/// Runs a generic test at 4, 16 and 64 KiB pages.
macro_rules! at_every_page_size {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        mod $name {
            $(#[$doc])*
            #[test] fn pages_of_4_kib() { super::generic::$name::<4>() }
            $(#[$doc])*
            #[test] fn pages_of_16_kib() { super::generic::$name::<16>() }
            $(#[$doc])*
            #[test] fn pages_of_64_kib() { super::generic::$name::<64>() }
        }
    )*};
}

at_every_page_size! {
    an_empty_arena_holds_nothing;
    a_block_is_its_size_class_up_to_half_a_page_and_whole_pages_above;
    every_size_class_can_be_had_and_is_aligned_to_its_size_up_to_64_kib;
    a_block_is_aligned_as_it_is_asked_for;
    sizes_out_of_range_are_refused;
    without_flags_only_the_own_list_is_used;
    without_grow_no_page_is_asked_for;
    larger_splits_a_larger_block_and_wastes_nothing;
    grow_alone_leaves_larger_blocks_whole;
    all_halves_merge_when_all_is_free;
    a_live_neighbour_keeps_halves_apart;
    a_freed_block_of_odd_length_serves_the_next_of_its_length;
    what_a_shorter_block_leaves_of_a_longer_one_is_used;
    a_partly_backed_run_grows_by_what_is_missing;
    /// Peer: hardened_malloc double_free_small, double_free_large.
    a_double_free_is_refused;
    /// Every wrong offset around a live block.
    /// Peer: gpu_buddy gpu_test_buddy_addr_to_block; kasan kmem_cache_invalid_free.
    an_offset_inside_a_live_block_is_refused;
    a_header_takes_16_bytes_of_its_block;
    a_reservation_extends_over_its_header_too;
    a_block_with_a_header_is_known_by_what_lies_behind_it;
    /// Peer: vulnerabilities racing_frees.
    of_those_that_release_a_block_with_a_header_one_gets_it;
    a_reserved_block_cannot_be_freed;
    /// What is known to be clear is told from what is not.
    /// Peer: gpu_buddy gpu_test_buddy_alloc_clear.
    only_what_may_have_old_bytes_is_stale;
    a_cancelled_block_gives_back_the_pages_it_grew;
    a_cancelled_block_joins_nothing_over_what_it_had;
    a_cancelled_part_of_a_page_leaves_nothing;
    only_pages_with_a_live_block_can_be_faulted_in;
    /// The address space ends.
    the_end_of_the_address_space_is_said;
    an_odd_span_is_used_to_its_last_page;
    a_phase_change_from_small_to_large_needs_no_new_page;
    one_live_block_a_page_leaves_the_rest_to_small_requests;
    low_offsets_are_used_first;
    a_trimmed_arena_begins_at_its_beginning;
    the_largest_of_a_class_can_be_had_from_its_own_list;
    an_arena_that_ends_loses_no_page;
    the_same_size_again_is_neither_split_nor_merged;
    a_batch_that_was_freed_is_the_next_one;
    a_batch_at_hand_is_what_single_requests_would_get;
    what_of_a_batch_is_not_told_is_free_again;
    blocks_that_are_alike_are_freed_together;
    no_more_are_freed_together_than_a_quick_list_has_room_for;
    quick_lists_are_bounded_and_merge_before_the_arena_grows;
    /// Peer: gpu_buddy gpu_test_buddy_alloc_contiguous.
    free_pages_in_pieces_serve_a_large_request_without_growing;
    free_pages_elsewhere_are_used_up_before_a_full_arena_refuses;
    a_request_that_fits_nowhere_leaves_all_as_it_was;
    a_trimmed_arena_keeps_what_is_live_and_what_it_is_told;
    metadata_leaves_with_the_memory_it_is_for;
    pages_that_leave_can_be_had_by_nobody;
    a_contiguous_block_takes_nothing_that_was_there;
    what_is_set_aside_stays_whole;
    could_serve_says_what_reserve_does;
    could_serve_knows_what_was_freed_a_moment_ago;
    a_reservation_says_whether_it_has_a_header;
    who_waits_is_counted_by_class;
    the_span_can_be_set_until_it_is_used;
    a_freed_block_is_kept_for_a_waiter_that_takes_no_other;
    a_shorter_block_gives_its_tail_back_at_once;
    a_longer_block_takes_free_memory_and_address_space_behind_it;
    a_block_is_not_resized_into_what_is_in_use;
    a_longer_block_takes_nothing_that_is_set_aside;
    what_cannot_be_resized_stays_as_it_is;
    a_growth_whose_block_went_is_undone;
    what_stays_behind_of_an_isolated_range_is_free_again;
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
                let want = if size <= page / 2 {
                    class
                } else {
                    size.div_ceil(page) * page
                };
                assert_eq!(bytes, want, "of {size} bytes");
                assert_eq!(offset % want.next_power_of_two().min(1 << ALIGN_SHIFT), 0);
                arena.free(offset).unwrap();
            }
        }
        arena.check();
    }

    pub fn every_size_class_can_be_had_and_is_aligned_to_its_size_up_to_64_kib<const KIB: usize>() {
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

    pub fn a_block_is_aligned_as_it_is_asked_for<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(MAX_PAGES);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        for size in [1, 100, page / 2, page, 3 * page, 40 * page] {
            for align_shift in 0..=MAX_ALIGN_SHIFT {
                let want = Request {
                    align_shift,
                    ..request(size, DEFAULT)
                };
                // Blocks of all alignments before it, and what is on quick lists.
                for _ in 0..2 {
                    let (offset, bytes) = arena.alloc(want).unwrap();
                    assert_eq!(offset % (1 << align_shift), 0, "{want:?}");
                    assert!(bytes >= size);
                    // No more than the class, or a page.
                    let most = size.next_power_of_two().max(32);
                    assert!(bytes <= most.max((1 << align_shift).min(page)), "{want:?}");
                    arena.alloc(request(size, DEFAULT)).unwrap();
                    arena.free(offset).unwrap();
                }
            }
        }
        arena.check();
        let want = Request {
            align_shift: MAX_ALIGN_SHIFT + 1,
            ..request(1, DEFAULT)
        };
        assert_eq!(arena.alloc(want), Err(Refusal::Alignment));
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
            // Nothing is moved from one list to another.
            arena.engine.set_slack_permille(None);
            let (large, _) = arena.alloc(request(16 * page, GROW)).unwrap();
            // Between them, so that what is freed below does not continue it.
            arena.alloc(request(page, GROW)).unwrap();
            arena.free(large).unwrap();
            assert_eq!(arena.alloc(request(size, NONE)), Err(Refusal::Empty));
            let (offset, _) = arena.alloc(request(size, GROW)).unwrap();
            if size < page {
                // Else the page would become whole again.
                arena.alloc(request(16, DEFAULT)).unwrap();
            }
            arena.free(offset).unwrap();
            assert_eq!(
                arena.alloc(request(size, NONE)).map(|(offset, _)| offset),
                Ok(offset)
            );
        }
    }

    pub fn without_grow_no_page_is_asked_for<const KIB: usize>() {
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

    pub fn all_halves_merge_when_all_is_free<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (large, _) = arena.alloc(request(64 * page, GROW)).unwrap();
        arena.free(large).unwrap();
        let sizes = [32, 96, 1000, page / 2, page, 3 * page, 7 * page];
        let mut live = Vec::new();
        for round in 0.. {
            let size = sizes[round % sizes.len()];
            let Ok(pending) = arena.reserve(request(size, LARGER)) else {
                break;
            };
            if pending.missing() > 0 {
                // Pieces from elsewhere: not what is tried here.
                arena.cancel(pending);
                break;
            }
            live.push(pending.offset());
            arena.commit(pending);
        }
        // In an order that is neither that of allocation nor its reverse.
        while !live.is_empty() {
            let next = live.len() * 7 / 11;
            arena.free(live.swap_remove(next)).unwrap();
        }
        arena.drain();
        assert_eq!(
            arena.alloc(request(64 * page, NONE)),
            Ok((large, 64 * page))
        );
        assert_eq!(arena.counters().held_bytes, 64 * page);
    }

    pub fn a_live_neighbour_keeps_halves_apart<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = (0..32)
            .map(|_| arena.alloc(request(page, DEFAULT)).unwrap().0)
            .collect();
        for offset in &blocks {
            if offset / page % 2 == 0 {
                arena.free(*offset).unwrap();
            }
        }
        arena.drain();
        assert_eq!(arena.alloc(request(2 * page, NONE)), Err(Refusal::Empty));
        assert_eq!(arena.counters().free_bytes, 16 * page);
        for _ in 0..16 {
            arena.alloc(request(page, NONE)).unwrap();
        }
        assert_eq!(arena.counters().free_bytes, 0);
    }

    pub fn a_freed_block_of_odd_length_serves_the_next_of_its_length<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for pages in [3, 5, 1306, 1025] {
            let (first, bytes) = arena.alloc(request(pages * page, GROW)).unwrap();
            assert_eq!(bytes, pages * page);
            let held = arena.counters().held_bytes;
            for _ in 0..3 {
                arena.free(first).unwrap();
                let (again, _) = arena.alloc(request(pages * page, NONE)).unwrap();
                assert_eq!(again, first);
            }
            assert_eq!(arena.counters().held_bytes, held);
        }
    }

    pub fn what_a_shorter_block_leaves_of_a_longer_one_is_used<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (long, _) = arena.alloc(request(15 * page, GROW)).unwrap();
        arena.free(long).unwrap();
        let (short, _) = arena.alloc(request(9 * page, LARGER)).unwrap();
        assert!((long..=long + 6 * page).contains(&short));
        let rest: Vec<u64> = (0..6)
            .map(|_| arena.alloc(request(page, LARGER)).unwrap().0)
            .collect();
        assert_eq!(arena.alloc(request(1, LARGER)), Err(Refusal::Empty));
        arena.free(short).unwrap();
        for offset in rest {
            arena.free(offset).unwrap();
        }
        assert_eq!(
            arena.alloc(request(15 * page, LARGER)),
            Ok((long, 15 * page))
        );
    }

    pub fn a_partly_backed_run_grows_by_what_is_missing<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (short, _) = arena.alloc(request(9 * page, GROW)).unwrap();
        arena.free(short).unwrap();
        let (long, _) = arena.alloc(request(12 * page, DEFAULT)).unwrap();
        assert_eq!(long, short);
        assert_eq!(arena.counters().held_bytes, 12 * page);
    }

    pub fn a_double_free_is_refused<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, page / 2, page, 3 * page, 1000 * page] {
            let (offset, _) = arena.alloc(request(size, DEFAULT)).unwrap();
            let (_neighbour, _) = arena.alloc(request(size, DEFAULT)).unwrap();
            arena.free(offset).unwrap();
            let counters = arena.counters();
            assert_eq!(arena.free(offset), Err(FreeError::NotLive));
            assert_eq!(arena.counters(), counters);
        }
    }

    pub fn an_offset_inside_a_live_block_is_refused<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, 256, page / 2, page, 3 * page, 8 * page] {
            let (offset, bytes) = arena.alloc(request(size, DEFAULT)).unwrap();
            for within in (1..bytes).filter(|at| at % 16 != 0).step_by(97) {
                assert_eq!(arena.free(offset + within), Err(FreeError::Misaligned));
            }
            arena.checked = false;
            for within in (16..bytes).step_by(16) {
                assert_eq!(arena.free(offset + within), Err(FreeError::Inside));
            }
            arena.checked = true;
            arena.check();
            let slot = bytes.next_power_of_two();
            if slot > bytes {
                assert_eq!(arena.free(offset + bytes), Err(FreeError::NotLive));
            }
            arena.free(offset).unwrap();
        }
        let end = arena.engine.span_bytes();
        assert_eq!(arena.free(end), Err(FreeError::Beyond));
        assert_eq!(arena.free(end - 16), Err(FreeError::NotLive));
        assert_eq!(arena.free(!15), Err(FreeError::Beyond));
    }

    pub fn a_header_takes_16_bytes_of_its_block<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        for (size, all) in [
            (1, 32),
            (16, 32),
            (17, 64),
            (29, 64),
            (48, 64),
            (page / 2 - 16, page / 2),
            (page / 2 - 15, page),
            (page - 16, page),
            (page - 15, 2 * page),
            (5 * page, 6 * page),
            ((1 << 25) - 16, 1 << 25),
        ] {
            let before = arena.counters().live_bytes;
            let (offset, bytes) = arena.alloc(headed(size, DEFAULT)).unwrap();
            assert_eq!(bytes, all - 16, "of {size}");
            let align = all.next_power_of_two().min(1 << ALIGN_SHIFT);
            assert_eq!(offset % align, 16, "of {size}");
            assert_eq!(arena.counters().live_bytes - before, all);
            arena.free(offset).unwrap();
            assert_eq!(arena.counters().live_bytes, before);
        }
        arena.check();
        for size in [largest::<KIB>() - 15, largest::<KIB>(), u64::MAX] {
            assert_eq!(arena.alloc(headed(size, DEFAULT)), Err(Refusal::TooBig));
        }
        assert_eq!(arena.alloc(headed(0, DEFAULT)), Err(Refusal::Zero));
    }

    pub fn a_reservation_extends_over_its_header_too<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, page / 2, page, 5 * page] {
            for request in [headed(size - 16, DEFAULT), request(size, DEFAULT)] {
                let pending = arena.reserve(request).unwrap();
                let extent = pending.extent();
                let header = if request.headed { 16 } else { 0 };
                assert_eq!(extent.end - extent.start, size);
                assert_eq!(
                    extent.start % size.next_power_of_two().min(1 << ALIGN_SHIFT),
                    0
                );
                assert_eq!(pending.offset(), extent.start + header);
                assert_eq!(pending.block_bytes(), size - header);
                arena.cancel(pending);
            }
        }
    }

    pub fn a_block_with_a_header_is_known_by_what_lies_behind_it<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, 200, page / 2, page, 3 * page] {
            // The next of its class after it; then at the same place, the other way round.
            let with = headed(size - 16, DEFAULT);
            let without = request(size, DEFAULT);
            for requests in [[with, without], [without, with]] {
                let blocks = requests.map(|request| (arena.alloc(request).unwrap().0, request));
                for (offset, request) in blocks {
                    let start = offset - offset % 32;
                    assert_eq!(offset - start, if request.headed { 16 } else { 0 });
                    arena.checked = false;
                    for wrong in (start..start + size).step_by(16) {
                        if wrong != offset {
                            assert_eq!(arena.free(wrong), Err(FreeError::Inside));
                        }
                    }
                    arena.checked = true;
                }
                for (offset, _) in blocks {
                    arena.free(offset).unwrap();
                    for again in [offset - offset % 32, offset, offset - offset % 32 + 16] {
                        assert_eq!(arena.free(again), Err(FreeError::NotLive));
                    }
                }
            }
        }
    }

    pub fn of_those_that_release_a_block_with_a_header_one_gets_it<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [100, page, 3 * page] {
            let (offset, bytes) = arena.alloc(headed(size, DEFAULT)).unwrap();
            let taken = arena.take(offset).unwrap().unwrap();
            assert_eq!(taken.extent(), offset - 16..offset + bytes);
            assert!(arena.engine.is_backed((taken.extent().start / page) as u32));
            // No other block has it until it is given back.
            assert_eq!(arena.take(offset).err(), Some(FreeError::NotLive));
            let (other, _) = arena.alloc(headed(size, DEFAULT)).unwrap();
            assert_ne!(other, offset);
            arena.release(taken);
            assert_eq!(arena.take(offset).err(), Some(FreeError::NotLive));
            assert_eq!(
                arena.alloc(headed(size, NONE)).map(|(offset, _)| offset),
                Ok(offset)
            );
        }
    }

    pub fn a_reserved_block_cannot_be_freed<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, page / 2, page, 3 * page] {
            let mut pending = arena.reserve(request(size, DEFAULT)).unwrap();
            let offset = pending.offset();
            assert_eq!(arena.free(offset), Err(FreeError::NotLive));
            arena.back(&mut pending, u32::MAX);
            assert_eq!(arena.free(offset), Err(FreeError::NotLive));
            assert_eq!(arena.free(offset + 16), Err(FreeError::NotLive));
            arena.commit(pending);
            arena.free(offset).unwrap();
        }
    }

    pub fn only_what_may_have_old_bytes_is_stale<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        // Fresh pages first, also for a part of one.
        for size in [64, 20 * page] {
            let mut pending = arena.reserve(request(size, DEFAULT)).unwrap();
            arena.back(&mut pending, u32::MAX);
            assert_eq!(pending.stale(), 0);
            arena.commit(pending);
        }
        // The other part of a page that is divided.
        let pending = arena.reserve(request(96, DEFAULT)).unwrap();
        assert_eq!(pending.stale(), 1);
        let start = (pending.offset() % page) as usize;
        assert_eq!(pending.within(), start..start + 128);
        arena.cancel(pending);
        // What was freed, whole and with what it lacks.
        let (short, _) = arena.alloc(request(9 * page, GROW)).unwrap();
        arena.free(short).unwrap();
        for (pages, stale) in [(9, 9), (12, 9), (5, 5)] {
            let mut pending = arena.reserve(request(pages * page, DEFAULT)).unwrap();
            assert!((short..=short + 4 * page).contains(&pending.offset()));
            arena.back(&mut pending, u32::MAX);
            assert_eq!(pending.stale(), stale);
            assert_eq!(pending.within(), 0..page as usize);
            arena.cancel(pending);
        }
        // What is moved from elsewhere in the arena is new memory.
        let mut pending = arena.reserve(request(12 * page, DEFAULT)).unwrap();
        assert_eq!((pending.stale(), pending.missing()), (9, 3));
        arena.back(&mut pending, 1);
        assert_eq!(pending.missing(), 2);
        arena.back(&mut pending, 2);
        assert_eq!(pending.stale(), 9);
        arena.commit(pending);
    }

    pub fn a_cancelled_block_gives_back_the_pages_it_grew<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (offset, _) = arena.alloc(request(130 * page, GROW)).unwrap();
        arena.free(offset).unwrap();
        let before = arena.counters();
        for brought in [0, 1, 63, 64, 65, 100, u32::MAX] {
            let mut pending = arena.reserve(request(250 * page, DEFAULT)).unwrap();
            assert_eq!(pending.offset(), offset);
            assert_eq!(pending.missing(), 120);
            arena.back(&mut pending, brought);
            arena.cancel(pending);
            let after = arena.counters();
            assert_eq!(after.held_bytes, 130 * page);
            assert_eq!(after.free_bytes, before.free_bytes);
            assert_eq!(after.allocs, before.allocs);
        }
        // What was there before is as good as ever.
        assert_eq!(
            arena.alloc(request(130 * page, NONE)),
            Ok((offset, 130 * page))
        );
    }

    /// The memory that a cancelled block had lies between the two pieces of address space.
    pub fn a_cancelled_block_joins_nothing_over_what_it_had<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = (0..3)
            .map(|_| arena.alloc(request(4 * page, GROW)).unwrap().0)
            .collect();
        arena.free(blocks[1]).unwrap();
        assert_eq!(arena.trim(0), 4);
        arena.free(blocks[2]).unwrap();
        let pending = arena.reserve(request(8 * page, DEFAULT)).unwrap();
        assert_eq!((pending.offset(), pending.missing()), (blocks[2], 4));
        arena.cancel(pending);
        for offset in [blocks[2], blocks[1]] {
            assert_eq!(
                arena.alloc(request(4 * page, DEFAULT)),
                Ok((offset, 4 * page))
            );
        }
    }

    pub fn a_cancelled_part_of_a_page_leaves_nothing<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let pending = arena.reserve(request(64, DEFAULT)).unwrap();
        arena.cancel(pending);
        assert_eq!(arena.counters().held_bytes, 0);
        assert_eq!(arena.counters().metadata.trees, 0);
        // With the page there, it is the arena's: whole again, and free.
        let mut pending = arena.reserve(request(64, DEFAULT)).unwrap();
        arena.back(&mut pending, 1);
        arena.cancel(pending);
        assert_eq!(arena.counters().metadata.trees, 0);
        assert_eq!(arena.counters().free_bytes, Arena::<KIB>::PAGE);
        arena.alloc(request(Arena::<KIB>::PAGE, NONE)).unwrap();
    }

    pub fn only_pages_with_a_live_block_can_be_faulted_in<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        assert!(arena.live_page(0).is_none());
        let (offset, _) = arena.alloc(request(5 * page, DEFAULT)).unwrap();
        let first = (offset / page) as u32;
        let mut ids = Vec::new();
        for index in 0..5 {
            ids.push(arena.live_page(first + index).unwrap().id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 5);
        for index in 5..9 {
            assert!(arena.live_page(first + index).is_none());
        }
        assert!(arena.live_page(u32::MAX).is_none());
        arena.free(offset).unwrap();
        assert!(arena.live_page(first).is_none());

        let mut pending = arena.reserve(request(64, DEFAULT)).unwrap();
        let divided = (pending.offset() / page) as u32;
        arena.back(&mut pending, 1);
        assert!(arena.live_page(divided).is_none());
        arena.commit(pending);
        assert!(arena.live_page(divided).is_some());
    }

    pub fn the_end_of_the_address_space_is_said<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(64);
        let page = Arena::<KIB>::PAGE;
        let most = 64 * page;
        assert_eq!(
            arena.alloc(request(most + 1, DEFAULT)),
            Err(Refusal::NoSpace)
        );
        let (offset, _) = arena.alloc(request(33 * page, DEFAULT)).unwrap();
        assert_eq!(
            arena.alloc(request(32 * page, DEFAULT)),
            Err(Refusal::NoSpace)
        );
        arena.alloc(request(page, DEFAULT)).unwrap();
        arena.free(offset).unwrap();
        arena.free(33 * page).unwrap();
        arena.drain();
        assert_eq!(arena.alloc(request(most, DEFAULT)), Ok((0, most)));
        assert_eq!(arena.alloc(request(32, DEFAULT)), Err(Refusal::NoSpace));
        let mut none = Arena::<KIB>::new(0);
        assert_eq!(none.alloc(request(32, DEFAULT)), Err(Refusal::NoSpace));
    }

    pub fn an_odd_span_is_used_to_its_last_page<const KIB: usize>() {
        let span = 3 * 1024 + 777;
        let mut arena = Arena::<KIB>::new(span);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        let mut seen = vec![false; span as usize];
        while let Ok((offset, _)) = arena.alloc(request(page, DEFAULT)) {
            seen[(offset / page) as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
        arena.check();
    }

    pub fn a_phase_change_from_small_to_large_needs_no_new_page<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        let fill = 256 * page;
        let blocks: Vec<u64> = (0..fill / 64)
            .map(|_| arena.alloc(request(64, DEFAULT)).unwrap().0)
            .collect();
        assert_eq!(arena.counters().held_bytes, fill);
        for offset in blocks {
            arena.free(offset).unwrap();
        }
        arena.check();
        for _ in 0..4 {
            arena.alloc(request(fill / 4, LARGER)).unwrap();
        }
        assert_eq!(arena.counters().held_bytes, fill);
        arena.check();
    }

    pub fn one_live_block_a_page_leaves_the_rest_to_small_requests<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = (0..64 * page / 64)
            .map(|_| arena.alloc(request(64, DEFAULT)).unwrap().0)
            .collect();
        let (kept, freed): (Vec<u64>, Vec<u64>) =
            blocks.into_iter().partition(|offset| offset % page == 0);
        assert_eq!(kept.len(), 64);
        for offset in freed {
            arena.free(offset).unwrap();
        }
        arena.check();
        let free = arena.counters().free_bytes;
        let mut small = Vec::new();
        while let Ok((offset, _)) = arena.alloc(request(32, LARGER)) {
            small.push(offset);
        }
        assert_eq!(small.len() as u64 * 32, free);
        for offset in small.into_iter().chain(kept) {
            arena.free(offset).unwrap();
        }
        arena.check();
        assert!(arena.alloc(request(64 * page, LARGER)).is_ok());
    }

    pub fn low_offsets_are_used_first<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for index in 0..40u64 {
            let (offset, _) = arena.alloc(request(page, DEFAULT)).unwrap();
            assert_eq!(offset, index * page);
        }
    }

    pub fn a_trimmed_arena_begins_at_its_beginning<const KIB: usize>() {
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

    pub fn the_largest_of_a_class_can_be_had_from_its_own_list<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let mut held = Vec::new();
        for pages in [5, 6, 7, 5, 33, 47, 64, 50, 3] {
            held.push(arena.alloc(request(pages * page, GROW)).unwrap().0);
            // Between them, so that they do not join.
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

    pub fn the_same_size_again_is_neither_split_nor_merged<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [32, 100, Arena::<KIB>::PAGE / 2, Arena::<KIB>::PAGE, 1 << 16] {
            let (first, _) = arena.alloc(request(size, DEFAULT)).unwrap();
            let before = arena.counters();
            for _ in 0..10 {
                arena.free(first).unwrap();
                assert_eq!(arena.free(first), Err(FreeError::NotLive));
                let again = arena.alloc(request(size, NONE));
                assert_eq!(again.map(|(offset, _)| offset), Ok(first));
            }
            let after = arena.counters();
            assert_eq!(
                (after.splits, after.merges, after.metadata.trees),
                (before.splits, before.merges, before.metadata.trees)
            );
        }
    }

    pub fn a_batch_that_was_freed_is_the_next_one<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [32, 64, 128] {
            let batch = |arena: &mut Arena<KIB>| -> Vec<u64> {
                (0..BATCH)
                    .map(|_| arena.alloc(request(size, DEFAULT)).unwrap().0)
                    .collect()
            };
            let first = batch(&mut arena);
            for offset in first.iter().rev() {
                arena.free(*offset).unwrap();
            }
            let before = arena.counters();
            assert_eq!(batch(&mut arena), first, "{size}");
            let after = arena.counters();
            assert_eq!(
                (after.splits, after.merges, after.grows),
                (before.splits, before.merges, before.grows)
            );
        }
    }

    pub fn a_batch_at_hand_is_what_single_requests_would_get<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for size in [1, 64, 100, page, (3 * page).min(1 << 16)] {
            let mut one_by_one = Arena::<KIB>::new(1 << 20);
            let mut together = Arena::<KIB>::new(1 << 20);
            for arena in [&mut one_by_one, &mut together] {
                let blocks: Vec<u64> = (0..10)
                    .map(|_| arena.alloc(request(size, DEFAULT)).unwrap().0)
                    .collect();
                for offset in blocks {
                    arena.free(offset).unwrap();
                }
            }
            let batch = together.alloc_batch(size, BATCH as usize, BATCH as usize);
            assert!(!batch.is_empty(), "{size}");
            let single: Vec<u64> = batch
                .iter()
                .map(|_| one_by_one.alloc(request(size, NONE)).unwrap().0)
                .collect();
            assert_eq!(batch, single, "{size}");
            assert_eq!(together.counters(), one_by_one.counters(), "{size}");
            for offset in batch {
                together.free(offset).unwrap();
                assert_eq!(together.free(offset), Err(FreeError::NotLive));
            }
            together.end();
        }
    }

    pub fn what_of_a_batch_is_not_told_is_free_again<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let blocks: Vec<u64> = (0..8)
            .map(|_| arena.alloc(request(64, DEFAULT)).unwrap().0)
            .collect();
        for offset in &blocks {
            arena.free(*offset).unwrap();
        }
        let told = arena.alloc_batch(64, 6, 2);
        assert_eq!(told, [blocks[7], blocks[6]]);
        assert_eq!(arena.counters().live_blocks, 2);
        assert_eq!(arena.counters().allocs, 10);
        assert_eq!(arena.free(blocks[4]), Err(FreeError::NotLive));
        // Those that were not told of can be had again.
        let held = arena.counters().held_bytes;
        for _ in 0..6 {
            arena.alloc(request(64, LARGER)).unwrap();
        }
        assert_eq!(arena.counters().held_bytes, held);
        assert!(arena.alloc_batch(64, 0, 0).is_empty());
    }

    pub fn blocks_that_are_alike_are_freed_together<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let mut alloc = |request| arena.alloc(request).unwrap().0;
        let alike: Vec<u64> = (0..6).map(|_| alloc(request(64, DEFAULT))).collect();
        let smaller = alloc(request(32, DEFAULT));
        let with_header = alloc(headed(48, DEFAULT));
        let page = alloc(request(Arena::<KIB>::PAGE, DEFAULT));
        let live = arena.counters().live_blocks;
        // Each of these ends what can be freed together, and stays as it is.
        let inside = alike[5] + 32;
        for odd in [
            smaller,
            with_header,
            with_header - 16,
            page,
            inside,
            alike[0],
            u64::MAX,
        ] {
            let offsets = [alike[0], alike[1], odd, alike[2]];
            assert_eq!(arena.free_alike(&offsets), 2, "{odd:#x}");
            assert_eq!(arena.counters().live_blocks, live - 2);
            for offset in [alike[1], alike[0]] {
                assert_eq!(arena.free(offset), Err(FreeError::NotLive));
                assert_eq!(arena.alloc(request(64, NONE)).unwrap().0, offset);
            }
        }
        for none in [with_header, page, inside + 1, u64::MAX] {
            assert_eq!(arena.free_alike(&[none]), 0, "{none:#x}");
        }
        assert_eq!(arena.free_alike(&[]), 0);
        assert_eq!(arena.free_alike(&alike), 6);
        assert_eq!(arena.free_alike(&alike), 0);
    }

    pub fn no_more_are_freed_together_than_a_quick_list_has_room_for<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let blocks: Vec<u64> = (0..128)
            .map(|_| arena.alloc(request(32, DEFAULT)).unwrap().0)
            .collect();
        assert_eq!(arena.free_alike(&blocks), BATCH as usize);
        assert_eq!(arena.free_alike(&blocks[BATCH as usize..]), 0);
        arena.free(blocks[127]).unwrap();
    }

    pub fn quick_lists_are_bounded_and_merge_before_the_arena_grows<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [64, page, 1 << 16] {
            let blocks: Vec<u64> = (0..200)
                .map(|_| arena.alloc(request(size, DEFAULT)).unwrap().0)
                .collect();
            let merges = arena.counters().merges;
            for offset in &blocks {
                arena.free(*offset).unwrap();
            }
            // All but a batch have gone to their buddies already.
            assert!(arena.counters().merges - merges >= 100, "{size}");
        }
        let held = arena.counters().held_bytes;
        arena.alloc(request(1 << 20, DEFAULT)).unwrap();
        assert_eq!(arena.counters().held_bytes, held.max(1 << 20));
    }

    /// Fills so many pages with blocks of one page and frees every second one.
    fn comb<const KIB: usize>(arena: &mut Arena<KIB>, pages: u64) -> Vec<u64> {
        let page = Arena::<KIB>::PAGE;
        let blocks: Vec<u64> = (0..pages)
            .map(|_| arena.alloc(request(page, DEFAULT)).unwrap().0)
            .collect();
        for offset in blocks.iter().skip(1).step_by(2) {
            arena.free(*offset).unwrap();
        }
        arena.drain();
        blocks.into_iter().step_by(2).collect()
    }

    pub fn free_pages_in_pieces_serve_a_large_request_without_growing<const KIB: usize>() {
        for flags in [LARGER, GROW, DEFAULT] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let page = Arena::<KIB>::PAGE;
            comb(&mut arena, 400);
            let (offset, bytes) = arena.alloc(request(200 * page, flags)).unwrap();
            assert_eq!(bytes, 200 * page);
            // At most a twentieth more than what was live at a time.
            assert!(arena.counters().held_bytes <= 420 * page);
            assert!(flags != LARGER || arena.counters().free_bytes == 0);
            for index in [0, 1, 100, 199] {
                let at = (offset / page) as u32 + index;
                assert!(arena.live_page(at).is_some());
            }
            arena.end();
        }
    }

    pub fn free_pages_elsewhere_are_used_up_before_a_full_arena_refuses<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        arena.limit = 100;
        comb(&mut arena, 80);
        // 40 pages are free, 20 more may come: 61 are too many, with all of it undone.
        for flags in [DEFAULT, GROW] {
            assert_eq!(arena.alloc(request(61 * page, flags)), Err(Refusal::Empty));
            assert_eq!(arena.counters().live_bytes, 40 * page);
        }
        arena.alloc(request(60 * page, DEFAULT)).unwrap();
        assert_eq!(arena.counters().held_bytes, 100 * page);
        assert_eq!(arena.alloc(request(1, DEFAULT)), Err(Refusal::Empty));
    }

    pub fn a_request_that_fits_nowhere_leaves_all_as_it_was<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        comb(&mut arena, 64);
        let before = arena.counters();
        assert_eq!(arena.alloc(request(33 * page, LARGER)), Err(Refusal::Empty));
        assert_eq!(arena.counters(), before);
        arena.alloc(request(32 * page, LARGER)).unwrap();
    }

    pub fn a_trimmed_arena_keeps_what_is_live_and_what_it_is_told<const KIB: usize>() {
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

    pub fn metadata_leaves_with_the_memory_it_is_for<const KIB: usize>() {
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
        // That of the first block.
        assert_eq!(arena.counters().metadata.chunks, 1);
        arena.free(blocks[0]).unwrap();
        arena.trim(0);
        assert_eq!(arena.counters().metadata.chunks, 0);
        // Wherever in a chunk what leaves begins and ends.
        for pages in [1024, 1025, 2048, 3071] {
            let (block, _) = arena.alloc(request(pages * page, GROW)).unwrap();
            arena.free(block).unwrap();
            arena.trim(0);
            assert_eq!(arena.counters().metadata.chunks, 0, "{pages}");
        }
        // A block that never comes takes none with it, however far it came.
        for brought in [0, 1, 1023, 1024, 1025, 2048, 3000] {
            let mut pending = arena.reserve(request(3000 * page, GROW)).unwrap();
            arena.back(&mut pending, brought);
            arena.cancel(pending);
            assert_eq!(arena.counters().metadata.chunks, 0);
        }
    }

    pub fn pages_that_leave_can_be_had_by_nobody<const KIB: usize>() {
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

    pub fn a_contiguous_block_takes_nothing_that_was_there<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (old, _) = arena.alloc(request(5 * page, GROW)).unwrap();
        arena.free(old).unwrap();
        arena.alloc(request(64, GROW)).unwrap();
        let contiguous = |size| Request {
            policy: Policy::Contiguous,
            ..request(size, DEFAULT)
        };
        // A power of 2 pages, and so aligned.
        for (size, missing) in [(32, 1), (page, 1), (5 * page, 8), (8 * page, 8)] {
            let mut pending = arena.reserve(contiguous(size)).unwrap();
            assert_eq!(pending.first_page() % missing, 0);
            assert_eq!(pending.missing(), missing);
            arena.back(&mut pending, u32::MAX);
            arena.commit(pending);
        }
    }

    pub fn what_is_set_aside_stays_whole<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (whole, _) = arena.alloc(request(4 * page, GROW)).unwrap();
        let (part, _) = arena.alloc(request(64, GROW)).unwrap();
        arena.free(whole).unwrap();
        arena.drain();
        for size in [page, 2 * page, 4 * page] {
            let admission = Admission::SubpageOrGrow;
            assert!(arena.reserve_as(request(size, LARGER), admission).is_err());
            let pending = arena.reserve_as(request(size, DEFAULT), admission).unwrap();
            assert_eq!(u64::from(pending.missing()), size / page);
            arena.cancel(pending);
        }
        // What a divided page has can be had.
        let pending = arena
            .reserve_as(request(page / 2, LARGER), Admission::SubpageOnly)
            .unwrap();
        assert_eq!(pending.offset() / page, part / page);
        arena.cancel(pending);
        assert_eq!(arena.alloc(request(4 * page, NONE)).unwrap().0, whole);
    }

    pub fn could_serve_says_what_reserve_does<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let sizes = [1, 32, 64, page / 2, page, 3 * page, 20 * page, 21 * page];
        for flags in [NONE, LARGER, GROW, DEFAULT] {
            for size in sizes {
                for admission in [
                    Admission::Full,
                    Admission::SubpageOrGrow,
                    Admission::SubpageOnly,
                ] {
                    let mut arena = Arena::<KIB>::new(1 << 20);
                    comb(&mut arena, 40);
                    let (small, _) = arena.alloc(request(64, LARGER)).unwrap();
                    arena.alloc(request(64, LARGER)).unwrap();
                    arena.free(small).unwrap();
                    arena.drain();
                    let want = request(size, flags);
                    let room = page;
                    arena.limit = 41;
                    let could = arena.could_serve(&want, admission, room);
                    let result = arena.alloc_as(want, admission);
                    assert_eq!(could, result.is_ok(), "{want:?} {admission:?}");
                }
            }
        }
    }

    pub fn could_serve_knows_what_was_freed_a_moment_ago<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for flags in [LARGER, GROW, DEFAULT] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let halves = [(); 2].map(|()| arena.alloc(request(page / 2, DEFAULT)).unwrap().0);
            let want = request(page, flags);
            for (half, whole) in halves.into_iter().zip([false, true]) {
                arena.free(half).unwrap();
                let could = arena.could_serve(&want, Admission::Full, 0);
                assert_eq!(could, whole, "{flags:?}");
            }
        }
    }

    pub fn a_reservation_says_whether_it_has_a_header<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [64, 3 * Arena::<KIB>::PAGE] {
            for (want, has) in [
                (request(size, DEFAULT), false),
                (headed(size, DEFAULT), true),
            ] {
                let pending = arena.reserve(want).unwrap();
                assert_eq!(pending.is_headed(), has);
                arena.cancel(pending);
            }
        }
    }

    pub fn who_waits_is_counted_by_class<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [100, 128, 1 << 20] {
            arena.engine.count_wait(&request(size, DEFAULT));
        }
        // Of no class.
        arena.engine.count_wait(&request(0, DEFAULT));
        let waits = |shift| arena.engine.class(shift).waits;
        assert_eq!((MIN_SHIFT..=max_shift(KIB)).map(waits).sum::<u64>(), 3);
        assert_eq!([7, 20].map(waits), [2, 1]);
    }

    pub fn the_span_can_be_set_until_it_is_used<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        assert!(!arena.engine.set_span(0));
        assert!(!arena.engine.set_span(u32::MAX));
        assert!(arena.engine.set_span(7));
        assert_eq!(arena.engine.span_bytes(), 7 * page);
        for _ in 0..7 {
            arena.alloc(request(page, GROW)).unwrap();
        }
        assert_eq!(arena.alloc(request(1, GROW)), Err(Refusal::NoSpace));
        assert!(!arena.engine.set_span(8));
    }

    pub fn a_freed_block_is_kept_for_a_waiter_that_takes_no_other<const KIB: usize>() {
        use freelist_engine::engine::Garbage;
        let page = Arena::<KIB>::PAGE;
        for size in [64, page / 2, page, 3 * page, 1 << 16, 8 << 16] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let all = [(); 4].map(|()| arena.alloc(request(size, DEFAULT)).unwrap().0);
            let want = request(size, NONE);
            let waiters = [None, Some(&want)];
            arena.close_quick(true);
            arena.engine.keep_for(waiters, &mut Garbage::default());
            arena.check();
            // It joins none of its neighbours; a second one may.
            for offset in [all[0], all[1], all[2]] {
                arena.free(offset).unwrap();
            }
            assert_eq!(arena.counters().live_blocks, 1);
            let free = arena.counters().free_bytes;
            assert!(free >= 3 * size, "{free} of {size}");
            // No other request has it, nor moves it.
            let held = arena.counters().held_bytes;
            arena.limit = (held / page) as u32;
            while let Ok((offset, _)) = arena.alloc(request(size, DEFAULT)) {
                assert_ne!(offset, all[0]);
            }
            assert!(arena.could_serve(&want, Admission::SubpageOnly, 0));
            assert_eq!(arena.alloc(want), Ok((all[0], size)));
            // The waiter goes, and what was kept for it is everybody's.
            arena.free(all[0]).unwrap();
            assert!(arena.alloc(request(size, DEFAULT)).is_err());
            arena.engine.keep_for([None, None], &mut Garbage::default());
            arena.check();
            arena.close_quick(false);
            assert_eq!(arena.alloc(request(size, DEFAULT)).unwrap().0, all[0]);
        }
        // A longer block of its class serves too, and what is over is free.
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (long, _) = arena.alloc(request(8 * page, DEFAULT)).unwrap();
        arena.alloc(request(page, DEFAULT)).unwrap();
        let want = request(5 * page, NONE);
        arena.close_quick(true);
        arena
            .engine
            .keep_for([Some(&want), None], &mut Garbage::default());
        arena.free(long).unwrap();
        assert_eq!(arena.alloc(want), Ok((long, 5 * page)));
        assert_eq!(arena.engine.free_pages(), 3);
        // One that is too short does not.
        let want = request(8 * page, NONE);
        arena
            .engine
            .keep_for([Some(&want), None], &mut Garbage::default());
        arena.free(long).unwrap();
        assert_eq!(arena.engine.free_pages(), 8);
        arena.end();
    }

    pub fn a_shorter_block_gives_its_tail_back_at_once<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (block, _) = arena.alloc(request(100 * page, DEFAULT)).unwrap();
        for (size, pages) in [
            (100 * page, 100),
            (99 * page + 1, 100),
            (33 * page, 33),
            (1, 1),
        ] {
            assert_eq!(arena.resize(block, size), Ok(pages * page));
            let counters = arena.counters();
            assert_eq!(counters.live_bytes, pages * page);
            assert_eq!(counters.free_bytes, (100 - pages) * page);
            assert_eq!(counters.live_blocks, 1);
            let shift = (pages * page).next_power_of_two().ilog2();
            assert_eq!(arena.engine.class(shift).live, 1);
        }
        assert!(arena.live_page((block / page) as u32 + 1).is_none());
        let (other, _) = arena.alloc(request(64 * page, LARGER)).unwrap();
        assert_eq!(arena.counters().held_bytes, 100 * page);
        for offset in [other, block] {
            arena.free(offset).unwrap();
        }
        arena.drain();
        assert_eq!(arena.engine.free_pages(), 100);
        arena.end();
    }

    pub fn a_longer_block_takes_free_memory_and_address_space_behind_it<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (block, _) = arena.alloc(request(100 * page, DEFAULT)).unwrap();
        arena.resize(block, 10 * page).unwrap();
        let grows = arena.counters().grows;
        assert_eq!(arena.resize(block, 60 * page), Ok(60 * page));
        assert_eq!(arena.counters().grows, grows);
        assert_eq!(arena.counters().held_bytes, 100 * page);
        assert_eq!(arena.resize(block, 300 * page), Ok(300 * page));
        assert_eq!(arena.counters().grows, grows + 1);
        let counters = arena.counters();
        assert_eq!((counters.held_bytes, counters.free_bytes), (300 * page, 0));
        assert!(arena.live_page((block / page) as u32 + 299).is_some());
        arena.free(block).unwrap();
        assert_eq!(arena.engine.free_pages(), 300);
        arena.end();
    }

    pub fn a_block_is_not_resized_into_what_is_in_use<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(64);
        let (block, _) = arena.alloc(request(16 * page, DEFAULT)).unwrap();
        let (next, _) = arena.alloc(request(16 * page, DEFAULT)).unwrap();
        assert_eq!(next, block + 16 * page);
        let before = arena.counters();
        assert_eq!(arena.resize(block, 17 * page), Err(ResizeError::InUse));
        arena.free(next).unwrap();
        arena.drain();
        assert_eq!(arena.resize(block, 65 * page), Err(ResizeError::InUse));
        assert_eq!(arena.counters().held_bytes, before.held_bytes);
        assert_eq!(arena.resize(block, 64 * page), Ok(64 * page));
        // While it is becoming longer, no other block has the pages after it.
        arena.resize(block, page).unwrap();
        let Ok(Resized::Growing(growth)) = arena.start_resize(block, 9 * page) else {
            panic!("it does not grow");
        };
        assert_eq!(growth.extent(), block + page..block + 9 * page);
        assert_eq!(arena.resize(block, 2 * page), Err(ResizeError::InUse));
        assert_eq!(arena.free(block + page), Err(FreeError::NotLive));
        arena.cancel(growth.into_reservation());
        assert_eq!(arena.counters().live_bytes, page);
        arena.end();
    }

    pub fn a_longer_block_takes_nothing_that_is_set_aside<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for admission in [Admission::SubpageOrGrow, Admission::SubpageOnly] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let (block, _) = arena.alloc(request(64 * page, DEFAULT)).unwrap();
            arena.resize(block, 16 * page).unwrap();
            let before = arena.counters();
            // Behind the block are 48 free pages, and address space behind those.
            for pages in [17, 64, 80] {
                let refused = arena.start_resize_as(block, pages * page, false, admission);
                assert!(matches!(refused, Err(ResizeError::InUse)), "{pages}");
                assert_eq!(arena.counters(), before);
            }
            // To become shorter takes nothing from the waiter.
            arena
                .start_resize_as(block, page, false, admission)
                .unwrap();
            assert_eq!(arena.engine.free_pages(), 63);
            arena.end();
        }
    }

    pub fn what_cannot_be_resized_stays_as_it_is<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (block, _) = arena.alloc(request(3 * page, DEFAULT)).unwrap();
        let (small, _) = arena.alloc(request(page / 2, DEFAULT)).unwrap();
        let (with_header, _) = arena.alloc(headed(3 * page, DEFAULT)).unwrap();
        let side_by_side = Request {
            policy: Policy::Contiguous,
            ..request(3 * page, DEFAULT)
        };
        let (contiguous, _) = arena.alloc(side_by_side).unwrap();
        let end = arena.engine.span_bytes();
        let before = arena.counters();
        for (offset, size, error) in [
            (block, 0, ResizeError::Zero),
            (block, largest::<KIB>() + 1, ResizeError::TooBig),
            (block, u64::MAX, ResizeError::TooBig),
            (block + 1, page, ResizeError::Offset(FreeError::Misaligned)),
            (block + 16, page, ResizeError::Offset(FreeError::Inside)),
            (block + page, page, ResizeError::Offset(FreeError::Inside)),
            (end, page, ResizeError::Offset(FreeError::Beyond)),
            (end - 16, page, ResizeError::Offset(FreeError::NotLive)),
            (small, page, ResizeError::Unsuited),
            (with_header, page, ResizeError::Unsuited),
            (contiguous, page, ResizeError::Unsuited),
        ] {
            let refused = arena.resize(offset, size);
            assert_eq!(refused, Err(error), "{offset:#x}, {size}");
            assert_eq!(arena.counters(), before);
        }
    }

    pub fn a_growth_whose_block_went_is_undone<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let size = |pages| request(pages * page, DEFAULT);
        // Freed; another of its length at its place; made shorter.
        for what in 0..3 {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let (block, _) = arena.alloc(size(32)).unwrap();
            let Ok(Resized::Growing(mut growth)) = arena.start_resize(block, 64 * page) else {
                panic!("it does not grow");
            };
            assert!(arena.fill_growth(&mut growth));
            let left = match what {
                0 => {
                    arena.free(block).unwrap();
                    0
                }
                1 => {
                    arena.free(block).unwrap();
                    assert_eq!(arena.alloc(size(32)).unwrap().0, block);
                    32
                }
                _ => arena.resize(block, 20 * page).unwrap() / page,
            };
            assert!(!arena.commit_growth(growth), "{what}");
            let counters = arena.counters();
            assert_eq!(counters.live_bytes, left * page, "{what}");
            assert_eq!(counters.held_bytes, 32 * page, "{what}");
            arena.end();
        }
    }

    pub fn what_stays_behind_of_an_isolated_range_is_free_again<const KIB: usize>() {
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
        // What stayed can be had.
        let (offset, _) = arena.alloc(request(3 * page, LARGER)).unwrap();
        assert_eq!(offset / page, 600);
        arena.trim(0);
        arena.free(offset).unwrap();
        arena.trim(0);
        assert_eq!(arena.counters().held_bytes, page);
        arena.end();
    }
}

/// What every divided page costs beside itself: no more than a slab object of 96 bytes at 4 KiB.
#[test]
fn a_divided_page_costs_little() {
    use freelist_engine::engine::Tree;
    assert!(size_of::<Tree<4>>() <= 96);
    assert!(size_of::<Tree<16>>() <= 512);
    assert!(size_of::<Tree<64>>() <= 2048);
}
