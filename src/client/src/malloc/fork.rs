// SPDX-License-Identifier: MIT OR Apache-2.0

//! Forks: the child gets a copy of its parent's large blocks. These are the handlers; `range/fork.rs`
//! copies a range of addresses, `asleep.rs` is for forks without a live block, and the drop-in's
//! `fork()` (`c/malloc/src/fork.rs`) calls [`LargeBlocks::fork`].
//!
//! The arena is shared memory, which a fork does not copy; so its mapping is not inherited
//! (`MADV_DONTFORK`). In the last handler before the fork the kernel module copies the arena
//! (CLONE); the child's first handler maps it at the old addresses and serves from it; the parent
//! closes its descriptor of it. The handlers are registered before those of other libraries, so they
//! run last before a fork and first after it.
//!
//! The copy has the bytes that the forking thread had written before the last handler ran. A byte that
//! another thread writes at that time may be in it or not. (A child of a program with threads may call
//! only functions that are safe in signal handlers, until it runs another program.)
//!
//! A fork for which there is no copy fails with `ENOMEM`. Handlers cannot report that:
//! [`LargeBlocks::fork`] wraps the C library's `fork()`, has the child end at once, and waits for it.
//! A fork that is not called that way succeeds, and its child ends with a line on standard error.
//!
//! The blocks of an arena whose file the program closed, and of a module without CLONE, are copied
//! to private memory before the fork, which the child moves to their addresses. The child waits until
//! the parent has dropped the copy, or has ended: pages that it writes before that would be copied
//! twice.
//!
//! Where no block is live there is nothing to copy: see [`asleep`](super::asleep).
//!
//! With `FREELIST_FORK=share` nothing is copied: the child may read its parent's blocks, which
//! change as the parent changes them, and a write is a segmentation fault.
//!
//! `vfork()`, `posix_spawn()` and bare system calls run no handlers.

use core::ptr;

use rustix::io::Errno;
use rustix::process::{getpid, getppid, kill_process, waitpid, Pid, Signal, WaitOptions};

use super::gate::this_thread;
use super::message::say;
use super::settings::{ForkMode, Settings};
use super::{abort, counters, gate, os, LargeBlocks, LARGE};
use crate::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU8, AtomicUsize, Ordering::*,
};

/// The [`Plan`] of a fork, as a number, which the handler before the fork chose. Only the forking
/// thread reads it, while it holds the gate exclusively.
static PLAN: AtomicU32 = AtomicU32::new(Plan::Nothing as u32);

/// The work of a forked child, decided before the fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Plan {
    /// Nothing: there is no arena, or it is not this process's.
    Nothing,
    /// Replace the arena by the copy.
    Copy,
    /// End: there was no memory for a copy.
    Fail,
    /// Keep its parent's blocks, to read.
    Share,
}

/// 1 if the parent had other threads at the fork.
static THREADS: AtomicU32 = AtomicU32::new(0);

/// The most threads that can be in [`LargeBlocks::fork`] at a time and still fail without a copy.
const CALLERS: usize = 8;
/// The threads that are in that function, as of `pthread_self()`; 0 is an empty entry. [`REFUSED`] is
/// added once there was no memory for the copy.
static IN_FORK: [AtomicUsize; CALLERS] = [const { AtomicUsize::new(0) }; CALLERS];
/// A bit that no value of `pthread_self()` has.
const REFUSED: usize = 1;

/// Returns the entry of the calling thread, if it is in [`LargeBlocks::fork`].
fn caller() -> Option<&'static AtomicUsize> {
    let this = this_thread();
    IN_FORK.iter().find(|entry| entry.load(Relaxed) == this)
}

impl LargeBlocks {
    /// Calls `fork`, the C library's function, and returns its result; `None` if there is no memory
    /// for the child's copy of the blocks. The child has ended then.
    pub fn fork(&self, fork: impl FnOnce() -> i32) -> Option<i32> {
        let claim = |entry: &&AtomicUsize| {
            let claimed = entry.compare_exchange(0, this_thread(), Relaxed, Relaxed);
            claimed.is_ok()
        };
        let entry = IN_FORK.iter().find(claim);
        let child = fork();
        let after = entry.map_or(0, |entry| entry.swap(0, Relaxed));
        if after & REFUSED == 0 {
            return Some(child);
        }
        // Another thread may have waited for the child before, which does no harm.
        if let Some(child) = Pid::from_raw(child).filter(|_| child > 0) {
            let wait = || waitpid(Some(child), WaitOptions::empty());
            while wait().is_err_and(|errno| errno == Errno::INTR) {}
        }
        None
    }
}

/// A word that parent and child share during a fork with a copy: 1 once the parent has dropped the
/// copy. Null if there is none, and the child does not wait.
static LET_GO: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
/// The parent of a fork.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// The bytes of the mapping with that word.
const WORD_BYTES: usize = 4096;

/// Registers the handlers that the C library calls around each fork.
pub(super) fn register() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Relaxed) {
        // SAFETY: The functions have no arguments, and their library is never unloaded. What it allocates
        // is small, and so served by the next allocator.
        let failed = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        if failed != 0 {
            REGISTERED.store(false, Relaxed);
        }
    }
}

/// Returns whether this process has one thread, according to the C library.
pub(super) fn is_single_threaded() -> bool {
    #[cfg(target_env = "gnu")]
    {
        extern "C" {
            static __libc_single_threaded: AtomicU8;
        }
        // SAFETY: It is a byte in the C library, which becomes 0 before a second thread is made.
        unsafe { __libc_single_threaded.load(Relaxed) != 0 }
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Plans the fork and makes the copy. The handler before a fork.
extern "C" fn before() {
    // Without a live block the handlers do nothing. Where threads run, one may be waking the arena.
    if LARGE.sleep() {
        return;
    }
    if !LARGE.is_awake() {
        LARGE.wake();
    }
    LARGE.gate.exclusive().keep();
    let plan = plan();
    PLAN.store(plan as u32, Relaxed);
    THREADS.store(u32::from(!is_single_threaded()), Relaxed);
    match plan {
        Plan::Copy => drop(counters::counters().forks.fetch_add(1, Relaxed)),
        // At once: what follows takes memory, too.
        Plan::Fail => LARGE.ranges.iter().for_each(|range| range.drop_copy()),
        Plan::Nothing | Plan::Share => {}
    }
}

fn plan() -> Plan {
    if !LARGE.is_here() || !LARGE.ranges.iter().any(|range| range.is_shared()) {
        return Plan::Nothing;
    }
    if Settings::get().is_some_and(|settings| settings.fork == ForkMode::Share) {
        return Plan::Share;
    }
    let page = os::page_size();
    for range in LARGE.ranges.iter().filter(|range| range.is_shared()) {
        // SAFETY: Releases wait at the gate.
        if unsafe { range.make_copy(page) }.is_err() {
            return Plan::Fail;
        }
        let copied = range.live_bytes() as u64;
        counters::counters().copied.fetch_add(copied, Relaxed);
    }
    if LARGE.ranges.iter().any(|range| range.has_private_copy()) {
        PARENT.store(getpid().as_raw_nonzero().get(), Relaxed);
        let word = os::map_shared(WORD_BYTES).unwrap_or(0);
        LET_GO.store(word as *mut AtomicU32, Relaxed);
    }
    Plan::Copy
}

/// Calls `work` with the shared word, if there is one, and unmaps it.
fn with_word(work: impl FnOnce(&AtomicU32)) {
    let word = LET_GO.swap(ptr::null_mut(), Relaxed);
    // SAFETY: It is null, or a mapping that `plan()` made and that only the forking thread uses.
    if let Some(shared) = unsafe { word.as_ref() } {
        work(shared);
        // SAFETY: As above; the reference is gone.
        unsafe { os::unmap(word as usize, WORD_BYTES) };
    }
}

/// Drops the copy, which is the child's now if there is a child. The parent's handler after a fork.
extern "C" fn in_parent() {
    if !LARGE.gate.is_mine() {
        return;
    }
    LARGE.ranges.iter().for_each(|range| range.drop_copy());
    with_word(|let_go| let_go.store(1, Release));
    if PLAN.load(Relaxed) == Plan::Fail as u32 {
        if let Some(entry) = caller() {
            entry.fetch_or(REFUSED, Relaxed);
        }
    }
    LARGE.gate.open();
}

/// Puts the copy at the blocks' addresses. The child's handler after a fork.
extern "C" fn in_child() {
    // The one thread of a child has the `pthread_self()` of the thread that forked.
    if !LARGE.gate.is_mine() {
        return;
    }
    LARGE.gate.reopen();
    let plan = PLAN.load(Relaxed);
    if plan == Plan::Nothing as u32 {
        return;
    }
    if plan == Plan::Fail as u32 && caller().is_some() {
        // The parent waits for this, and reports it.
        loop {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
    let threads = THREADS.load(Relaxed) != 0;
    for range in LARGE.ranges.iter().filter(|range| range.is_shared()) {
        if plan == Plan::Share as u32 {
            range.become_shared();
        } else if plan == Plan::Fail as u32 || range.become_copy(threads).is_err() {
            say(format_args!(
                "fork: no memory for a copy of {} MiB of large blocks: this child ends \
                 (FREELIST_FORK=share lets children read their parent's instead)",
                range.live_bytes() >> 20
            ));
            abort();
        }
    }
    with_word(|let_go| {
        let parent = Pid::from_raw(PARENT.load(Relaxed));
        let mut tries = 0;
        while let_go.load(Acquire) == 0 && getppid() == parent {
            gate::pause(tries);
            tries += 1;
        }
    });
    LARGE.become_child();
}
