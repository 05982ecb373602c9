// SPDX-License-Identifier: GPL-2.0

//! Makes tables of the tests' results.

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

/// Makes tables of the tests' results.
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
    /// Results of the benchmarks: tables, build/bench.json, and plots. The status does not depend on the
    /// figures.
    Bench {
        /// The directory of the plots.
        #[arg(long, value_name = "DIR")]
        plots: PathBuf,
        /// Files with the output of the benchmarks.
        #[arg(required = true)]
        printed: Vec<PathBuf>,
    },
    /// Coverage of the engine by its tests, from the output of llvm-cov.
    EngineCoverage {
        /// The summary, as JSON.
        summary: PathBuf,
    },
    /// Results of make demo: a table, also as demo.md, and plots. The status is not 0 if results differ by
    /// allocator.
    Demo {
        /// The directory of the table and the plots.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Files with the output of make demo.
        #[arg(required = true)]
        printed: Vec<PathBuf>,
    },
    /// Cases of other projects' tests, with the test that holds each or the reason why none can: Markdown. The
    /// status is not 0 if a case has neither, or a test names an unknown one.
    PriorArt {
        /// Print the numbers of cases instead, as figures for the report on trust.
        #[arg(long)]
        figures: bool,
    },
    /// Coverage of the module by the tests, from their output with --coverage.
    ModuleCoverage {
        /// The module's file that they ran with, built for the debug kernel.
        module: PathBuf,
        /// Files with the output of the tests.
        #[arg(required = true)]
        printed: Vec<PathBuf>,
    },
    /// The functions of the instructions of calls, as scripts/profile prints them.
    Profile {
        /// The text of /proc/kallsyms there.
        symbols: PathBuf,
        /// The addresses of the instructions, in the order in which they were run.
        addresses: PathBuf,
    },
    /// The figures of the last run of every stage: a table, and build/trust.json. The status is not 0 if one is
    /// missing, or misses its aim without an explanation.
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
            let prior_art = prior_art::PriorArt::read(&top)?;
            if figures {
                print!("{}", prior_art.figures());
            } else {
                print!("{prior_art}");
            }
            if !prior_art.holds() {
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
