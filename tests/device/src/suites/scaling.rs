// SPDX-License-Identifier: GPL-2.0

//! Two threads on two CPUs against one, by time.
//!
//! What else runs on the machine can only make two threads slower. So a test measures in attempts, each a
//! median of short slices in turns, and passes with the first one that is good enough.

#![expect(unsafe_code, reason = "a heap's blocks are freed by their addresses")]

use std::alloc::Layout;
use std::path::Path;
use std::sync::Barrier;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use freelist::Heap;
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::{getppid, Pid};

use crate::harness::{skip, suite};
use crate::kit::{alloc, arena, free, thread};
use crate::{figure, trust};

suite!("freelist_scaling":
    two_threads_in_one_arena_do_nearly_twice_the_work_of_one,
    two_threads_in_one_heap_do_nearly_twice_the_work_of_one,
);

/// How long threads work for a slice.
const SLICE: Duration = Duration::from_millis(40);
/// Slices of an attempt, of which the median counts.
const SLICES: usize = 7;
const ATTEMPTS: usize = 12;
/// Operations between two looks at the clock.
const BATCH: u32 = 50;

/// Returns the operations a second of `threads` threads together, each on a CPU of its own. `work` gives
/// each thread what it does all the time.
fn rate<W: FnMut()>(threads: usize, work: impl Fn() -> W + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let one = |cpu: usize| {
        let mut cpus = CpuSet::new();
        cpus.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
        let mut work = work();
        (0..BATCH).for_each(|_| work());
        barrier.wait();
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed() < SLICE {
            (0..BATCH).for_each(|_| work());
            done += BATCH;
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    };
    let one = &one;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|cpu| scope.spawn(move || one(cpu)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

/// Returns the work of two threads over that of one, over the same of system calls that do nothing.
fn scaling<W: FnMut()>(work: impl Fn() -> W + Sync) -> f64 {
    let nothing = || || assert!(getppid().as_raw() >= 0);
    let mut ratios: Vec<_> = (0..SLICES)
        .map(|_| {
            let ours = rate(2, &work) / rate(1, &work);
            ours / (rate(2, nothing) / rate(1, nothing))
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[SLICES / 2]
}

/// Measures until [`scaling`] is at least `least`.
fn expect_scaling<W: FnMut()>(name: &str, least: f64, work: impl Fn() -> W + Sync) {
    if Path::new("/proc/lockdep").exists() {
        skip("a debug kernel's locks cost what they check");
    }
    if available_parallelism().unwrap().get() < 2 {
        skip("needs two CPUs");
    }
    let mut best = 0.0_f64;
    for _ in 0..ATTEMPTS {
        best = best.max(scaling(&work));
        if best >= least {
            break;
        }
    }
    figure!("{name}: two threads do {best:.2} of twice the work of one");
    trust!(name, best, "ratio", format!(">={least}"));
    assert!(best >= least, "{best} of twice the work of one");
}

/// The arena's lock is held twice a pair, and short.
fn two_threads_in_one_arena_do_nearly_twice_the_work_of_one() {
    let arena = &arena();
    expect_scaling("threads_one_arena", 0.9, || {
        move || free(arena, alloc(arena, 64))
    });
}

/// Threads of a heap meet only where a cache is full or empty: 1.6 times the work of one, at least.
fn two_threads_in_one_heap_do_nearly_twice_the_work_of_one() {
    const BLOCKS: usize = 512;
    let heap = &Heap::open().unwrap();
    expect_scaling("threads_one_heap", 0.8, || {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut blocks = vec![None; BLOCKS];
        move || {
            let at = rng.usize(..BLOCKS);
            let layout = Layout::from_size_align(16 << rng.u32(0..7), 16).unwrap();
            if let Some(block) = blocks[at].replace(heap.alloc(layout).unwrap()) {
                // SAFETY: It was allocated from this heap, and is used no more.
                unsafe { heap.free(block) };
            }
        }
    });
}
