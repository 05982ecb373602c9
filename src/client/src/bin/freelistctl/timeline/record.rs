// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl record`: samples arenas while a program runs, or until interrupted.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::tracefs::{self, Tracer};
use super::{Header, Line, Moment, Writer};
use crate::sample::Sample;
use crate::show::grouped;
use crate::stat::seconds;

/// The file that `record` writes and `plot` draws by default.
pub(crate) const FILE: &str = "freelist.jsonl";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The seconds from one sample to the next.
    #[arg(short, long, value_name = "SECONDS", default_value = "0.1", value_parser = seconds)]
    interval: Duration,
    /// Stop after that many seconds.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// Write every event of the tracepoints freelist:* too, not only their number.
    #[arg(short, long)]
    events: bool,
    /// The recording, with a JSON object on each line; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = FILE)]
    output: PathBuf,
    /// A program and its arguments: record until it ends, and exit with its status.
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// The signals that end a recording early.
struct Signals {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Signals {
    fn watch() -> Result<Self> {
        let signals = Self {
            interrupted: Arc::default(),
            terminated: Arc::default(),
        };
        signal_hook::flag::register(SIGINT, signals.interrupted.clone())?;
        signal_hook::flag::register(SIGTERM, signals.terminated.clone())?;
        Ok(signals)
    }

    /// Returns whether to stop. A program is waited for: it gets SIGINT from the terminal too, and SIGTERM is
    /// passed on to it.
    fn end(&self, program: Option<&Child>) -> bool {
        let terminated = self.terminated.swap(false, Ordering::Relaxed);
        let interrupted = self.interrupted.swap(false, Ordering::Relaxed);
        match program {
            None => terminated || interrupted,
            Some(child) if terminated => {
                // The program may have ended just now.
                let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
                false
            }
            Some(_) => false,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let first = Sample::read()?;
    let signals = Signals::watch()?;
    let start = Instant::now();
    let mut tracer = tracefs::is_there()
        .then(|| Tracer::start(monotonic()))
        .transpose()?;
    let mut header = Header::new(title(&args.program), super::origin(first.origin));
    if let Some(note) = &first.note {
        eprintln!("freelistctl: {note}");
    } else if tracer.is_none() {
        header.title += " (without tracepoints)";
    }
    let mut writer = Writer::create(&args.output, header)?;
    let mut program = match spawn(&args.program) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("freelistctl: {error:#}");
            let found = error
                .downcast_ref::<std::io::Error>()
                .and_then(|error| error.raw_os_error())
                != Some(Errno::ENOENT as i32);
            return Ok(ExitCode::from(if found { 126 } else { 127 }));
        }
    };
    let mut samples = 0u64;
    let status = loop {
        let status = match &mut program {
            Some(child) => child.try_wait()?,
            None => None,
        };
        let sample = match samples {
            0 => first.clone(),
            _ => Sample::read()?,
        };
        let mut moment = Moment::of_sample(start.elapsed().as_nanos() as u64, &sample);
        if let Some(tracer) = &mut tracer {
            tracer.take(|event| match args.events {
                true => writer.write(&Line::Event(event)),
                false => Ok(()),
            })?;
            moment.events.clone_from(&tracer.counts);
        }
        writer.write(&Line::Sample(moment))?;
        samples += 1;
        let is_over = args.duration.is_some_and(|max| start.elapsed() >= max);
        if status.is_some() || is_over || signals.end(program.as_ref()) {
            break status;
        }
        wait(args.interval, &signals, program.as_mut());
    };
    writer.flush()?;
    summarise(args, samples, tracer.as_ref());
    Ok(status.map_or(ExitCode::SUCCESS, of_program))
}

fn title(program: &[OsString]) -> String {
    if program.is_empty() {
        return "all arenas".to_owned();
    }
    let words: Vec<_> = program.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn spawn(program: &[OsString]) -> Result<Option<Child>> {
    let Some((name, arguments)) = program.split_first() else {
        return Ok(None);
    };
    let child = Command::new(name).args(arguments).spawn();
    Ok(Some(
        child.with_context(|| name.to_string_lossy().into_owned())?,
    ))
}

/// Waits for the next sample, a signal, or the end of the program.
fn wait(interval: Duration, signals: &Signals, mut program: Option<&mut Child>) {
    /// The longest delay until an end is noticed.
    const STEP: Duration = Duration::from_millis(50);
    let next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let is_signalled = signals.interrupted.load(Ordering::Relaxed)
            || signals.terminated.load(Ordering::Relaxed);
        let has_ended = match &mut program {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => false,
        };
        if left.is_zero() || is_signalled || has_ended {
            return;
        }
        thread::sleep(left.min(STEP));
    }
}

/// Prints on standard error the number of samples and events, and the next step.
fn summarise(args: &Args, samples: u64, tracer: Option<&Tracer>) {
    let counts = tracer.iter().flat_map(|tracer| &tracer.counts);
    let counts: Vec<String> = counts
        .map(|(name, count)| format!("{} {name}", grouped(*count)))
        .collect();
    let counts = match counts.is_empty() {
        true => String::new(),
        false => format!("; events: {}", counts.join(", ")),
    };
    let file = args.output.display();
    eprintln!(
        "freelistctl: {} samples in {file}{counts}; freelistctl plot {file} draws them",
        grouped(samples)
    );
}

/// Ends as the program ended.
fn of_program(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.unwrap_or(1) as u8)
}

/// Returns `CLOCK_MONOTONIC` in ns.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
