// SPDX-License-Identifier: GPL-2.0

//! Two threads of a heap, and two that want one value, in every order in which they can run, as far as loom finds one that
//! differs (Norris and Demsky, 2013), with what relaxed atomics may show in each.
//!
//! A thread writes its number to its block, and finds it there when it gives the block back:
//! no other thread has it meanwhile, and earlier writes are seen.

use freelist_heap_tests::{Heap, Pair};
use loom::sync::Arc;
use loom::thread;

const LARGEST: usize = 32 << 10;

fn check(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 10_000;
    model.check(body);
}

/// Runs what one thread does and what another one does at the same time, in a heap of so many times
/// 64 KiB.
fn both(units: usize, one: fn(&Heap), other: fn(&Heap)) {
    check(move || {
        let heap = Arc::new(Heap::new(units));
        let shared = heap.clone();
        let thread = thread::spawn(move || other(&shared));
        one(&heap);
        thread.join().unwrap();
        heap.ends();
    });
}

/// Takes some and gives them back.
fn uses(heap: &Heap, bytes: usize, count: usize, user: u32) {
    let blocks = heap.take(bytes, count, user);
    heap.put(blocks, user);
}

/// The same with a large block, where there is one.
fn uses_large(heap: &Heap, user: u32) {
    if let Some(block) = heap.take_large(user) {
        heap.end(&block, user);
        assert!(heap.put_large(&block));
    }
}

#[test]
fn no_block_is_two_threads() {
    both(
        2,
        |heap| {
            uses(heap, LARGEST, 1, 1);
            uses(heap, LARGEST, 2, 1);
        },
        |heap| uses(heap, LARGEST, 2, 2),
    );
}

#[test]
fn a_slab_that_leaves_is_another_class_s() {
    both(
        1,
        |heap| {
            uses(heap, LARGEST, 1, 1);
            heap.trim();
        },
        |heap| uses(heap, LARGEST / 2, 1, 2),
    );
}

#[test]
fn a_slab_that_leaves_is_a_large_block() {
    both(
        1,
        |heap| {
            uses(heap, LARGEST, 1, 1);
            heap.trim();
        },
        |heap| uses_large(heap, 2),
    );
}

#[test]
fn a_block_comes_back_from_another_thread() {
    check(|| {
        let heap = Arc::new(Heap::new(1));
        let blocks = heap.take(LARGEST, 2, 1);
        let shared = heap.clone();
        let thread = thread::spawn(move || shared.put(blocks, 1));
        // The whole slab is taken, or it is back.
        uses(&heap, LARGEST, 1, 2);
        thread.join().unwrap();
        heap.ends();
    });
}

#[test]
fn a_large_block_that_two_threads_free_goes_once() {
    check(|| {
        let heap = Arc::new(Heap::new(1));
        let block = heap.take_large(1).unwrap();
        heap.end(&block, 1);
        let (shared, again) = (heap.clone(), block.again());
        let thread = thread::spawn(move || shared.put_large(&again));
        let one = heap.put_large(&block);
        assert!(one ^ thread.join().unwrap());
        heap.ends();
    });
}

#[test]
fn large_blocks_at_the_same_place_are_one_after_another() {
    both(1, |heap| uses_large(heap, 1), |heap| uses_large(heap, 2));
}

#[test]
fn a_pair_is_stored_once_and_read_whole() {
    check(|| {
        let pair = Arc::new(Pair::new());
        let shared = pair.clone();
        let thread = thread::spawn(move || {
            let mine = shared.get_or_store((1, 10));
            assert!(matches!(mine, (1, 10) | (2, 20)));
            shared.get()
        });
        let mine = pair.get_or_store((2, 20));
        assert!(matches!(mine, (1, 10) | (2, 20)));
        let seen = thread.join().unwrap();
        // Both have returned, so that one of them has stored its pair, which stays.
        let stored = pair.get().unwrap();
        assert!(matches!(stored, (1, 10) | (2, 20)));
        assert!(seen.is_none_or(|seen| seen == stored));
        assert_eq!(pair.get_or_store((3, 30)), stored);
    });
}
