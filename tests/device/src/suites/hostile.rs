// SPDX-License-Identifier: GPL-2.0

//! Attacks of a hostile program on one call by another at the same time: it removes the call's arguments, delays
//! it while it waits for the program, repeats it, or does all at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use freelist::uapi::{
    freelist_alloc, freelist_bulk, freelist_clone, freelist_discard, freelist_free, freelist_limit,
    freelist_resize, freelist_trim, FREELIST_DEFAULT, FREELIST_IOC_ALLOC, FREELIST_IOC_ALLOC_BULK,
    FREELIST_IOC_CLONE, FREELIST_IOC_DISCARD, FREELIST_IOC_FREE, FREELIST_IOC_FREE_BULK,
    FREELIST_IOC_LIMIT, FREELIST_IOC_RESIZE, FREELIST_IOC_TRIM,
};
use freelist::{Arena, Block, Flags};
use nix::errno::Errno;
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::{raise, Signal};
use nix::sys::wait::WaitStatus;
use nix::unistd::ftruncate;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::delayed::Delayed;
use crate::kit::pages::frames;
use crate::kit::process::spawn_child;
use crate::kit::{
    alloc, arena, check, free, page, scaled, stat, system_page, thread, touch_all, View, DEFAULT,
    MIB,
};

suite!("freelist_hostile":
    a_call_whose_argument_is_delayed_blocks_no_other_call,
    a_call_whose_argument_is_unmapped_changes_nothing,
    a_batch_whose_array_is_delayed_blocks_no_other_call,
    a_call_whose_argument_is_delayed_can_be_killed,
    a_discard_and_a_trim_twice_are_as_one,
    blocks_are_populated_beside_mappings_that_change,
    a_span_is_set_before_all_blocks_or_not_at_all,
);

/// A call that must end, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A live block of an arena, and every call that changes an arena: its number, and its structure for that
/// block. Arrays of offsets are at `array`.
fn calls(block: Block, array: u64) -> [(u32, Vec<u8>); 9] {
    let bulk = freelist_bulk {
        offsets: array,
        count: 4,
        ..Default::default()
    };
    let offset = block.offset;
    [
        (
            FREELIST_IOC_ALLOC,
            freelist_alloc {
                size: 64,
                flags: FREELIST_DEFAULT,
                ..Default::default()
            }
            .to_bytes(),
        ),
        (
            FREELIST_IOC_RESIZE,
            freelist_resize {
                offset,
                size: 2 * page(),
                flags: FREELIST_DEFAULT,
                ..Default::default()
            }
            .to_bytes(),
        ),
        (
            FREELIST_IOC_DISCARD,
            freelist_discard {
                offset,
                bytes: page(),
            }
            .to_bytes(),
        ),
        (FREELIST_IOC_LIMIT, freelist_limit::default().to_bytes()),
        (FREELIST_IOC_TRIM, freelist_trim::default().to_bytes()),
        (FREELIST_IOC_CLONE, freelist_clone::default().to_bytes()),
        (
            FREELIST_IOC_ALLOC_BULK,
            freelist_bulk {
                size: 64,
                flags: FREELIST_DEFAULT,
                ..bulk
            }
            .to_bytes(),
        ),
        (FREELIST_IOC_FREE_BULK, bulk.to_bytes()),
        (FREELIST_IOC_FREE, freelist_free { offset }.to_bytes()),
    ]
}

/// Checks that others can use an arena, and the address space of its process, during a delayed call.
#[track_caller]
fn check_others(arena: &Arena) {
    let start = Instant::now();
    let block = alloc(arena, 3 * page());
    let view = View::shared(arena, block.offset, block.bytes as usize);
    view.store(0, 1);
    arena.resize(block.offset, page(), DEFAULT).unwrap();
    arena.discard(block.offset, page()).unwrap();
    drop(arena.copy().unwrap());
    free(arena, block);
    drop(view);
    arena.trim(0).unwrap();
    arena.stat().unwrap();
    drop(self::arena());
    check();
    assert!(start.elapsed() < PATIENCE);
}

/// A call holds no lock while it waits for its caller's memory: neither of the arena nor of the process.
///
/// Prior art: reports ashmem-740a5759bf22, binder-CVE-2026-23400.
fn a_call_whose_argument_is_delayed_blocks_no_other_call() {
    let array = View::anonymous(64);
    for index in 0..9 {
        let arena = arena();
        let block = alloc(&arena, 4 * page());
        let live: Vec<u8> = (0..4)
            .flat_map(|_| alloc(&arena, 64).offset.to_ne_bytes())
            .collect();
        array.set_bytes(0, &live);
        let (request, bytes) = calls(block, array.address(0).get() as u64)[index].clone();
        let delayed = Delayed::new();
        thread::scope(|scope| {
            let call = scope.spawn(|| ioctl_at(&arena, request, delayed.address(0)));
            delayed.await_touch();
            check_others(&arena);
            delayed.provide(&bytes);
            assert_eq!(call.join().unwrap(), Ok(0), "request {request:#x}");
        });
        check();
    }
}

/// Another thread unmaps the argument while the call waits for it.
///
/// Prior art: reports binder-CVE-2023-20928.
fn a_call_whose_argument_is_unmapped_changes_nothing() {
    for index in 0..9 {
        let arena = arena();
        let block = alloc(&arena, 4 * page());
        let before = stat(&arena);
        let (request, _) = calls(block, 0)[index];
        let mut delayed = Delayed::new();
        let at = delayed.address(0);
        thread::scope(|scope| {
            let call = scope.spawn(|| ioctl_at(&arena, request, at));
            delayed.await_touch();
            delayed.take_away();
            assert_eq!(call.join().unwrap(), Err(Errno::EFAULT), "{request:#x}");
        });
        let failures = before.failures + 1;
        assert_eq!(stat(&arena), freelist::Stat { failures, ..before });
        check();
    }
}

/// The call holds blocks that are neither live nor free while it stores or loads their offsets.
///
/// Prior art: reports ashmem-740a5759bf22.
fn a_batch_whose_array_is_delayed_blocks_no_other_call() {
    const COUNT: u64 = 100;
    let arena = arena();
    let delayed = Delayed::new();
    let argument = View::anonymous(size_of::<freelist_bulk>());
    let request = |size| freelist_bulk {
        size,
        offsets: delayed.address(0).get() as u64,
        count: COUNT as u32,
        flags: if size > 0 { FREELIST_DEFAULT } else { 0 },
        ..Default::default()
    };
    argument.set_bytes(0, &request(1000).to_bytes());
    thread::scope(|scope| {
        let call = scope.spawn(|| ioctl_at(&arena, FREELIST_IOC_ALLOC_BULK, argument.address(0)));
        delayed.await_touch();
        check_others(&arena);
        delayed.provide(&[]);
        assert_eq!(call.join().unwrap(), Ok(0));
    });
    assert_eq!(stat(&arena).live_blocks, COUNT);
    let offsets = delayed.bytes(0..8 * COUNT as usize);
    let again = Delayed::new();
    let release = freelist_bulk {
        offsets: again.address(0).get() as u64,
        ..request(0)
    };
    argument.set_bytes(0, &release.to_bytes());
    thread::scope(|scope| {
        let call = scope.spawn(|| ioctl_at(&arena, FREELIST_IOC_FREE_BULK, argument.address(0)));
        again.await_touch();
        check_others(&arena);
        again.provide(&offsets);
        assert_eq!(call.join().unwrap(), Ok(0));
    });
    assert_eq!(stat(&arena).live_blocks, 0);
    check();
}

/// The process dies in the middle of its call.
///
/// Prior art: reports kgsl-CVE-2021-1905.
fn a_call_whose_argument_is_delayed_can_be_killed() {
    let shared = arena();
    let block = alloc(&shared, 4 * page());
    for index in 0..9 {
        let (request, _) = calls(block, 0)[index];
        let child = spawn_child(|| {
            let delayed = Delayed::new();
            thread::scope(|scope| {
                let at = delayed.address(0);
                let shared = &shared;
                scope.spawn(move || ioctl_at(shared, request, at));
                delayed.await_touch();
                raise(Signal::SIGKILL).unwrap();
            });
        });
        let pid = child.pid();
        let status = child.wait();
        // Without userfaultfd the child skips.
        let killed = WaitStatus::Signaled(pid, Signal::SIGKILL, false);
        assert!(
            matches!(status, WaitStatus::Exited(_, 4)) || status == killed,
            "{status:?}"
        );
        let now = stat(&shared);
        assert_eq!((now.live_blocks, now.live_bytes), (1, 4 * page()));
        check_others(&shared);
    }
}

/// Pages that were trimmed are put on no list a second time.
///
/// Prior art: reports panfrost-9fc33eaaa979.
fn a_discard_and_a_trim_twice_are_as_one() {
    let arena = arena();
    let block = alloc(&arena, 64 * page());
    let gone = alloc(&arena, 64 * page());
    let view = View::shared(&arena, 0, MIB as usize);
    touch_all(&view, block.offset, block.bytes);
    free(&arena, gone);
    let at_once = |work: &(dyn Fn() + Sync)| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(work);
            }
        });
        check();
    };
    for _ in 0..scaled(10) {
        at_once(&|| arena.discard(block.offset, block.bytes).unwrap());
        at_once(&|| {
            arena
                .discard(block.offset + 8 * page(), 9 * page())
                .unwrap()
        });
        at_once(&|| _ = arena.trim(0).unwrap());
        let now = arena.stat().unwrap();
        assert_eq!((now.held_bytes, now.free_bytes), (0, 0));
        touch_all(&view, block.offset, block.bytes);
        free(&arena, alloc(&arena, 64 * page()));
        assert_eq!(arena.stat().unwrap().held_bytes, 128 * page());
    }
}

/// The address of the arena's mapping is only a hint: another mapping may be there now.
///
/// Prior art: reports binder-CVE-2023-20928.
fn blocks_are_populated_beside_mappings_that_change() {
    const LEN: usize = 8 << 20;
    let arena = arena();
    let done = AtomicBool::new(false);
    let other = memfd_create("other", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&other, LEN as i64).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let populate = DEFAULT | Flags::POPULATE;
                let blocks = [3 * page(), MIB, 64].map(|size| arena.alloc(size, populate).unwrap());
                blocks.into_iter().for_each(|block| free(&arena, block));
            }
        });
        for round in 0..scaled(60) {
            let mut view = View::shared(&arena, 0, LEN);
            thread::sleep(Duration::from_millis(1));
            match round % 3 {
                0 => view.cover_with(0..LEN, &other, 0).unwrap(),
                1 => view.move_to_elsewhere(LEN).unwrap(),
                _ => view.protect(0..LEN, ProtFlags::PROT_NONE).unwrap(),
            }
            thread::sleep(Duration::from_millis(1));
            let mapped = frames(&view, 0, LEN / system_page());
            if round % 3 == 0 {
                assert!(mapped.iter().all(Option::is_none), "memory of no arena");
                assert_eq!(view.load(0), 0);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    check();
}

/// Either the span is set first and bounds the block, or the block is first and the span is refused.
///
/// Prior art: reports ashmem-CVE-2017-13216, packet-CVE-2016-8655.
fn a_span_is_set_before_all_blocks_or_not_at_all() {
    let (small, large) = (4 * page(), 16 * page());
    let mut seen = [0; 2];
    for round in 0..scaled(150) {
        let arena = arena();
        let barrier = Barrier::new(3);
        let (span, block, view) = thread::scope(|scope| {
            let span = scope.spawn(|| {
                barrier.wait();
                arena.set_span(small)
            });
            let view = scope.spawn(|| {
                barrier.wait();
                let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
                View::map(&arena, 0, large as usize, both, MapFlags::MAP_SHARED)
            });
            barrier.wait();
            if round % 2 == 0 {
                thread::yield_now();
            }
            let block = arena.alloc(large, DEFAULT);
            (span.join().unwrap(), block, view.join().unwrap())
        });
        assert_ne!(span.is_ok(), block.is_ok(), "{span:?} {block:?}");
        seen[usize::from(span.is_ok())] += 1;
        let bytes = info_of(&arena);
        match &span {
            Ok(_) => assert_eq!(bytes, small),
            Err(error) => assert_eq!(error.errno(), Some(Errno::EINVAL)),
        }
        if let (Ok(_), Ok(view)) = (&span, &view) {
            // It was mapped before, and there is no offset beyond.
            assert_eq!(view.probe(large as usize - 1), Err(Errno::EFAULT));
        }
        check();
    }
    eprintln!(
        "the block was first {} times, the span {} times",
        seen[0], seen[1]
    );
}

fn info_of(arena: &Arena) -> u64 {
    arena.info().expect("INFO").arena_bytes
}
