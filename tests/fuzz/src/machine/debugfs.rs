// SPDX-License-Identifier: GPL-2.0

//! The module's files in debugfs, and the invariants that they show.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::thread;
use std::time::{Duration, Instant};

/// Reads a file and drops its content. Allocates no memory: the other thread unmaps addresses that the allocator
/// could get.
pub(super) fn show(path: &CStr) {
    let mut text = [0_u8; 4096];
    // SAFETY: `path` ends in 0, and `text` has as many bytes as are read.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY);
        while libc::read(file, text.as_mut_ptr().cast(), text.len()) > 0 {}
        libc::close(file);
    }
}

/// Writes to a file.
pub(super) fn tell(path: &CStr, text: &[u8]) {
    // SAFETY: `path` ends in 0, and `text` has as many bytes as are written.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY);
        libc::write(file, text.as_ptr().cast(), text.len());
        libc::close(file);
    }
}

/// Returns the files of the race points, ordered by name: each has a delay in microseconds.
pub(super) fn delays() -> Vec<CString> {
    let dir = format!("{}/delay_us", freelist::debugfs::DIR);
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| CString::new(entry.path().into_os_string().into_vec()).ok())
        .collect();
    files.sort();
    files
}

/// Returns the directories of the arenas.
pub(super) fn arenas() -> impl Iterator<Item = String> {
    let dir = format!("{}/arenas.d", freelist::debugfs::DIR);
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    entries.map(move |entry| format!("{dir}/{}", entry.file_name().to_string_lossy()))
}

/// Has the module's shrinker scan, in every cgroup, if the kernel has a file for that.
pub(super) fn shrink(pages: u64) {
    let Ok(entries) = fs::read_dir("/sys/kernel/debug/shrinker") else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("freelist") {
            continue;
        }
        let dir = entry.path();
        let counts = fs::read_to_string(dir.join("count")).unwrap_or_default();
        for cgroup in counts.lines().filter_map(|line| line.split(' ').next()) {
            let _ = fs::write(dir.join("scan"), format!("{cgroup} 0 {pages}"));
        }
    }
}

/// Returns a description of a violated invariant of an open arena, if there is one.
pub fn wrong() -> Option<String> {
    let check = fs::read_to_string(format!("{}/check", freelist::debugfs::DIR));
    let bad = match &check {
        Ok(text) => text
            .lines()
            .find(|line| !line.ends_with(" ok"))
            .map(str::to_owned),
        Err(error) => Some(format!("check: {error}")),
    };
    bad.map(|line| format!("the invariants do not hold: {line}"))
}

/// The longest life of the children of a killed process, which have the arenas open too.
const ORPHANS: Duration = Duration::from_secs(10);

/// Returns a description of the memory that is held while no arena is open, if any is.
pub fn left() -> Option<String> {
    let start = Instant::now();
    loop {
        let stats = match freelist::debugfs::Stats::read() {
            Ok(stats) => stats,
            Err(error) => return Some(format!("stats: {error}")),
        };
        let held = stats.get("held_bytes").unwrap_or(0);
        if held == 0 {
            return None;
        }
        if start.elapsed() > ORPHANS {
            return Some(format!("{held} bytes are held with no arena open"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
