// SPDX-License-Identifier: GPL-2.0

//! How far a replay is.

use std::io::Write;
use std::time::Duration;

/// One line that grows by every tenth of the events, on a terminal or not.
pub(crate) struct Progress {
    events: usize,
    tenths: usize,
    silent: bool,
}

impl Progress {
    pub(crate) fn new(events: usize) -> Self {
        print!("{:<16}", "replay");
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
            print!("{} % ", self.tenths * 10);
            // Progress is worth nothing later; if nobody reads, so be it.
            let _ = std::io::stdout().flush();
        }
    }

    pub(crate) fn finish(self, took: Duration) {
        if !self.silent {
            println!("in {:.1} s\n", took.as_secs_f64());
        }
    }
}
