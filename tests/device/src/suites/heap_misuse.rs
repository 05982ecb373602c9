// SPDX-License-Identifier: GPL-2.0

//! Blocks that are freed twice, or were never allocated: the client's heap ends the program.

#![expect(unsafe_code, reason = "blocks are freed by their addresses")]

use std::env;
use std::ptr::NonNull;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::filled::{heap, layout};
use crate::kit::process::{fork_child, signal_of};

suite!("freelist_heap_misuse":
    a_free_of_no_block_ends_the_program,
    the_block_that_was_freed_last_is_not_freed_again,
    a_checked_heap_sees_every_double_free,
);

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
        ("without a block", |small, large| {
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
                // SAFETY: One of them is not live, which the heap detects: this process ends.
                unsafe { heap.free(block) };
            }
            // At the latest when the cache is emptied.
            let _ = heap.trim(0);
        });
        assert_eq!(signal, Some(Signal::SIGABRT), "{name}");
    }
}

/// A block that is freed twice in a row is not allocated twice.
fn the_block_that_was_freed_last_is_not_freed_again() {
    for size in [16, 100, 4096, 32 << 10] {
        let signal = signal_of(|| {
            let heap = heap();
            let block = heap.alloc(layout(size, 1)).unwrap();
            // SAFETY: The heap detects the second free: this process ends.
            unsafe {
                heap.free(block);
                heap.free(block);
            }
        });
        assert_eq!(signal, Some(Signal::SIGABRT), "{size} bytes");
    }
}

/// With FREELIST_CHECK=1 a double free is found even if other blocks were freed and allocated in between.
fn a_checked_heap_sees_every_double_free() {
    for between in [0, 1, 2, 100, 1000] {
        let signal = signal_of(|| {
            env::set_var("FREELIST_CHECK", "1");
            let heap = heap();
            let block = heap.alloc(layout(64, 1)).unwrap();
            // SAFETY: The heap detects the last free: this process ends.
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
    // In all else it is an ordinary heap.
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
