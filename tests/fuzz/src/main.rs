// SPDX-License-Identifier: GPL-2.0

//! Coverage-guided fuzzing of the calls, in a VM whose kernel has KCOV.
//!
//! A [`program`] is a sequence of calls for two threads. A program that reaches a new point of the module is
//! kept, and others are derived from the kept ones. Which of its allocations fails in a call (`fail-nth`) is a
//! part of a program like its numbers. After each program the module's invariants hold, nothing remains when
//! all is closed, and the kernel has not warned.
//!
//! syzkaller needs a network, ssh and an image in the VM. This fuzzer runs for some seconds in each debug run of
//! the tests, and checks the engine's invariants after each program.
//!
//! | module | is |
//! | --- | --- |
//! | `program` | programs, as data and as text |
//! | `machine` | the execution of their calls |
//! | `worker` | the process that executes them, and its supervisor |

mod machine;
mod program;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use fastrand::Rng;
use freelist_probe::Module;

use program::Program;
use worker::{End, Worker};

/// Fuzzes /dev/freelist and prints KTAP. The status is 0 when nothing went wrong.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The seconds to fuzz after the corpus.
    #[arg(long, value_name = "S", default_value_t = 15)]
    seconds: u64,
    /// The seed of the random numbers; printed, and new each time by default.
    #[arg(long)]
    seed: Option<u64>,
    /// The programs to begin with, one on each line.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Print programs that together reach all points: `# corpus PROGRAM`.
    #[arg(long)]
    keep: bool,
    /// Print the points of the module that were reached, as the device tests do, instead of figures.
    #[arg(long)]
    coverage: bool,
    /// Run this program only, in the form in which it is printed.
    #[arg(long, value_name = "PROGRAM")]
    replay: Option<Program>,
    /// The number of times that a replayed program is run: threads race.
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    /// Print each program before it runs: after a crash of the kernel the last one is the culprit.
    #[arg(long)]
    verbose: bool,
}

/// The interval of progress lines.
const REPORT: Duration = Duration::from_secs(5);
/// The offsets on each line.
const IN_A_LINE: usize = 64;

/// The state of a fuzzing run.
struct Fuzzer {
    worker: Worker,
    verbose: bool,
    /// All points that were reached.
    points: HashSet<u64>,
    /// The programs that reached a new point, and all points of each.
    kept: Vec<(Program, HashSet<u64>)>,
    programs: u64,
    /// The number of programs that ended for lack of memory.
    killed: u64,
    reported: Instant,
}

impl Fuzzer {
    fn new(verbose: bool) -> Result<Self, String> {
        Ok(Self {
            worker: Worker::new().map_err(|error| format!("KCOV: {error}"))?,
            verbose,
            points: HashSet::new(),
            kept: Vec::new(),
            programs: 0,
            killed: 0,
            reported: Instant::now(),
        })
    }

    /// Runs a program, and keeps it if it reaches a new point.
    fn run(&mut self, program: Program) -> Result<(), String> {
        if self.verbose {
            eprintln!("{program}");
        }
        let end = self.worker.run(&program);
        let end = end.map_err(|error| format!("{error}\n--replay '{program}'"))?;
        self.programs += 1;
        self.killed += u64::from(end == End::Killed);
        let mut reached = HashSet::new();
        self.worker.reached(|point| {
            reached.insert(point);
        });
        if !reached.is_subset(&self.points) {
            self.points.extend(&reached);
            self.kept.push((program, reached));
        }
        if self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            println!("    # programs {}", self.programs);
        }
        Ok(())
    }

    /// Runs the programs of a file.
    fn corpus(&mut self, path: &Path) -> Result<(), String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            self.run(line.parse()?)?;
        }
        Ok(())
    }

    /// Derives programs and runs them.
    fn fuzz(&mut self, seconds: u64, rng: &mut Rng) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let program = match rng.choice(&self.kept) {
                Some((one, _)) if rng.u8(..16) != 0 => {
                    let (other, _) = &self.kept[rng.usize(..self.kept.len())];
                    one.mutated(other, rng)
                }
                _ => Program::random(rng),
            };
            self.run(program)?;
        }
        Ok(())
    }

    /// Returns few programs that reach all points, each chosen for the most new ones.
    fn smallest(&self) -> Vec<&Program> {
        let mut missing = self.points.clone();
        let mut chosen = Vec::new();
        while !missing.is_empty() {
            let adds =
                |of: &HashSet<u64>| of.iter().filter(|point| missing.contains(point)).count();
            let Some((program, reached)) = self.kept.iter().max_by_key(|(_, of)| adds(of)) else {
                break;
            };
            if adds(reached) == 0 {
                break;
            }
            missing.retain(|point| !reached.contains(point));
            chosen.push(program);
        }
        chosen
    }

    /// Prints the points in the form for `freelist-report module-coverage`.
    fn print_coverage(&self) {
        let module = Module::loaded();
        let mut sections: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for place in self
            .points
            .iter()
            .filter_map(|point| module.as_ref()?.place(*point))
        {
            sections
                .entry(place.section)
                .or_default()
                .insert(place.offset);
        }
        for (section, offsets) in sections {
            let offsets: Vec<_> = offsets
                .iter()
                .map(|offset| format!(" {offset:x}"))
                .collect();
            for some in offsets.chunks(IN_A_LINE) {
                println!("    # points {section}{}", some.concat());
            }
        }
    }
}

/// Prints a test's result. Returns whether it passed.
fn result(number: u32, name: &str, result: &Result<(), String>) -> bool {
    let not = if result.is_ok() { "" } else { "not " };
    if let Err(error) = result {
        error.lines().for_each(|line| println!("    # {line}"));
    }
    println!("    {not}ok {number} {name}");
    result.is_ok()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    println!("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: freelist_fuzz\n    1..2");
    let mut fuzzer = match Fuzzer::new(cli.verbose) {
        Ok(fuzzer) => fuzzer,
        Err(error) => {
            println!("Bail out! {error}");
            return ExitCode::FAILURE;
        }
    };
    let corpus = match (&cli.replay, &cli.corpus) {
        (Some(program), _) => (0..cli.times).try_for_each(|_| fuzzer.run(program.clone())),
        (None, Some(path)) => fuzzer.corpus(path),
        (None, None) => Ok(()),
    };
    let mut ok = result(1, "programs_that_once_reached_something", &corpus);
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("    # seed {seed}");
    let found = match (&cli.replay, ok) {
        (None, true) => fuzzer.fuzz(cli.seconds, &mut Rng::with_seed(seed)),
        _ => Ok(()),
    };
    let found = found.and_then(|()| fuzzer.worker.end(true).map(|_| ()));
    println!(
        "    # {} programs, {} killed for lack of memory",
        fuzzer.programs, fuzzer.killed
    );
    if cli.coverage {
        fuzzer.print_coverage();
    } else {
        println!("    # trust: fuzz_programs {} programs -", fuzzer.programs);
        println!("    # trust: fuzz_points {} points -", fuzzer.points.len());
    }
    if cli.keep {
        for program in fuzzer.smallest() {
            println!("    # corpus {program}");
        }
    }
    ok &= result(2, "any_calls_in_any_order", &found);
    let not = if ok { "" } else { "not " };
    println!("{not}ok 1 freelist_fuzz");
    ExitCode::from(u8::from(!ok))
}
