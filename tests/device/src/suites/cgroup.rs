// SPDX-License-Identifier: GPL-2.0

//! The arena's memory is charged to a memory cgroup.
//! Peer: vulnerabilities CVE-2021-3759.

use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::{alloc, arena, page, stat, Cgroup, DEFAULT, KIB, MIB};

suite!("freelist_cgroup":
    pages_are_charged_to_the_cgroup_and_uncharged,
    pages_are_charged_to_the_opener_whoever_asks,
    metadata_is_charged_to_the_cgroup_and_uncharged,
    a_full_cgroup_is_enomem_and_nobody_is_killed,
);

/// The kernel counts in batches, so a little is missing or too much.
const SLACK: u64 = MIB;

/// Peer: vulnerabilities CVE-2021-3759.
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

/// Broken pages have the most of it.
/// Peer: kasan kmem_cache_accounted.
fn metadata_is_charged_to_the_cgroup_and_uncharged() {
    let cgroup = Cgroup::new("metadata");
    cgroup.run(|| {
        let arena = arena();
        let before = cgroup.current();
        let mut offsets = vec![0; (96 * MIB / (page() / 2)) as usize];
        let done = arena.alloc_bulk(page() / 2, DEFAULT, &mut offsets).unwrap();
        assert_eq!(done, offsets.len());
        let stat = stat(&arena);
        let after = cgroup.current();
        assert!(stat.metadata_bytes >= 2 * SLACK, "{stat:?}");
        assert!(
            after >= before + stat.held_bytes + stat.metadata_bytes - SLACK,
            "{before} to {after}: {stat:?}"
        );
        drop(arena);
        let end = cgroup.current();
        assert!(end <= before + SLACK, "{before} to {after} to {end}");
    });
}

fn a_full_cgroup_is_enomem_and_nobody_is_killed() {
    let cgroup = Cgroup::new("full");
    cgroup.run(|| {
        let max = cgroup.current() + 16 * MIB;
        let arena = arena();
        // A call that fails gives back what it grew by, so this process has
        // room for its own pages.
        cgroup.limit(max);
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
