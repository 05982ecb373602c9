// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl run`: runs a program with `libfreelist_malloc.so` before its C library.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure, Context, Result};
use freelist::malloc::{self, ProcessReport, MIN_THRESHOLD};
use freelist::Arena;
use nix::errno::Errno;
use nix::spawn::{posix_spawnp, PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::signal::{self, SigSet, SigmaskHow, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{getpgid, getpgrp, tcgetpgrp, Pid};
use serde_json::{json, Value};

use crate::show;

/// The library's file name, as in its Makefile.
const LIBRARY: &str = "libfreelist_malloc.so";
/// The signals that are meant for the program, and are passed on to it.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// The format of the report at the end.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The limit of the arena of each process, in bytes of pages; K, M or G are KiB,
    /// MiB, GiB (FREELIST_LIMIT).
    #[arg(long, value_name = "SIZE", value_parser = freelist::size::parse)]
    limit: Option<u64>,
    /// Serve blocks of at least SIZE bytes from the arena, from 64K up
    /// (FREELIST_THRESHOLD).
    #[arg(long, value_name = "SIZE", value_parser = freelist::size::parse)]
    threshold: Option<u64>,
    /// Refuse large blocks that the arena cannot serve, instead of leaving them
    /// to the C library (FREELIST_STRICT=1).
    #[arg(long)]
    strict: bool,
    /// Print a report of what the program held on standard error at the end.
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    report: Option<Format>,
    /// The library, if it is not beside freelistctl.
    #[arg(long, value_name = "FILE", env = "FREELIST_LIBRARY")]
    library: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Finds the library: where `--library` says, or where `make` or `make install` put it.
pub(crate) fn library(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return path
            .canonicalize()
            .with_context(|| format!("--library {}", path.display()));
    }
    let this = env::current_exe().context("finding freelistctl itself")?;
    let here = this.parent().unwrap_or(Path::new("/"));
    let beside = ["", "../lib", "../lib/freelist", "../lib64", "../client"];
    let installed = ["/usr/local/lib", "/usr/lib"].map(PathBuf::from);
    let places = beside.iter().map(|place| here.join(place)).chain(installed);
    let multiarch = PathBuf::from(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH));
    let mut looked_in = Vec::new();
    for place in places.chain([multiarch]) {
        let path = place.join(LIBRARY);
        if let Ok(path) = path.canonicalize() {
            return Ok(path);
        }
        looked_in.push(place.display().to_string());
    }
    bail!(
        "{LIBRARY} is in none of {}: make -C src/client/c builds it, or pass --library",
        looked_in.join(", ")
    )
}

/// Reports a device that cannot be used, once instead of by each process.
fn look_at_device(strict: bool) -> Result<()> {
    let Err(error) = Arena::open() else {
        return Ok(());
    };
    ensure!(!strict, "{error}");
    eprintln!("freelistctl: {error}: the C library serves large blocks");
    Ok(())
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let threshold = args.threshold.unwrap_or(MIN_THRESHOLD as u64);
    ensure!(
        threshold >= MIN_THRESHOLD as u64,
        "--threshold {threshold}: at least {MIN_THRESHOLD} bytes (64K)"
    );
    let limit = args.limit.unwrap_or(1 << 20);
    ensure!(limit >= 1 << 20, "--limit {limit}: at least 1 MiB");
    let library = library(args.library.as_deref())?;
    look_at_device(args.strict)?;
    if let (Some(limit), Ok(arena)) = (args.limit, Arena::open()) {
        arena
            .set_limit(limit)
            .with_context(|| format!("--limit {limit}"))?;
    }

    let report = args.report.map(|_| report_file()).transpose()?;
    let mut environment: BTreeMap<OsString, OsString> = env::vars_os().collect();
    let mut set = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            environment.insert(name.into(), value);
        }
    };
    set("LD_PRELOAD", Some(preload(&library)));
    set("FREELIST_QUIET", Some("1".into()));
    set(
        "FREELIST_THRESHOLD",
        args.threshold.map(|bytes| bytes.to_string().into()),
    );
    set(
        "FREELIST_LIMIT",
        args.limit.map(|bytes| bytes.to_string().into()),
    );
    set("FREELIST_STRICT", args.strict.then(|| "1".into()));
    // Without `--report` the program has no report: that of an outer `freelistctl run` is not for it.
    let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    set(
        "FREELIST_REPORT",
        Some(report.as_ref().map(path).unwrap_or_default().into()),
    );
    let status = match supervise(&args.program, &environment) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("freelistctl: {error:#}");
            // The message and status of a shell.
            let found = error.downcast_ref() != Some(&Errno::ENOENT);
            return Ok(ExitCode::from(if found { 126 } else { 127 }));
        }
    };
    if let (Some(format), Some(file)) = (args.report, report) {
        print_report(format, file)?;
    }
    Ok(leave(status))
}

/// Prints the report of the processes on standard error. If that is closed, it prints nothing: the program's
/// own status is still passed on.
fn print_report(format: Format, mut file: File) -> Result<()> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let rows = malloc::read_report(&bytes);
    let out = &mut io::stderr();
    let _ = match format {
        Format::Text => show::processes(out, &rows),
        Format::Json => writeln!(out, "{:#}", json_of(&rows)),
    };
    Ok(())
}

/// Returns the value of LD_PRELOAD: this library, then the present value, which has the next allocator.
fn preload(library: &Path) -> OsString {
    let mut value = library.as_os_str().to_owned();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        value.push(OsStr::new(":"));
        value.push(others);
    }
    value
}

/// Makes a file of this process that the program's processes open by its path in `/proc`.
fn report_file() -> Result<File> {
    let file = memfd_create("freelist-report", MFdFlags::MFD_CLOEXEC);
    let mut file = File::from(file.context("making the report's file")?);
    file.write_all(&malloc::empty_report())?;
    file.set_len(malloc::report_len())?;
    Ok(file)
}

/// Runs the program to its end, and passes on signals that are meant for it.
fn supervise(
    program: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
) -> Result<WaitStatus> {
    let mut passed_on = SigSet::from_iter(PASSED_ON);
    passed_on.add(Signal::SIGCHLD);
    // Signals stay blocked until the loop below; the program starts with the mask of this process.
    let before = passed_on.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let child = spawn(program, environment, &before).with_context(|| {
        program
            .first()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    })?;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            status => return Ok(status),
        }
        let signal = passed_on.wait()?;
        if signal != Signal::SIGCHLD {
            pass_on(child, signal);
        }
    }
}

/// Starts the program with the signal mask `mask`.
fn spawn(
    program: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
    mask: &SigSet,
) -> Result<Pid> {
    let arguments: Result<Vec<CString>, _> = program
        .iter()
        .map(|word| CString::new(word.as_bytes()))
        .collect();
    let pairs = environment.iter().map(|(name, value)| {
        let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
        CString::new(pair)
    });
    let (arguments, pairs) = (arguments?, pairs.collect::<Result<Vec<_>, _>>()?);
    let name = arguments.first().context("no program is named")?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(mask)?;
    // Rust's runtime ignores it.
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    let actions = PosixSpawnFileActions::init()?;
    Ok(posix_spawnp(
        name,
        &actions,
        &attributes,
        &arguments,
        &pairs,
    )?)
}

/// Sends the program a signal, unless the terminal sent it to both.
fn pass_on(child: Pid, signal: Signal) {
    // The terminal sends these to all of its foreground group.
    let typed = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH);
    let ours = getpgid(Some(child)) == getpgid(None);
    let terminal = tcgetpgrp(io::stdin()) == Ok(getpgrp());
    if !(typed && ours && terminal) {
        // The program may have ended just now.
        let _ = signal::kill(child, signal);
    }
}

/// Ends this process as the program ended.
fn leave(status: WaitStatus) -> ExitCode {
    match status {
        WaitStatus::Exited(_, code) => ExitCode::from(code as u8),
        WaitStatus::Signaled(_, fatal, _) => {
            // The program's core has been dumped already, if one is wanted.
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            let _ = SigSet::from_iter([fatal]).thread_unblock();
            let _ = signal::raise(fatal);
            // The signal does not end this process.
            ExitCode::from(128 + fatal as u8)
        }
        _ => ExitCode::FAILURE,
    }
}

fn json_of(rows: &[ProcessReport]) -> Value {
    let processes = rows.iter().map(|row| {
        let refused = row
            .refused
            .iter()
            .map(|(reason, count)| ((*reason).to_owned(), json!(count)));
        json!({
            "pid": row.pid,
            "peak_held_bytes": row.peak_held,
            "peak_live_bytes": row.peak_live,
            "live_blocks": row.live_blocks,
            "live_bytes": row.live_bytes,
            "held_bytes": row.held,
            "allocs": row.allocs,
            "frees": row.frees,
            "trims": row.trims,
            "trimmed_bytes": row.trimmed,
            "forks": row.forks,
            "copied_bytes": row.copied,
            "next_allocator": Value::Object(refused.collect()),
            "next_allocator_largest_bytes": row.refused_bytes,
        })
    });
    json!({ "processes": processes.collect::<Vec<_>>() })
}
