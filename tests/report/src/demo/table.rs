// SPDX-License-Identifier: GPL-2.0

//! The table: a row for each allocator, for each workload.

use std::fmt::Write;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_BORDERS_ONLY};
use comfy_table::{CellAlignment, Table};
use freelist_demo::allocator::{FREELIST, TIGHTEST};
use freelist_demo::record::{Record, Run};
use freelist_demo::workload;

use super::{mib, time, Demo};

/// The format of a table.
#[derive(Clone, Copy)]
pub enum Format {
    /// For a terminal.
    Terminal,
    /// For README.
    Markdown,
}

/// A figure of a run, by the name of its column.
type Column = (String, Box<dyn Fn(&Run) -> Option<f64>>, usize);

impl Demo {
    /// Returns the table of all workloads.
    pub fn table(&self, format: Format) -> String {
        let mut text = format!("Linux {}\n", self.kernel);
        for name in self.workloads() {
            let what = workload::named(name).map_or(name, |workload| workload.what);
            let rounds = self.runs(name).map(|run| run.round + 1).max().unwrap_or(0);
            let _ = writeln!(
                text,
                "\n{what} (rounds: {rounds})\n\n{}",
                self.table_of(name, format)
            );
        }
        text
    }

    fn table_of(&self, workload: &'static str, format: Format) -> Table {
        let mut table = Table::new();
        table.load_preset(match format {
            Format::Terminal => UTF8_BORDERS_ONLY,
            Format::Markdown => ASCII_MARKDOWN,
        });
        let columns = self.columns(workload);
        let others = ["smallest limit", "idle, others in need: still held"];
        let has_others = self.records.iter().any(|record| is_other(record, workload));
        let header = ["", "peak MiB", "over the tightest"]
            .map(str::to_owned)
            .into_iter();
        let header = header.chain(columns.iter().map(|(name, ..)| name.clone()));
        let header = header.chain(
            others
                .iter()
                .filter(|_| has_others)
                .map(|&name| name.to_owned()),
        );
        table.set_header(header);
        let peak = |allocator| self.median(workload, allocator, |run| Some(mib(run.peak)));
        let tightest = peak(TIGHTEST);
        for allocator in self.allocators(workload) {
            let ratio = peak(allocator)
                .zip(tightest)
                .map(|(peak, least)| peak / least);
            let mut row = vec![
                allocator.to_owned(),
                shown(peak(allocator), 1),
                shown(ratio, 3),
            ];
            for (_, figure, digits) in &columns {
                row.push(shown(self.median(workload, allocator, figure), *digits));
            }
            if has_others {
                row.push(shown(self.limit(workload, allocator), 1));
                row.push(self.idle(workload, allocator));
            }
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Returns the columns beyond the peak.
    fn columns(&self, workload: &str) -> Vec<Column> {
        let unit = self.time_unit();
        let is_freelist = |run: &Run| run.allocator == FREELIST;
        let mut columns: Vec<Column> = vec![
            (
                "free at the peak".to_owned(),
                Box::new(move |run| {
                    let free = run.fullest()?.free;
                    is_freelist(run).then(|| mib(free))
                }),
                1,
            ),
            (
                "peak without free blocks".to_owned(),
                Box::new(move |run| {
                    let in_use = run.most_in_use()?;
                    is_freelist(run).then(|| mib(in_use))
                }),
                1,
            ),
        ];
        columns.extend(self.mark_columns(workload));
        columns.push((
            "faults".to_owned(),
            Box::new(|run| Some(run.total.faults as f64)),
            0,
        ));
        columns.push((
            unit.to_owned(),
            Box::new(|run| Some(time(run.total.time_us))),
            2,
        ));
        columns.push((
            "of it system".to_owned(),
            Box::new(|run| Some(time(run.total.system_us))),
            2,
        ));
        columns
    }

    /// Returns the columns of the import and of the last step, for programs with marks.
    fn mark_columns(&self, workload: &str) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        let last = self.runs(workload).next().and_then(|run| run.marks.last());
        let Some(last) = last.map(|mark| mark.name.clone()) else {
            return columns;
        };
        let step = last.clone();
        let imports = |run: &Run| Some(mib(run.mark("import")?.current));
        if self.runs(workload).any(|run| imports(run).is_some()) {
            columns.push(("after import".to_owned(), Box::new(imports), 1));
        }
        columns.push((
            "at the end".to_owned(),
            Box::new(move |run| Some(mib(run.mark(&last)?.current))),
            1,
        ));
        let usage = move |run: &Run| {
            let end = run.mark(&step)?.usage;
            Some(end.since(run.before(&step)?.usage))
        };
        let of_step = usage.clone();
        columns.push((
            "faults, last step".to_owned(),
            Box::new(move |run| Some(of_step(run)?.faults as f64)),
            0,
        ));
        columns.push((
            format!("{}, last step", self.time_unit()),
            Box::new(move |run| Some(time(usage(run)?.time_us))),
            3,
        ));
        columns
    }

    /// Returns the smallest limit under which it succeeded, in MiB.
    fn limit(&self, workload: &str, allocator: &str) -> Option<f64> {
        self.records.iter().find_map(|record| match record {
            Record::Limit {
                workload: its_workload,
                allocator: its_allocator,
                finishes,
                ..
            } if its_workload == workload && its_allocator == allocator => Some(mib(*finishes)),
            _ => None,
        })
    }

    /// Returns the memory that it still held, in MiB, when another process had taken as much as it could.
    fn idle(&self, workload: &str, allocator: &str) -> String {
        let found = self.records.iter().find_map(|record| match record {
            Record::Idle {
                workload: its_workload,
                allocator: its_allocator,
                limit,
                got,
                goes_on,
                ..
            } if its_workload == workload && its_allocator == allocator => {
                Some((limit - got, *goes_on))
            }
            _ => None,
        });
        found.map_or_else(String::new, |(held, goes_on)| {
            let end = if goes_on { "" } else { ", then killed" };
            format!("{:.0}{end}", mib(held))
        })
    }
}

fn is_other(record: &Record, name: &str) -> bool {
    matches!(record, Record::Limit { workload, .. } | Record::Idle { workload, .. } if workload == name)
}

/// Formats a value with that many decimals; empty if it was not measured.
fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
}
