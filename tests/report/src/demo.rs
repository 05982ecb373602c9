// SPDX-License-Identifier: GPL-2.0

//! The table and the plots of `make demo`: the memory and the time of unchanged programs, by allocator.

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

/// All results of the demo.
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

    /// Returns the workloads that were run, in the demo's order.
    fn workloads(&self) -> Vec<&'static str> {
        let names = WORKLOADS.iter().map(|workload| workload.name);
        names
            .filter(|name| self.runs(name).next().is_some())
            .collect()
    }

    /// Returns the allocators under which a workload was run, in the demo's order.
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

    /// Returns the median of a figure over the rounds; `None` if no round has it.
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

    /// Returns the unit of `time`: if a nanosecond is an instruction, a second is 10^9 of them.
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

/// Converts bytes to MiB.
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Converts microseconds of the machine's clock to `Demo::time_unit`.
fn time(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use freelist_demo::record::{Mark, Sample, Usage};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn usage(faults: u64, time_us: u64) -> Usage {
        Usage {
            faults,
            time_us,
            system_us: time_us / 10,
        }
    }

    fn run(allocator: &str, round: u32, peak: u64, result: &str) -> Record {
        let mark = |name: &str, current, usage| Mark {
            name: name.to_owned(),
            result: result.to_owned(),
            current,
            usage,
        };
        Record::Run(Run {
            workload: "gpt".to_owned(),
            allocator: allocator.to_owned(),
            round,
            result: String::new(),
            marks: vec![
                mark("import", 50 * MIB, usage(10, 1_000_000)),
                mark("step1", 80 * MIB, usage(20, 2_000_000)),
                mark("step2", 70 * MIB, usage(720, 3_500_000)),
            ],
            peak: peak * MIB,
            total: usage(1000, 4_000_000),
            samples: vec![
                Sample {
                    at_us: 0,
                    current: 0,
                    free: 0,
                },
                Sample {
                    at_us: 50,
                    current: (peak - 1) * MIB,
                    free: MIB,
                },
                Sample {
                    at_us: 100,
                    current: peak * MIB,
                    free: 3 * MIB,
                },
            ],
        })
    }

    fn demo(runs: Vec<Record>) -> Result<Demo> {
        let machine = Record::Machine {
            kernel: "7.3".to_owned(),
            clock: Clock::Instructions,
        };
        Demo::new([machine].into_iter().chain(runs).collect())
    }

    fn cells(text: &str, row: &str) -> Vec<String> {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("| {row} ")));
        let cells = line.expect("the row").split('|').map(str::trim);
        cells.map(str::to_owned).collect()
    }

    #[test]
    fn a_row_has_the_median_peak_over_the_tightest_and_the_last_step() {
        let demo = demo(vec![
            run("glibc-mmap", 0, 100, "1.5"),
            run("freelist", 0, 101, "1.5"),
            run("freelist", 1, 103, "1.5"),
            Record::Limit {
                workload: "gpt".to_owned(),
                allocator: "freelist".to_owned(),
                finishes: 99 * MIB,
                fails: 98 * MIB,
            },
            Record::Idle {
                workload: "gpt".to_owned(),
                allocator: "freelist".to_owned(),
                limit: 132 * MIB,
                held: 90 * MIB,
                got: 52 * MIB,
                goes_on: false,
            },
        ])
        .unwrap();
        let text = demo.table(Format::Markdown);
        let row = cells(&text, "freelist");
        let expected = [
            "",
            "freelist",
            "102.0",
            "1.020",
            "3.0",
            "100.0",
            "50.0",
            "70.0",
            "700",
            "1.500",
            "1000",
            "4.00",
            "0.40",
            "99.0",
            "80, then killed",
            "",
        ];
        assert_eq!(row, expected);
        // Only freelist's free memory is known.
        assert_eq!(cells(&text, "glibc-mmap")[4..6], ["", ""]);
    }

    #[test]
    fn results_that_differ_are_refused() {
        let runs = vec![run("glibc", 0, 100, "1.5"), run("freelist", 0, 101, "1.6")];
        let error = demo(runs).err().expect("a refusal").to_string();
        assert!(error.contains("the results of gpt differ"), "{error}");
    }

    #[test]
    fn both_plots_name_every_allocator() {
        let dir = std::env::temp_dir().join(format!("freelist-demo-{}", std::process::id()));
        let runs = vec![run("glibc", 0, 100, "1.5"), run("freelist", 0, 101, "1.5")];
        demo(runs).unwrap().write(&dir).unwrap();
        for name in ["memory.svg", "peak.svg", "demo.md"] {
            let text = fs::read_to_string(dir.join(name)).unwrap();
            assert!(
                text.contains("glibc") && text.contains("freelist"),
                "{name}"
            );
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
