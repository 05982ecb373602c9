// SPDX-License-Identifier: GPL-2.0

//! Runs the tests with every mutant of the engine that cargo-mutants lists, and reports those that no test
//! notices.
//!
//! cargo-mutants compiles the tests once for each mutant, which takes a hundred times as long as they take to
//! fail. Here one program has all mutants in it: each function is there once unchanged and once for each of its
//! mutants, and an environment variable selects the one that is called (schemata: Untch, Offutt and Harrold,
//! 1993).

mod build;
mod list;
mod state;
mod trial;
mod weave;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use build::Tree;
use list::Mutant;
use state::{Outcome, State};
use trial::Limits;

/// Runs the tests with mutants of the engine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// A workspace with the engine and its tests and nothing else, whose files are changed.
    tree: PathBuf,
    /// The output of `cargo mutants --list --json` for it.
    list: PathBuf,
    /// The known outcomes, to which new ones are added.
    outcomes: PathBuf,
    /// The reasons why the tests need not notice some mutants, as TOML.
    explained: PathBuf,
    /// The number of mutants that run at a time.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// The number of mutants to run, the same ones each time, of all files alike.
    #[arg(long)]
    sample: Option<usize>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut mutants = list::read(&cli.list)?;
    list::shuffle(&mut mutants);
    mutants.truncate(cli.sample.unwrap_or(usize::MAX));
    let explained =
        fs::read_to_string(&cli.explained).with_context(|| cli.explained.display().to_string())?;
    let explained: BTreeMap<String, String> = toml::from_str(&explained)?;
    let state = State::open(&cli.outcomes)?;
    let tree = Tree::new(cli.tree, &mut mutants)?;

    // The mutants that can be in one program.
    let mut together = tree.together(&mutants)?;
    together.retain(|id| state.get(&mutants[*id]).is_none());
    let program = loop {
        match tree.build(&mutants, &together)? {
            Ok(program) => break program,
            Err(wrong) => {
                eprintln!(
                    "{} of {} changes do not compile",
                    wrong.len(),
                    together.len()
                );
                for id in wrong {
                    state.set(&mutants[id], Outcome::Unviable)?;
                    together.retain(|other| *other != id);
                }
            }
        }
    };
    let limits = Limits::of(&program)?;
    trial::run_all(&program, &mutants, &together, cli.jobs, &limits, &state)?;

    // The other mutants.
    for (id, mutant) in mutants.iter().enumerate() {
        if state.get(mutant).is_none() {
            let outcome = match tree.build_alone(&mutants, id)? {
                Some(program) => trial::run(&program, None, &limits)?,
                None => Outcome::Unviable,
            };
            state.set(mutant, outcome)?;
        }
    }
    report(&mutants, &state, &explained)
}

/// Prints the result.
fn report(mutants: &[Mutant], state: &State, explained: &BTreeMap<String, String>) -> Result<()> {
    let mut counts = BTreeMap::new();
    let (mut unexplained, mut used) = (0, Vec::new());
    let mut sorted: Vec<_> = mutants.iter().collect();
    sorted.sort_by_key(|mutant| (&mutant.file, mutant.span.start));
    for mutant in sorted {
        let outcome = state.get(mutant).context("every mutant was run")?;
        *counts.entry(outcome).or_insert(0) += 1;
        if outcome != Outcome::Lived {
            continue;
        }
        let reason = explained.get_key_value(&mutant.name);
        match reason {
            Some((key, reason)) => {
                used.push(key);
                println!("# lives: {}: {reason}", mutant.full_name());
            }
            None => {
                unexplained += 1;
                println!("# lives: {}", mutant.full_name());
            }
        }
    }
    for key in explained.keys().filter(|key| !used.contains(key)) {
        println!("# needs no explanation: {key}");
    }
    let count = |outcome| counts.get(&outcome).copied().unwrap_or(0);
    let (lived, unviable) = (count(Outcome::Lived), count(Outcome::Unviable));
    let (caught, late) = (count(Outcome::Caught), count(Outcome::Endless));
    let tried = caught + late + lived;
    println!(
        "# mutants: {caught} caught, {late} ran without end, {lived} lived, {unviable} do not compile"
    );
    println!("# trust: engine_mutants {tried} changes >=1000");
    println!(
        "# trust: engine_mutants_caught {:.1} percent >=95",
        100.0 * f64::from(caught + late) / f64::from(tried.max(1))
    );
    println!("# trust: engine_mutants_unexplained {unexplained} changes =0");
    Ok(())
}
