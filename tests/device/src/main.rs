// SPDX-License-Identifier: GPL-2.0

//! Tests of `/dev/freelist` from user space, in KTAP.
//!
//! They hold the module to the contract of `src/uapi/freelist.h` and freelist(4), `src/man/freelist.4`. Run as
//! root, with the module loaded and debugfs mounted. Each test is a process of its own (see [`harness`]), so
//! what one leaves behind does not affect the next.
//!
//! | module | is |
//! | --- | --- |
//! | `harness` | runs tests, watches them, prints KTAP |
//! | `kit` | the parts of tests: arenas, ledgers, raw calls and mappings |
//! | `suites` | the tests, a file for each area |
//!
//! `Prior art:` in a test's comment names cases of `tests/prior_art` that it holds.

mod harness;
mod kit;
mod suites;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use harness::Options;

/// Tests /dev/freelist and prints KTAP. The status is 0 if no test failed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Suites or SUITE/TEST to run; all by default.
    names: Vec<String>,
    /// List the tests and run none.
    #[arg(long)]
    list: bool,
    /// A factor for the work of the longer tests; 1 suits an emulated debug kernel.
    #[arg(long, value_name = "N", default_value_t = 1)]
    scale: u32,
    /// Seconds after which a test without a result is killed.
    #[arg(long, value_name = "S", default_value_t = 600)]
    timeout: u64,
    /// End with the first test that fails, and print which test runs.
    #[arg(long)]
    until_failure: bool,
    /// Print the points of the module that the tests reach, if the kernel has KCOV: as offsets in
    /// its file's sections, `# points SECTION HEX...`.
    #[arg(long)]
    coverage: bool,
    /// Run this one test in this process, without KTAP, as the harness does for each.
    #[arg(long, value_name = "SUITE/TEST", hide = true)]
    one: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(name) = &cli.one {
        return harness::one(suites::ALL, name);
    }
    if cli.list {
        for (suite, test) in harness::selected(suites::ALL, &cli.names) {
            println!("{}/{}", suite.name, test.name);
        }
        return ExitCode::SUCCESS;
    }
    harness::all(
        suites::ALL,
        &cli.names,
        &Options {
            until_failure: cli.until_failure,
            scale: cli.scale,
            timeout: Duration::from_secs(cli.timeout),
            coverage: cli.coverage,
        },
    )
}
