// SPDX-License-Identifier: GPL-2.0

//! Tables of what the tests have shown.

mod bench;
mod demo;
mod engine_coverage;
mod figure;
mod ktap;
mod module_coverage;
mod plot;
mod prior_art;
mod profile;
mod report;
mod reviews;
mod trust;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Makes tables of what the tests have shown.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The top of the project.
    #[arg(long, value_name = "DIR", default_value = ".")]
    top: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What the benchmarks have printed: tables, build/bench.json, and plots. The status says
    /// nothing of what was measured.
    Bench {
        /// Where plots are put.
        #[arg(long, value_name = "DIR")]
        plots: PathBuf,
        /// What they printed.
        #[arg(required = true)]
        printed: Vec<PathBuf>,
    },
    /// How much of the engine a run of its tests has reached, by what llvm-cov has exported.
    EngineCoverage {
        /// Its summary, JSON.
        summary: PathBuf,
    },
    /// What make demo has measured: a table, also as demo.md, and plots. The status is not 0 if
    /// results differ by allocator.
    Demo {
        /// Where the table and the plots are put.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// What was printed.
        #[arg(required = true)]
        printed: Vec<PathBuf>,
    },
    /// Cases of trusted peers, and which test holds each or why it cannot apply: Markdown. The status
    /// is not 0 when one has neither, or a test names one that is not there.
    PriorArt {
        /// Print how many there are instead, as figures for the report on trust.
        #[arg(long)]
        figures: bool,
    },
    /// How much of the module the tests reach, by what they print with --coverage.
    ModuleCoverage {
        /// The file that they ran with, as it was built for the debug kernel.
        module: PathBuf,
        /// What they printed.
        #[arg(required = true)]
        printed: Vec<PathBuf>,
    },
    /// In which functions the instructions of calls are: what scripts/profile prints.
    Profile {
        /// What /proc/kallsyms says there.
        symbols: PathBuf,
        /// The addresses of the instructions, in the order in which they were run.
        addresses: PathBuf,
    },
    /// The figures of the last run of every stage: a table, and build/trust.json. The status is
    /// not 0 when one is missing, or misses its aim without an explanation.
    Trust,
}

fn main() -> Result<ExitCode> {
    let Cli { top, what } = Cli::parse();
    match what {
        What::Bench { plots, printed } => {
            let bench = bench::Bench::read(&top, &printed)?;
            let path = top.join("build/bench.json");
            fs::write(&path, bench.json()?).with_context(|| path.display().to_string())?;
            bench.plot(&plots)?;
            print!("{bench}");
        }
        What::EngineCoverage { summary } => {
            print!("{}", engine_coverage::EngineCoverage::read(&summary)?)
        }
        What::Demo { out, printed } => {
            let demo = demo::Demo::read(&printed)?;
            demo.write(&out)?;
            print!("{}", demo.table(demo::Format::Terminal));
        }
        What::PriorArt { figures } => {
            let peers = prior_art::PriorArt::read(&top)?;
            if figures {
                print!("{}", peers.figures());
            } else {
                print!("{peers}");
            }
            if !peers.holds() {
                return Ok(ExitCode::FAILURE);
            }
        }
        What::ModuleCoverage { module, printed } => {
            print!(
                "{}",
                module_coverage::ModuleCoverage::read(&module, &printed)?
            );
        }
        What::Profile { symbols, addresses } => {
            print!("{}", profile::Profile::read(&symbols, &addresses)?);
        }
        What::Trust => {
            let report = trust::read(&top)?;
            let path = top.join("build/trust.json");
            fs::write(&path, report::json(&report.lines)?)
                .with_context(|| path.display().to_string())?;
            print!("{report}");
            if !report.holds() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
