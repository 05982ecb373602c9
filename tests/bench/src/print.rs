// SPDX-License-Identifier: GPL-2.0

//! Prints lines, of which the crate `freelist-report` makes tables.
//!
//! `# bench: NAME VALUE UNIT AIM [SPREAD]`. A name of three parts, TABLE/ROW/COLUMN, is a cell of a table; all
//! others are figures of their own. SPREAD is half of the distance between the quartiles of several rounds,
//! relative to their median.

use std::fmt::Display;

use crate::clock::Clock;
use crate::samples::Samples;

/// Prints figures of one clock.
#[derive(Clone, Copy)]
pub struct Printer {
    clock: Clock,
}

impl Printer {
    /// Makes a printer for this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Prints a cell of a table of costs.
    pub fn cell(self, table: &str, row: impl Display, column: &str, samples: &Samples) {
        self.cell_in(table, row, column, samples, self.clock.unit());
    }

    /// Prints a cell of a table of other values.
    pub fn cell_in(
        self,
        table: &str,
        row: impl Display,
        column: &str,
        samples: &Samples,
        unit: &str,
    ) {
        let name = format!("{table}{}/{row}/{column}", self.clock.suffix());
        self.line(&name, samples, unit, "-");
    }

    /// Prints a figure of instructions, which is only informative if the clock is time.
    pub fn counted(self, name: &str, samples: &Samples, unit: &str, aim: &str) {
        match self.clock {
            Clock::Instructions => self.line(name, samples, unit, aim),
            Clock::Wall => self.line(&format!("{name}_wall"), samples, unit, "-"),
        }
    }

    /// Prints a figure that does not depend on the clock.
    pub fn figure(self, name: &str, samples: &Samples, unit: &str, aim: &str) {
        self.line(name, samples, unit, aim);
    }

    fn line(self, name: &str, samples: &Samples, unit: &str, aim: &str) {
        let value = samples.value(self.clock);
        println!(
            "# bench: {name} {value} {unit} {aim} {:.4}",
            samples.spread()
        );
    }
}

/// Formats a size for tables: `64KiB`.
pub fn size(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_the_largest_unit_that_is_whole() {
        let sizes = [32, 1 << 10, 1536, 64 << 10, 1 << 20].map(super::size);
        assert_eq!(sizes, ["32B", "1KiB", "1536B", "64KiB", "1MiB"]);
    }
}
