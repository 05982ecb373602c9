// SPDX-License-Identifier: GPL-2.0-only

//! Race points: places at which tests delay a thread, to widen a race.
//!
//! Some races are too narrow to be hit by chance. On kernels with fault injection, debugfs has a file
//! `delay_us/NAME` for each race point. A thread that reaches the point sleeps for that many
//! microseconds, or until a lower number is written. On other kernels a race point does nothing.

/// A place at which a thread can be delayed.
#[derive(Clone, Copy)]
pub(crate) enum RacePoint {
    /// A page fault has locked its folio, but not mapped it yet.
    Fault,
    /// Memory to be dropped is unmapped, but still in the page cache.
    Removal,
    /// Memory was allocated for a touched page, but is not in the block yet.
    Touch,
    /// A block is complete, but its offset not copied to the caller yet.
    Answer,
    /// An open makes its arena.
    Open,
    /// A map has dropped the arena's lock between two steps.
    Map,
}

#[cfg(not(CONFIG_FAULT_INJECTION))]
impl RacePoint {
    /// Does nothing.
    pub(crate) fn reach(self) {}

    /// Returns false.
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

    /// The longest sleep, in microseconds, before the file is read again.
    const LATEST: i64 = 1000;

    /// The delay at each race point, in microseconds.
    static DELAYS: [Atomic<u32>; 6] = [const { Atomic::new(0) }; 6];

    impl RacePoint {
        /// Creates the directory `delay_us` in debugfs, with its files.
        pub(crate) fn files(parent: &Dir) -> Result<Dir> {
            let dir = Dir::new(c"delay_us", Some(parent))?;
            let names = [c"fault", c"removal", c"touch", c"answer", c"open", c"map"];
            for (name, delay) in names.into_iter().zip(&DELAYS) {
                dir.number(name, delay);
            }
            Ok(dir)
        }

        /// Returns whether a thread that reaches it would sleep.
        pub(crate) fn is_open(self) -> bool {
            DELAYS[self as usize].load(Relaxed) > 0
        }

        /// Sleeps for the delay of the race point.
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
