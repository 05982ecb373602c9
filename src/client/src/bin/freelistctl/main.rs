// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl`: inspects `/dev/freelist` and replays allocation traces.

mod cli_files;
mod doctor;
mod map;
mod pattern;
#[cfg(test)]
mod pixels;
mod progress;
mod replay;
mod run;
mod sample;
mod session;
mod show;
mod stat;
mod table;
mod timeline;
mod top;

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use freelist::debugfs::{self, Arenas};
use freelist::{Arena, DEVICE};

use crate::progress::Progress;

/// Inspects /dev/freelist, the page-backed freelist allocator, and replays
/// recorded allocation traces through it.
#[derive(Parser)]
#[command(name = "freelistctl", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the properties of the loaded module.
    Info {
        /// The device file.
        #[arg(long, default_value = DEVICE)]
        device: PathBuf,
    },
    /// Check module, device, permission, debugfs, kernel, limits and huge pages, and
    /// print the command that mends each fault. Fails if there is a fault.
    Doctor(doctor::Args),
    /// Show the module's statistics: totals, arenas and size classes. Without root,
    /// only of the arenas of your own processes.
    Stat(stat::Args),
    /// Watch arenas and size classes as they change, sorted by any column.
    Top(top::Args),
    /// Show the layout of an arena, as blocks of colour or as a picture: live, free,
    /// huge pages, divided pages, address space without memory.
    Map(map::Args),
    /// Have arenas release their free pages to the system.
    Trim(TrimArgs),
    /// Replay a recorded trace: each allocation by ALLOC, each release by FREE, with
    /// the content of every block checked. Fails if a byte has changed, a call has
    /// failed or a block is left.
    Replay(ReplayArgs),
    /// Record the sizes of arenas over time, while a program runs or until interrupted,
    /// with the events of the module's tracepoints if it has any.
    Record(timeline::record::Args),
    /// Draw a recording as an SVG: live, free, held and moved bytes and waits over time.
    Plot(timeline::plot::Args),
    /// Run a program unchanged, with its large blocks in an arena, by
    /// libfreelist_malloc.so. Passes on signals and the program's exit status.
    Run(run::Args),
    /// Print the completions for a shell.
    Completions(cli_files::CompletionsArgs),
    /// Write the man pages into a directory.
    #[command(hide = true)]
    Man(cli_files::ManArgs),
}

#[derive(clap::Args)]
struct TrimArgs {
    /// The numbers of arenas, as in `stat`; all arenas if none is given.
    ids: Vec<u64>,
    /// The bytes of free pages that each may keep; K, M or G are KiB, MiB, GiB.
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = freelist::size::parse)]
    keep: u64,
}

#[derive(clap::Args)]
struct ReplayArgs {
    /// The trace, compressed by gzip or plain text.
    file: PathBuf,
    /// Replay only up to the end of training step N.
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// The limit of the arena in bytes of pages, at least 1; K, M or G are KiB, MiB,
    /// GiB.
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    limit: Option<u64>,
    /// Let the arena hold that many thousandths more than its blocks ever needed
    /// before it reuses scattered free memory: 1 to 1000, or `none` for no limit.
    #[arg(long, value_name = "PERMILLE", value_parser = slack)]
    slack: Option<Slack>,
    /// Show the whole session: kernel, module, device and the statistics at
    /// the peak and at the end.
    #[arg(long, conflicts_with = "json")]
    show: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Write a sample of the arena from event to event, for `freelistctl plot`.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// The device file.
    #[arg(long, default_value = DEVICE)]
    device: PathBuf,
}

/// A slack in thousandths; `None` if unlimited.
#[derive(Clone, Copy)]
struct Slack(Option<u32>);

/// Parses a limit in bytes, at least 1: in the contract 0 means "unchanged".
fn limit(text: &str) -> std::result::Result<u64, String> {
    match freelist::size::parse(text) {
        Ok(0) => Err("give at least 1 byte; without --limit the arena keeps its limit".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn slack(text: &str) -> std::result::Result<Slack, String> {
    match text.parse() {
        _ if text == "none" => Ok(Slack(None)),
        Ok(permille @ 1..=1000) => Ok(Slack(Some(permille))),
        _ => Err("give 1 to 1000 thousandths, or none".to_owned()),
    }
}

/// The exit status of a program that SIGPIPE ended, as in a shell.
const CLOSED_PIPE: u8 = 128 + 13;

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => code,
        // The reader closed the pipe, as in `freelistctl stat | head`.
        Err(error) if is_closed_pipe(&error) => ExitCode::from(CLOSED_PIPE),
        Err(error) => {
            eprintln!("freelistctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn run(command: &Command) -> Result<ExitCode> {
    let out = &mut io::stdout();
    match command {
        Command::Info { device } => {
            let arena = Arena::open_path(device)?;
            show::identity(out, &session::Identity::read(), device, &arena.info()?)?;
        }
        Command::Doctor(args) => return doctor::run(args),
        Command::Stat(args) => stat::run(args)?,
        Command::Top(args) => top::run(args)?,
        Command::Map(args) => map::run(args)?,
        Command::Trim(args) => trim(args)?,
        Command::Replay(args) => return replay(args),
        Command::Record(args) => return timeline::record::run(args),
        Command::Plot(args) => timeline::plot::run(args)?,
        Command::Run(args) => return run::run(args),
        Command::Completions(args) => cli_files::completions(args)?,
        Command::Man(args) => cli_files::man(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Trims the given arenas, or all, and prints how much each released.
fn trim(args: &TrimArgs) -> Result<()> {
    let held = |id| -> Result<Option<u64>> {
        let rows = Arenas::read()?.0;
        Ok(rows.iter().find(|row| row.id == id).map(|row| row.held))
    };
    let all = args.ids.is_empty();
    let ids: Vec<u64> = if all {
        Arenas::read()?.0.iter().map(|row| row.id).collect()
    } else {
        args.ids.clone()
    };
    for id in ids {
        let before = held(id)?;
        if let Err(error) = debugfs::trim(id, args.keep) {
            // An arena that was closed meanwhile holds nothing.
            if all && held(id)?.is_none() {
                continue;
            }
            return Err(error.into());
        }
        let after = held(id)?;
        show::trimmed(
            &mut io::stdout(),
            id,
            before.unwrap_or(0),
            after.unwrap_or(0),
        )?;
    }
    Ok(())
}

fn replay(args: &ReplayArgs) -> Result<ExitCode> {
    let mut trace = freelist::trace::Trace::read(&args.file)?;
    if let Some(steps) = args.steps {
        anyhow::ensure!(
            trace.keep_steps(steps),
            "{}: has no line \"m step {steps} end\"",
            args.file.display()
        );
    }
    let arena = Arena::open_path(&args.device)?;
    if let Some(limit) = args.limit {
        arena.set_limit(limit)?;
    }
    if let Some(Slack(slack)) = args.slack {
        arena.set_slack_permille(slack)?;
    }
    let info = arena.info()?;
    let identity = session::Identity::read();
    let out = &mut io::stdout();
    if args.show {
        show::identity(out, &identity, &args.device, &info)?;
        show::trace(out, &args.file, &trace)?;
        writeln!(out)?;
    }

    let progress = if args.json {
        Progress::silent()
    } else {
        Progress::new(trace.events.len())
    };
    let timeline = args
        .timeline
        .as_ref()
        .map(|path| replay::Timeline::create(path, &args.file, &trace))
        .transpose()?;
    let outcome = replay::run(&arena, &info, &trace, progress, timeline)
        .with_context(|| args.file.display().to_string())?;

    if args.json {
        writeln!(
            out,
            "{:#}",
            show::json(&identity, &args.file, &info, &outcome)
        )?;
    } else {
        show::outcome(out, &outcome)?;
    }
    if args.show {
        show::snapshots(out, &outcome)?;
    }
    Ok(if outcome.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_at_least_a_byte() {
        assert_eq!(limit("1"), Ok(1));
        assert_eq!(limit("64M"), Ok(64 << 20));
        for text in ["0", "0K", "-1", "much"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_of_ours() {
        let of = |kind| is_closed_pipe(&io::Error::from(kind).into());
        assert!(of(ErrorKind::BrokenPipe));
        assert!(!of(ErrorKind::NotFound));
    }

    #[test]
    fn a_slack_is_in_thousandths_or_none() {
        let of = |text| slack(text).map(|Slack(slack)| slack);
        assert_eq!(of("none"), Ok(None));
        assert_eq!(of("1"), Ok(Some(1)));
        assert_eq!(of("1000"), Ok(Some(1000)));
        for text in ["0", "1001", "-1", "5%", "", "4294967296"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
