// SPDX-License-Identifier: GPL-2.0

//! Many blocks of one size in one call: their number, their offsets, and refusals.

use std::collections::BTreeSet;

use freelist::uapi::{freelist_bulk, FREELIST_WAIT};
use freelist::Flags;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::harness::suite;
use crate::kit::batch::{load, nothing_is_live, release, request};
use crate::kit::{
    alloc, arena, page, random, raw, refused, scaled, stat, thread, View, DEFAULT, KIB, LARGER, MIB,
};

suite!("freelist_bulk":
    blocks_of_a_batch_do_not_overlap,
    blocks_of_a_batch_are_like_those_of_single_calls,
    elements_after_those_done_are_untouched,
    a_batch_of_none_is_einval,
    bad_fields_are_einval,
    batches_of_a_read_only_arena_are_ebadf,
    fewer_than_all_is_a_success,
    an_errno_only_when_nothing_was_done,
    a_release_stops_at_the_first_that_is_refused,
    a_block_that_is_in_a_batch_twice_is_freed_once,
    blocks_of_many_sizes_and_calls_are_released_in_one,
    threads_never_share_a_block_of_a_batch,
);

/// Prior art: kfence test_memcache_alloc_bulk.
fn blocks_of_a_batch_do_not_overlap() {
    let arena = arena();
    // Below, at and above the number of blocks in one hold of the lock.
    for (size, count) in [
        (32, 1000),
        (64, 1),
        (700, 64),
        (page(), 65),
        (5 * page(), 63),
    ] {
        let mut offsets = vec![0; count];
        let done = arena.alloc_bulk(size, DEFAULT, &mut offsets).unwrap();
        assert_eq!(done, count);
        let different: BTreeSet<u64> = offsets.iter().copied().collect();
        assert_eq!(different.len(), count, "of {size} bytes");
        let before = stat(&arena);
        assert_eq!(before.live_blocks, count as u64);
        // None overlaps another, and each can be released by itself.
        let mut end = 0;
        for offset in &different {
            assert!(*offset >= end, "{offset:#x} of {size} bytes");
            end = offset + size;
        }
        for offset in offsets.iter().step_by(3) {
            arena.free(*offset).unwrap();
        }
        for rest in [1, 2] {
            let rest: Vec<u64> = offsets.iter().skip(rest).step_by(3).copied().collect();
            if !rest.is_empty() {
                assert_eq!(arena.free_bulk(&rest).unwrap(), rest.len());
            }
        }
        let after = stat(&arena);
        assert_eq!((after.live_blocks, after.live_bytes), (0, 0));
        assert_eq!(after.frees - before.frees, count as u64);
    }
}

fn blocks_of_a_batch_are_like_those_of_single_calls() {
    let (batch, single) = (arena(), arena());
    for size in [32, 100, page(), 3 * page() - 1, 64 * KIB] {
        let mut offsets = [0; 20];
        batch.alloc_bulk(size, DEFAULT, &mut offsets).unwrap();
        for _ in &offsets {
            alloc(&single, size);
        }
        let (batch, single) = (stat(&batch), stat(&single));
        let counts = |stat: freelist::Stat| {
            (
                stat.live_blocks,
                stat.live_bytes,
                stat.requested_bytes,
                stat.allocs,
            )
        };
        assert_eq!(counts(batch), counts(single), "of {size} bytes");
    }
}

fn elements_after_those_done_are_untouched() {
    let arena = arena();
    arena.set_limit(16 * page()).unwrap();
    let array = View::anonymous(8 * 200);
    array.set_bytes(0, &[0xee; 8 * 200]);
    let answer = raw::alloc_bulk(&arena, request(page(), &array, 0, 100)).unwrap();
    assert_eq!(answer.done, 16);
    assert_eq!((answer.count, answer.size), (100, page()));
    assert!(load(&array, 0, 16).iter().all(|at| *at < MIB));
    assert!(array.bytes(8 * 100, 8 * 100).iter().all(|b| *b == 0xee));
}

fn a_batch_of_none_is_einval() {
    let arena = arena();
    let array = View::anonymous(8);
    let result = raw::alloc_bulk(&arena, request(64, &array, 0, 0));
    assert_eq!(result.err(), Some(Errno::EINVAL));
    let result = raw::free_bulk(&arena, release(&array, 0, 0));
    assert_eq!(result.err(), Some(Errno::EINVAL));
    refused(arena.free_bulk(&[]), Errno::EINVAL);
    nothing_is_live(&arena);
}

/// Prior art: dmabuf_heaps invalid_heap_flags.
fn bad_fields_are_einval() {
    let arena = arena();
    let array = View::anonymous(8 * 4);
    let good = request(64, &array, 0, 4);
    for bad in [
        freelist_bulk { size: 0, ..good },
        freelist_bulk {
            align_shift: 31,
            ..good
        },
        freelist_bulk {
            flags: 1 << 31,
            ..good
        },
        freelist_bulk {
            timeout_ns: 1,
            ..good
        },
    ] {
        let result = raw::alloc_bulk(&arena, bad);
        assert_eq!(result.err(), Some(Errno::EINVAL), "{bad:?}");
    }
    let big = freelist_bulk {
        size: u64::MAX,
        ..good
    };
    let result = raw::alloc_bulk(&arena, big);
    assert_eq!(result.err(), Some(Errno::E2BIG));
    nothing_is_live(&arena);

    raw::alloc_bulk(&arena, good).unwrap();
    let good = release(&array, 0, 4);
    for bad in [
        freelist_bulk { size: 64, ..good },
        freelist_bulk {
            align_shift: 1,
            ..good
        },
        freelist_bulk {
            flags: DEFAULT.bits(),
            ..good
        },
        freelist_bulk {
            flags: FREELIST_WAIT,
            timeout_ns: 1,
            ..good
        },
        freelist_bulk {
            timeout_ns: -1,
            ..good
        },
    ] {
        let result = raw::free_bulk(&arena, bad);
        assert_eq!(result.err(), Some(Errno::EINVAL), "{bad:?}");
    }
    assert_eq!(stat(&arena).live_blocks, 4);
    // `done` is an answer only.
    let good = freelist_bulk { done: 77, ..good };
    assert_eq!(raw::free_bulk(&arena, good).unwrap().done, 4);
}

fn batches_of_a_read_only_arena_are_ebadf() {
    let fd = raw::open_as(OFlag::O_RDONLY);
    let array = View::anonymous(8);
    let result = raw::alloc_bulk(&fd, request(64, &array, 0, 1));
    assert_eq!(result.err(), Some(Errno::EBADF));
    let result = raw::free_bulk(&fd, release(&array, 0, 1));
    assert_eq!(result.err(), Some(Errno::EBADF));
}

fn fewer_than_all_is_a_success() {
    let arena = arena();
    arena.set_limit(100 * page()).unwrap();
    let mut offsets = [0; 150];
    assert_eq!(
        arena.alloc_bulk(page(), DEFAULT, &mut offsets).unwrap(),
        100
    );
    assert_eq!(stat(&arena).failures, 0);
    // A call for the rest fails with the reason.
    let rest = arena.alloc_bulk(page(), DEFAULT, &mut offsets[100..]);
    refused(rest, Errno::EDQUOT);
    let rest = arena.alloc_bulk(page(), LARGER, &mut offsets[100..]);
    refused(rest, Errno::ENOMEM);
    let stat = stat(&arena);
    assert_eq!((stat.live_blocks, stat.failures), (100, 2));
}

fn an_errno_only_when_nothing_was_done() {
    let arena = arena();
    let refusal = arena.alloc_bulk(64, Flags::empty(), &mut [0; 10]);
    refused(refusal, Errno::ENOMEM);
    refused(arena.free_bulk(&[0]), Errno::ENOENT);
    refused(arena.free_bulk(&[3, 0]), Errno::EINVAL);
    nothing_is_live(&arena);
}

fn a_release_stops_at_the_first_that_is_refused() {
    let arena = arena();
    for (bad, errno) in [
        (16, Errno::EINVAL),
        (32 * MIB, Errno::ENOENT),
        (u64::MAX, Errno::EINVAL),
    ] {
        let mut offsets = vec![0; 200];
        arena.alloc_bulk(64, DEFAULT, &mut offsets).unwrap();
        // In the first batch and in a later one.
        for place in [3, 100] {
            let mut list = offsets.clone();
            list.insert(place, if bad == 16 { list[place] + 16 } else { bad });
            let done = arena.free_bulk(&list).unwrap();
            assert_eq!(done, place, "stopped by {bad:#x}");
            refused(arena.free_bulk(&list[done..]), errno);
            assert_eq!(stat(&arena).live_blocks, (offsets.len() - place) as u64);
            offsets.drain(..place);
        }
        arena.free_bulk(&offsets).unwrap();
        nothing_is_live(&arena);
    }
}

fn a_block_that_is_in_a_batch_twice_is_freed_once() {
    let arena = arena();
    let keep = alloc(&arena, 64);
    let blocks = [alloc(&arena, 64).offset, alloc(&arena, 64).offset];
    let list = [blocks[0], blocks[1], blocks[0]];
    assert_eq!(arena.free_bulk(&list).unwrap(), 2);
    refused(arena.free_bulk(&list), Errno::ENOENT);
    arena.free(keep.offset).unwrap();
    assert_eq!(stat(&arena).frees, 3);
}

/// Prior art: kasan kmem_cache_bulk; kfence test_free_bulk.
fn blocks_of_many_sizes_and_calls_are_released_in_one() {
    let mut rng = random();
    let arena = arena();
    let view = View::shared(&arena, 0, 4 * MIB as usize);
    for _ in 0..scaled(5) {
        let mut blocks = Vec::new();
        for size in [rng.u64(8..=307), 200, page(), 3 * page()] {
            let mut offsets = [0; 10];
            assert_eq!(arena.alloc_bulk(size, DEFAULT, &mut offsets).unwrap(), 10);
            let single = alloc(&arena, size);
            blocks.extend(offsets.map(|offset| (offset, single.bytes)));
            blocks.push((single.offset, single.bytes));
        }
        rng.shuffle(&mut blocks);
        let ends = |(offset, bytes): (u64, u64)| [offset as usize, (offset + bytes) as usize - 1];
        for (i, block) in blocks.iter().enumerate() {
            ends(*block).map(|at| view.store(at, i as u8));
        }
        for (i, block) in blocks.iter().enumerate() {
            assert_eq!(ends(*block).map(|at| view.load(at)), [i as u8; 2]);
        }
        let offsets: Vec<u64> = blocks.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(arena.free_bulk(&offsets).unwrap(), offsets.len());
        nothing_is_live(&arena);
        for offset in offsets {
            refused(arena.free(offset), Errno::ENOENT);
        }
    }
}

fn threads_never_share_a_block_of_a_batch() {
    let seed = random().u64(..);
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let (arena, memory) = (&arena, &memory);
    thread::scope(|scope| {
        for i in 0..4 {
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed ^ i);
                for _ in 0..scaled(10) {
                    let mut offsets = vec![0; rng.usize(1..200)];
                    let size = [32, 256, page()][rng.usize(0..3)];
                    let done = arena.alloc_bulk(size, DEFAULT, &mut offsets).unwrap();
                    assert_eq!(done, offsets.len());
                    for (n, offset) in offsets.iter().enumerate() {
                        memory
                            .set_byte(offset + size - 1, n as u8 ^ i as u8)
                            .unwrap();
                    }
                    for (n, offset) in offsets.iter().enumerate() {
                        let byte = memory.byte(offset + size - 1).unwrap();
                        assert_eq!(byte, n as u8 ^ i as u8);
                    }
                    rng.shuffle(&mut offsets);
                    assert_eq!(arena.free_bulk(&offsets).unwrap(), offsets.len());
                }
            });
        }
    });
    nothing_is_live(arena);
}
