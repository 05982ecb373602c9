// SPDX-License-Identifier: GPL-2.0

//! The client's heap in programs of the kinds that other allocators failed in: threads that end, blocks
//! that change hands, memory that runs out, sizes and alignments at the edge.

#![expect(unsafe_code, reason = "blocks are freed by their addresses")]

use std::cell::RefCell;
use std::fs;
use std::sync::mpsc::{self, sync_channel};
use std::sync::Barrier;
use std::thread;

use freelist::{Buffer, Heap};
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::filled::{heap, is_empty, layout, Filled};
use crate::kit::{random, random_size, refused, scaled, system_page, KIB, MIB};

suite!("freelist_heaps":
    a_heap_that_ran_out_of_small_blocks_reuses_freed_ones,
    a_block_that_is_aligned_keeps_its_bytes_and_alignment_when_resized,
    a_failed_resize_leaves_the_block_unchanged,
    a_block_outlives_the_thread_that_took_it,
    a_resize_may_be_the_first_call_of_a_thread,
    bytes_added_to_a_block_that_shrank_and_grew_are_zero_or_its_own,
    blocks_freed_by_a_thread_that_allocates_none_are_not_hoarded,
    a_block_that_is_freed_when_its_thread_ends_returns_to_its_slab,
    threads_that_end_at_once_leave_nothing,
    a_small_stack_is_enough,
    blocks_take_no_mappings,
    many_small_blocks_with_large_alignments_are_freed,
    blocks_freed_in_another_order_leave_no_metadata,
);

/// Runs `work` in a thread that has ended when this returns, with its destructors. (A scope does not wait for
/// these.)
fn ended<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).expect("no panic")
}

/// Prior art: reports gperftools#228, gperftools#1204.
fn a_heap_that_ran_out_of_small_blocks_reuses_freed_ones() {
    const LEN: usize = 1000;
    let heap = heap();
    heap.set_limit(8 * MIB).unwrap();
    let mut live = Vec::new();
    let fill = |live: &mut Vec<Filled>| {
        let before = live.len();
        while let Ok(at) = heap.alloc(layout(LEN, 1)) {
            let mut block = Filled {
                block: at,
                size: LEN,
                byte: live.len() as u8,
            };
            let byte = block.byte;
            block.bytes().fill(byte);
            live.push(block);
        }
        refused(heap.alloc(layout(LEN, 1)), Errno::EDQUOT);
        live.len() - before
    };
    let first = fill(&mut live);
    assert!(first > 6000, "{first}");
    for round in 1..6 {
        // Scattered blocks, so that hardly a slab is empty.
        let released = live.len() / 5;
        for _ in 0..released {
            let at = (live.len() * round * 7) / 11 % live.len();
            live.swap_remove(at).free(&heap);
        }
        let again = fill(&mut live);
        assert!(again * 100 >= released * 95, "{again} of {released}");
    }
    live.into_iter().for_each(|block| block.free(&heap));
    // A large block gets the memory of the small ones.
    Filled::new(&heap, 7 << 20, 1).free(&heap);
    is_empty(&heap);
}

/// Prior art: reports gperftools#467, gperftools#1096.
fn a_block_that_is_aligned_keeps_its_bytes_and_alignment_when_resized() {
    let heap = heap();
    let mut rng = random();
    for align in [16, 64, 4096, 1 << 16, 1 << 21, 1 << 24] {
        let mut block = Filled::aligned(&heap, 100, align, align.trailing_zeros() as u8 | 1);
        for len in [5000, 300_000, 50, 40_000, 3_000_000, 1, align, align + 1] {
            block.resize(&heap, len, align).unwrap();
        }
        for _ in 0..20 {
            let len = random_size(&mut rng, 4 * MIB) as usize;
            block.resize(&heap, len, align).unwrap();
        }
        block.free(&heap);
    }
    is_empty(&heap);
}

/// Sizes beyond 2 and 4 GiB, at the limit, and at the end of all numbers.
///
/// Prior art: reports gperftools#497.
fn a_failed_resize_leaves_the_block_unchanged() {
    let heap = heap();
    heap.set_limit(16 * MIB).unwrap();
    let largest = isize::MAX as usize;
    for len in [1, 1000, 40_000, 5 << 20] {
        let mut block = Filled::new(&heap, len, 9);
        for more in [
            17 << 20,
            2_600_000_000,
            1 << 32,
            (1 << 32) + 1,
            1 << 40,
            largest - 8,
            largest,
        ] {
            for align in [1, 4096] {
                // SAFETY: The block is live and this test's alone.
                let resized = unsafe { heap.realloc(block.block, more, align) };
                assert!(resized.is_err(), "to {more} bytes");
                block.check();
            }
        }
        block.free(&heap);
    }
    is_empty(&heap);
}

/// The memory of a block that one thread allocated and another one freed serves other threads when both have
/// ended.
///
/// Prior art: reports mimalloc#691, mimalloc#956.
fn a_block_outlives_the_thread_that_took_it() {
    let heap = heap();
    for len in [22_085_632, 100_000, 20_000, 592, 16] {
        for _ in 0..scaled(4) {
            let take = || (0..5).map(|byte| Filled::new(&heap, len, byte)).collect();
            let blocks: Vec<Filled> = ended(take);
            let free = || blocks.into_iter().for_each(|block| block.free(&heap));
            ended(free);
        }
        is_empty(&heap);
    }
}

/// Prior art: reports mimalloc#1304, mimalloc#1371.
fn a_resize_may_be_the_first_call_of_a_thread() {
    let heap = heap();
    for (len, to) in [
        (64, 40),
        (64, 64),
        (64, 200),
        (40_000, 30_000),
        (5 << 20, 3 << 20),
    ] {
        let mut block = Filled::new(&heap, len, 3);
        let heap = &heap;
        ended(move || {
            block.resize(heap, to, 1).unwrap();
            block.free(heap);
        });
    }
    is_empty(&heap);
}

/// Prior art: reports mimalloc#763.
fn bytes_added_to_a_block_that_shrank_and_grew_are_zero_or_its_own() {
    let heap = heap();
    for len in [6 * KIB as usize, 100 * KIB as usize, 3 << 20] {
        // Blocks with old bytes of other slices.
        let others: Vec<Filled> = (0..4).map(|_| Filled::new(&heap, len, 0xee)).collect();
        others.into_iter().for_each(|block| block.free(&heap));
        let at = heap.alloc_zeroed(layout(len, 1024)).unwrap();
        let mut block = Filled {
            block: at,
            size: len,
            byte: 0,
        };
        block.check();
        block.bytes()[..len / 2].fill(123);
        // SAFETY: The block is live and this test's alone; each time it is replaced.
        unsafe {
            block.block = heap.realloc(block.block, len / 2, 1024).unwrap();
            block.block = heap.realloc(block.block, len, 1024).unwrap();
        }
        let (kept, added) = block.bytes().split_at(len / 2);
        assert!(kept.iter().all(|byte| *byte == 123));
        // The added bytes may be old; a part that kept its memory has its old content.
        let odd = added.iter().find(|byte| ![0, 123, 0xee].contains(byte));
        assert_eq!(odd, None, "of {len} bytes");
        // SAFETY: As above.
        unsafe { heap.free(block.block) };
        let at = heap.alloc_zeroed(layout(len, 1024)).unwrap();
        Filled {
            block: at,
            size: len,
            byte: 0,
        }
        .free(&heap);
    }
    is_empty(&heap);
}

/// Prior art: reports mimalloc#1364, mimalloc#214, mimalloc#1117.
fn blocks_freed_by_a_thread_that_allocates_none_are_not_hoarded() {
    const LIVE: usize = 2000;
    const LEN: usize = 592;
    let heap = heap();
    let mut peak = 0;
    thread::scope(|scope| {
        let (send, receive) = sync_channel::<Filled>(64);
        let producers = [0, 1, 2, 3].map(|producer| {
            let (heap, send) = (&heap, send.clone());
            scope.spawn(move || {
                let mut live: Vec<Filled> = (0..LIVE)
                    .map(|_| Filled::new(heap, LEN, producer as u8))
                    .collect();
                for step in 0..scaled(10_000) {
                    let new = Filled::new(heap, LEN, producer as u8);
                    let old = std::mem::replace(&mut live[step * 7 % LIVE], new);
                    send.send(old).unwrap();
                }
                live.into_iter().for_each(|block| send.send(block).unwrap());
            })
        });
        drop(send);
        for (index, block) in receive.into_iter().enumerate() {
            block.free(&heap);
            if index % 1000 == 0 {
                peak = peak.max(heap.stat().unwrap().held_bytes);
            }
        }
        producers.map(|thread| thread.join().unwrap());
    });
    // A size class is at most a power of 2, and threads cache some blocks.
    let live = (4 * LIVE * LEN.next_power_of_two()) as u64;
    assert!(peak <= live + live / 4 + 4 * MIB, "{peak} held for {live}");
    is_empty(&heap);
}

thread_local! {
    /// Dropped when its thread ends, before or after the heap's cache of the thread.
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

struct Late {
    heap: Heap,
    _buffer: Buffer,
    block: Option<Filled>,
}

impl Drop for Late {
    fn drop(&mut self) {
        let block = self.block.take().expect("it is dropped once");
        block.free(&self.heap);
        // The destructor allocates and frees another block, too.
        Filled::new(&self.heap, 100, 4).free(&self.heap);
        drop(self.heap.buffer(200_000).unwrap());
    }
}

/// Prior art: reports snmalloc#161, snmalloc#809, mimalloc#828.
fn a_block_that_is_freed_when_its_thread_ends_returns_to_its_slab() {
    let heap = heap();
    for round in 0..scaled(20) {
        let heap = &heap;
        ended(move || {
            let late = Late {
                heap: heap.clone(),
                _buffer: heap.buffer(1000).unwrap(),
                block: Some(Filled::new(heap, 64, 5)),
            };
            // The destructor of the heap's cache is registered before it, or after it.
            if round % 2 == 0 {
                LATE.with(|_| ());
            }
            LATE.set(Some(late));
        });
    }
    is_empty(&heap);
}

/// Prior art: reports mimalloc#759, snmalloc#398.
fn threads_that_end_at_once_leave_nothing() {
    const THREADS: usize = 16;
    let heap = heap();
    for _ in 0..scaled(6) {
        let barrier = Barrier::new(THREADS);
        let (send, receive) = mpsc::channel();
        thread::scope(|scope| {
            let threads = [(); THREADS].map(|()| {
                let (heap, barrier, send) = (&heap, &barrier, send.clone());
                scope.spawn(move || {
                    let block = |len| Filled::new(heap, len, len as u8);
                    let mine: Vec<Filled> =
                        (0..100).map(|index| block(16 << (index % 8))).collect();
                    send.send(block(500)).unwrap();
                    mine.into_iter().for_each(|block| block.free(heap));
                    barrier.wait();
                })
            });
            threads.map(|thread| thread.join().unwrap());
        });
        drop(send);
        receive.into_iter().for_each(|block| block.free(&heap));
    }
    is_empty(&heap);
}

/// Prior art: reports jemalloc#2179, gperftools#154.
fn a_small_stack_is_enough() {
    let heap = heap();
    // Many runs to join and split, side by side.
    let blocks: Vec<Filled> = (0..300)
        .map(|index| Filled::new(&heap, 70_000, index as u8))
        .collect();
    for (index, block) in blocks.into_iter().enumerate() {
        // The other blocks are live until the heap ends.
        if index % 2 == 0 {
            block.free(&heap);
        }
    }
    thread::scope(|scope| {
        let heap = &heap;
        let small = thread::Builder::new().stack_size(16 << 10);
        let work = move || {
            let lens = [16, 1000, 40_000, 200_000, 5 << 20];
            let mut blocks = lens.map(|len| Filled::new(heap, len, 6));
            for block in &mut blocks {
                block.resize(heap, block.size * 2, 1).unwrap();
            }
            blocks.into_iter().for_each(|block| block.free(heap));
            heap.trim(0).unwrap();
        };
        small.spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

/// A mapping is divided when a part of it is protected, advised or unmapped, and a process may have only so many.
///
/// Prior art: reports jemalloc#1328, jemalloc#1256, jemalloc#970, jemalloc#1324.
fn blocks_take_no_mappings() {
    let mappings = || {
        fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count()
    };
    let heap = heap();
    let mut rng = random();
    let mut live: Vec<Filled> = (0..500).map(|_| Filled::new(&heap, 3000, 1)).collect();
    let before = mappings();
    for step in 0..scaled(4000) {
        let at = rng.usize(..live.len());
        let len = random_size(&mut rng, 256 * KIB) as usize;
        let new = Filled::aligned(&heap, len, 1 << rng.u32(..17), step as u8);
        std::mem::replace(&mut live[at], new).free(&heap);
        if step % 1000 == 0 {
            heap.trim(0).unwrap();
        }
    }
    let after = mappings();
    assert!(after <= before + 8, "{before} mappings, then {after}");
    live.into_iter().for_each(|block| block.free(&heap));
    is_empty(&heap);
}

/// Prior art: reports mimalloc#1400, gperftools#288.
fn many_small_blocks_with_large_alignments_are_freed() {
    let heap = heap();
    for align in [1 << 10, 1 << 14, 1 << 15, 1 << 16, 1 << 18] {
        let blocks: Vec<Filled> = (0..200)
            .map(|index| Filled::aligned(&heap, 8, align, index as u8))
            .collect();
        blocks.into_iter().for_each(|block| block.free(&heap));
    }
    is_empty(&heap);
}

/// Twelve blocks at a time are freed in threes, again and again: the metadata stays bounded.
///
/// Prior art: reports jemalloc#487, jemalloc#1263.
fn blocks_freed_in_another_order_leave_no_metadata() {
    const DELAY: usize = 12;
    let heap = heap();
    let mut ring: [Option<Filled>; DELAY] = [const { None }; DELAY];
    let mut first = None;
    for step in 0..scaled(6000) {
        if step % 3 == 0 {
            for slot in 0..3 {
                let old = ring[(step + slot) % DELAY].take();
                old.into_iter().for_each(|block| block.free(&heap));
            }
        }
        let old = ring[step % DELAY].replace(Filled::new(&heap, 40_000, step as u8));
        assert!(old.is_none());
        let stat = heap.stat().unwrap();
        if step == 100 {
            first = Some(stat);
        }
        if let Some(first) = first {
            assert!(stat.metadata_bytes <= first.metadata_bytes + 2 * system_page() as u64);
            assert!(
                stat.held_bytes <= 2 * first.held_bytes,
                "step {step}: {stat:?}"
            );
        }
    }
    ring.into_iter()
        .flatten()
        .for_each(|block| block.free(&heap));
    is_empty(&heap);
}
