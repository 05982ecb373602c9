// SPDX-License-Identifier: GPL-2.0

//! The smallest limit under which a program succeeds.

use anyhow::Result;
use freelist_demo::allocator::Allocator;
use freelist_demo::record::Record;
use freelist_demo::workload::Workload;

use crate::cgroup::Cgroup;
use crate::run::{self, Seen};

/// The relative distance of the largest limit that fails and the smallest that suffices, at the end.
const PRECISION: f64 = 0.005;

/// Lowers `memory.max` from the program's peak without a limit, in steps that double, until it fails, and
/// bisects the rest to 0.5 %.
pub fn bisect(workload: &Workload, allocator: &Allocator) -> Result<Record> {
    let cgroup = Cgroup::new("peak")?;
    let whole = run::watch(workload.command, allocator, &cgroup, |_, _| Ok(()))?;
    let peak = cgroup.peak()?;
    drop(cgroup);
    // Free memory may be part of the peak: it may succeed under less.
    let (mut finishes, mut step) = (peak, peak as f64 * PRECISION);
    let mut fails = loop {
        let limit = finishes.saturating_sub(step as u64);
        if !ends_under(limit, workload, allocator, &whole)? {
            break limit;
        }
        finishes = limit;
        step *= 2.0;
    };
    while finishes as f64 > fails as f64 * (1.0 + PRECISION) {
        let limit = (finishes + fails) / 2;
        if ends_under(limit, workload, allocator, &whole)? {
            finishes = limit;
        } else {
            fails = limit;
        }
    }
    Ok(Record::Limit {
        workload: workload.name.to_owned(),
        allocator: allocator.name.to_owned(),
        finishes,
        fails,
    })
}

fn ends_under(
    limit: u64,
    workload: &Workload,
    allocator: &Allocator,
    whole: &Seen,
) -> Result<bool> {
    let cgroup = Cgroup::new("limit")?;
    cgroup.limit(limit)?;
    let seen = run::watch(workload.command, allocator, &cgroup, |_, _| Ok(()))?;
    let ends = seen.is_as_good_as(whole);
    let how = if ends { "ends" } else { "fails" };
    eprintln!(
        "{} under {}: {how} under a limit of {:.1} MiB",
        workload.name,
        allocator.name,
        limit as f64 / f64::from(1 << 20)
    );
    Ok(ends)
}
