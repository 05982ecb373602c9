// SPDX-License-Identifier: MIT OR Apache-2.0

//! A lock for many releases at a time, or for one thread that changes what they read.
//!
//! The standard library's locks do not fit: a forked child has to unlock what its parent's thread
//! locked, and the handlers of other libraries, which run while it is locked, may allocate in that
//! same thread.

use core::hint;
use core::mem;

use rustix::thread::{nanosleep, sched_yield, Timespec};

use crate::sync::atomic::{AtomicUsize, Ordering};

/// The bit that is set while one thread holds the gate exclusively.
const EXCLUSIVE: usize = 1 << (usize::BITS - 1);

/// A lock that is held by any number of threads, or exclusively by one, which may then lock it again
/// in either way.
///
/// A waiter sleeps: the exclusive holder makes system calls or copies memory for a fork.
pub(super) struct Gate {
    /// The number of holders, and [`EXCLUSIVE`].
    state: AtomicUsize,
    /// The thread that holds it exclusively, as of `pthread_self()`; 0 if none.
    owner: AtomicUsize,
}

/// The guard of a [`Gate`], which unlocks it when it is dropped.
#[must_use]
pub(super) struct Guard<'gate> {
    gate: &'gate Gate,
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Shared,
    Exclusive,
    /// This thread holds it exclusively already.
    Again,
}

/// Returns the calling thread's `pthread_self()`.
pub(super) fn this_thread() -> usize {
    // SAFETY: It has no arguments and cannot fail.
    unsafe { libc::pthread_self() as usize }
}

/// The time that a waiter sleeps before it tries again: 50 us.
const SLEEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000,
};

/// Yields the processor; sleeps after many `tries`.
pub(super) fn pause(tries: u32) {
    match tries {
        0..16 => hint::spin_loop(),
        16..64 => sched_yield(),
        _ => drop(nanosleep(&SLEEP)),
    }
}

impl Gate {
    pub(super) const fn new() -> Self {
        Self {
            state: AtomicUsize::new(0),
            owner: AtomicUsize::new(0),
        }
    }

    /// Returns whether the calling thread holds it exclusively.
    pub(super) fn is_mine(&self) -> bool {
        // Only this thread stores its own value, so no ordering is needed.
        self.owner.load(Ordering::Relaxed) == this_thread()
    }

    /// Locks it together with other threads.
    #[inline]
    pub(super) fn shared(&self) -> Guard<'_> {
        let before = self.state.fetch_add(1, Ordering::Acquire);
        if before & EXCLUSIVE == 0 {
            return Guard {
                gate: self,
                how: How::Shared,
            };
        }
        self.shared_later()
    }

    #[cold]
    fn shared_later(&self) -> Guard<'_> {
        let mut tries = 0;
        loop {
            self.state.fetch_sub(1, Ordering::Relaxed);
            if self.is_mine() {
                return Guard {
                    gate: self,
                    how: How::Again,
                };
            }
            while self.state.load(Ordering::Relaxed) & EXCLUSIVE != 0 {
                pause(tries);
                tries += 1;
            }
            if self.state.fetch_add(1, Ordering::Acquire) & EXCLUSIVE == 0 {
                return Guard {
                    gate: self,
                    how: How::Shared,
                };
            }
        }
    }

    /// Locks it exclusively, once all other threads have unlocked it.
    pub(super) fn exclusive(&self) -> Guard<'_> {
        if self.is_mine() {
            return Guard {
                gate: self,
                how: How::Again,
            };
        }
        let mut tries = 0;
        while self.state.fetch_or(EXCLUSIVE, Ordering::Acquire) & EXCLUSIVE != 0 {
            pause(tries);
            tries += 1;
        }
        self.owner.store(this_thread(), Ordering::Relaxed);
        while self.state.load(Ordering::Acquire) != EXCLUSIVE {
            pause(tries);
            tries += 1;
        }
        Guard {
            gate: self,
            how: How::Exclusive,
        }
    }

    /// Unlocks it in a forked child, whose only thread is the one that locked it: the parent's other
    /// holders do not exist here.
    pub(super) fn reopen(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.state.store(0, Ordering::Release);
    }
}

impl Guard<'_> {
    /// Keeps it locked until the same thread calls [`Gate::open`].
    pub(super) fn keep(self) {
        mem::forget(self);
    }
}

impl Gate {
    /// Unlocks what [`Gate::exclusive`] locked and [`Guard::keep`] kept.
    pub(super) fn open(&self) {
        drop(Guard {
            gate: self,
            how: How::Exclusive,
        });
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.how {
            How::Shared => {
                self.gate.state.fetch_sub(1, Ordering::Release);
            }
            How::Exclusive => {
                self.gate.owner.store(0, Ordering::Relaxed);
                self.gate.state.fetch_and(!EXCLUSIVE, Ordering::Release);
            }
            How::Again => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn an_exclusive_holder_may_lock_the_gate_again() {
        let gate = Gate::new();
        let alone = gate.exclusive();
        drop(gate.shared());
        drop(gate.exclusive());
        assert_eq!(gate.state.load(Ordering::Relaxed), EXCLUSIVE);
        drop(alone);
        assert_eq!(gate.state.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_kept_gate_stays_closed_until_it_is_opened() {
        let gate = Gate::new();
        gate.exclusive().keep();
        let entered = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _held = gate.shared();
                entered.store(1, Ordering::Relaxed);
            });
            thread::sleep(Duration::from_millis(20));
            assert_eq!(entered.load(Ordering::Relaxed), 0);
            gate.open();
        });
        assert_eq!(entered.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn no_thread_is_inside_with_an_exclusive_holder() {
        let gate = Gate::new();
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let _held = gate.shared();
                        let before = inside.fetch_add(1, Ordering::Relaxed);
                        assert!(before < 1000, "with one that is alone");
                        inside.fetch_sub(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..500 {
                let _held = gate.exclusive();
                assert_eq!(inside.fetch_add(1000, Ordering::Relaxed), 0);
                inside.fetch_sub(1000, Ordering::Relaxed);
            }
        });
    }
}
