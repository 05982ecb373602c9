// SPDX-License-Identifier: GPL-2.0

//! Memory cgroups (version 2).

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use freelist_demo::record::Usage;

const ROOT: &str = "/sys/fs/cgroup";

/// The longest time until a cgroup's last process has left it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup, removed when it is dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes a cgroup at the top.
    pub fn new(name: &str) -> Result<Self> {
        Self::at(Path::new(ROOT), name)
    }

    /// Makes a cgroup in this one, which has no processes itself.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::at(&self.0, name)
    }

    fn at(parent: &Path, name: &str) -> Result<Self> {
        fs::write(parent.join("cgroup.subtree_control"), "+memory")
            .context("there is no memory controller")?;
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Returns its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.0.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn bytes(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        text.trim()
            .parse()
            .with_context(|| format!("{file}: {text}"))
    }

    /// Returns the value of a key in a file of keys and values.
    fn value(&self, file: &str, key: &str) -> Result<u64> {
        let text = self.read(file)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let Some((_, value)) = lines.find(|(name, _)| *name == key) else {
            bail!("{file} has no {key}");
        };
        Ok(value.parse()?)
    }

    /// Returns the bytes that are charged to it.
    pub fn current(&self) -> Result<u64> {
        self.bytes("memory.current")
    }

    /// Returns the most bytes that were charged to it.
    pub fn peak(&self) -> Result<u64> {
        self.bytes("memory.peak")
    }

    /// Returns the usage of its processes.
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            faults: self.value("memory.stat", "pgfault")?,
            time_us: self.value("cpu.stat", "usage_usec")?,
            system_us: self.value("cpu.stat", "system_usec")?,
        })
    }

    /// Limits it to `bytes`, without swap.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let _ = fs::write(self.0.join("memory.swap.max"), "0");
        let path = self.0.join("memory.max");
        fs::write(&path, bytes.to_string()).with_context(|| path.display().to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let start = Instant::now();
        while fs::remove_dir(&self.0).is_err() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Moves this process into the cgroup at that path.
pub fn join(path: &Path) -> Result<()> {
    fs::write(path.join("cgroup.procs"), "0").with_context(|| path.display().to_string())
}
