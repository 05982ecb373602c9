// SPDX-License-Identifier: GPL-2.0

//! The arena's memory is charged to a memory cgroup.
//! Peer: memory that no cgroup is charged for (CVE-2021-3759).

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::harness::{skip, suite};
use crate::kit::process::spawn_child;
use crate::kit::{alloc, arena, stat, DEFAULT, KIB, MIB};

suite!("freelist_cgroup":
    pages_are_charged_to_the_cgroup_and_uncharged,
    pages_are_charged_to_the_opener_whoever_asks,
    a_full_cgroup_is_enomem_and_nobody_is_killed,
);

/// The kernel counts in batches, so a little is missing or too much.
const SLACK: u64 = MIB;

/// A cgroup of its own, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
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

    fn write(&self, name: &str, value: &str) {
        fs::write(self.0.join(name), value).expect("root may set it");
    }

    fn current(&self) -> u64 {
        self.read("memory.current").trim().parse().expect("bytes")
    }

    fn event(&self, name: &str) -> u64 {
        let text = self.read("memory.events");
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, count) = lines.find(|(key, _)| *key == name).expect("the event");
        count.parse().expect("a count")
    }

    /// This process belongs to it from now on.
    fn join(&self) {
        self.write("cgroup.procs", "0");
    }

    /// Runs `work` in a child that belongs to the cgroup.
    #[track_caller]
    fn run(&self, work: impl FnOnce()) {
        spawn_child(|| {
            self.join();
            work();
        })
        .succeed();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A failed test may have left it in use; the next one has another.
        let _ = fs::remove_dir(&self.0);
    }
}

fn pages_are_charged_to_the_cgroup_and_uncharged() {
    let cgroup = Cgroup::new("charged");
    cgroup.run(|| {
        let before = cgroup.current();
        let arena = arena();
        alloc(&arena, 8 * MIB);
        let after = cgroup.current();
        assert!(after >= before + 8 * MIB - SLACK, "{before} to {after}");
        drop(arena);
        let end = cgroup.current();
        assert!(end <= before + SLACK, "{before} to {after} to {end}");
    });
}

/// An arena that was passed on cannot be used to fill another one's cgroup.
fn pages_are_charged_to_the_opener_whoever_asks() {
    let (opener, other) = (Cgroup::new("opener"), Cgroup::new("other"));
    opener.run(|| {
        let arena = arena();
        other.join();
        let before = [opener.current(), other.current()];
        alloc(&arena, 8 * MIB);
        let after = [opener.current(), other.current()];
        assert!(
            after[0] >= before[0] + 8 * MIB - SLACK && after[1] <= before[1] + SLACK,
            "opener and other: {before:?} to {after:?}"
        );
    });
}

fn a_full_cgroup_is_enomem_and_nobody_is_killed() {
    let cgroup = Cgroup::new("full");
    cgroup.run(|| {
        let max = cgroup.current() + 16 * MIB;
        let arena = arena();
        // Absent on a kernel without swap. A call that fails gives back what
        // it grew by, so this process has room for its own pages.
        let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
        cgroup.write("memory.max", &max.to_string());
        let mut got = 0;
        let errno = loop {
            match arena.alloc(MIB, DEFAULT) {
                Ok(block) => got += block.bytes,
                Err(error) => break error.errno(),
            }
            assert!(got <= 32 * MIB, "more than the cgroup may have");
        };
        assert_eq!(errno, Some(Errno::ENOMEM));
        assert!(got >= 8 * MIB, "{got} bytes of 16 MiB");
        assert_eq!(cgroup.event("oom_kill"), 0);
        // Nothing is lost by it: what is held is live, or serves small ones.
        let stat = stat(&arena);
        assert_eq!(stat.live_bytes, got);
        arena.free(0).expect("the first block");
        alloc(&arena, 64 * KIB);
    });
}
