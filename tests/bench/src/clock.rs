// SPDX-License-Identifier: GPL-2.0

//! Durations: in a VM that counts instructions an instruction is a nanosecond; elsewhere they are time.

use std::time::{Duration, Instant};

use clap::ValueEnum;

/// The unit that a nanosecond of the clock stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// An instruction of the only CPU (`scripts/vm --icount`).
    Instructions,
    /// Wall-clock time.
    Wall,
}

impl Clock {
    /// Returns the name of the unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Wall => "ns",
        }
    }

    /// Returns the suffix of the names of tables and figures; empty for instructions.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Instructions => "",
            Self::Wall => "_wall",
        }
    }

    /// Returns the number of rounds: instructions are the same each time, but for the kernel's own work.
    pub fn rounds(self) -> usize {
        match self {
            Self::Instructions => 3,
            Self::Wall => 9,
        }
    }
}

/// Returns the duration of `work`.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Returns the mean duration of `work` over `count` calls, in nanoseconds.
pub fn each(count: usize, mut work: impl FnMut()) -> f64 {
    let all = timed(|| {
        for _ in 0..count {
            work();
        }
    });
    all.as_nanos() as f64 / count as f64
}
