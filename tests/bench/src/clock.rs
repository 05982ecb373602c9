// SPDX-License-Identifier: GPL-2.0

//! How long things take: in a VM that counts instructions one of them is one
//! nanosecond, elsewhere it is time.

use std::time::{Duration, Instant};

use clap::ValueEnum;

/// What a nanosecond of the clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// An instruction, of the one CPU that there is (`scripts/vm --icount`).
    Instructions,
    /// Time on the wall.
    Wall,
}

impl Clock {
    /// Returns the unit of what is measured.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Wall => "ns",
        }
    }

    /// What the names of tables and figures end in: instructions are the rule.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Instructions => "",
            Self::Wall => "_wall",
        }
    }

    /// Returns how often something is measured: instructions are the same each time but for what
    /// the kernel does in between.
    pub fn rounds(self) -> usize {
        match self {
            Self::Instructions => 3,
            Self::Wall => 9,
        }
    }
}

/// Returns how long `work` takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Returns how long one of `count` times `work` takes, in nanoseconds.
pub fn each(count: usize, mut work: impl FnMut()) -> f64 {
    let all = timed(|| {
        for _ in 0..count {
            work();
        }
    });
    all.as_nanos() as f64 / count as f64
}
