// SPDX-License-Identifier: GPL-2.0

//! A test as a process, with a watchdog.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

use super::{Coverage, Options, SKIPPED};
use crate::kit::SCALE_VARIABLE;

/// The end of a test.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// Skipped, with the reason.
    Skipped(String),
    /// Failed, with the reason if the test could not print it.
    Failed(Option<String>),
}

/// The longest time until a killed process has ended, and its output has come.
const GRACE: Duration = Duration::from_secs(5);

/// The longest pause between two checks for the end of a process.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Runs the test `name`, returns its verdict and its output, and notes the points that it reached.
pub(super) fn run(
    name: &str,
    options: &Options,
    mut coverage: Option<&mut Coverage>,
) -> (Verdict, Vec<String>) {
    let timeout = options.timeout;
    let child = Command::new("/proc/self/exe")
        .args(["--one", name])
        .env(SCALE_VARIABLE, options.scale.to_string())
        .envs(coverage.as_ref().map(|coverage| coverage.variable()))
        .env("RUST_BACKTRACE", "0")
        // A group of its own, so that its children can be ended with it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (Verdict::Failed(Some(format!("spawn: {error}"))), Vec::new()),
    };
    let group = Pid::from_raw(child.id() as i32);

    let lines = collect(&mut child);
    if let Some(coverage) = &mut coverage {
        coverage.begin();
    }
    let mut meanwhile = || {
        if let Some(coverage) = &mut coverage {
            coverage.collect();
        }
    };
    let status = wait(&mut child, timeout, &mut meanwhile);
    // Ends what the test left running; otherwise the group is gone already.
    let _ = killpg(group, Signal::SIGKILL);
    let late = status.is_none();
    let status = status.or_else(|| wait(&mut child, GRACE, &mut meanwhile));
    if let Some(coverage) = coverage {
        coverage.end();
    }

    let mut said = Vec::new();
    let end = Instant::now() + GRACE;
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        said.push(line);
    }
    let verdict = match status {
        None => Verdict::Failed(Some("hangs and cannot be killed".to_owned())),
        Some(_) if late => Verdict::Failed(Some(format!("no result after {timeout:?}"))),
        Some(status) => verdict(status, &mut said),
    };
    (verdict, said)
}

fn verdict(status: ExitStatus, said: &mut Vec<String>) -> Verdict {
    if status.success() {
        return Verdict::Passed;
    }
    if status.code() == Some(SKIPPED.into()) {
        let reason = said.iter().position(|line| line.starts_with("SKIP "));
        let reason = reason.map(|at| said.remove(at).split_off("SKIP ".len()));
        return Verdict::Skipped(reason.unwrap_or_default());
    }
    Verdict::Failed(
        status
            .signal()
            .map(|signal| match Signal::try_from(signal) {
                Ok(signal) => format!("killed by {signal}"),
                Err(_) => format!("killed by signal {signal}"),
            }),
    )
}

/// Returns the status, or [`None`] if there is none in time. Calls `meanwhile` often.
fn wait(child: &mut Child, timeout: Duration, mut meanwhile: impl FnMut()) -> Option<ExitStatus> {
    let end = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        meanwhile();
        if let Some(status) = child.try_wait().expect("the child is this process's") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns the lines of both outputs as they come; the channel ends when both are closed.
fn collect(child: &mut Child) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    for pipe in outputs.into_iter().flatten() {
        let send = send.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                let noise = line.is_empty() || line.starts_with("note: run with `RUST_BACKTRACE");
                if !noise && send.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receive
}
