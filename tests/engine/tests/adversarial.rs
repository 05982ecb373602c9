// SPDX-License-Identifier: GPL-2.0

//! Patterns that are made to fragment memory: the held memory stays within the peak need and the slack, since
//! free memory can always be moved. The moved memory is printed.

use freelist_engine::engine::SLACK_PERMILLE;
use freelist_engine::host::{request, Arena};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of a page.
const PAGE: u64 = Arena::<4>::PAGE;

/// Operations of the long patterns: a million, fewer where the build is not optimised.
const OPS: u64 = if cfg!(debug_assertions) {
    50_000
} else {
    1_000_000
};

/// Random numbers, always the same: prints no seed, unlike the generators of other tests (xorshift64, Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A pattern's arena and blocks.
struct Pattern {
    arena: Arena<4>,
    /// The offset and the bytes of each live block.
    live: Vec<(u64, u64)>,
    ops: u64,
    /// The peak of the held memory.
    held: u64,
}

impl Pattern {
    fn new() -> Self {
        let mut arena = Arena::new(16 << 20);
        arena.checked = false;
        Self {
            arena,
            live: Vec::new(),
            ops: 0,
            held: 0,
        }
    }

    fn alloc(&mut self, size: u64) -> (u64, u64) {
        self.ops += 1;
        let block = self.arena.alloc(request(size)).unwrap();
        self.held = self.held.max(self.arena.engine.held_bytes());
        self.live.push(block);
        block
    }

    fn free_at(&mut self, index: usize) {
        self.ops += 1;
        let (offset, _) = self.live.swap_remove(index);
        self.arena.free(offset).unwrap();
    }

    /// Checks that the arena holds no more than its peak need and the slack.
    fn end(mut self, name: &str) {
        self.arena.check();
        let counters = self.arena.counters();
        let (needed, held) = (counters.peak_bytes, self.held);
        println!(
            "{name:34} {:8} operations; held/needed {:.4}; moved/needed {:.2}; {:.3} pages an \
             operation",
            self.ops,
            held as f64 / needed as f64,
            counters.moved_bytes as f64 / needed as f64,
            (counters.moved_bytes / PAGE) as f64 / self.ops as f64,
        );
        let slack = needed * u64::from(SLACK_PERMILLE) / 1000;
        // If a page is divided for a block, the rest of it is held too.
        let rest = 2 * PAGE;
        assert!(held <= needed + slack + rest, "{name}: {held} of {needed}");
        for (offset, _) in std::mem::take(&mut self.live) {
            self.arena.free(offset).unwrap();
        }
        self.arena.drain();
        let counters = self.arena.counters();
        assert_eq!(counters.free_bytes, counters.held_bytes);
        self.arena.end();
    }
}

/// Robson's pattern (1971 for first fit): round `i` frees all blocks but those that hold a position
/// congruent to an offset modulo `2^i`, then fills up with blocks of `2^i`.
fn robson(name: &str, live_pages: u64, rounds: u32) {
    let mut pattern = Pattern::new();
    for round in 0..rounds {
        let size = PAGE << round;
        if round > 0 {
            // The offset, of two, that more live blocks cover.
            let modulus = 1u64 << round;
            let covers = |block: &(u64, u64), offset: u64| {
                let (first, pages) = (block.0 / PAGE, block.1 / PAGE);
                (first..first + pages).any(|page| page % modulus == offset)
            };
            let count = |offset| {
                pattern
                    .live
                    .iter()
                    .filter(|block| covers(block, offset))
                    .count()
            };
            let offset = if count(0) >= count(modulus / 2) {
                0
            } else {
                modulus / 2
            };
            for index in (0..pattern.live.len()).rev() {
                if !covers(&pattern.live[index], offset) {
                    pattern.free_at(index);
                }
            }
        }
        let live: u64 = pattern.live.iter().map(|(_, size)| size).sum();
        for _ in 0..(live_pages * PAGE).saturating_sub(live) / size {
            pattern.alloc(size);
        }
    }
    pattern.end(name);
}

/// Robson for best fit: blocks of `k` pages and pages that stay, then blocks of `k + 1`.
fn robson_for_best_fit() {
    let mut pattern = Pattern::new();
    for pages in 1..256u64 {
        let first = pattern.live.len();
        for _ in 0..64 {
            pattern.alloc(pages * PAGE);
            pattern.alloc(PAGE);
        }
        for index in (first..first + 128).step_by(2).rev() {
            let last = pattern.live.len() - 1;
            pattern.live.swap(index, last);
            pattern.free_at(last);
        }
    }
    pattern.end("best fit: k pages and a page");
}

/// Blocks whose sizes grow by a page each, most of which are freed later.
fn growing_sizes() {
    let mut pattern = Pattern::new();
    for round in 0..4 {
        for pages in 1..600u64 {
            pattern.alloc(pages * PAGE);
            if pattern.live.len() > 32 {
                pattern.free_at((pages as usize * 7 + round) % 32);
            }
        }
    }
    pattern.end("sizes grow by a page");
}

/// The order in which blocks are freed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    LastIn,
    FirstIn,
    Random,
}

/// Blocks of random sizes, up to 64 MiB, which are freed in an order.
fn random_sizes(name: &str, order: Order) {
    let mut pattern = Pattern::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut bytes = 0;
    let mut oldest = VecDeque::new();
    while pattern.ops < OPS {
        let shift = random.below(16);
        let size = 1 + random.below(64 << shift);
        if bytes + size < 64 << 20 && random.below(16) != 0 {
            let block = pattern.alloc(size);
            if order == Order::FirstIn {
                pattern.live.pop();
                oldest.push_back(block);
            }
            bytes += block.1;
            continue;
        }
        for _ in 0..random.below(16) + 1 {
            if order == Order::FirstIn {
                let Some(block) = oldest.pop_front() else {
                    break;
                };
                pattern.live.push(block);
            }
            if pattern.live.is_empty() {
                break;
            }
            let index = match order {
                Order::Random => random.below(pattern.live.len() as u64) as usize,
                Order::LastIn | Order::FirstIn => pattern.live.len() - 1,
            };
            bytes -= pattern.live[index].1;
            pattern.free_at(index);
        }
    }
    pattern.live.extend(oldest);
    pattern.end(name);
}

#[test]
fn adversarial_patterns_hold_no_more_than_the_slack() {
    robson("Robson, 2^12 pages", 1 << 12, 11);
    robson("Robson, 2^16 pages", 1 << 16, 15);
    robson_for_best_fit();
    growing_sizes();
    random_sizes("last in, first out", Order::LastIn);
    random_sizes("first in, first out", Order::FirstIn);
    random_sizes("random", Order::Random);
}

/// Replaces blocks of `pages` pages at random, `count` of which are live. Returns how much is moved, over what is
/// allocated, when each has been replaced about forty times.
fn replace_at_random(count: u64, pages: Range<u64>) -> f64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut arena = Arena::<4>::new(16 << 20);
    arena.checked = false;
    let mut blocks = vec![None; count as usize];
    let mut allocated = 0;
    for step in 0..80 * count {
        if step == 40 * count {
            (arena.moved, allocated) = (0, 0);
        }
        let block = &mut blocks[random.below(count) as usize];
        if let Some(offset) = block.take() {
            arena.free(offset).unwrap();
        }
        let pages = pages.start + random.below(pages.end - pages.start);
        *block = Some(arena.alloc(request(pages * PAGE)).unwrap().0);
        allocated += pages;
    }
    let moved = arena.moved as f64 / allocated as f64;
    println!("{count} blocks of {pages:?} pages, replaced at random: moved {moved:.4} of what is allocated");
    moved
}

#[test]
fn blocks_that_are_replaced_at_random_move_little() {
    assert!(replace_at_random(512, 25..425) <= 0.031);
    assert!(replace_at_random(64, 256..1280) <= 0.048);
    assert!(replace_at_random(4096, 1..65) <= 0.001);
}
