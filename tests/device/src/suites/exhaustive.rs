// SPDX-License-Identifier: GPL-2.0

//! Releases a few blocks in every order, in every layout.

use freelist::{Arena, Block};

use crate::harness::suite;
use crate::kit::{alloc, arena, check, free, page, random, scaled, stat, thread};
use crate::trust;

suite!("freelist_exhaustive":
    every_order_of_release_leaves_nothing,
);

const BLOCKS: usize = 5;
const SIZES: usize = 5;
/// The number of layouts: each block has one of [`SIZES`], and they are freed one by one or in a batch.
const LAYOUTS: usize = 2 * SIZES.pow(BLOCKS as u32);
/// The scale with which all of them are tried.
const FULL: usize = 125;
const THREADS: usize = 2;

/// Returns sizes of blocks in a page with others, of half a page, one, one and a part, and three.
fn sizes() -> [u64; SIZES] {
    [page() / 8, page() / 2, page(), page() + 1, 3 * page()]
}

/// Returns every order of the numbers below [`BLOCKS`].
fn orders() -> Vec<[usize; BLOCKS]> {
    fn extend(order: &mut Vec<usize>, all: &mut Vec<[usize; BLOCKS]>) {
        if let Ok(whole) = order.as_slice().try_into() {
            all.push(whole);
        }
        for next in 0..BLOCKS {
            if !order.contains(&next) {
                order.push(next);
                extend(order, all);
                order.pop();
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut Vec::new(), &mut all);
    all
}

/// Returns the sizes of a layout.
fn layout(number: usize) -> [u64; BLOCKS] {
    let sizes = sizes();
    let mut rest = number / 2;
    [0; BLOCKS].map(|_: u64| {
        let size = sizes[rest % SIZES];
        rest /= SIZES;
        size
    })
}

/// Allocates a layout and releases it in every order. The arena is empty before and after.
fn try_layout(arena: &Arena, number: usize, orders: &[[usize; BLOCKS]]) {
    let layout = layout(number);
    let mut first = None;
    for order in orders {
        let blocks: [Block; BLOCKS] = layout.map(|size| alloc(arena, size));
        let mut sorted = blocks;
        sorted.sort_unstable_by_key(|block| block.offset);
        for pair in sorted.windows(2) {
            assert!(
                pair[0].offset + pair[0].bytes <= pair[1].offset,
                "{sorted:x?} of {layout:?}"
            );
        }
        let live = stat(arena);
        let bytes = blocks.iter().map(|block| block.bytes).sum();
        assert_eq!((live.live_blocks, live.live_bytes), (BLOCKS as u64, bytes));
        // After any order the same memory serves the same blocks again.
        let held = *first.get_or_insert(live.held_bytes);
        assert_eq!(live.held_bytes, held, "{layout:?} before {order:?}");
        if number % 2 == 0 {
            order.map(|index| free(arena, blocks[index]));
        } else {
            let offsets = order.map(|index| blocks[index].offset);
            assert_eq!(arena.free_bulk(&offsets).unwrap(), BLOCKS);
        }
    }
    let held = stat(arena).held_bytes;
    assert_eq!(arena.trim(0).unwrap(), held, "{layout:?}");
    let after = stat(arena);
    assert_eq!((after.live_blocks, after.held_bytes), (0, 0), "{layout:?}");
}

/// Tries 750,000 orders; below the full scale those of an even part of the layouts, another one in each run.
/// Prior art: binder_alloc binder_alloc_exhaustive_test.
fn every_order_of_release_leaves_nothing() {
    let orders = orders();
    let every = (FULL / scaled(1)).max(1);
    let layouts: Vec<usize> = (random().usize(0..every)..LAYOUTS).step_by(every).collect();
    thread::scope(|scope| {
        for part in layouts.chunks(layouts.len().div_ceil(THREADS)) {
            let orders = &orders;
            scope.spawn(move || {
                let arena = arena();
                for number in part {
                    try_layout(&arena, *number, orders);
                }
                check();
            });
        }
    });
    let tried = layouts.len() * orders.len();
    let aim = if every == 1 { "=750000" } else { "-" };
    trust!("orders_of_release", tried, "orders", aim);
}
