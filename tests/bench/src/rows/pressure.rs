// SPDX-License-Identifier: GPL-2.0

//! Memory that one process holds in free blocks, and that another one needs: both are in a cgroup that is too
//! small for both.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{ensure, Context, Result};
use nix::sys::mman::MmapAdvise;

use crate::allocator::{Allocator, Block};
use crate::allocators::{named, Malloc, LEAVING};
use crate::clock::{timed, Clock};
use crate::print::Printer;
use crate::probe::{self, Subject};
use crate::samples::Samples;
use crate::sys::Pages;

/// The bytes that both processes may have together, that the first keeps, and that the second needs.
const LIMIT: usize = 224 << 20;
const HOARDED: usize = 96 << 20;
const NEEDED: usize = 192 << 20;
/// The bytes of each block that is hoarded.
const BLOCK: usize = 64 << 10;

/// A cgroup, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        fs::write(root.join("cgroup.subtree_control"), "+memory").context("memory cgroups")?;
        let path = root.join("bench");
        fs::create_dir(&path)?;
        let cgroup = Self(path);
        fs::write(cgroup.0.join("memory.max"), LIMIT.to_string())?;
        // Absent on a kernel without swap.
        let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
        Ok(cgroup)
    }

    /// Returns the number of processes that were killed in it for lack of memory.
    fn kills(&self) -> Result<f64> {
        let text = fs::read_to_string(self.0.join("memory.events"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.context("oom_kill")?.parse()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may have ended a moment ago; the machine ends soon.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Starts a probe in the cgroup, and waits until it is ready, or was killed.
fn start(name: &str, subject: Subject, cgroup: &Cgroup) -> Result<(Child, BufReader<impl Read>)> {
    let path = cgroup.0.to_str().context("a path")?;
    let mut child = probe::start(name, subject, path)?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let is_ready = line == "ready\n" || cgroup.kills()? > 0.0;
    ensure!(is_ready, "probe {name} of {}: {line:?}", subject.name());
    Ok((child, lines))
}

/// Returns the nanoseconds per MiB that the process in need waited, if it lived, and the number of kills.
fn once(subject: Subject) -> Result<(Option<f64>, f64)> {
    let cgroup = Cgroup::new()?;
    let (mut hoarder, _out) = start("hoard", subject, &cgroup)?;
    let (mut needy, mut lines) = start("need", Subject::Nothing, &cgroup)?;
    drop(needy.stdin.take());
    let mut text = String::new();
    lines.read_to_string(&mut text)?;
    let lived = needy.wait()?.success();
    drop(hoarder.stdin.take());
    hoarder.wait()?;
    let time = if lived {
        Some(probe::Values::parse(&text)?.get("each")?)
    } else {
        None
    };
    Ok((time, cgroup.kills()?))
}

pub fn run(printer: Printer, clock: Clock) -> Result<()> {
    let others: [Malloc; 4] = [named("mimalloc"), named("jemalloc"), LEAVING[0], LEAVING[1]];
    let mut subjects = vec![Subject::Nothing];
    subjects.extend(Subject::and(&others));
    let mut times = vec![Samples::default(); subjects.len()];
    let mut kills = vec![Samples::default(); subjects.len()];
    let rounds = match clock {
        Clock::Instructions => 1,
        Clock::Wall => 3,
    };
    for _ in 0..rounds {
        for (at, subject) in subjects.iter().enumerate() {
            let (time, killed) = once(*subject)?;
            kills[at].add(killed);
            // A killed process has no time. That of a process for which another was killed is not compared.
            if let (Some(time), 0.0) = (time, killed) {
                times[at].add(time);
            }
        }
    }
    for (at, subject) in subjects.iter().enumerate() {
        printer.cell_in(
            "pressure",
            "killed",
            subject.name(),
            &kills[at],
            "processes",
        );
        if !times[at].is_empty() {
            printer.cell("pressure", "1MiB", subject.name(), &times[at]);
        }
    }
    let ours = 1;
    printer.figure(
        "pressure_killed",
        Samples::worst([&kills[ours]], clock),
        "processes",
        "=0",
    );
    // With their defaults the other allocators get a process killed.
    for (at, subject) in subjects
        .iter()
        .enumerate()
        .skip(subjects.len() - LEAVING.len())
    {
        if !times[at].is_empty() && !times[ours].is_empty() {
            let name = format!("pressure_over_{}", subject.name());
            printer.counted(&name, &times[ours].over(&times[at], clock), "ratio", "-");
        }
    }
    Ok(())
}

/// Reports that it is ready, and waits for a line.
fn wait() -> Result<()> {
    println!("ready");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Uses memory and frees it: the process then has the memory that its allocator keeps.
pub fn hoard(allocator: &impl Allocator) -> Result<()> {
    let mut blocks: Vec<Block> = (0..HOARDED / BLOCK)
        .map(|_| Block::new(allocator, BLOCK))
        .collect();
    for block in &mut blocks {
        block.free(allocator);
    }
    wait()
}

/// Needs more memory than there is, in pages that are equally costly beside any allocator.
pub fn need() -> Result<()> {
    let memory = Pages::anonymous(NEEDED);
    memory.advise(MmapAdvise::MADV_NOHUGEPAGE);
    wait()?;
    let time = timed(|| memory.touch(0, NEEDED));
    probe::value("each", time.as_nanos() as f64 / (NEEDED >> 20) as f64);
    Ok(())
}
