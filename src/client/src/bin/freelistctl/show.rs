// SPDX-License-Identifier: MIT OR Apache-2.0

//! The output of `freelistctl`: aligned text, or JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use freelist::debugfs::{Classes, Stats};
use freelist::malloc::ProcessReport;
use freelist::trace::{Event, Trace};
use freelist::{Features, Info, Stat};
use serde_json::{json, Value};

use crate::replay::{Outcome, Times};
use crate::sample::Row;
use crate::session::Identity;
use crate::table::{self, Align};

/// Formats a number with a comma at every three digits.
pub(crate) fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats bytes in MiB, also where another unit would be shorter: bytesize, which chooses one, would make
/// lines that cannot be compared.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / (1 << 20) as f64)
}

/// Formats a power of two in the largest unit that divides it: `32 B`, `4 KiB`.
pub(crate) fn unit(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = |(shift, _): &&(u32, &str)| bytes != 0 && bytes % (1 << shift) == 0;
    match units.iter().find(fits) {
        Some((shift, name)) => format!("{} {name}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

/// Prints a line of a session: a name and a text.
fn line(out: &mut impl Write, name: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{name:<16}{text}")
}

/// Prints a line of a result: a name, a number, and a text that qualifies it.
fn result(out: &mut impl Write, name: &str, number: &str, text: &str) -> io::Result<()> {
    writeln!(
        out,
        "{}",
        format!("{name:<16}{number:>14}   {text}").trim_end()
    )
}

/// Prints kernel, module and INFO.
pub(crate) fn identity(
    out: &mut impl Write,
    identity: &Identity,
    device: &Path,
    info: &Info,
) -> io::Result<()> {
    line(out, "kernel", &identity.kernel)?;
    line(out, "module", &identity.module)?;
    line(
        out,
        "device",
        &format!(
            "{}: abi {}, pages of {}, size classes {} to {}",
            device.display(),
            info.abi,
            unit(info.page_size.into()),
            unit(1u64.checked_shl(info.min_shift).unwrap_or(0)),
            unit(1u64.checked_shl(info.max_shift).unwrap_or(0)),
        ),
    )?;
    line(
        out,
        "",
        &format!(
            "arena of {}, limit {}, features {}",
            unit(info.arena_bytes),
            mib(info.limit_bytes),
            Features::from_bits_retain(info.features)
        ),
    )
}

/// Prints the properties of the trace.
pub(crate) fn trace(out: &mut impl Write, file: &Path, trace: &Trace) -> io::Result<()> {
    let marks = |event: &&Event| !matches!(event, Event::Mark(_));
    let events = trace.events.iter().filter(marks).count() as u64;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    line(out, "trace", &format!("{name}: {} events", grouped(events)))?;
    if let Some(recorded) = trace.header("recorded") {
        line(out, "", recorded)?;
    }
    Ok(())
}

fn times(times: &Times) -> String {
    format!(
        "calls: mean {} ns, median {} ns, 99 % within {} ns",
        grouped(times.mean()),
        grouped(times.percentile(50)),
        grouped(times.percentile(99))
    )
}

fn ratio(outcome: &Outcome) -> f64 {
    outcome.peak_held as f64 / outcome.peak.bytes.max(1) as f64
}

/// Prints the result of a replay.
pub(crate) fn outcome(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let count = |number: usize| grouped(number as u64);
    result(
        out,
        "allocations",
        &count(outcome.allocs.count()),
        &times(&outcome.allocs),
    )?;
    result(
        out,
        "frees",
        &count(outcome.frees.count()),
        &times(&outcome.frees),
    )?;
    if outcome.empty != 0 {
        result(out, "of 0 bytes", &count(outcome.empty), "no call made")?;
    }
    result(
        out,
        "peak live",
        &mib(outcome.peak.bytes),
        &format!("as asked for, in {} blocks", count(outcome.peak.blocks)),
    )?;
    result(out, "peak held", &mib(outcome.peak_held), "in pages")?;
    result(out, "held / live", &format!("{:.4}", ratio(outcome)), "")?;
    result(
        out,
        "pattern errors",
        &grouped(outcome.wrong),
        &format!("of {} bytes checked", grouped(outcome.checked)),
    )?;
    for finding in &outcome.findings {
        line(out, "", finding)?;
    }
    result(
        out,
        "live at the end",
        &grouped(outcome.at_end.stat.live_blocks),
        &format!(
            "after the {} blocks that the trace leaves were freed",
            count(outcome.left)
        ),
    )
}

/// Prints the statistics at the peak and at the end.
pub(crate) fn snapshots(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let (peak, end) = (&outcome.at_peak, &outcome.at_end);
    writeln!(out)?;
    match (&peak.stats, &end.stats) {
        (Ok(peak), Ok(end)) => stats(out, &[("at the peak", peak), ("at the end", end)])?,
        (Err(error), _) | (_, Err(error)) => line(out, "stats", &error.to_string())?,
    }
    for (when, snapshot) in [("at the peak", peak), ("at the end", end)] {
        writeln!(out)?;
        match &snapshot.classes {
            Ok(table) => classes(out, when, table)?,
            Err(error) => line(out, "classes", &error.to_string())?,
        }
    }
    Ok(())
}

/// Prints debugfs `stats` at several moments, side by side.
pub(crate) fn stats(out: &mut impl Write, moments: &[(&str, &Stats)]) -> io::Result<()> {
    write!(out, "{:<24}", "stats")?;
    for (when, _) in moments {
        write!(out, "{when:>16}")?;
    }
    writeln!(out)?;
    let Some((_, first)) = moments.first() else {
        return Ok(());
    };
    for (name, _) in &first.0 {
        // Lines for errors that never occurred are left out.
        let values = || moments.iter().filter_map(|(_, stats)| stats.get(name));
        if name.starts_with("failures_") && values().all(|value| value == 0) {
            continue;
        }
        write!(out, "{name:<24}")?;
        for (_, stats) in moments {
            let value = stats.get(name).map_or("-".to_owned(), |value| {
                if name.ends_with("_bytes") {
                    mib(value)
                } else {
                    grouped(value)
                }
            });
            write!(out, "{value:>16}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Prints a row for each arena.
pub(crate) fn arenas(out: &mut impl Write, arenas: &[Row]) -> io::Result<()> {
    let columns = ["arenas", "pid", "live", "free", "held", "limit", "waiters"];
    let mut columns = columns.map(|name| (name, Align::Right)).to_vec();
    columns.push(("name", Align::Left));
    let rows = arenas.iter().map(|row| {
        vec![
            row.id.to_string(),
            row.pid.to_string(),
            mib(row.live),
            mib(row.free),
            mib(row.held),
            mib(row.limit),
            row.waiters.map_or("-".to_owned(), grouped),
            row.name.clone(),
        ]
    });
    table::print(out, &columns, 6, rows)
}

/// Prints the memory that an arena released, from the bytes that it held before and after.
pub(crate) fn trimmed(out: &mut impl Write, id: u64, before: u64, after: u64) -> io::Result<()> {
    let gone = before.saturating_sub(after);
    writeln!(
        out,
        "arena {id}: {} released, {} held",
        mib(gone),
        mib(after)
    )
}

/// Prints debugfs `classes`, without size classes that were never used and columns that follow from
/// others.
pub(crate) fn classes(out: &mut impl Write, when: &str, classes: &Classes) -> io::Result<()> {
    writeln!(out, "classes {when}")?;
    let shown: Vec<usize> = (0..classes.columns.len())
        .filter(|column| classes.columns[*column] != "shift")
        .collect();
    let of_size = |column: &usize| ["shift", "size"].contains(&classes.columns[*column].as_str());
    let used = |row: &&Vec<u64>| (0..row.len()).any(|at| !of_size(&at) && row[at] != 0);
    let cell = |row: &[u64], column: usize| match classes.columns[column].as_str() {
        "size" | "largest" => unit(row[column]),
        "held" => mib(row[column]),
        _ => grouped(row[column]),
    };

    let columns: Vec<_> = shown
        .iter()
        .map(|column| (classes.columns[*column].as_str(), Align::Right))
        .collect();
    let rows = classes.rows.iter().filter(used);
    let rows = rows.map(|row| shown.iter().map(|column| cell(row, *column)).collect());
    table::print(out, &columns, 8, rows)
}

/// Returns all results as JSON. Times are in ns, sizes in bytes.
pub(crate) fn json(identity: &Identity, file: &Path, info: &Info, outcome: &Outcome) -> Value {
    let times = |times: &Times| {
        json!({
            "calls": times.count(),
            "mean_ns": times.mean() as u64,
            "median_ns": times.percentile(50) as u64,
            "p99_ns": times.percentile(99) as u64,
        })
    };
    json!({
        "kernel": identity.kernel,
        "module": identity.module,
        "info": {
            "abi": info.abi,
            "page_size": info.page_size,
            "min_shift": info.min_shift,
            "max_shift": info.max_shift,
            "arena_bytes": info.arena_bytes,
            "limit_bytes": info.limit_bytes,
            "features": info.features,
        },
        "trace": file.display().to_string(),
        "alloc": times(&outcome.allocs),
        "free": times(&outcome.frees),
        "left_blocks": outcome.left,
        "empty_allocs": outcome.empty,
        "peak_live_bytes": outcome.peak.bytes,
        "peak_live_blocks": outcome.peak.blocks,
        "peak_held_bytes": outcome.peak_held,
        "held_per_live": ratio(outcome),
        "checked_bytes": outcome.checked,
        "pattern_errors": outcome.wrong,
        "seconds": outcome.took.as_secs_f64(),
        "at_peak": stat(&outcome.at_peak.stat),
        "at_end": stat(&outcome.at_end.stat),
    })
}

fn stat(stat: &Stat) -> Value {
    json!({
        "live_blocks": stat.live_blocks,
        "live_bytes": stat.live_bytes,
        "free_bytes": stat.free_bytes,
        "held_bytes": stat.held_bytes,
        "metadata_bytes": stat.metadata_bytes,
        "grows": stat.grows,
        "splits": stat.splits,
        "merges": stat.merges,
        "waits": stat.waits,
        "trims": stat.trims,
        "shrinks": stat.shrinks,
        "moved_bytes": stat.moved_bytes,
        "faulted_bytes": stat.faulted_bytes,
        "huge_bytes": stat.huge_bytes,
        "failures": stat.failures,
    })
}

/// Prints the large blocks of a program's processes on standard error: a row for each of those that held most,
/// and the blocks that went to the next allocator.
pub(crate) fn processes(out: &mut impl Write, rows: &[ProcessReport]) -> io::Result<()> {
    /// The most rows that are printed.
    const SHOWN: usize = 8;
    if rows.is_empty() {
        writeln!(out, "freelist: no process asked for a large block")?;
        return Ok(());
    }
    let mut rows: Vec<&ProcessReport> = rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.peak_held.max(row.peak_live)));
    writeln!(
        out,
        "freelist: {:>8}{:>14}{:>14}{:>14}{:>10}{:>10}{:>8}{:>8}",
        "process", "peak held", "peak live", "free at end", "allocs", "frees", "trims", "forks"
    )?;
    for row in rows.iter().take(SHOWN) {
        writeln!(
            out,
            "freelist: {:>8}{:>14}{:>14}{:>14}{:>10}{:>10}{:>8}{:>8}",
            row.pid,
            mib(row.peak_held),
            mib(row.peak_live),
            mib(row.held.saturating_sub(row.live_bytes)),
            grouped(row.allocs),
            grouped(row.frees),
            grouped(row.trims),
            grouped(row.forks),
        )?;
    }
    if let Some(others) = rows.get(SHOWN..).filter(|others| !others.is_empty()) {
        let max = others.iter().map(|row| row.peak_held).max().unwrap_or(0);
        writeln!(
            out,
            "freelist: and {} more, each at most {}",
            others.len(),
            mib(max)
        )?;
    }
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in rows.iter().flat_map(|row| &row.refused) {
        *refused.entry(reason).or_default() += count;
    }
    for (reason, count) in refused {
        writeln!(
            out,
            "freelist: {} blocks went to the next allocator: {reason}",
            grouped(count)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0u64), "0");
        assert_eq!(grouped(999u64), "999");
        assert_eq!(grouped(1_000u64), "1,000");
        assert_eq!(grouped(1_234_567u64), "1,234,567");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(unit(32), "32 B");
        assert_eq!(unit(4096), "4 KiB");
        assert_eq!(unit(1 << 30), "1 GiB");
        assert_eq!(unit(64 << 30), "64 GiB");
        assert_eq!(unit(0), "0 B");
        assert_eq!(mib(169_175_752), "161.34 MiB");
    }
}
