// SPDX-License-Identifier: MIT OR Apache-2.0

//! The arenas that processes have open, as in `/proc/PID/fdinfo`. A user's own processes need no rights.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat;

use crate::debugfs::Stats;

/// Returns the major number of the module's device from the text of `/proc/devices`; `None` if the module
/// is not loaded.
pub fn major(devices: &str) -> Option<u64> {
    let line = devices
        .lines()
        .find_map(|line| line.strip_suffix(" freelist"))?;
    line.trim().parse().ok()
}

/// An arena that at least one process has open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenArena {
    /// The arena's number, which no other arena ever had.
    pub id: u64,
    /// The processes that have it open, ascending.
    pub pids: Vec<u32>,
    /// The name of the first of them.
    pub name: String,
    /// The fields of STAT, the span of its offsets in bytes (`arena_bytes`), and the number of requests that
    /// wait (`waiters`).
    pub stats: Stats,
}

/// Returns the arenas of all processes that the caller may inspect, by number. An arena that no process
/// has open any more, but has mapped, is not among them.
///
/// # Errors
///
/// Those of reading `/proc`. Processes and files that disappear meanwhile are skipped.
pub fn arenas() -> io::Result<Vec<OpenArena>> {
    let mut arenas: BTreeMap<u64, OpenArena> = BTreeMap::new();
    let Some(major) = major(&fs::read_to_string("/proc/devices")?) else {
        return Ok(Vec::new());
    };
    let mut pids: Vec<u32> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        for (id, stats) in of_process(pid, major) {
            let arena = arenas.entry(id).or_default();
            if arena.pids.is_empty() {
                arena.id = id;
                arena.name = name(pid);
            }
            // A process may have it open more than once; the newest numbers count.
            if arena.pids.last() != Some(&pid) {
                arena.pids.push(pid);
            }
            arena.stats = stats;
        }
    }
    Ok(arenas.into_values().collect())
}

/// Returns the arenas that a process has open, with their statistics; none if it is another user's. The
/// device has the major number `major`.
fn of_process(pid: u32, major: u64) -> Vec<(u64, Stats)> {
    let dir = format!("/proc/{pid}");
    let Ok(files) = fs::read_dir(Path::new(&dir).join("fd")) else {
        return Vec::new();
    };
    let arena = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        // The metadata of the file itself, not of the link.
        let file = fs::metadata(entry.path()).ok()?;
        let is_device = file.file_type().is_char_device() && stat::major(file.rdev()) == major;
        let number = entry.file_name();
        let info = Path::new(&dir).join("fdinfo").join(number);
        is_device.then(|| parse(&fs::read_to_string(info).ok()?))?
    };
    files.filter_map(arena).collect()
}

/// Returns the name of a process, in which bytes that are not printable ASCII are `\x0a`; empty if the
/// process is gone.
fn name(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    name.escape_ascii().to_string()
}

/// Returns the number and the statistics of the arena that an `fdinfo` describes; `None` if the file is not
/// an arena.
pub fn parse(text: &str) -> Option<(u64, Stats)> {
    let pair = |line: &str| {
        let (name, value) = line.strip_prefix("freelist_")?.split_once(':')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    let mut stats = Stats(text.lines().filter_map(pair).collect());
    let at = stats.0.iter().position(|(name, _)| name == "arena")?;
    let (_, id) = stats.0.remove(at);
    Some((id, stats))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_recognised_by_its_lines() {
        let text = "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t5\nfreelist_arena:\t12\n\
                    freelist_arena_bytes:\t68719476736\nfreelist_live_blocks:\t3\n";
        let (id, stats) = parse(text).unwrap();
        assert_eq!(id, 12);
        assert_eq!(stats.get("live_blocks"), Some(3));
        assert_eq!(stats.get("arena_bytes"), Some(64 << 30));
        assert_eq!(stats.0.len(), 2);
        assert_eq!(parse("pos:\t0\nflags:\t02100002\n"), None);
    }

    #[test]
    fn the_device_is_found_by_its_name_alone() {
        let text = "Character devices:\n  1 mem\n 12 notfreelist\n243 freelist\n\nBlock devices:\n";
        assert_eq!(major(text), Some(243));
        assert_eq!(major("Character devices:\n 12 notfreelist\n"), None);
    }

    #[test]
    fn a_process_without_arenas_has_none() {
        let this = std::process::id();
        // This process has a null device open, which is not an arena.
        let _null = fs::File::open("/dev/null").unwrap();
        assert_eq!(of_process(this, 1), []);
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(comm.starts_with(&name(this)));
        assert_eq!(name(u32::MAX), "");
    }
}
