// SPDX-License-Identifier: GPL-2.0

//! The client's heap after its last handle, in a forked child, and without its file.

#![expect(unsafe_code, reason = "blocks are freed by their addresses")]

use std::fs;
use std::sync::mpsc;
use std::thread;

use freelist::Error;
use nix::errno::Errno;
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::filled::{heap, is_empty, layout, use_all_sizes, Filled};
use crate::kit::process::fork_child;
use crate::kit::{scaled, KIB, MIB};

suite!("freelist_heap_lifetime":
    a_closed_heap_leaves_nothing_mapped,
    requests_and_frees_of_a_forked_child_change_nothing,
    a_heap_whose_file_was_closed_does_not_end_the_process,
);

/// Returns the bytes of this process's mappings, with those of arenas.
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
    // A thread drops its cache of a closed heap when it uses another heap, or ends.
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

fn requests_and_frees_of_a_forked_child_change_nothing() {
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
            // SAFETY: It is live, and the child does not use it afterwards.
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
        // The content of the parent's blocks can be read.
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

/// As in a daemon, which closes all files that it has open.
fn a_heap_whose_file_was_closed_does_not_end_the_process() {
    for number in [None, Some("/dev/null")] {
        let status = fork_child(|| {
            let heap = heap();
            let small: Vec<Filled> = (0..3000).map(|_| Filled::new(&heap, 100, 1)).collect();
            let large = Filled::new(&heap, 1 << 20, 2);
            // SAFETY: None of these is used any more.
            let closed = unsafe { libc::close_range(3, u32::MAX, 0) };
            assert_eq!(closed, 0);
            // With another file at its number.
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
