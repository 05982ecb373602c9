// SPDX-License-Identifier: GPL-2.0

//! Memory of a program that another process can get while the program idles between two steps.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use freelist_demo::allocator::Allocator;
use freelist_demo::record::Record;
use freelist_demo::workload::Workload;

use crate::cgroup::{self, Cgroup};
use crate::run;

const MIB: usize = 1 << 20;
/// The bytes that both may hold together above the program's peak: the other process gets these even if the
/// program releases nothing.
const HEADROOM: u64 = 32 << 20;

/// Runs a workload and, while it idles, a process that touches more and more memory until the
/// limit of both has it killed: it is the kernel's first choice.
pub fn share(workload: &Workload, allocator: &Allocator, idles_at: &str) -> Result<Record> {
    let both = Cgroup::new("both")?;
    let program = both.child("program")?;
    let (mut held, mut got, mut limit) = (0, 0, 0);
    let seen = run::watch(workload.command, allocator, &program, |mark, _| {
        if mark == idles_at {
            held = program.current()?;
            limit = program.peak()? + HEADROOM;
            both.limit(limit)?;
            got = eaten(&both)?;
        }
        Ok(())
    })?;
    Ok(Record::Idle {
        workload: workload.name.to_owned(),
        allocator: allocator.name.to_owned(),
        limit,
        held,
        got,
        goes_on: seen.status.success(),
    })
}

/// Returns the bytes that a process touches beside the program before it is killed.
fn eaten(both: &Cgroup) -> Result<u64> {
    let cgroup = both.child("other")?;
    let mut child = Command::new("/proc/self/exe")
        .arg("eat")
        .arg(cgroup.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("a pipe")?);
    let touched = output.lines().map_while(Result::ok).count();
    child.wait()?;
    Ok((touched * MIB) as u64)
}

/// Touches memory in the cgroup until it is killed, and prints a line for each MiB.
pub fn eat(path: &Path) -> Result<()> {
    cgroup::join(path)?;
    fs::write("/proc/self/oom_score_adj", "1000")?;
    let mut all = Vec::new();
    let mut output = io::stdout();
    loop {
        all.push(vec![1u8; MIB]);
        writeln!(output)?;
    }
}
