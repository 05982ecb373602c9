// SPDX-License-Identifier: GPL-2.0

//! The caches of the client's heap: what each thread keeps, and when other threads have it.

#![expect(unsafe_code, reason = "blocks are freed by their addresses")]

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use freelist::{Buffer, Heap};

use crate::harness::suite;
use crate::kit::filled::{heap, is_empty, layout, use_all_sizes, Filled};
use crate::kit::{random, random_size, scaled, system_page, KIB, MIB};

suite!("freelist_heap_threads":
    a_thread_that_ends_returns_its_cached_blocks,
    blocks_that_another_thread_frees_are_not_hoarded,
    threads_hand_buffers_around,
    the_cache_of_a_thread_is_bounded,
    threads_that_sleep_keep_little_and_one_block_holds_a_page,
    caches_of_sleeping_threads_do_not_exhaust_a_limit,
    caches_of_threads_are_drained_while_they_work,
    many_heaps_are_used_by_one_thread,
    a_thread_uses_many_heaps_and_returns_the_blocks_of_each,
);

fn a_thread_that_ends_returns_its_cached_blocks() {
    let heap = heap();
    for _ in 0..scaled(20) {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let heap = heap.clone();
                thread::spawn(move || use_all_sizes(&heap, 20))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        is_empty(&heap);
    }
}

fn blocks_that_another_thread_frees_are_not_hoarded() {
    let heap = heap();
    let (send, receive) = mpsc::sync_channel::<Filled>(64);
    let consumer = {
        let heap = heap.clone();
        thread::spawn(move || {
            for filled in receive {
                filled.free(&heap);
            }
        })
    };
    let mut peak = 0;
    for step in 0..scaled(50_000) {
        let filled = Filled::new(&heap, 1 << (step % 12), step as u8);
        send.send(filled).unwrap();
        if step % 1000 == 0 {
            peak = heap.stat().unwrap().live_bytes.max(peak);
        }
    }
    drop(send);
    consumer.join().unwrap();
    // Two caches, and slabs that are there for blocks of each class.
    assert!(peak <= 8 * MIB, "{peak} bytes");
    is_empty(&heap);
}

fn threads_hand_buffers_around() {
    const THREADS: usize = 4;
    let (heap, mut rng) = (heap(), random());
    let (sends, receives): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    let threads: Vec<_> = receives
        .into_iter()
        .map(|receive: mpsc::Receiver<Buffer>| {
            let (heap, sends) = (heap.clone(), sends.clone());
            let mut rng = fastrand::Rng::with_seed(rng.u64(..));
            thread::spawn(move || {
                let mut live: Vec<Buffer> = Vec::new();
                for _ in 0..scaled(800) {
                    let byte = rng.u8(1..);
                    let mut buffer = heap
                        .buffer(random_size(&mut rng, 100 * KIB) as usize)
                        .unwrap();
                    assert!(buffer.iter().all(|byte| *byte == 0));
                    buffer.fill(byte);
                    if rng.bool() {
                        // The other thread may have ended; then the buffer is freed here.
                        let _ = sends[rng.usize(..THREADS)].send(buffer);
                    } else {
                        live.push(buffer);
                    }
                    live.extend(receive.try_iter());
                    while live.len() > 50 {
                        let buffer = live.swap_remove(rng.usize(..live.len()));
                        assert!(buffer.iter().all(|byte| *byte == buffer[0]));
                    }
                }
            })
        })
        .collect();
    drop(sends);
    for thread in threads {
        thread.join().unwrap();
    }
    is_empty(&heap);
}

fn the_cache_of_a_thread_is_bounded() {
    let heap = heap();
    let count = 8000;
    for shift in [4, 6, 10, 13] {
        let blocks: Vec<Filled> = (0..count)
            .map(|index| Filled::new(&heap, 1 << shift, index as u8))
            .collect();
        for filled in blocks {
            filled.free(&heap);
        }
        let live = heap.stat().unwrap().live_bytes;
        assert!(live <= 4 * MIB, "{live} bytes of blocks of {}", 1 << shift);
    }
    is_empty(&heap);
}

/// Runs `threads` threads, which do `work` and then sleep until `meanwhile` has returned.
fn while_they_sleep(
    heap: &Heap,
    threads: usize,
    work: fn(&Heap) -> Vec<Filled>,
    meanwhile: impl FnOnce(),
) {
    let (done, wait) = mpsc::channel();
    let awake: Vec<_> = (0..threads)
        .map(|_| {
            let (heap, done) = (heap.clone(), done.clone());
            let (wake, sleep) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                let left = work(&heap);
                done.send(()).unwrap();
                let _ = sleep.recv();
                // Its cache serves it as before.
                for byte in 0..100 {
                    Filled::new(&heap, 100, byte).free(&heap);
                }
                left.into_iter().for_each(|filled| filled.free(&heap));
            });
            (wake, thread)
        })
        .collect();
    for _ in 0..threads {
        wait.recv().unwrap();
    }
    meanwhile();
    for (wake, thread) in awake {
        drop(wake);
        thread.join().unwrap();
    }
    is_empty(heap);
}

fn threads_that_sleep_keep_little_and_one_block_holds_a_page() {
    const THREADS: usize = 200;
    let heap = heap();
    let work = |heap: &Heap| {
        let mut left = Vec::new();
        for size in [64, 100, 500] {
            let mut blocks: Vec<_> = (0..300).map(|_| Filled::new(heap, size, 1)).collect();
            if size == 100 {
                left.push(blocks.swap_remove(150));
            }
            blocks.into_iter().for_each(|filled| filled.free(heap));
        }
        left
    };
    while_they_sleep(&heap, THREADS, work, || {
        let live = heap.stat().unwrap().live_bytes;
        // The cache of each thread, its block, and the slabs that are kept for all.
        let max = THREADS as u64 * (48 * KIB + 4 * KIB) + 2 * MIB;
        assert!(live <= max, "{live} bytes");
        heap.trim(0).unwrap();
        let held = heap.stat().unwrap().held_bytes;
        assert!(held <= (THREADS * system_page()) as u64, "{held} bytes");
    });
}

fn caches_of_sleeping_threads_do_not_exhaust_a_limit() {
    const LIMIT: u64 = 6 * MIB;
    let heap = heap();
    heap.set_limit(LIMIT).unwrap();
    let work = |heap: &Heap| {
        for size in [64, 256, 512, 1000, 2000, 4000] {
            let blocks: Vec<_> = (0..40).map(|_| Filled::new(heap, size, 1)).collect();
            blocks.into_iter().for_each(|filled| filled.free(heap));
        }
        Vec::new()
    };
    while_they_sleep(&heap, 100, work, || {
        assert!(
            heap.stat().unwrap().live_bytes > LIMIT / 2,
            "they keep much"
        );
        for size in [112, 3072, 1 << 20] {
            let mut live = Vec::new();
            while let Ok(block) = heap.alloc(layout(size, 1)) {
                live.push(block);
            }
            let used = (live.len() * size) as u64;
            assert!(
                used > LIMIT * 9 / 10 - MIB,
                "{used} bytes in blocks of {size}"
            );
            for block in live {
                // SAFETY: It is live, and not used any more.
                unsafe { heap.free(block) };
            }
        }
    });
}

fn caches_of_threads_are_drained_while_they_work() {
    let (heap, mut rng) = (heap(), random());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (heap, mut rng) = (heap.clone(), fastrand::Rng::with_seed(rng.u64(..)));
            thread::spawn(move || {
                let mut live: Vec<Filled> = Vec::new();
                for step in 0..scaled(100_000) {
                    if live.len() < 100 && rng.bool() {
                        let size = 1 << rng.u32(0..13);
                        live.push(Filled::new(&heap, size, step as u8));
                    } else if !live.is_empty() {
                        live.swap_remove(rng.usize(..live.len())).free(&heap);
                    }
                }
                live.into_iter().for_each(|filled| filled.free(&heap));
            })
        })
        .collect();
    let mut trims = 0;
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        heap.trim(0).unwrap();
        trims += 1;
    }
    assert!(trims > 10, "{trims}");
    for thread in threads {
        thread.join().unwrap();
    }
    is_empty(&heap);
}

fn many_heaps_are_used_by_one_thread() {
    // More heaps than a thread has caches for.
    let heaps: Vec<Heap> = (0..40).map(|_| heap()).collect();
    let mut live: BTreeMap<usize, Vec<Filled>> = BTreeMap::new();
    for round in 0..100 {
        for (index, heap) in heaps.iter().enumerate() {
            let filled = Filled::new(heap, 48, index as u8);
            assert!(heaps[(index + 1) % heaps.len()]
                .usable_size(filled.block)
                .is_none());
            let live = live.entry(index).or_default();
            live.push(filled);
            if round % 2 == 1 {
                live.swap_remove(0).free(heap);
            }
        }
    }
    for (index, live) in live {
        for filled in live {
            filled.free(&heaps[index]);
        }
        is_empty(&heaps[index]);
    }
}

/// A thread has caches of a few heaps; that of the next heap replaces one of them.
fn a_thread_uses_many_heaps_and_returns_the_blocks_of_each() {
    let heaps: Vec<Heap> = (0..40).map(|_| heap()).collect();
    for round in 0..3 {
        for heap in &heaps {
            let blocks: Vec<_> = (0..50)
                .map(|_| heap.alloc(layout(100, 1)).unwrap())
                .collect();
            for block in blocks {
                // SAFETY: It is live, and no other code has its address any more.
                unsafe { heap.free(block) };
            }
            // It is cached: the same block again.
            let block = heap.alloc(layout(100, 1)).unwrap();
            // SAFETY: As above.
            unsafe { heap.free(block) };
            assert_eq!(heap.alloc(layout(100, 1)).unwrap(), block, "round {round}");
            // SAFETY: As above.
            unsafe { heap.free(block) };
        }
    }
    for heap in &heaps {
        heap.trim(0).unwrap();
        let stat = heap.stat().unwrap();
        assert_eq!((stat.live_blocks, stat.held_bytes), (0, 0));
    }
}
