// SPDX-License-Identifier: GPL-2.0

//! Many blocks of one size in one call.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use freelist::uapi::{
    freelist_bulk, FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE_BULK, FREELIST_WAIT,
};
use freelist::{Arena, Flags, Timeout};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::process::spawn_child;
use crate::kit::view::{ioctl_at, Address, Plain};
use crate::kit::{
    alloc, arena, page, random, raw, refused, scaled, stat, system_page, thread, View, DEFAULT,
    KIB, LARGER, MIB,
};

suite!("freelist_bulk":
    every_block_is_one_of_its_own,
    blocks_of_a_batch_are_like_those_of_single_calls,
    elements_behind_those_done_are_untouched,
    a_batch_of_none_is_einval,
    bad_fields_are_einval,
    batches_of_a_read_only_arena_are_ebadf,
    fewer_than_all_is_a_success,
    an_errno_only_when_nothing_was_done,
    a_release_stops_at_the_first_that_is_refused,
    a_block_twice_in_a_batch_is_released_once,
    blocks_of_many_sizes_and_calls_are_released_in_one,
    an_offset_that_cannot_be_stored_undoes_its_element,
    blocks_at_hand_whose_offsets_cannot_be_stored_are_free_again,
    an_offset_that_cannot_be_read_ends_the_release,
    an_array_that_is_nowhere_is_efault,
    an_answer_that_cannot_be_written_loses_nothing,
    an_array_in_a_block_of_the_arena_itself_is_served,
    a_count_beyond_the_array_is_harmless,
    a_batch_that_is_killed_stops,
    arrays_and_requests_that_change_under_the_call_lose_nothing,
    threads_never_share_a_block_of_a_batch,
    what_there_is_is_given_out_before_a_batch_waits,
    a_timeout_is_for_the_whole_batch,
    a_batch_that_may_not_wait_gives_what_there_is,
);

/// A request for as many blocks as `array` has room for, from its byte `at` on.
fn request(size: u64, array: &View, at: usize, count: u32) -> freelist_bulk {
    freelist_bulk {
        size,
        offsets: array.address(at).get() as u64,
        count,
        flags: DEFAULT.bits(),
        ..Default::default()
    }
}

/// A release of the `count` blocks that the array has from its byte `at` on.
fn release(array: &View, at: usize, count: u32) -> freelist_bulk {
    freelist_bulk {
        size: 0,
        flags: 0,
        ..request(0, array, at, count)
    }
}

fn load(array: &View, at: usize, count: usize) -> Vec<u64> {
    let bytes = array.bytes(at, 8 * count);
    let numbers = bytes.chunks_exact(8);
    numbers
        .map(|number| u64::from_le_bytes(number.try_into().unwrap()))
        .collect()
}

fn store(array: &View, at: usize, offsets: &[u64]) {
    for (i, offset) in offsets.iter().enumerate() {
        array.set_bytes(at + 8 * i, &offset.to_le_bytes());
    }
}

/// All that a batch can be refused with, where nothing may have been done.
#[track_caller]
fn nothing_is_live(arena: &Arena) {
    let stat = stat(arena);
    assert_eq!((stat.live_blocks, stat.live_bytes), (0, 0));
}

/// Peer: kfence test_memcache_alloc_bulk.
fn every_block_is_one_of_its_own() {
    let arena = arena();
    // Below, at and beyond what is done in one hold of the lock.
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

fn elements_behind_those_done_are_untouched() {
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

/// Peer: dmabuf_heaps invalid_heap_flags.
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
    // Asking for the rest tells why.
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
        // In the first and in a later batch.
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

fn a_block_twice_in_a_batch_is_released_once() {
    let arena = arena();
    let keep = alloc(&arena, 64);
    let blocks = [alloc(&arena, 64).offset, alloc(&arena, 64).offset];
    let list = [blocks[0], blocks[1], blocks[0]];
    assert_eq!(arena.free_bulk(&list).unwrap(), 2);
    refused(arena.free_bulk(&list), Errno::ENOENT);
    arena.free(keep.offset).unwrap();
    assert_eq!(stat(&arena).frees, 3);
}

/// Peer: kasan kmem_cache_bulk; kfence test_free_bulk.
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

/// Peer: vulnerabilities state_changed_then_EFAULT.
fn an_offset_that_cannot_be_stored_undoes_its_element() {
    let page = system_page();
    let array = View::anonymous(2 * page);
    array.protect(page..2 * page, ProtFlags::PROT_READ).unwrap();
    for there in [1, 5, 63, 64, 65, 130] {
        let arena = arena();
        let at = page - 8 * there;
        let answer = raw::alloc_bulk(&arena, request(96, &array, at, 200)).unwrap();
        assert_eq!(answer.done as usize, there);
        assert_eq!(stat(&arena).live_blocks as usize, there);
        let offsets = load(&array, at, there);
        assert_eq!(arena.free_bulk(&offsets).unwrap(), there);
        nothing_is_live(&arena);
    }
    // One that is only half there.
    let arena = arena();
    let answer = raw::alloc_bulk(&arena, request(96, &array, page - 20, 10)).unwrap();
    assert_eq!(answer.done, 2);
    assert_eq!(stat(&arena).live_blocks, 2);
}

/// Those that were freed a moment ago are given out together.
///
/// Peer: vulnerabilities state_changed_then_EFAULT.
fn blocks_at_hand_whose_offsets_cannot_be_stored_are_free_again() {
    const COUNT: usize = 64;
    let page = system_page();
    let array = View::anonymous(2 * page);
    array.protect(page..2 * page, ProtFlags::PROT_READ).unwrap();
    for (flags, there) in [DEFAULT, DEFAULT | Flags::POPULATE]
        .into_iter()
        .flat_map(|flags| [0, 1, 5, 63, 64].map(|there| (flags, there)))
    {
        let arena = arena();
        let view = View::shared(&arena, 0, MIB as usize);
        let mut offsets = [0; COUNT];
        arena.alloc_bulk(96, DEFAULT, &mut offsets).unwrap();
        arena.free_bulk(&offsets).unwrap();
        let held = stat(&arena).held_bytes;
        let at = page - 8 * there;
        let asked = freelist_bulk {
            flags: flags.bits(),
            ..request(96, &array, at, COUNT as u32)
        };
        let answer = raw::alloc_bulk(&arena, asked);
        match there {
            0 => assert_eq!(answer.err(), Some(Errno::EFAULT)),
            _ => assert_eq!(answer.unwrap().done as usize, there),
        }
        let got = load(&array, at, there);
        assert!(got.iter().all(|offset| offsets.contains(offset)));
        for offset in &got {
            view.store(*offset as usize, 1);
        }
        // What was undone can be had, and nothing else is there.
        let mut rest = vec![0; COUNT - there];
        if !rest.is_empty() {
            let done = arena.alloc_bulk(96, LARGER, &mut rest).unwrap();
            assert_eq!(done, rest.len());
        }
        let all: BTreeSet<u64> = got.into_iter().chain(rest).collect();
        assert_eq!(all.len(), COUNT, "each is given out once");
        let stat = stat(&arena);
        assert_eq!((stat.live_blocks, stat.held_bytes), (COUNT as u64, held));
    }
}

fn an_offset_that_cannot_be_read_ends_the_release() {
    let page = system_page();
    let array = View::anonymous(2 * page);
    for there in [1, 64, 65] {
        let arena = arena();
        let at = page - 8 * there;
        let asked = request(64, &array, at, 100);
        assert_eq!(raw::alloc_bulk(&arena, asked).unwrap().done, 100);
        array.protect(page..2 * page, ProtFlags::PROT_NONE).unwrap();
        let answer = raw::free_bulk(&arena, release(&array, at, 100)).unwrap();
        assert_eq!(answer.done as usize, there);
        assert_eq!(stat(&arena).live_blocks as usize, 100 - there);
        let none = raw::free_bulk(&arena, release(&array, page, 10));
        assert_eq!(none.err(), Some(Errno::EFAULT));
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        array.protect(page..2 * page, both).unwrap();
    }
}

fn an_array_that_is_nowhere_is_efault() {
    let arena = arena();
    let array = View::anonymous(8);
    for at in [
        Address::NULL,
        Address::KERNEL,
        Address::LAST,
        array.address(array.len()),
    ] {
        let asked = freelist_bulk {
            offsets: at.get() as u64,
            ..request(64, &array, 0, 100)
        };
        assert_eq!(raw::alloc_bulk(&arena, asked).err(), Some(Errno::EFAULT));
        let asked = freelist_bulk {
            offsets: at.get() as u64,
            ..release(&array, 0, 100)
        };
        assert_eq!(raw::free_bulk(&arena, asked).err(), Some(Errno::EFAULT));
    }
    nothing_is_live(&arena);
}

/// Peer: vulnerabilities state_changed_then_EFAULT.
fn an_answer_that_cannot_be_written_loses_nothing() {
    let arena = arena();
    let array = View::anonymous(8 * 10);
    let view = View::anonymous(size_of::<freelist_bulk>());
    let read_only = |request: freelist_bulk, call: u32| {
        view.set_bytes(0, &request.to_bytes());
        view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
        let result = ioctl_at(&arena, call, view.address(0));
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        view.protect(0..view.len(), both).unwrap();
        result
    };
    let result = read_only(request(64, &array, 0, 10), FREELIST_IOC_ALLOC_BULK);
    assert_eq!(result, Err(Errno::EFAULT));
    nothing_is_live(&arena);
    raw::alloc_bulk(&arena, request(64, &array, 0, 10)).unwrap();
    let result = read_only(release(&array, 0, 10), FREELIST_IOC_FREE_BULK);
    assert_eq!(result, Err(Errno::EFAULT));
    assert_eq!(stat(&arena).live_blocks, 10, "none was released unseen");
}

/// The copies fault in a page of the arena that the call is about to change.
fn an_array_in_a_block_of_the_arena_itself_is_served() {
    let arena = arena();
    let home = alloc(&arena, 2 * page());
    let view = View::shared(&arena, home.offset, home.bytes as usize);
    // Across two pages, of which the second is not mapped yet.
    let at = page() as usize - 8 * 10;
    let answer = raw::alloc_bulk(&arena, request(64, &view, at, 150)).unwrap();
    assert_eq!(answer.done, 150);
    let mut offsets = load(&view, at, 150);
    offsets.push(home.offset);
    store(&view, at, &offsets);
    let answer = raw::free_bulk(&arena, release(&view, at, 151)).unwrap();
    assert_eq!(answer.done, 151);
    nothing_is_live(&arena);
}

/// Peer: kasan kmalloc_memmove_invalid_size; vulnerabilities size_arithmetic; hardened_malloc
/// calloc_overflow.
fn a_count_beyond_the_array_is_harmless() {
    let arena = arena();
    let array = View::anonymous(8);
    let at = array.len() - 8 * 10;
    let asked = request(64, &array, at, u32::MAX);
    assert_eq!(raw::alloc_bulk(&arena, asked).unwrap().done, 10);
    let asked = release(&array, at, u32::MAX);
    assert_eq!(raw::free_bulk(&arena, asked).unwrap().done, 10);
    nothing_is_live(&arena);
}

fn a_batch_that_is_killed_stops() {
    let shared = arena();
    // More than can be done before it is killed.
    let most = 8 << 20;
    let child = spawn_child(|| {
        let array = View::anonymous(8 * most);
        let _ = raw::alloc_bulk(&shared, request(32, &array, 0, most as u32));
    });
    // What is being made is held, and neither live nor free.
    while shared.stat().unwrap().live_blocks == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let (pid, start) = (child.pid(), Instant::now());
    kill(pid, Signal::SIGKILL).unwrap();
    let status = child.wait();
    let took = start.elapsed();
    assert_eq!(status, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    let stat = stat(&shared);
    eprintln!(
        "{} blocks of {most}, ended after {took:?}",
        stat.live_blocks
    );
    assert!(
        stat.live_blocks < most as u64,
        "it was too fast to be killed"
    );
    assert!(took < Duration::from_secs(3), "ended after {took:?}");
    assert_eq!(stat.live_bytes, 32 * stat.live_blocks);
}

/// Peer: vulnerabilities CVE-2016-6516.
fn arrays_and_requests_that_change_under_the_call_lose_nothing() {
    let arena = arena();
    let fixed = alloc(&arena, 64).offset;
    let array = View::anonymous(8 * 256);
    let view = View::anonymous(size_of::<freelist_bulk>());
    let count_at = std::mem::offset_of!(freelist_bulk, count);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut flip = 0;
            while !stop.load(Ordering::Relaxed) {
                // 1 or 201 elements; an offset that another thread's block has.
                flip ^= 200;
                view.store(count_at, 1 + flip);
                store(&array, 8 * 100, &[fixed + u64::from(flip)]);
            }
        });
        for _ in 0..scaled(100) {
            let before = stat(&arena).live_blocks;
            view.set_bytes(0, &request(64, &array, 0, 1).to_bytes());
            ioctl_at(&arena, FREELIST_IOC_ALLOC_BULK, view.address(0)).unwrap();
            let answer = freelist_bulk::from_bytes(&view.bytes(0, view.len()));
            let live = stat(&arena).live_blocks;
            assert_eq!(live - before, u64::from(answer.done), "{answer:?}");
            // Releases whatever the array says by now.
            view.set_bytes(0, &release(&array, 0, 1).to_bytes());
            match ioctl_at(&arena, FREELIST_IOC_FREE_BULK, view.address(0)) {
                Ok(_) => {
                    let answer = freelist_bulk::from_bytes(&view.bytes(0, view.len()));
                    let left = stat(&arena).live_blocks;
                    assert_eq!(live - left, u64::from(answer.done), "{answer:?}");
                }
                Err(errno) => assert!(matches!(errno, Errno::ENOENT | Errno::EINVAL)),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
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

/// An arena that may hold 10 pages, and as many live blocks but for `free`.
fn full_arena(free: usize) -> (Arena, Vec<u64>) {
    let arena = arena();
    arena.set_limit(10 * page()).unwrap();
    let mut offsets = vec![0; 10];
    assert_eq!(arena.alloc_bulk(page(), DEFAULT, &mut offsets).unwrap(), 10);
    arena.free_bulk(&offsets[10 - free..]).unwrap();
    offsets.truncate(10 - free);
    (arena, offsets)
}

fn what_there_is_is_given_out_before_a_batch_waits() {
    let (arena, held) = full_arena(4);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut offsets = [0; 8];
            let mut timeout = Timeout::from(Duration::from_secs(20));
            let done = arena.alloc_bulk_wait(page(), DEFAULT, &mut timeout, &mut offsets);
            (done.unwrap(), timeout.left().unwrap())
        });
        // Its first four are live while it waits for the others.
        while arena.stat().unwrap().live_blocks < 10 {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished());
        arena.free_bulk(&held[..2]).unwrap();
        while arena.stat().unwrap().live_blocks < 10 {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!waiter.is_finished());
        arena.free_bulk(&held[2..4]).unwrap();
        let (done, left) = waiter.join().unwrap();
        assert_eq!(done, 8);
        assert!(left < Duration::from_secs(20), "{left:?}");
    });
    assert_eq!(stat(&arena).live_blocks, 10);
}

fn a_timeout_is_for_the_whole_batch() {
    let (arena, _held) = full_arena(3);
    let mut offsets = [0; 8];
    let time = Duration::from_millis(200);
    let (mut timeout, start) = (Timeout::from(time), Instant::now());
    let done = arena.alloc_bulk_wait(page(), DEFAULT, &mut timeout, &mut offsets);
    assert_eq!(done.unwrap(), 3);
    assert!(start.elapsed() >= time, "{:?}", start.elapsed());
    // Asking for the rest tells why.
    let mut timeout = Timeout::from(time);
    let rest = arena.alloc_bulk_wait(page(), DEFAULT, &mut timeout, &mut offsets[3..]);
    refused(rest, Errno::ETIMEDOUT);
    assert!(start.elapsed() >= 2 * time, "{:?}", start.elapsed());
    assert_eq!(stat(&arena).timeouts, 2);
    assert_eq!(stat(&arena).live_blocks, 10);
}

fn a_batch_that_may_not_wait_gives_what_there_is() {
    let (arena, _held) = full_arena(3);
    let mut offsets = [0; 8];
    let flags = DEFAULT | Flags::WAIT;
    assert_eq!(arena.alloc_bulk(page(), flags, &mut offsets).unwrap(), 3);
    refused(
        arena.alloc_bulk(page(), flags, &mut offsets[3..]),
        Errno::EAGAIN,
    );
    assert_eq!(stat(&arena).waits, 0);
}
