// SPDX-License-Identifier: MIT OR Apache-2.0

//! The rows of `freelistctl top`: columns, cells, and their order.

use std::cmp::Ordering;
use std::time::Duration;

use crate::sample::Sample;
use crate::show::{grouped, unit};

/// The subject of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum View {
    Arenas,
    Classes,
}

/// A column: its name, the key that sorts by it, and whether the largest value comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) key: char,
    pub(crate) falls: bool,
    pub(crate) width: u16,
}

const fn column(name: &'static str, key: char, falls: bool, width: u16) -> Column {
    Column {
        name,
        key,
        falls,
        width,
    }
}

const ARENAS: [Column; 9] = [
    column("arena", 'i', false, 8),
    column("pid", 'p', false, 7),
    column("live", 'l', true, 9),
    column("free", 'f', true, 9),
    column("held", 'h', true, 9),
    column("growth", 'g', true, 9),
    column("limit", 'm', true, 8),
    column("wait", 'w', true, 7),
    column("name", 'n', false, 6),
];

const CLASSES: [Column; 9] = [
    column("size", 's', false, 8),
    column("live", 'l', true, 9),
    column("free", 'f', true, 9),
    column("held", 'h', true, 9),
    column("splits/s", 'x', true, 11),
    column("merges/s", 'm', true, 11),
    column("grows/s", 'g', true, 10),
    column("waits/s", 'w', true, 10),
    column("largest", 'b', true, 10),
];

impl View {
    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Arenas => &ARENAS,
            Self::Classes => &CLASSES,
        }
    }

    /// Returns the column to sort by at first: most held memory.
    pub(crate) fn default_sort(self) -> usize {
        let held = |column: &Column| column.name == "held";
        self.columns().iter().position(held).unwrap_or(0)
    }
}

/// A cell: its value for sorting, and its text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Number(f64, String),
    Name(String),
}

impl Cell {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Number(_, text) | Self::Name(text) => text,
        }
    }

    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a, _), Self::Number(b, _)) => a.total_cmp(b),
            (a, b) => a.text().cmp(b.text()),
        }
    }
}

fn count(number: u64) -> Cell {
    Cell::Number(number as f64, grouped(number))
}

fn plain(number: u64) -> Cell {
    Cell::Number(number as f64, number.to_string())
}

/// Makes a cell of bytes, in MiB without the unit: a row has to be short.
fn bytes(number: u64) -> Cell {
    let mib = number as f64 / f64::from(1 << 20);
    Cell::Number(number as f64, format!("{mib:.2}"))
}

/// Returns the change of a counter per second; `None` without an earlier sample.
pub(crate) fn rate(now: u64, before: Option<u64>, elapsed: Duration) -> Option<f64> {
    // The value may fall, if it is not a counter.
    let change = now.wrapping_sub(before?) as i64;
    let seconds = elapsed.as_secs_f64();
    (seconds > 0.0).then(|| change as f64 / seconds)
}

fn per_second(rate: Option<f64>) -> Cell {
    match rate {
        Some(rate) => Cell::Number(rate, grouped(rate.round() as u64)),
        None => Cell::Number(0.0, "-".to_owned()),
    }
}

fn growth(rate: Option<f64>) -> Cell {
    match rate {
        Some(rate) => {
            let mib = rate / f64::from(1 << 20);
            // A zero has no sign.
            let mib = if mib.abs() < 0.005 { 0.0 } else { mib };
            Cell::Number(rate, format!("{mib:.2}"))
        }
        None => Cell::Number(0.0, "-".to_owned()),
    }
}

/// Returns the rows of a view, in no order. `before` is the sample of `elapsed` ago.
pub(crate) fn rows(
    view: View,
    now: &Sample,
    before: Option<&Sample>,
    elapsed: Duration,
) -> Vec<Vec<Cell>> {
    match view {
        View::Arenas => arenas(now, before, elapsed),
        View::Classes => classes(now, before, elapsed),
    }
}

fn arenas(now: &Sample, before: Option<&Sample>, elapsed: Duration) -> Vec<Vec<Cell>> {
    let row = |row: &crate::sample::Row| {
        let earlier = before.and_then(|before| before.arenas.iter().find(|old| old.id == row.id));
        vec![
            plain(row.id),
            plain(row.pid),
            bytes(row.live),
            bytes(row.free),
            bytes(row.held),
            growth(rate(row.held, earlier.map(|old| old.held), elapsed)),
            bytes(row.limit),
            row.waiters.map_or(Cell::Number(0.0, "-".to_owned()), count),
            Cell::Name(row.name.clone()),
        ]
    };
    now.arenas.iter().map(row).collect()
}

/// Returns the rows of size classes that were ever used.
fn classes(now: &Sample, before: Option<&Sample>, elapsed: Duration) -> Vec<Vec<Cell>> {
    let Some(table) = &now.classes else {
        return Vec::new();
    };
    let earlier = before.and_then(|before| before.classes.as_ref());
    let sizes = table.column("size").into_iter().flatten();
    let row = |size: u64| {
        let of = |name| table.get(size, name).unwrap_or(0);
        let speed = |name| {
            let old = earlier.and_then(|table| table.get(size, name));
            per_second(rate(of(name), old, elapsed))
        };
        let counters = ["live", "free", "held", "splits", "merges", "grows", "waits"];
        counters.iter().any(|name| of(name) != 0).then(|| {
            vec![
                Cell::Number(size as f64, unit(size)),
                count(of("live")),
                count(of("free")),
                bytes(of("held")),
                speed("splits"),
                speed("merges"),
                speed("grows"),
                speed("waits"),
                Cell::Number(of("largest") as f64, unit(of("largest"))),
            ]
        })
    };
    sizes.filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_columns_and_none_of_the_commands() {
        for view in [View::Arenas, View::Classes] {
            let mut keys: Vec<char> = view.columns().iter().map(|column| column.key).collect();
            keys.extend(['q', 'r', 'a', 'c', '?', ' ', '+', '-']);
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count, "{view:?}");
        }
    }

    #[test]
    fn a_rate_needs_an_earlier_moment_and_may_fall() {
        let second = Duration::from_secs(2);
        assert_eq!(rate(10, None, second), None);
        assert_eq!(rate(10, Some(10), Duration::ZERO), None);
        assert_eq!(rate(10, Some(4), second), Some(3.0));
        assert_eq!(rate(4, Some(10), second), Some(-3.0));
        assert_eq!(growth(Some(-1.0)).text(), "0.00");
        assert_eq!(growth(Some(-1048576.0)).text(), "-1.00");
    }
}
