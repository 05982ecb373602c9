// SPDX-License-Identifier: GPL-2.0

//! Running the tests with a change.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result};

use crate::list::Mutant;
use crate::state::{Outcome, State};

/// Parts of the tests, by their names: what is quick and notices most comes first.
const PARTS: [&[&str]; 3] = [
    &["pages_of_4_kib"],
    &[
        "buddy::",
        "map::",
        "waiting::",
        "promises::",
        "--skip=pages_of_4_kib",
    ],
    &[
        "--skip=buddy::",
        "--skip=map::",
        "--skip=waiting::",
        "--skip=promises::",
    ],
];
/// A part that takes longer never ends: seconds of a CPU's time (of which each takes one or two),
/// seconds of ours, and KiB.
const LIMITS: &str = "ulimit -t 6 -v 8000000; exec timeout --signal=KILL 600 \"$@\"";

/// Runs the tests with one of the changes of `program`, or with none.
pub fn run(program: &Path, id: Option<usize>) -> Result<Outcome> {
    for part in PARTS {
        let mut command = Command::new("bash");
        command
            .args(["-c", LIMITS, "bash"])
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
        let status = command.status().context("bash")?;
        if !status.success() {
            return Ok(outcome(status));
        }
    }
    Ok(Outcome::Lived)
}

/// What the end of a part that did not pass says. The limits kill by two signals.
fn outcome(status: ExitStatus) -> Outcome {
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    match status.signal() {
        Some(SIGKILL | SIGXCPU) => Outcome::Endless,
        _ => Outcome::Caught,
    }
}

/// Tries all of `ids`, so many at a time.
pub fn run_all(
    program: &Path,
    mutants: &[Mutant],
    ids: &[usize],
    jobs: usize,
    state: &State,
) -> Result<()> {
    let next = Mutex::new(ids.iter());
    let work = || -> Result<()> {
        loop {
            let id = next.lock().expect("nobody panics with it").next();
            let Some(id) = id else { return Ok(()) };
            state.set(&mutants[*id], run(program, Some(*id))?)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let mut ended = workers.into_iter().map(|worker| worker.join());
        ended.try_for_each(|result| result.expect("it does not panic"))
    })
}
