// SPDX-License-Identifier: GPL-2.0

//! Two threads of a heap, and two that compute one value, in every order that loom distinguishes (Norris and
//! Demsky, 2013), with the values that relaxed atomics may show in each.
//!
//! A thread writes its number to its block, and checks it when it frees the block: no other thread has had
//! it, and earlier writes are seen.

use freelist_heap_tests::{Heap, Kept, Pair};
use loom::sync::Arc;
use loom::thread::{Builder, JoinHandle};

/// The bytes of half a slab of one page.
const HALF: usize = 2 << 10;
const WHOLE: usize = 4 << 10;
/// The bytes of a quarter of a slab of five pages.
const FIVE: usize = 5 << 10;

/// The words of a thread's stack. loom's default of 4,096 is too small for a heap's tables, which
/// unoptimised code moves over the stack.
const STACK_WORDS: usize = 1 << 16;

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let builder = Builder::new().stack_size(STACK_WORDS);
    builder.spawn(work).expect("loom has room for the thread")
}

fn check(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 10_000;
    let body = std::sync::Arc::new(body);
    model.check(move || {
        let body = body.clone();
        spawn(move || body()).join().unwrap();
    });
}

/// Runs two threads at the same time, in a heap of `pages` pages.
fn both(pages: usize, one: fn(&Heap), other: fn(&Heap)) {
    check(move || {
        let heap = Arc::new(Heap::new(pages));
        let shared = heap.clone();
        let thread = spawn(move || other(&shared));
        one(&heap);
        thread.join().unwrap();
        heap.ends();
    });
}

/// Allocates some blocks and frees them.
fn uses(heap: &Heap, bytes: usize, count: usize, user: u32) {
    let blocks = heap.take(bytes, count, user);
    heap.put(blocks, user);
}

/// Allocates a large block and frees it, if there is memory.
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
            uses(heap, HALF, 1, 1);
            uses(heap, HALF, 2, 1);
        },
        |heap| uses(heap, HALF, 2, 2),
    );
}

#[test]
fn a_released_slab_serves_another_class() {
    both(
        1,
        |heap| {
            uses(heap, HALF, 1, 1);
            heap.trim();
        },
        |heap| uses(heap, WHOLE, 1, 2),
    );
}

#[test]
fn a_released_slab_becomes_a_large_block() {
    both(
        1,
        |heap| {
            uses(heap, HALF, 1, 1);
            heap.trim();
        },
        |heap| uses_large(heap, 2),
    );
}

#[test]
fn no_page_is_discarded_in_which_a_block_is_in_use() {
    both(
        5,
        |heap| {
            let blocks = heap.take(FIVE, 1, 1);
            heap.discard();
            heap.put(blocks, 1);
        },
        |heap| uses(heap, FIVE, 1, 2),
    );
}

/// Has another thread drain a magazine while its owner uses it: each block is in one place.
#[test]
fn a_drained_block_is_no_longer_in_the_magazine() {
    for pops in 1..=3 {
        check(move || {
            let kept = Arc::new(Kept::new());
            assert!(kept.push(1) && kept.push(2));
            let shared = kept.clone();
            let thread = spawn(move || shared.drain());
            let mut blocks: Vec<usize> = (0..pops).filter_map(|_| kept.pop()).collect();
            assert!(kept.push(3));
            blocks.extend(kept.pop());
            blocks.extend(thread.join().unwrap());
            blocks.extend(kept.drain());
            blocks.sort_unstable();
            assert_eq!(blocks, [1, 2, 3]);
            // The owner continues.
            assert!(kept.push(1) && kept.push(2));
            assert_eq!(
                (kept.pop(), kept.pop(), kept.pop()),
                (Some(2), Some(1), None)
            );
        });
    }
}

/// Returns a drained block to its owner by way of another thread.
#[test]
fn a_drained_block_that_returns_is_kept() {
    check(|| {
        let kept = Arc::new(Kept::new());
        assert!(kept.push(1));
        let shared = kept.clone();
        let thread = spawn(move || shared.drain());
        let popped = kept.pop();
        let drained = thread.join().unwrap();
        // The owner may have taken the slow path before the drain ended.
        let popped = popped.or_else(|| kept.pop());
        assert!(popped.is_some() ^ (drained == [1]));
        assert!(kept.push(1), "it is kept nowhere");
        assert_eq!(kept.pop(), Some(1));
    });
}

#[test]
fn a_block_is_freed_by_another_thread() {
    check(|| {
        let heap = Arc::new(Heap::new(1));
        let blocks = heap.take(HALF, 2, 1);
        let shared = heap.clone();
        let thread = spawn(move || shared.put(blocks, 1));
        // The whole slab is in use, or it is free again.
        uses(&heap, HALF, 1, 2);
        thread.join().unwrap();
        heap.ends();
    });
}

#[test]
fn a_large_block_that_two_threads_free_is_freed_once() {
    check(|| {
        let heap = Arc::new(Heap::new(1));
        let block = heap.take_large(1).unwrap();
        heap.end(&block, 1);
        let (shared, again) = (heap.clone(), block.again());
        let thread = spawn(move || shared.put_large(&again));
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
        let thread = spawn(move || {
            let mine = shared.get_or_store((1, 10));
            assert!(matches!(mine, (1, 10) | (2, 20)));
            shared.get()
        });
        let mine = pair.get_or_store((2, 20));
        assert!(matches!(mine, (1, 10) | (2, 20)));
        let seen = thread.join().unwrap();
        // Both have returned, so one of them has stored its pair, which stays.
        let stored = pair.get().unwrap();
        assert!(matches!(stored, (1, 10) | (2, 20)));
        assert!(seen.is_none_or(|seen| seen == stored));
        assert_eq!(pair.get_or_store((3, 30)), stored);
    });
}
