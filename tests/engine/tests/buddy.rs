// SPDX-License-Identifier: GPL-2.0

//! Split and merge of address space, as buddy allocators are tried: filled to the last byte, emptied
//! in every pattern that keeps halves apart.

use freelist_engine::at_every_page_size;
use freelist_engine::engine::{Refusal, ALIGN_SHIFT, MIN_SHIFT};
use freelist_engine::host::{request, Arena};
use proptest::prelude::*;

const SMALLEST: u64 = 1 << MIN_SHIFT;

/// Returns the offset of a new block, for which there must be address space.
#[track_caller]
fn alloc<const KIB: usize>(arena: &mut Arena<KIB>, size: u64) -> u64 {
    let (offset, bytes) = arena.alloc(request(size)).unwrap();
    assert_eq!(bytes, size);
    assert_eq!(
        offset % size.next_power_of_two().min(1 << ALIGN_SHIFT),
        0,
        "of {size} bytes"
    );
    offset
}

/// Checks that no block of `size` bytes can be allocated, for lack of address space.
#[track_caller]
fn is_full<const KIB: usize>(arena: &mut Arena<KIB>, size: u64) {
    assert_eq!(arena.alloc(request(size)), Err(Refusal::NoSpace), "{size}");
}

/// Prior art: gpu_buddy gpu_test_buddy_alloc_optimistic.
#[test]
fn a_span_of_one_run_of_each_order_holds_a_block_of_each() {
    at_every_page_size!(one_block_of_each_order);
}

/// Prior art: gpu_buddy gpu_test_buddy_alloc_pessimistic.
#[test]
fn one_block_of_each_class_and_the_smallest_fill_the_span_and_join_again() {
    at_every_page_size!(one_block_of_each_class);
}

/// Prior art: gpu_buddy gpu_test_buddy_alloc_pathological.
#[test]
fn halves_of_every_order_kept_apart_serve_nothing_larger() {
    at_every_page_size!(whittled_down);
}

/// Prior art: gpu_buddy gpu_test_buddy_offset_aligned_allocation.
#[test]
fn freed_ranges_of_odd_length_serve_blocks_of_the_same_length() {
    at_every_page_size!(odd_lengths);
}

/// Prior art: gpu_buddy gpu_test_buddy_subtree_offset_alignment_stress.
#[test]
fn each_list_reports_the_largest_request_that_it_serves() {
    at_every_page_size!(largest_of_each_list);
}

/// Prior art: gpu_buddy gpu_test_buddy_fragmentation_performance.
#[test]
fn fragments_that_are_freed_in_any_pattern_serve_larger_blocks() {
    at_every_page_size!(fragments);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Prior art: gpu_buddy gpu_test_buddy_alloc_range_bias.
    #[test]
    fn blocks_never_leave_the_span_and_can_use_all_of_it(
        span in 1u32..700,
        sizes in prop::collection::vec(1u64..200 * 4096, 1..60),
    ) {
        let page = Arena::<4>::PAGE;
        let end = u64::from(span) * page;
        let mut arena = Arena::<4>::new(span);
        let mut blocks = Vec::new();
        for size in sizes {
            match arena.alloc(request(size)) {
                Ok((offset, bytes)) => {
                    prop_assert!(offset + bytes <= end);
                    blocks.push(offset);
                }
                Err(refusal) => prop_assert_eq!(refusal, Refusal::NoSpace),
            }
            // Both the beginning and the end of the span have changed.
            if blocks.len() % 5 == 4 {
                prop_assert_eq!(arena.free(blocks.swap_remove(size as usize % blocks.len())), Ok(()));
            }
        }
        for offset in blocks {
            prop_assert_eq!(arena.free(offset), Ok(()));
        }
        let mut pages = vec![false; span as usize];
        while let Ok((offset, _)) = arena.alloc(request(page)) {
            let taken = &mut pages[(offset / page) as usize];
            prop_assert!(!*taken);
            *taken = true;
        }
        prop_assert!(pages.iter().all(|taken| *taken), "{pages:?}");
        arena.end();
    }
}

mod generic {
    use super::*;

    const ORDERS: u32 = 8;

    pub fn one_block_of_each_order<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new((2 << ORDERS) - 1);
        // Low offsets are used first: the largest run is there.
        for order in (0..=ORDERS).rev() {
            alloc(&mut arena, page << order);
        }
        is_full(&mut arena, SMALLEST);
        arena.end();
    }

    pub fn one_block_of_each_class<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let span = page << ORDERS;
        let mut arena = Arena::<KIB>::new(1 << ORDERS);
        let classes = MIN_SHIFT..span.ilog2();
        let blocks: Vec<u64> = classes
            .clone()
            .map(|shift| alloc(&mut arena, 1 << shift))
            .collect();
        let last = alloc(&mut arena, SMALLEST);
        assert_eq!(arena.counters().live_bytes, span);
        for shift in MIN_SHIFT..=span.ilog2() {
            is_full(&mut arena, 1 << shift);
        }
        arena.free(last).unwrap();
        for (shift, offset) in classes.zip(blocks) {
            is_full(&mut arena, 2 << shift);
            arena.free(offset).unwrap();
            // Its buddy is free already: together they are a block of the next class.
            let joined = alloc(&mut arena, 2 << shift);
            assert!(joined <= offset);
            arena.free(joined).unwrap();
        }
        assert_eq!(alloc(&mut arena, span), 0);
        arena.end();
    }

    pub fn whittled_down<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << ORDERS);
        let mut blocks = Vec::new();
        let mut holes = Vec::new();
        for top in (1..=ORDERS).rev() {
            if top < ORDERS {
                // The largest, which is divided again.
                arena.free(blocks.remove(0)).unwrap();
            }
            for order in (0..top).rev() {
                blocks.push(alloc(&mut arena, page << order));
            }
            holes.push(alloc(&mut arena, page));
            is_full(&mut arena, page << top);
        }
        is_full(&mut arena, SMALLEST);
        for hole in holes {
            arena.free(hole).unwrap();
        }
        for order in 1..=ORDERS {
            is_full(&mut arena, page << order);
        }
        for _ in 0..ORDERS {
            alloc(&mut arena, page);
        }
        is_full(&mut arena, SMALLEST);
        arena.end();
    }

    /// Allocates blocks of `size` bytes until no address space is left.
    fn fill<const KIB: usize>(arena: &mut Arena<KIB>, size: u64) -> Vec<u64> {
        let mut blocks = Vec::new();
        loop {
            match arena.alloc(request(size)) {
                Ok((offset, _)) => blocks.push(offset),
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::NoSpace);
                    return blocks;
                }
            }
        }
    }

    /// Returns the number of blocks of `pages` pages for which there is address space: each begins at a multiple of
    /// its class, or of 64 KiB.
    fn max_blocks<const KIB: usize>(span: u64, pages: u64) -> u64 {
        let align = pages
            .next_power_of_two()
            .min((1 << ALIGN_SHIFT) / Arena::<KIB>::PAGE);
        (span - pages) / pages.next_multiple_of(align) + 1
    }

    pub fn odd_lengths<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for order in 2..ORDERS {
            let mut arena = Arena::<KIB>::new(1 << ORDERS);
            let pages = (1 << order) / 2 + 1;
            let size = page * pages;
            let blocks = fill(&mut arena, size);
            assert_eq!(blocks.len() as u64, max_blocks::<KIB>(1 << ORDERS, pages));
            for offset in blocks.iter().step_by(2) {
                arena.free(*offset).unwrap();
            }
            for _ in 0..blocks.len().div_ceil(2) {
                alloc(&mut arena, size);
            }
            is_full(&mut arena, size);
            arena.end();
        }
    }

    pub fn largest_of_each_list<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << ORDERS);
        let whole = alloc(&mut arena, page << ORDERS);
        arena.free(whole).unwrap();
        // The list of `order` is the only one with an entry, and serves all of its class.
        let has_only = |arena: &mut Arena<KIB>, order: u32| {
            arena.drain();
            for other in 0..=ORDERS {
                let largest = arena.engine.class(page.ilog2() + other).largest;
                let expected = if other == order { page << order } else { 0 };
                assert_eq!(largest, expected, "order {other} of {order}");
            }
        };
        has_only(&mut arena, ORDERS);
        let mut blocks = Vec::new();
        for order in (0..ORDERS).rev() {
            blocks.push(alloc(&mut arena, page << order));
            has_only(&mut arena, order);
        }
        for (order, offset) in blocks.into_iter().rev().enumerate() {
            arena.free(offset).unwrap();
            has_only(&mut arena, order as u32 + 1);
        }
        arena.end();
    }

    pub fn fragments<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        const COUNT: usize = 256;
        let mut arena = Arena::<KIB>::new(16 * COUNT as u32);
        arena.checked = false;
        for pattern in 0..3 {
            let blocks = fill(&mut arena, 9 * page);
            let count = blocks.len();
            assert_eq!(count as u64, max_blocks::<KIB>(16 * COUNT as u64, 9));
            // The rest, so that no run of them is left.
            let rest = fill(&mut arena, page);
            let (mut first, mut second): (Vec<_>, Vec<_>) = blocks
                .into_iter()
                .enumerate()
                .partition(|(index, _)| match pattern {
                    0 => matches!(index % 4, 0 | 3),
                    1 => index % 2 == 0,
                    _ => *index < count / 2,
                });
            second.reverse();
            first.append(&mut second);
            for (_, offset) in first {
                arena.free(offset).unwrap();
            }
            for offset in rest {
                arena.free(offset).unwrap();
            }
            arena.check();
            // As the module does if it finds no address space.
            arena.trim(0);
            let larger: Vec<u64> = (0..COUNT).map(|_| alloc(&mut arena, 16 * page)).collect();
            is_full(&mut arena, SMALLEST);
            for offset in larger.into_iter().rev() {
                arena.free(offset).unwrap();
            }
            assert_eq!(alloc(&mut arena, 16 * COUNT as u64 * page), 0);
            arena.free(0).unwrap();
            arena.check();
        }
        arena.end();
    }
}
