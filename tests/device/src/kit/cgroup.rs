// SPDX-License-Identifier: GPL-2.0

//! Memory cgroups.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::process::spawn_child;
use crate::harness::skip;

/// A cgroup, removed when it is dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes a cgroup, or skips the test if there are no memory cgroups.
    pub fn new(name: &str) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let enabled = fs::write(root.join("cgroup.subtree_control"), "+memory");
        if enabled.is_err() {
            skip("no cgroup2 with a memory controller is mounted");
        }
        let path = root.join(format!("freelist-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("root may make a cgroup");
        Self(path)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("the controller is enabled")
    }

    /// Sets a value.
    pub fn write(&self, name: &str, value: &str) {
        fs::write(self.0.join(name), value).expect("root may set it");
    }

    /// Returns the bytes that are charged to it.
    pub fn current(&self) -> u64 {
        self.read("memory.current").trim().parse().expect("bytes")
    }

    /// Returns the number of such events in it (memory.events).
    pub fn event(&self, name: &str) -> u64 {
        let text = self.read("memory.events");
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, count) = lines.find(|(key, _)| *key == name).expect("the event");
        count.parse().expect("a count")
    }

    /// Returns whether all of its processes are frozen (cgroup.freeze).
    pub fn is_frozen(&self) -> bool {
        self.read("cgroup.events").contains("frozen 1")
    }

    /// Returns its inode number, by which the kernel's shrinkers name it.
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.0).expect("it is there").ino()
    }

    /// Moves this process into it.
    pub fn join(&self) {
        self.write("cgroup.procs", "0");
    }

    /// Limits it to `bytes`, without swap.
    pub fn limit(&self, bytes: u64) {
        // Absent on a kernel without swap.
        let _ = fs::write(self.0.join("memory.swap.max"), "0");
        self.write("memory.max", &bytes.to_string());
    }

    /// Opens its limit, which can then be removed even if the cgroup is full.
    pub fn open_limit(&self) -> OpenLimit {
        let path = self.0.join("memory.max");
        let file = File::options().write(true).open(path);
        OpenLimit(file.expect("root may set it"))
    }

    /// Removes it, after its last process has ended.
    #[track_caller]
    pub fn remove(self) {
        // Its last process may have ended just now, and still be counted.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = fs::remove_dir(&self.0) {
            assert!(Instant::now() < deadline, "the cgroup stays: {error}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs `work` in a child that belongs to the cgroup.
    #[track_caller]
    pub fn run(&self, work: impl FnOnce()) {
        spawn_child(|| {
            self.join();
            work();
        })
        .succeed();
    }
}

/// The open file of a cgroup's limit: opening it would take memory.
pub struct OpenLimit(File);

impl OpenLimit {
    /// Removes the limit.
    pub fn remove(&self) {
        let written = (&self.0).write_all(b"max");
        written.expect("root may set it");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A failed test may have left it in use; the next test makes another one.
        let _ = fs::remove_dir(&self.0);
    }
}
