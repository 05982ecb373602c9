// SPDX-License-Identifier: MIT OR Apache-2.0

//! The progress of a replay.
//!
//! By hand: indicatif redraws a line of a terminal and prints nothing elsewhere, while this line grows in
//! a file and over a VM's port, too.

use std::io::{self, Write};
use std::time::Duration;

/// A line that grows by every tenth of the events, on a terminal or not.
pub(crate) struct Progress {
    events: usize,
    tenths: usize,
    silent: bool,
}

impl Progress {
    pub(crate) fn new(events: usize) -> Self {
        // Progress is of no use later; a closed output is ignored.
        let _ = write!(io::stdout(), "{:<16}", "replay");
        Self {
            events,
            tenths: 0,
            silent: false,
        }
    }

    pub(crate) fn silent() -> Self {
        Self {
            events: 0,
            tenths: 0,
            silent: true,
        }
    }

    pub(crate) fn advance(&mut self, done: usize) {
        while !self.silent && self.tenths < 10 && done * 10 >= self.events * (self.tenths + 1) {
            self.tenths += 1;
            let mut out = io::stdout();
            let _ = write!(out, "{} % ", self.tenths * 10);
            let _ = out.flush();
        }
    }

    pub(crate) fn finish(self, took: Duration) {
        if !self.silent {
            let _ = writeln!(io::stdout(), "in {:.1} s\n", took.as_secs_f64());
        }
    }
}
