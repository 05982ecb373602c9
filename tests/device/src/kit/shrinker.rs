// SPDX-License-Identifier: GPL-2.0

//! Triggers the kernel's shrinkers.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the module's shrinker, on kernels that show theirs (CONFIG_SHRINKER_DEBUG).
pub fn of_module() -> Option<PathBuf> {
    let entries = fs::read_dir("/sys/kernel/debug/shrinker").ok()?;
    let mut ours = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with("freelist"))
    });
    Some(ours.next().expect("the module has a shrinker"))
}

/// Has the module's shrinker scan, in all cgroups, if the kernel has a file for that; otherwise all shrinkers.
pub fn force(module: Option<&Path>) {
    let Some(dir) = module else {
        return fs::write("/proc/sys/vm/drop_caches", "2").expect("root may write it");
    };
    // Lines `INODE COUNT...`, with a count for each node.
    let counts = fs::read_to_string(dir.join("count")).expect("root may read it");
    for line in counts.lines() {
        let (inode, counts) = line.split_once(' ').expect("a cgroup, and its nodes");
        for node in 0..counts.split_whitespace().count() {
            fs::write(dir.join("scan"), format!("{inode} {node} 100")).expect("root may write it");
        }
    }
}
