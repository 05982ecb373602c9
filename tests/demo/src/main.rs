// SPDX-License-Identifier: GPL-2.0

//! `freelist-demo`: runs unchanged programs under freelist and other allocators, each in a cgroup
//! of its own, and prints what each held and used. Runs in the root `demo` of `scripts/vm`.

mod cgroup;
mod idle;
mod limits;
mod run;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use freelist_demo::allocator::{self, Allocator, ALLOCATORS};
use freelist_demo::record::{Clock, Record};
use freelist_demo::workload::{self, Workload, WORKLOADS};

/// Runs unchanged programs under freelist and other allocators.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measures what each holds and uses, without a limit.
    Run {
        #[command(flatten)]
        selection: Selection,
        /// The number of rounds; every other one has the allocators in reverse order.
        #[arg(long, default_value_t = 1)]
        rounds: u32,
        /// The clock of this machine counts instructions.
        #[arg(long)]
        icount: bool,
    },
    /// Finds the smallest limit under which each succeeds.
    Limits {
        #[command(flatten)]
        selection: Selection,
    },
    /// Measures the memory that another process gets while each idles between two steps.
    Idle {
        #[command(flatten)]
        selection: Selection,
    },
    /// Prints the names of the allocators, with descriptions.
    List {
        /// The allocators; each with its defaults and its tightest setting if none is named.
        #[arg(long, value_delimiter = ',', value_parser = an_allocator)]
        allocators: Vec<Allocator>,
    },
    /// Executes a command in a cgroup, under an allocator.
    #[command(hide = true)]
    Enter {
        cgroup: PathBuf,
        #[arg(value_parser = an_allocator)]
        allocator: Allocator,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Touches memory in a cgroup until it is killed.
    #[command(hide = true)]
    Eat { cgroup: PathBuf },
}

#[derive(Args)]
struct Selection {
    /// The workloads; all if none is named.
    #[arg(long, value_delimiter = ',', value_parser = a_workload)]
    only: Vec<Workload>,
    /// The allocators; each at its default and its tightest setting if none is named.
    #[arg(long, value_delimiter = ',', value_parser = an_allocator)]
    allocators: Vec<Allocator>,
}

impl Selection {
    fn workloads(&self) -> Vec<Workload> {
        match self.only.is_empty() {
            true => WORKLOADS.to_vec(),
            false => self.only.clone(),
        }
    }

    fn allocators(&self) -> Vec<Allocator> {
        chosen(&self.allocators)
    }
}

/// Returns the allocators that were named, or the default ones.
fn chosen(named: &[Allocator]) -> Vec<Allocator> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let all = ALLOCATORS.iter().copied();
    all.filter(|allocator| allocator.is_default).collect()
}

fn a_workload(name: &str) -> Result<Workload, String> {
    let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
    workload::named(name).ok_or(format!("it is one of {}", names.join(", ")))
}

fn an_allocator(name: &str) -> Result<Allocator, String> {
    let names: Vec<_> = ALLOCATORS.iter().map(|allocator| allocator.name).collect();
    allocator::named(name).ok_or(format!("it is one of {}", names.join(", ")))
}

fn print(record: &Record) -> Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, record)?;
    Ok(writeln!(output)?)
}

/// Measures what each allocator holds and uses, without a limit.
fn measure(selection: &Selection, rounds: u32, icount: bool) -> Result<()> {
    let clock = match icount {
        true => Clock::Instructions,
        false => Clock::Wall,
    };
    let kernel = run::kernel()?;
    print(&Record::Machine { kernel, clock })?;
    let mut allocators = selection.allocators();
    for workload in selection.workloads() {
        run::warm_up(&workload, &allocators)?;
        for round in 0..rounds {
            for allocator in &allocators {
                print(&Record::Run(run::measure(&workload, allocator, round)?))?;
            }
            allocators.reverse();
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    match Cli::parse().what {
        What::Run {
            selection,
            rounds,
            icount,
        } => measure(&selection, rounds, icount),
        What::Limits { selection } => {
            let allocators = selection.allocators();
            for workload in selection.workloads() {
                run::warm_up(&workload, &allocators)?;
                for allocator in &allocators {
                    print(&limits::bisect(&workload, allocator)?)?;
                }
            }
            Ok(())
        }
        What::Idle { selection } => {
            let allocators = selection.allocators();
            for workload in selection.workloads() {
                let Some(idles_at) = workload.idles_at else {
                    continue;
                };
                run::warm_up(&workload, &allocators)?;
                for allocator in &allocators {
                    print(&idle::share(&workload, allocator, idles_at)?)?;
                }
            }
            Ok(())
        }
        What::List { allocators } => {
            for allocator in chosen(&allocators) {
                println!("{}\t{}", allocator.name, allocator.what);
            }
            Ok(())
        }
        What::Enter {
            cgroup,
            allocator,
            command,
        } => run::enter(&cgroup, &allocator, &command),
        What::Eat { cgroup } => idle::eat(&cgroup),
    }
}
