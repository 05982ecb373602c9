// SPDX-License-Identifier: GPL-2.0

//! Runs the tests with a mutant.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{ensure, Context, Result};
use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeValLike;

use crate::list::Mutant;
use crate::state::{Outcome, State};

/// The parts of the tests, by their names: quick ones that catch most mutants come first. The first
/// part takes a fifth of a second, each of the others several times what those before it take.
const PARTS: [&[&str]; 4] = [
    &[
        "pages_of_4_kib",
        "lists::",
        "deferred::",
        "counters::",
        "--skip=model",
        "--skip=could_serve",
        "--skip=in_pieces",
        "--skip=trimmed",
        "--skip=are_bounded",
        "--skip=every_size",
        "--skip=pages_of_16_kib",
        "--skip=pages_of_64_kib",
    ],
    &[
        "pages_of_4_kib",
        "copy::",
        "map::",
        "waiting::",
        "lazy_blocks",
        "every_short_sequence",
        "--skip=pages_of_16_kib",
        "--skip=pages_of_64_kib",
    ],
    &[
        "--skip=pages_of_4_kib",
        "--skip=traces::",
        "--skip=adversarial::",
        "--skip=leave_the_span",
        "--skip=many_holes",
        "--skip=counts_stay_true",
    ],
    &[
        "traces::",
        "adversarial::",
        "leave_the_span",
        "many_holes",
        "counts_stay_true",
    ],
];
/// Limits a command to `$0` seconds of CPU time, 8 GB, and ten minutes of real time.
const LIMITED: &str = "ulimit -t $0 -v 8000000; exec timeout --signal=KILL 600 \"$@\"";
/// The limit without a measurement, in seconds of CPU time: more than any part needs on any machine.
const AMPLE: u64 = 120;

/// The seconds of CPU time for each part, after which it is taken to be endless.
pub struct Limits([u64; PARTS.len()]);

impl Limits {
    /// Measures each part without a mutant, which has to pass. The limits are four times its time.
    pub fn of(program: &Path) -> Result<Self> {
        let mut limits = [0; PARTS.len()];
        for (limit, part) in limits.iter_mut().zip(PARTS) {
            let before = seconds_of_children()?;
            let status = run_part(program, None, part, AMPLE)?;
            ensure!(
                status.success(),
                "the tests {part:?} fail without any change: {status}"
            );
            *limit = 4 * (seconds_of_children()? - before) + 4;
        }
        Ok(Self(limits))
    }
}

/// Returns the seconds of CPU time of the ended children of this process. They do not depend on the load
/// of the machine.
fn seconds_of_children() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    Ok(time.num_seconds().unsigned_abs())
}

/// Runs the tests with one of the mutants of `program`, or with none.
pub fn run(program: &Path, id: Option<usize>, limits: &Limits) -> Result<Outcome> {
    for (part, limit) in PARTS.iter().zip(limits.0) {
        let status = run_part(program, id, part, limit)?;
        if !status.success() {
            return Ok(outcome(status));
        }
    }
    Ok(Outcome::Lived)
}

/// Runs a part of the tests.
fn run_part(program: &Path, id: Option<usize>, part: &[&str], limit: u64) -> Result<ExitStatus> {
    let mut command = Command::new("bash");
    command
        .args(["-c", LIMITED])
        .arg(limit.to_string())
        .arg(program)
        .arg("--test-threads=1")
        .args(part)
        .env("PROPTEST_CASES", "48")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(id) = id {
        command.env("FREELIST_CHANGED", id.to_string());
    }
    command.status().context("bash")
}

/// Returns the outcome for a part that did not pass. Two signals are those of the limits.
fn outcome(status: ExitStatus) -> Outcome {
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    match status.signal() {
        Some(SIGKILL | SIGXCPU) => Outcome::Endless,
        _ => Outcome::Caught,
    }
}

/// Runs all of `ids`, some at a time.
pub fn run_all(
    program: &Path,
    mutants: &[Mutant],
    ids: &[usize],
    jobs: usize,
    limits: &Limits,
    state: &State,
) -> Result<()> {
    let next = Mutex::new(ids.iter());
    let work = || -> Result<()> {
        loop {
            let id = next
                .lock()
                .expect("no thread panics while it holds the lock")
                .next();
            let Some(id) = id else { return Ok(()) };
            state.set(&mutants[*id], run(program, Some(*id), limits)?)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let mut ended = workers.into_iter().map(|worker| worker.join());
        ended.try_for_each(|result| result.expect("it does not panic"))
    })
}
