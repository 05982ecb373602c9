// SPDX-License-Identifier: GPL-2.0-only

//! Race windows that tests hold open.
//!
//! Some races are too narrow to be met by chance. On kernels for fault injection debugfs has a file
//! for each such window, `delay_us/NAME`: whoever is in it sleeps for that many microseconds, or until
//! the file says less. On all other kernels nothing of this is there.

/// A place where two threads can meet, and be held.
#[derive(Clone, Copy)]
pub(crate) enum RacePoint {
    /// A page fault has found its folio, locked it, and has not mapped it yet.
    Fault,
    /// Memory that leaves is unmapped, and still in its place.
    Leave,
    /// Memory was allocated for a touched page, and is not the block's yet.
    Touch,
    /// A block is complete, and its answer not out yet.
    Answer,
    /// An arena is made for a file that is being opened.
    Open,
}

#[cfg(not(CONFIG_FAULT_INJECTION))]
impl RacePoint {
    /// Nothing.
    pub(crate) fn reach(self) {}

    /// No.
    pub(crate) fn is_open(self) -> bool {
        false
    }
}

#[cfg(CONFIG_FAULT_INJECTION)]
mod forced {
    use super::RacePoint;
    use crate::ffi::debugfs::Dir;
    use kernel::{
        prelude::*,
        sync::atomic::{
            Atomic,
            Relaxed, //
        },
        time::{
            delay::fsleep,
            Delta,
            Instant,
            Monotonic, //
        },
    };

    /// The longest that a window stays open after its file says so, in microseconds.
    const LATEST: i64 = 1000;

    /// How long each window is held open, in microseconds.
    static DELAYS: [Atomic<u32>; 5] = [const { Atomic::new(0) }; 5];

    impl RacePoint {
        /// Makes the files in debugfs `delay_us`.
        pub(crate) fn files(parent: &Dir) -> Result<Dir> {
            let dir = Dir::new(c"delay_us", Some(parent))?;
            let names = [c"fault", c"leave", c"touch", c"answer", c"open"];
            for (name, delay) in names.into_iter().zip(&DELAYS) {
                dir.number(name, delay);
            }
            Ok(dir)
        }

        /// Whether a thread that reaches it would sleep.
        pub(crate) fn is_open(self) -> bool {
            DELAYS[self as usize].load(Relaxed) > 0
        }

        /// Sleeps as long as the window is to be held open.
        pub(crate) fn reach(self) {
            let start = Instant::<Monotonic>::now();
            loop {
                let delay = i64::from(DELAYS[self as usize].load(Relaxed));
                let left = delay - start.elapsed().as_micros_ceil();
                if left <= 0 {
                    return;
                }
                fsleep(Delta::from_micros(left.min(LATEST)));
            }
        }
    }
}
