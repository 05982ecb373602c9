// SPDX-License-Identifier: GPL-2.0

//! The client's heap: an allocator with a cache a thread, over an arena.

#![expect(unsafe_code, reason = "blocks are given back by their addresses")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;

use freelist::{Buffer, Error, Heap};
use nix::errno::Errno;
use nix::sys::mman::{mlockall, MlockAllFlags};
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::filled::{heap, layout, Filled};
use crate::kit::process::{drop_cap_ipc_lock, fork_child, signal_of};
use crate::kit::{
    largest_block, meminfo, random, random_size, refused, scaled, system_page, KIB, MIB,
};

suite!("freelist_client":
    blocks_are_aligned_and_apart,
    a_block_is_aligned_as_asked_for_up_to_a_gibibyte,
    memory_that_was_used_is_zero_where_that_is_asked_for,
    a_resized_block_keeps_its_bytes_and_its_place_while_they_fit,
    a_large_block_grows_and_shrinks_where_it_is,
    a_large_block_has_its_pages_and_no_more,
    a_large_block_holds_what_was_touched,
    buffers_and_slices_give_their_memory_back,
    a_thread_that_ends_gives_back_what_it_kept,
    what_another_thread_frees_is_not_hoarded,
    threads_hand_buffers_around,
    what_a_thread_keeps_is_bounded,
    threads_that_sleep_keep_little_and_one_block_holds_a_page,
    a_limit_is_not_reached_by_what_threads_keep_that_sleep,
    what_threads_keep_is_drained_while_they_work,
    a_heap_at_its_limit_refuses_and_goes_on,
    memory_kept_for_small_blocks_serves_large_ones,
    many_heaps_are_used_by_one_thread,
    a_closed_heap_leaves_nothing_mapped,
    a_forked_child_gets_nothing_and_takes_nothing,
    a_free_of_no_block_ends_the_program,
    the_block_that_was_freed_last_is_not_freed_again,
    a_checked_heap_sees_every_double_free,
    a_thread_uses_many_heaps_and_each_gets_its_memory_back,
    a_heap_whose_file_was_closed_ends_nothing,
    a_heap_opens_where_addresses_or_promises_are_bounded,
    a_whole_program_has_its_large_blocks_in_an_arena,
    a_program_without_a_device_goes_on_and_says_why,
);

/// Nothing of the heap is live, once what it keeps has gone.
#[track_caller]
fn is_empty(heap: &Heap) {
    heap.trim(0).unwrap();
    let stat = heap.stat().unwrap();
    assert_eq!((stat.live_blocks, stat.live_bytes), (0, 0));
    assert_eq!(stat.held_bytes, 0);
}

fn blocks_are_aligned_and_apart() {
    let (heap, mut rng) = (heap(), random());
    let mut live: Vec<Filled> = Vec::new();
    for step in 0..scaled(20_000) {
        let size = random_size(&mut rng, 64 * KIB) as usize;
        let filled = Filled::new(&heap, size, step as u8);
        // What divides its size, or all that a larger one has.
        let align = match size {
            ..=0x8000 => 1 << size.trailing_zeros(),
            _ => 64 << 10,
        };
        assert_eq!(filled.block.addr().get() % align.max(16), 0, "{size} bytes");
        assert!(heap.usable_size(filled.block).unwrap() >= size);
        live.push(filled);
        if live.len() > 500 {
            live.swap_remove(rng.usize(..live.len())).free(&heap);
        }
    }
    for filled in live {
        filled.free(&heap);
    }
    is_empty(&heap);
}

fn a_block_is_aligned_as_asked_for_up_to_a_gibibyte() {
    let heap = heap();
    for align in (0..=30).map(|shift| 1 << shift) {
        for size in [1, 100, 5000, 100_000] {
            let block = heap.alloc(layout(size, align)).unwrap();
            assert_eq!(block.addr().get() % align, 0, "{size} bytes");
            assert!(heap.stat().unwrap().held_bytes <= 4 * MIB, "{align}");
            // SAFETY: It is live, and not used any more.
            unsafe { heap.free(block) };
        }
    }
    let error = heap.alloc(layout(1, 1 << 40)).unwrap_err();
    assert!(matches!(error, Error::Alignment { align } if align == 1 << 40));
    is_empty(&heap);
}

fn memory_that_was_used_is_zero_where_that_is_asked_for() {
    let heap = heap();
    for size in [1, 16, 100, 4000, 32 << 10, 40_000, 3 << 20] {
        let used: Vec<Filled> = (0..5).map(|_| Filled::new(&heap, size, 0xaa)).collect();
        for filled in used {
            filled.free(&heap);
        }
        for _ in 0..5 {
            let block = heap.alloc_zeroed(layout(size, 1)).unwrap();
            let mut filled = Filled {
                block,
                size,
                byte: 0,
            };
            filled.check();
            filled.bytes().fill(0xbb);
            filled.byte = 0xbb;
            filled.free(&heap);
        }
    }
    is_empty(&heap);
}

fn a_resized_block_keeps_its_bytes_and_its_place_while_they_fit() {
    let heap = heap();
    let sizes = [
        1,
        10,
        16,
        17,
        40,
        64,
        33,
        32,
        5000,
        8192,
        4097,
        100,
        40_000,
        45_000,
        32_768,
        300_000,
        200_000,
        2 << 20,
        16,
    ];
    for (from, to) in sizes.iter().flat_map(|from| sizes.map(|to| (*from, to))) {
        let mut filled = Filled::new(&heap, from, 0x5a);
        let has = heap.usable_size(filled.block).unwrap();
        // SAFETY: It is live, and the old address is forgotten.
        let block = unsafe { heap.realloc(filled.block, to, 1) }.unwrap();
        if to <= has && to > has / 2 {
            assert_eq!(block, filled.block, "{from} to {to} bytes");
        }
        assert!(heap.usable_size(block).unwrap() >= to);
        filled.block = block;
        filled.size = from.min(to);
        filled.check();
        filled.size = to;
        filled.bytes().fill(0x5a);
        filled.free(&heap);
    }
    // At the limit a block that is to be smaller stays.
    let mut filled = Filled::new(&heap, 1 << 20, 1);
    heap.trim(0).unwrap();
    heap.set_limit(heap.stat().unwrap().held_bytes).unwrap();
    // SAFETY: As above.
    let smaller = unsafe { heap.realloc(filled.block, 100_000, 1) }.unwrap();
    assert_eq!(smaller, filled.block);
    filled.size = 100_000;
    // SAFETY: As above; it stays what it is.
    let error = unsafe { heap.realloc(filled.block, 2 << 20, 1) };
    refused(error, Errno::EDQUOT);
    filled.free(&heap);
    is_empty(&heap);
}

fn a_large_block_grows_and_shrinks_where_it_is() {
    let (heap, page) = (heap(), system_page());
    let (small, large) = (40_000_usize, 16 << 20);
    let mut filled = Filled::new(&heap, small, 0x5a);
    let place = filled.block;
    for size in (small..large).step_by(64 * 1024).chain([large]) {
        // SAFETY: It is live, and the old address is forgotten.
        filled.block = unsafe { heap.realloc(filled.block, size, 1) }.unwrap();
        assert_eq!(filled.block, place, "{size} bytes: nothing lies behind it");
        filled.check();
        filled.size = size;
        filled.bytes().fill(0x5a);
        let bytes = size.next_multiple_of(page);
        assert_eq!(heap.usable_size(filled.block), Some(bytes));
        assert_eq!(heap.stat().unwrap().live_bytes, bytes as u64);
    }
    // What lies behind it is in use: it moves, and is not changed by it.
    let mut behind = Filled::new(&heap, large, 0xa5);
    // SAFETY: As above.
    filled.block = unsafe { heap.realloc(filled.block, 2 * large, 1) }.unwrap();
    assert_ne!(filled.block, place);
    filled.check();
    behind.check();
    // A smaller one keeps no more than it needs.
    let place = filled.block;
    // SAFETY: As above.
    filled.block = unsafe { heap.realloc(filled.block, small, 1) }.unwrap();
    assert_eq!(filled.block, place);
    filled.size = small;
    filled.check();
    let live = (small.next_multiple_of(page) + large) as u64;
    assert_eq!(heap.stat().unwrap().live_bytes, live);
    heap.trim(0).unwrap();
    assert_eq!(heap.stat().unwrap().held_bytes, live);
    filled.free(&heap);
    behind.free(&heap);
    is_empty(&heap);
}

fn a_large_block_has_its_pages_and_no_more() {
    let (heap, page) = (heap(), system_page());
    for size in [(32 << 10) + 1, 5 << 20, (9 << 20) - 1] {
        let block = heap.alloc(layout(size, 1)).unwrap();
        let bytes = size.next_multiple_of(page);
        assert_eq!(heap.usable_size(block), Some(bytes));
        assert_eq!(heap.stat().unwrap().live_bytes, bytes as u64);
        // Inside of it no block begins.
        let inside = block.map_addr(|address| address.saturating_add(page));
        assert_eq!(heap.usable_size(inside), None);
        // SAFETY: It is live, and not used any more.
        unsafe { heap.free(block) };
        assert_eq!(heap.usable_size(block), None);
    }
    is_empty(&heap);
}

fn a_large_block_holds_what_was_touched() {
    let heap = heap();
    let held = || heap.stat().unwrap().held_bytes;
    let block = heap.alloc(layout(64 << 20, 1)).unwrap();
    assert_eq!(held(), 0);
    for at in [0, 5_000_000, 40 << 20] {
        // SAFETY: It is live and has as many bytes.
        unsafe { block.add(at).write(9) };
    }
    assert!(held() <= 2 * MIB, "{}", held());
    // What lies behind it has it moved, and copied where it was touched.
    let behind = heap.alloc(layout(1 << 20, 1)).unwrap();
    // SAFETY: It is live, and the old address is forgotten.
    let moved = unsafe { heap.realloc(block, 96 << 20, 1) }.unwrap();
    assert_ne!(moved, block);
    assert!(held() <= 4 * MIB, "{}", held());
    for (at, byte) in [(0, 9), (1, 0), (5_000_000, 9), (40 << 20, 9), (95 << 20, 0)] {
        // SAFETY: It is live and has as many bytes.
        assert_eq!(unsafe { moved.add(at).read() }, byte);
    }
    // Where old bytes lie what was not touched is zero all the same.
    for block in [behind, moved] {
        // SAFETY: No thread uses it any more.
        unsafe { heap.free(block) };
    }
    let used = heap.alloc(layout(4 << 20, 1)).unwrap();
    // SAFETY: It is live and has as many bytes.
    unsafe { used.write_bytes(7, 4 << 20) };
    let source = heap.alloc(layout(2 << 20, 1)).unwrap();
    // SAFETY: As above; no thread uses the other one any more.
    unsafe {
        source.write(9);
        heap.free(used);
    }
    let behind = heap.alloc(layout(64 << 10, 1 << 20)).unwrap();
    // SAFETY: It is live, and the old address is forgotten.
    let moved = unsafe { heap.realloc(source, 3 << 20, 1) }.unwrap();
    for at in 1..2 << 20 {
        // SAFETY: It is live and has as many bytes.
        assert_eq!(unsafe { moved.add(at).read() }, 0, "byte {at}");
    }
    for block in [behind, moved] {
        // SAFETY: No thread uses it any more.
        unsafe { heap.free(block) };
    }
}

fn buffers_and_slices_give_their_memory_back() {
    let heap = heap();
    let mut buffer = heap.buffer(100).unwrap();
    assert_eq!(*buffer, [0; 100]);
    buffer[99] = 7;
    buffer.resize(5 << 20, 9).unwrap();
    assert_eq!((buffer.len(), buffer[99], buffer[100]), (5 << 20, 7, 9));
    assert_eq!(buffer[(5 << 20) - 1], 9);
    buffer.resize(3, 0).unwrap();
    assert_eq!(*buffer, [0; 3]);
    let mut numbers = heap.slice(1000, 1u64).unwrap();
    numbers[500] = 2;
    assert_eq!(numbers.iter().sum::<u64>(), 1001);
    assert_eq!(numbers.as_ptr().align_offset(align_of::<u64>()), 0);
    assert!(heap.buffer(0).unwrap().is_empty());
    assert!(heap.slice(7, ()).unwrap().len() == 7);
    refused(heap.slice(usize::MAX, 1u64).map(drop), Errno::E2BIG);
    let too_long = 2 * largest_block() as usize;
    refused(heap.buffer(too_long).map(drop), Errno::E2BIG);
    drop(buffer);
    drop(numbers);
    is_empty(&heap);
    // A buffer keeps its heap alive.
    let mut buffer = heap.buffer(1 << 20).unwrap();
    drop(heap);
    buffer.fill(1);
}

/// All small sizes, some blocks of each, freed again.
fn use_all_sizes(heap: &Heap, count: usize) {
    for shift in 0..16 {
        let blocks: Vec<Filled> = (0..count)
            .map(|index| Filled::new(heap, 1 << shift, index as u8))
            .collect();
        for filled in blocks {
            filled.free(heap);
        }
    }
}

fn a_thread_that_ends_gives_back_what_it_kept() {
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

fn what_another_thread_frees_is_not_hoarded() {
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
    let mut most = 0;
    for step in 0..scaled(50_000) {
        let filled = Filled::new(&heap, 1 << (step % 12), step as u8);
        send.send(filled).unwrap();
        if step % 1000 == 0 {
            most = heap.stat().unwrap().live_bytes.max(most);
        }
    }
    drop(send);
    consumer.join().unwrap();
    // Two caches, and slabs that are there for blocks of each class.
    assert!(most <= 8 * MIB, "{most} bytes");
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
                        // It may have ended; then it is freed here.
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

fn what_a_thread_keeps_is_bounded() {
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

/// Runs so many threads, which do `work` and then sleep until `meanwhile` has returned.
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
        // What each keeps, its block, and what is kept for all of them.
        let most = THREADS as u64 * (48 * KIB + 4 * KIB) + 2 * MIB;
        assert!(live <= most, "{live} bytes");
        heap.trim(0).unwrap();
        let held = heap.stat().unwrap().held_bytes;
        assert!(held <= (THREADS * system_page()) as u64, "{held} bytes");
    });
}

fn a_limit_is_not_reached_by_what_threads_keep_that_sleep() {
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
    while_they_sleep(&heap, 80, work, || {
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

fn what_threads_keep_is_drained_while_they_work() {
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

fn a_heap_at_its_limit_refuses_and_goes_on() {
    let heap = heap();
    heap.set_limit(4 * MIB).unwrap();
    for size in [64, 1000, 20_000, 100_000] {
        for _ in 0..3 {
            let mut live = Vec::new();
            let refusal = loop {
                match heap.alloc(layout(size, 1)) {
                    Ok(_) if live.len() * size > 4 << 20 => panic!("beyond the limit"),
                    Ok(block) => live.push(block),
                    Err(error) => break error,
                }
            };
            assert_eq!(refusal.errno(), Some(Errno::EDQUOT), "{refusal}");
            assert!(
                live.len() * size > 2 << 20,
                "{} of {size} bytes",
                live.len()
            );
            for block in live {
                // SAFETY: It is live, and not used any more.
                unsafe { heap.free(block) };
            }
        }
    }
    is_empty(&heap);
}

fn memory_kept_for_small_blocks_serves_large_ones() {
    let heap = heap();
    heap.set_limit(4 * MIB).unwrap();
    let small: Vec<Filled> = (0..50_000).map(|_| Filled::new(&heap, 64, 1)).collect();
    for filled in small {
        filled.free(&heap);
    }
    assert!(heap.stat().unwrap().live_bytes > 0, "slabs are kept");
    let large = Filled::new(&heap, 4 << 20, 2);
    refused(heap.alloc(layout(64, 1)), Errno::EDQUOT);
    large.free(&heap);
    Filled::new(&heap, 64, 3).free(&heap);
    is_empty(&heap);
}

fn many_heaps_are_used_by_one_thread() {
    // More than a thread has caches for.
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

/// Bytes of this process's mappings, arenas too.
fn mapped() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap() * KIB
}

fn a_closed_heap_leaves_nothing_mapped() {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let used = || {
        let heap = heap();
        use_all_sizes(&heap, 10);
        heap
    };
    drop(used());
    let before = (mapped(), descriptors());
    for _ in 0..scaled(50) {
        drop(used());
    }
    // The last one's cache goes when there is another, or the thread ends.
    let after = (mapped(), descriptors());
    assert!(
        after.0 <= before.0 + 64 * KIB && after.1 == before.1,
        "{before:?} {after:?}"
    );
    // A thread outlives a heap that it used.
    let heap = used();
    let (send, receive) = mpsc::channel::<()>();
    let (done, wait) = mpsc::channel();
    let thread = {
        let heap = heap.clone();
        thread::spawn(move || {
            use_all_sizes(&heap, 10);
            drop(heap);
            done.send(()).unwrap();
            receive.recv().unwrap();
            use_all_sizes(&used(), 10);
        })
    };
    wait.recv().unwrap();
    drop(heap);
    assert_eq!(descriptors(), before.1);
    send.send(()).unwrap();
    thread.join().unwrap();
}

fn a_forked_child_gets_nothing_and_takes_nothing() {
    let heap = heap();
    let filled: Vec<Filled> = (0..100)
        .map(|index| Filled::new(&heap, 64, index))
        .collect();
    let large = Filled::new(&heap, MIB as usize, 1);
    Filled::new(&heap, 64, 0).free(&heap);
    let before = heap.stat().unwrap();
    let status = fork_child(|| {
        for size in [64, 300_000] {
            let got = heap.alloc(layout(size, 1));
            assert!(matches!(got, Err(Error::Forked)));
        }
        for block in [filled[3].block, large.block] {
            assert_eq!(heap.usable_size(block), None);
            // SAFETY: It is live, and the child uses it no more.
            unsafe { heap.free(block) };
            // SAFETY: It is live.
            let got = unsafe { heap.realloc(block, 10, 1) };
            assert!(matches!(got, Err(Error::Forked)));
        }
        assert!(matches!(heap.trim(0), Err(Error::Forked)));
        // The bounds are the parent's too.
        assert!(matches!(heap.set_limit(MIB), Err(Error::Forked)));
        assert!(matches!(
            heap.set_slack_permille(Some(1)),
            Err(Error::Forked)
        ));
        // What is in the parent's blocks can be read.
        // SAFETY: The parent waits, and no thread writes.
        assert_eq!(unsafe { filled[7].block.read() }, 7);
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    let after = heap.stat().unwrap();
    assert_eq!((after.allocs, after.frees), (before.allocs, before.frees));
    for filled in filled {
        filled.free(&heap);
    }
    large.free(&heap);
    is_empty(&heap);
}

fn a_free_of_no_block_ends_the_program() {
    type Wrong = (
        &'static str,
        fn(NonNull<u8>, NonNull<u8>) -> [NonNull<u8>; 2],
    );
    let wrong: [Wrong; 9] = [
        ("inside of a small block", |small, large| {
            [small.map_addr(|at| at | 16), large]
        }),
        ("not at a multiple of 16", |small, large| {
            [small.map_addr(|at| at | 1), large]
        }),
        ("inside of a large block", |small, large| {
            [small, large.map_addr(|at| at | 16)]
        }),
        ("in a large block's middle", |small, large| {
            [small, large.map_addr(|at| at.saturating_add(64 << 10))]
        }),
        ("where nothing is", |small, large| {
            [small, large.map_addr(|at| at.saturating_add(1 << 30))]
        }),
        ("below the heap", |small, _| [small, NonNull::dangling()]),
        ("of another allocator", |small, _| {
            [small, NonNull::from(Box::leak(Box::new(0))).cast()]
        }),
        ("of a large block twice", |_, large| [large, large]),
        ("of a small block twice", |small, _| [small, small]),
    ];
    for (name, blocks) in wrong {
        let signal = signal_of(|| {
            let heap = heap();
            let [small, large] = [100, 300_000].map(|size| heap.alloc(layout(size, 1)).unwrap());
            assert_eq!(large.addr().get() % (64 << 10), 0);
            for block in blocks(small, large) {
                // SAFETY: One is none, which is seen: this process ends.
                unsafe { heap.free(block) };
            }
            // At the latest when the cache is emptied.
            let _ = heap.trim(0);
        });
        assert_eq!(signal, Some(Signal::SIGABRT), "{name}");
    }
}

/// A block that is freed twice in a row is not handed out twice.
fn the_block_that_was_freed_last_is_not_freed_again() {
    for size in [16, 100, 4096, 32 << 10] {
        let signal = signal_of(|| {
            let heap = heap();
            let block = heap.alloc(layout(size, 1)).unwrap();
            // SAFETY: The second is seen: this process ends.
            unsafe {
                heap.free(block);
                heap.free(block);
            }
        });
        assert_eq!(signal, Some(Signal::SIGABRT), "{size} bytes");
    }
}

/// Where that is looked for, not even when others were freed and allocated in between.
fn a_checked_heap_sees_every_double_free() {
    for between in [0, 1, 2, 100, 1000] {
        let signal = signal_of(|| {
            env::set_var("FREELIST_CHECK", "1");
            let heap = heap();
            let block = heap.alloc(layout(64, 1)).unwrap();
            // SAFETY: The last is seen: this process ends.
            unsafe {
                heap.free(block);
                for _ in 0..between {
                    let other = heap.alloc(layout(64, 1)).unwrap();
                    assert_ne!(other, block, "it is handed out again");
                    heap.free(other);
                }
                heap.free(block);
            }
        });
        assert_eq!(signal, Some(Signal::SIGABRT), "{between} in between");
    }
    // It is a heap like any other.
    let status = fork_child(|| {
        env::set_var("FREELIST_CHECK", "1");
        let heap = heap();
        let mut blocks: Vec<_> = (0..5000)
            .map(|number| heap.alloc(layout(1 + number % 3000, 1)).unwrap())
            .collect();
        blocks.sort();
        blocks.dedup();
        assert_eq!(blocks.len(), 5000);
        for block in blocks {
            // SAFETY: It is live, and no other code has its address any more.
            unsafe { heap.free(block) };
        }
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
}

/// A thread has a cache for some; the next takes the place of another.
fn a_thread_uses_many_heaps_and_each_gets_its_memory_back() {
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

/// A daemon closes whatever is open.
fn a_heap_whose_file_was_closed_ends_nothing() {
    for number in [None, Some("/dev/null")] {
        let status = fork_child(|| {
            let heap = heap();
            let small: Vec<Filled> = (0..3000).map(|_| Filled::new(&heap, 100, 1)).collect();
            let large = Filled::new(&heap, 1 << 20, 2);
            // SAFETY: None of these is used any more.
            let closed = unsafe { libc::close_range(3, u32::MAX, 0) };
            assert_eq!(closed, 0);
            // It may have another file's number by now.
            let _other = number.map(|path| fs::File::open(path).unwrap());
            for filled in small.into_iter().chain([large]) {
                filled.free(&heap);
            }
            let error = heap.alloc(layout(1 << 20, 1)).unwrap_err();
            let expected = if number.is_some() {
                Errno::ENOTTY
            } else {
                Errno::EBADF
            };
            assert_eq!(error.errno(), Some(expected));
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }
}

/// Works with a heap as a program does.
fn use_heap() {
    let heap = heap();
    let small: Vec<Filled> = (0..3000).map(|_| Filled::new(&heap, 100, 1)).collect();
    let large = Filled::new(&heap, 1 << 20, 2);
    for filled in small.into_iter().chain([large]) {
        filled.free(&heap);
    }
    is_empty(&heap);
}

/// With fewer addresses, where a process may have no more.
///
/// Peer: reports hardened_malloc#235.
fn a_heap_opens_where_addresses_or_promises_are_bounded() {
    let succeeds = |work: fn()| {
        let status = fork_child(work);
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    };
    succeeds(|| {
        let bytes = 8 << 30;
        setrlimit(Resource::RLIMIT_AS, bytes, bytes).unwrap();
        use_heap();
    });
    succeeds(|| {
        setrlimit(Resource::RLIMIT_MEMLOCK, 64 * MIB, 64 * MIB).unwrap();
        drop_cap_ipc_lock();
        mlockall(MlockAllFlags::MCL_FUTURE).unwrap();
        use_heap();
    });
    // The system promises no more than it has; heaps that are open take next to nothing of that.
    let policy = "/proc/sys/vm/overcommit_memory";
    let before = fs::read_to_string(policy).unwrap();
    fs::write(policy, "2").unwrap();
    let promised = || meminfo("Committed_AS");
    let ends = fork_child(|| {
        let start = promised();
        let heaps: Vec<Heap> = (0..8).map(|_| heap()).collect();
        let more = promised() - start;
        assert!(more < 8 * MIB, "{more} bytes for {} heaps", heaps.len());
        use_heap();
    });
    fs::write(policy, before).unwrap();
    assert!(matches!(ends, WaitStatus::Exited(_, 0)), "{ends:?}");
}

/// Returns the program whose allocator is [`freelist::Global`]; it lies beside this one.
fn program() -> Command {
    let this = env::current_exe().expect("/proc is mounted");
    Command::new(this.with_file_name("freelist-global"))
}

fn a_whole_program_has_its_large_blocks_in_an_arena() {
    let output = program()
        .output()
        .expect("freelist-global lies beside this program");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {complained}", output.status);
    assert!(said.contains("bytes were in an arena"), "{said}");
    assert_eq!(complained, "");
}

fn a_program_without_a_device_goes_on_and_says_why() {
    let mut command = program();
    // One that may not open the device.
    let command = command.arg("without").uid(65534).gid(65534);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let line = "freelist: no permission to open the device: the C library serves large blocks\n";
    assert_eq!(said, line, "it is said once");
    let output = command.env("FREELIST_QUIET", "1").output();
    assert_eq!(output.expect("it runs").stderr, b"");
}
