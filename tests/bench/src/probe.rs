// SPDX-License-Identifier: GPL-2.0

//! Measurements in a process of their own: with another malloc(), or with memory that has never been used.
//!
//! This program starts itself with `probe NAME ARGS...`, which prints its results, `KEY VALUE` on each line.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{bail, Context, Result};

use crate::allocators::Malloc;

/// The environment variable with the cgroup that a probe has to join.
const CGROUP: &str = "FREELIST_BENCH_CGROUP";

/// The allocator of the blocks in a probe.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// The client's heap.
    Client,
    /// The heap as the allocator of a whole program.
    Global,
    /// The malloc() of this library.
    Malloc(Malloc),
    /// None: the cost of the measurement itself.
    Nothing,
}

impl Subject {
    /// Returns the name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "freelist",
            Self::Global => "freelist_global",
            Self::Malloc(other) => other.name,
            Self::Nothing => "nothing",
        }
    }

    /// Returns the name on a probe's command line.
    fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Global => "global",
            Self::Malloc(_) => "malloc",
            Self::Nothing => "nothing",
        }
    }

    /// Returns the client, and all of `others`.
    pub fn and(others: &[Malloc]) -> Vec<Self> {
        let mut all = vec![Self::Client];
        all.extend(others.iter().copied().map(Self::Malloc));
        all
    }
}

/// The values that a probe has printed.
#[derive(Debug, Default)]
pub struct Values(BTreeMap<String, f64>);

impl Values {
    /// Returns the value of that name.
    pub fn get(&self, key: &str) -> Result<f64> {
        let value = self.0.get(key).copied();
        value.with_context(|| format!("the probe has not measured {key}"))
    }

    /// Parses lines `KEY VALUE`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').with_context(|| line.to_owned())?;
            let value = value.parse().with_context(|| line.to_owned())?;
            values.insert(key.to_owned(), value);
        }
        Ok(Self(values))
    }
}

/// Prints a value.
pub fn value(key: &str, value: f64) {
    println!("{key} {value}");
}

fn command(name: &str, subject: Subject, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["probe", name, subject.word()]).args(args);
    if let Subject::Malloc(other) = subject {
        command.envs(other.environment());
    }
    command.stdout(Stdio::piped());
    Ok(command)
}

/// Runs a probe to its end.
pub fn run(name: &str, subject: Subject, args: &[&str]) -> Result<Values> {
    let output = command(name, subject, args)?.output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        bail!(
            "probe {name} of {}: {}: {text}",
            subject.name(),
            output.status
        );
    }
    Values::parse(&text)
}

/// Starts a probe in a cgroup. It reads from a pipe, and continues when a line comes.
pub fn start(name: &str, subject: Subject, cgroup: &str) -> Result<Child> {
    let mut command = command(name, subject, &[])?;
    command.env(CGROUP, cgroup).stdin(Stdio::piped());
    Ok(command.spawn()?)
}

/// Joins the cgroup that is set for this process, before it allocates anything.
pub fn join() -> Result<()> {
    if let Some(cgroup) = env::var_os(CGROUP) {
        fs::write(Path::new(&cgroup).join("cgroup.procs"), "0")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_their_names() {
        let values = Values::parse("first 1.5\nagain 2\n").unwrap();
        assert_eq!(values.get("again").unwrap(), 2.0);
        assert!(values.get("never").is_err());
        assert!(Values::parse("first\n").is_err() && Values::parse("first x\n").is_err());
    }
}
