// SPDX-License-Identifier: GPL-2.0

//! Measures the costs of freelist and of its alternatives, in one VM.
//!
//! `freelist-bench run CLOCK` prints figures (see `print`), of which `scripts/bench` and the crate
//! `freelist-report` make tables and plots. A slow row is not a failure.
//!
//! Each side does the same work: the same sizes, every page written to in the same way, and used as often
//! before. The sides take turns, round by round.

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

/// Measures freelist and its alternatives.
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
        /// The unit of this machine's clock.
        clock: Clock,
        /// Only these groups of figures.
        #[arg(value_parser = PossibleValuesParser::new(rows::GROUPS.map(|group| group.name)))]
        groups: Vec<String>,
    },
    /// Makes one measurement, in this process.
    #[command(hide = true)]
    Probe {
        /// The name of the measurement.
        name: String,
        /// Names the allocator: `client`, `global`, `malloc` or `nothing`.
        subject: String,
        /// The arguments of the measurement.
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
        What::Probe {
            name,
            subject,
            args,
        } => {
            probe::join()?;
            rows::probe(&name, &subject, &args)
        }
    }
}
