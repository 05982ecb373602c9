// SPDX-License-Identifier: GPL-2.0

//! The client's heap where memory, addresses or promises are bounded.

#![expect(unsafe_code, reason = "blocks are freed by their addresses")]

use std::fs;

use freelist::Heap;
use nix::errno::Errno;
use nix::sys::mman::{mlockall, MlockAllFlags};
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::filled::{heap, is_empty, layout, Filled};
use crate::kit::process::{drop_cap_ipc_lock, fork_child};
use crate::kit::{meminfo, refused, MIB};

suite!("freelist_heap_bounds":
    a_heap_at_its_limit_refuses_and_goes_on,
    memory_kept_for_small_blocks_serves_large_ones,
    a_heap_opens_where_addresses_or_promises_are_bounded,
);

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

/// A heap has less address space if a process may have no more.
///
/// Prior art: reports hardened_malloc#235.
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
    // Under strict overcommit; open heaps commit almost no memory.
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
