// SPDX-License-Identifier: GPL-2.0

//! The table and the plots of `make demo`: what unchanged programs held and used, by allocator.

mod plots;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use freelist_demo::allocator::ALLOCATORS;
use freelist_demo::record::{Clock, Record, Run};
use freelist_demo::workload::WORKLOADS;

pub use table::Format;

/// All that was measured.
pub struct Demo {
    kernel: String,
    clock: Clock,
    records: Vec<Record>,
}

impl Demo {
    /// Reads records, a line of JSON each. Fails if a program's results differ by allocator.
    pub fn read(printed: &[PathBuf]) -> Result<Self> {
        let mut records = Vec::new();
        for path in printed {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            for (number, line) in text.lines().enumerate() {
                let record = serde_json::from_str(line)
                    .with_context(|| format!("{}, line {}", path.display(), number + 1))?;
                records.push(record);
            }
        }
        Self::new(records)
    }

    fn new(records: Vec<Record>) -> Result<Self> {
        let machine = records.iter().find_map(|record| match record {
            Record::Machine { kernel, clock } => Some((kernel.clone(), *clock)),
            _ => None,
        });
        let (kernel, clock) = machine.context("the records do not name the machine")?;
        let demo = Self {
            kernel,
            clock,
            records,
        };
        for workload in demo.workloads() {
            let results: BTreeSet<_> = demo.runs(workload).map(Run::results).collect();
            if results.len() > 1 {
                bail!("the results of {workload} differ: {results:?}");
            }
        }
        Ok(demo)
    }

    /// The workloads that were run, in the order in which the demo has them.
    fn workloads(&self) -> Vec<&'static str> {
        let names = WORKLOADS.iter().map(|workload| workload.name);
        names
            .filter(|name| self.runs(name).next().is_some())
            .collect()
    }

    /// The allocators that a workload was run under, in the order in which the demo has them.
    fn allocators(&self, workload: &str) -> Vec<&'static str> {
        let names = ALLOCATORS.iter().map(|allocator| allocator.name);
        names
            .filter(|name| self.runs_of(workload, name).next().is_some())
            .collect()
    }

    fn runs<'a>(&'a self, workload: &'a str) -> impl Iterator<Item = &'a Run> {
        self.records.iter().filter_map(move |record| match record {
            Record::Run(run) if run.workload == workload => Some(run),
            _ => None,
        })
    }

    fn runs_of<'a>(
        &'a self,
        workload: &'a str,
        allocator: &'a str,
    ) -> impl Iterator<Item = &'a Run> {
        self.runs(workload)
            .filter(move |run| run.allocator == allocator)
    }

    /// The median of a figure over the rounds; `None` if no round has it.
    fn median(
        &self,
        workload: &str,
        allocator: &str,
        figure: impl Fn(&Run) -> Option<f64>,
    ) -> Option<f64> {
        let mut all: Vec<_> = self
            .runs_of(workload, allocator)
            .filter_map(figure)
            .collect();
        all.sort_by(f64::total_cmp);
        let upper = all.get(all.len() / 2)?;
        let lower = all.get((all.len() - 1) / 2)?;
        Some((lower + upper) / 2.0)
    }

    /// What `time` is in: where a nanosecond is an instruction, a second is 10^9 of them.
    fn time_unit(&self) -> &'static str {
        match self.clock {
            Clock::Instructions => "G instructions",
            Clock::Wall => "s",
        }
    }

    /// Writes the table in Markdown and the plots into a directory.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let path = dir.join("demo.md");
        fs::write(&path, self.table(Format::Markdown))
            .with_context(|| path.display().to_string())?;
        plots::draw(self, dir)
    }
}

/// Bytes as MiB.
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Microseconds of the machine's clock, in `Demo::time_unit`.
fn time(us: u64) -> f64 {
    us as f64 / 1e6
}
