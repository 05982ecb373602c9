// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process that forks while it has an arena and no live block: the arena is asleep from then on.
//!
//! Such a process is usually about to start another program, and the child does not get the arena. Each
//! page that handlers write around a fork is copied, and the kernel copies a table of open files up to
//! the device's number, which is high. So the handler before the fork moves the device to a low number
//! and notes that the arena is asleep, and the handlers after it do nothing.
//!
//! The next call that needs the arena wakes it. In the parent the device is moved back; if the program
//! has closed it since, the next large block opens another arena, as no block was lost. The child
//! closes its number of the device and opens an arena of its own.

use super::fork::is_single_threaded;
use super::gate::pause;
use super::settings::{ForkMode, Settings};
use super::LargeBlocks;
use crate::sync::atomic::Ordering::*;

/// The arena serves; the state of a process that did not fork.
const AWAKE: u32 = 0;
/// The process has forked, or is a child of that fork. There is no live block.
const ASLEEP: u32 = 1;
/// A thread wakes the arena.
const WAKING: u32 = 2;

/// The number of times that a thread checks, for some seconds, whether another one has woken the arena: in a child
/// that a bare system call makes at that moment no thread does.
const PATIENCE: u32 = 50_000;

impl LargeBlocks {
    /// Returns whether the arena is awake.
    #[inline]
    pub(super) fn is_awake(&self) -> bool {
        self.asleep.load(Acquire) == AWAKE
    }

    /// Puts the arena to sleep before a fork. Returns `false` if there is a live block, or another thread
    /// that may allocate one.
    pub(super) fn sleep(&self) -> bool {
        if !is_single_threaded() {
            return false;
        }
        // Writes nothing if nothing changes: written pages are copied.
        if self.highest.load(Relaxed) == 0 || self.asleep.load(Relaxed) == ASLEEP {
            return true;
        }
        let copies = Settings::get().is_some_and(|settings| settings.fork == ForkMode::Copy);
        if !copies || !self.is_here() || self.ranges.iter().any(|range| range.live_blocks() > 0) {
            return false;
        }
        if let Some(range) = self.serving_now() {
            range.lower_file();
        }
        self.asleep.store(ASLEEP, Relaxed);
        true
    }

    /// Wakes the arena, or drops the parent's in a forked child. Returns whether an arena of this
    /// process may serve: see [`LargeBlocks::is_here`].
    #[cold]
    pub(super) fn wake(&self) -> bool {
        let claim = self
            .asleep
            .compare_exchange(ASLEEP, WAKING, Acquire, Relaxed);
        if claim.is_err() {
            let mut tries = 0;
            while !self.is_awake() && tries < PATIENCE {
                pause(tries);
                tries += 1;
            }
            return self.has_mark();
        }
        if !self.has_mark() {
            self.ranges
                .iter()
                .filter(|range| range.is_shared())
                .for_each(|range| range.abandon());
            self.become_child();
        } else if let Some(range) = self.serving_now() {
            if !range.raise_file() {
                self.serving.store(0, Release);
                range.orphan();
            }
        }
        self.asleep.store(AWAKE, Release);
        true
    }
}
