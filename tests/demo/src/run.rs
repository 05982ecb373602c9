// SPDX-License-Identifier: GPL-2.0

//! Runs a program in a cgroup, and measures it at its marks and every 10 ms.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use freelist_demo::allocator::{Allocator, FREELIST};
use freelist_demo::record::{Mark, Run, Sample};
use freelist_demo::workload::Workload;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::cgroup::{self, Cgroup};

/// The interval of samples.
const INTERVAL: Duration = Duration::from_millis(10);

/// The directory of the workloads' programs.
const PROGRAMS: &str = "workloads";
/// The counters of all arenas.
const MODULE_STATS: &str = "/sys/kernel/debug/freelist/stats";

/// The environment of every program, beside the allocator's settings. PyTorch is kept from fused
/// multiply-add, each of which is emulated by some hundred instructions of the host.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("ATEN_CPU_CAPABILITY", "default"),
    ("ONEDNN_MAX_CPU_ISA", "SSE41"),
    ("PATH", "/usr/bin:/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("OMP_NUM_THREADS", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONHASHSEED", "0"),
];

/// The observations of a program.
pub struct Seen {
    /// The exit status.
    pub status: ExitStatus,
    /// The output beside its marks.
    pub result: String,
    /// Its marks.
    pub marks: Vec<Mark>,
    /// The samples of its memory.
    pub samples: Vec<Sample>,
}

impl Seen {
    /// Returns whether it succeeded with the results of `other`.
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        let results = |seen: &Self| -> Vec<String> {
            let marks = seen.marks.iter().map(|mark| mark.result.clone());
            marks.chain([seen.result.clone()]).collect()
        };
        self.status.success() && results(self) == results(other)
    }
}

/// Runs `command` under an allocator in a cgroup, to its end. Calls `at_mark` while the program waits at a
/// mark.
pub fn watch(
    command: &[&str],
    allocator: &Allocator,
    cgroup: &Cgroup,
    mut at_mark: impl FnMut(&str, &Child) -> Result<()>,
) -> Result<Seen> {
    let mut child = start(command, allocator, cgroup)?;
    let begin = Instant::now();
    let mut answers = child.stdin.take().context("a pipe to the program")?;
    let mut output = child.stdout.take().context("a pipe from the program")?;
    let is_freelist = allocator.name == FREELIST;
    let (mut lines, mut result) = (Vec::new(), String::new());
    let (mut marks, mut samples) = (Vec::new(), Vec::new());
    let timeout = PollTimeout::try_from(INTERVAL)?;
    loop {
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        let has_output = poll(&mut fds, timeout)? > 0;
        let sample = Sample {
            at_us: begin.elapsed().as_micros() as u64,
            current: cgroup.current()?,
            free: if is_freelist { free_bytes()? } else { 0 },
        };
        sample.add_to(&mut samples);
        if !has_output {
            continue;
        }
        let mut buffer = [0; 4096];
        let length = output.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        lines.extend_from_slice(&buffer[..length]);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            let line = String::from_utf8(line)?;
            let Some(mark) = line.strip_prefix("mark ") else {
                result.push_str(&line);
                continue;
            };
            let (name, its_result) = mark.split_once(' ').context("a mark and its result")?;
            marks.push(Mark {
                name: name.to_owned(),
                result: its_result.trim().to_owned(),
                current: cgroup.current()?,
                usage: cgroup.usage()?,
            });
            at_mark(name, &child)?;
            go_on(&mut answers)?;
        }
    }
    Ok(Seen {
        status: child.wait()?,
        result: result.trim().to_owned(),
        marks,
        samples,
    })
}

/// Lets a program continue after its mark, unless it was killed there.
fn go_on(answers: &mut ChildStdin) -> Result<()> {
    match answers.write_all(b"\n") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Starts the command by way of this program, which is static: the library is preloaded in the workload alone,
/// and all that it uses is charged to the cgroup.
fn start(command: &[&str], allocator: &Allocator, cgroup: &Cgroup) -> Result<Child> {
    Command::new("/proc/self/exe")
        .arg("enter")
        .arg(cgroup.path())
        .arg(allocator.name)
        .arg("--")
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("this program, once more")
}

/// Executes `command` in the cgroup. Returns only if that fails.
pub fn enter(path: &Path, allocator: &Allocator, command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("a command")?;
    cgroup::join(path)?;
    env::set_current_dir(PROGRAMS).context(PROGRAMS)?;
    let mut command = Command::new(program);
    let ours = env::vars().filter(|(name, _)| name.starts_with("FREELIST_"));
    command
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .envs(ours)
        .envs(allocator.settings.iter().copied());
    if let Some(library) = allocator.library {
        command.env("LD_PRELOAD", library);
    }
    Err(command.exec()).with_context(|| program.clone())
}

/// Returns the bytes of free blocks of all arenas.
fn free_bytes() -> Result<u64> {
    let stats = fs::read_to_string(MODULE_STATS).context("the module is not loaded")?;
    let mut lines = stats.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = lines
        .find(|(name, _)| *name == "free_bytes")
        .context("stats has no free_bytes")?;
    Ok(value.trim().parse()?)
}

/// Runs a workload once, without a limit.
pub fn measure(workload: &Workload, allocator: &Allocator, round: u32) -> Result<Run> {
    let cgroup = Cgroup::new("demo")?;
    let seen = watch(workload.command, allocator, &cgroup, |_, _| Ok(()))?;
    if !seen.status.success() {
        bail!(
            "{} under {} ended with {}",
            workload.name,
            allocator.name,
            seen.status
        );
    }
    Ok(Run {
        workload: workload.name.to_owned(),
        allocator: allocator.name.to_owned(),
        round,
        result: seen.result,
        marks: seen.marks,
        peak: cgroup.peak()?,
        total: cgroup.usage()?,
        samples: seen.samples,
    })
}

/// Runs a workload's shorter form outside of all measurements: its files are in the page cache
/// afterwards, which no cgroup is charged for.
pub fn warm_up(workload: &Workload, allocators: &[Allocator]) -> Result<()> {
    let cgroup = Cgroup::new("warm-up")?;
    let glibc = freelist_demo::allocator::named("glibc").context("glibc")?;
    let seen = watch(workload.warm_up, &glibc, &cgroup, |_, _| Ok(()))?;
    if !seen.status.success() {
        bail!("{} ended with {}", workload.name, seen.status);
    }
    // The libraries: a program that does nothing.
    for allocator in allocators {
        let seen = watch(&["true"], allocator, &cgroup, |_, _| Ok(()))?;
        if !seen.status.success() {
            bail!("true under {} ended with {}", allocator.name, seen.status);
        }
    }
    Ok(())
}

/// Returns the kernel's release.
pub fn kernel() -> Result<String> {
    let mut text = String::new();
    File::open("/proc/sys/kernel/osrelease")?.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}
