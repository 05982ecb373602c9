// SPDX-License-Identifier: GPL-2.0

//! The measurements.

mod fresh;
mod metadata;
mod pairs;
mod pressure;
mod reuse;
mod scale;
mod threads;
mod traces;

use anyhow::{bail, Result};

use crate::allocator::{Allocator, Client, Malloc, Nothing, WholeProgram};
use crate::clock::Clock;
use crate::print::Printer;

/// A group of figures.
pub struct Group {
    /// The name on the command line of `freelist-bench run`.
    pub name: &'static str,
    /// The only clock that the group is measured by, if there is only one.
    only: Option<Clock>,
    /// Measures and prints the figures.
    pub run: fn(Printer, Clock) -> Result<()>,
}

impl Group {
    /// Returns whether the group is measured by this clock.
    pub fn is_for(&self, clock: Clock) -> bool {
        self.only.is_none_or(|only| only == clock)
    }
}

/// All groups, in the order in which they are measured.
pub const GROUPS: [Group; 9] = [
    Group {
        name: "pairs",
        only: None,
        run: pairs::run,
    },
    Group {
        name: "reuse",
        only: None,
        run: reuse::run,
    },
    Group {
        name: "fresh",
        only: None,
        run: fresh::run,
    },
    Group {
        name: "small",
        only: None,
        run: traces::small,
    },
    Group {
        name: "training",
        only: None,
        run: traces::training,
    },
    Group {
        name: "scale",
        only: None,
        run: scale::run,
    },
    Group {
        name: "metadata",
        only: Some(Clock::Instructions),
        run: metadata::run,
    },
    Group {
        name: "threads",
        only: Some(Clock::Wall),
        run: threads::run,
    },
    Group {
        name: "pressure",
        only: None,
        run: pressure::run,
    },
];

/// Makes a measurement in a process of its own.
pub fn probe(name: &str, subject: &str, args: &[String]) -> Result<()> {
    match subject {
        "client" => probe_of(name, &Client::open(), args),
        "global" => probe_of(name, &WholeProgram, args),
        "malloc" => probe_of(name, &Malloc, args),
        "nothing" => probe_of(name, &Nothing::of(64 << 20), args),
        _ => bail!("there is no allocator {subject}"),
    }
}

fn probe_of(name: &str, allocator: &impl Allocator, args: &[String]) -> Result<()> {
    match name {
        "reuse" => reuse::probe(allocator, args),
        "trace" => traces::probe(allocator, args),
        "hoard" => pressure::hoard(allocator),
        "need" => pressure::need(),
        "threads" => threads::probe(args),
        _ => bail!("there is no probe {name}"),
    }
}
