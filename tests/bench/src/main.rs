// SPDX-License-Identifier: GPL-2.0

//! What freelist costs beside what programs would use instead, in one VM.
//!
//! `freelist-bench run CLOCK` prints figures (see `print`), which `scripts/bench` and the crate
//! `freelist-report` make tables and plots of. A slow row is no failure here.
//!
//! Same work on each side: the same sizes, every page written to in the same way, and used as
//! often before. Those that are compared take turns, round by round.

mod allocator;
mod allocators;
mod clock;
mod print;
mod probe;
mod rows;
mod samples;
mod sys;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use clock::Clock;
use print::Printer;

/// Measures freelist, and what programs would use instead.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Prints figures.
    Run {
        /// What the clock of this machine counts.
        clock: Clock,
        /// Only these groups of them.
        #[arg(value_parser = PossibleValuesParser::new(rows::GROUPS.map(|group| group.name)))]
        groups: Vec<String>,
    },
    /// One measurement, in this process.
    #[command(hide = true)]
    Probe {
        /// Which.
        name: String,
        /// Whose: `client`, `global`, `malloc` or `nobody`.
        who: String,
        /// What it wants to know.
        args: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().what {
        What::Run { clock, groups } => {
            for group in rows::GROUPS {
                let wanted = groups.is_empty() || groups.iter().any(|name| name == group.name);
                if wanted && group.is_for(clock) {
                    eprintln!("# bench group: {}", group.name);
                    (group.run)(Printer::new(clock), clock)?;
                }
            }
            Ok(())
        }
        What::Probe { name, who, args } => {
            probe::join()?;
            rows::probe(&name, &who, &args)
        }
    }
}
