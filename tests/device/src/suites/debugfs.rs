// SPDX-License-Identifier: GPL-2.0

//! debugfs `stats` and `classes` agree with the calls' results.

use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::Duration;

use freelist::debugfs::{Classes, Stats, DIR};
use freelist::{Arena, Stat};

use crate::harness::{skip, suite};
use crate::kit::{
    alloc, arena, free, largest_block, page, refused, stat, DEFAULT, KIB, MIB, SMALLEST,
};

suite!("freelist_debugfs":
    stats_count_the_arenas,
    stats_have_every_field_of_stat,
    stats_are_the_sums_over_the_arenas,
    totals_include_closed_arenas,
    nothing_is_held_once_every_arena_is_closed,
    classes_have_a_row_a_size_class,
    classes_count_the_blocks_of_their_class,
    classes_and_stats_add_up,
    failures_are_counted_by_errno,
    reading_in_small_pieces_returns_whole_lines,
);

/// Returns the fields of STAT as names and values, in the contract's order.
fn fields(stat: &Stat) -> [(&'static str, u64); 20] {
    [
        ("live_blocks", stat.live_blocks),
        ("live_bytes", stat.live_bytes),
        ("free_bytes", stat.free_bytes),
        ("held_bytes", stat.held_bytes),
        ("metadata_bytes", stat.metadata_bytes),
        ("limit_bytes", stat.limit_bytes),
        ("huge_bytes", stat.huge_bytes),
        ("requested_bytes", stat.requested_bytes),
        ("allocs", stat.allocs),
        ("frees", stat.frees),
        ("grows", stat.grows),
        ("splits", stat.splits),
        ("merges", stat.merges),
        ("waits", stat.waits),
        ("timeouts", stat.timeouts),
        ("trims", stat.trims),
        ("shrinks", stat.shrinks),
        ("failures", stat.failures),
        ("moved_bytes", stat.moved_bytes),
        ("faulted_bytes", stat.faulted_bytes),
    ]
}

/// The number of [`fields`] that are present values; the others are totals.
const OF_NOW: usize = 7;

#[track_caller]
fn stats() -> Stats {
    Stats::read().expect("debugfs is mounted")
}

#[track_caller]
fn value(stats: &Stats, name: &str) -> u64 {
    let value = stats.get(name);
    value.unwrap_or_else(|| panic!("stats has a line {name}: {stats:?}"))
}

/// Waits until no arena is open, because these tests count all there are.
fn alone() {
    for _ in 0..100 {
        if value(&stats(), "arenas") == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    skip("another program has an arena open");
}

fn stats_count_the_arenas() {
    alone();
    let mut arenas: Vec<Arena> = Vec::new();
    for count in 1..=5 {
        arenas.push(arena());
        assert_eq!(value(&stats(), "arenas"), count);
    }
    // A duplicate and a mapping are not arenas of their own, and keep theirs open.
    let duplicate = arenas[0].try_clone().unwrap();
    let mapping = arenas[1].map(page()).unwrap();
    assert_eq!(value(&stats(), "arenas"), 5);
    drop(arenas);
    assert_eq!(value(&stats(), "arenas"), 2);
    drop((duplicate, mapping));
    assert_eq!(value(&stats(), "arenas"), 0);
}

/// Prior art: scudo combined.Stats.
fn stats_have_every_field_of_stat() {
    let stats = stats();
    for (name, _) in fields(&Stat::default()) {
        value(&stats, name);
    }
    let mut names: Vec<&String> = stats.0.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), stats.0.len(), "each name once");
}

/// Prior art: snmalloc statistics.
fn stats_are_the_sums_over_the_arenas() {
    alone();
    let before = stats();
    let arenas = [arena(), arena(), arena()];
    for (i, arena) in arenas.iter().enumerate() {
        for size in [100 << i, 64 * KIB, 5000] {
            alloc(arena, size);
        }
        free(arena, alloc(arena, MIB));
    }
    let after = stats();
    let stats: Vec<_> = arenas.iter().map(stat).collect();
    for (i, (name, _)) in fields(&stats[0]).into_iter().enumerate() {
        let sum: u64 = stats.iter().map(|stat| fields(stat)[i].1).sum();
        if name == "limit_bytes" {
            // A value for all arenas together, which the sum over arenas is not.
            continue;
        }
        let closed = if i < OF_NOW { 0 } else { value(&before, name) };
        assert_eq!(value(&after, name), closed + sum, "{name}");
    }
}

fn totals_include_closed_arenas() {
    alone();
    let before = stats();
    let one = arena();
    for _ in 0..3 {
        free(&one, alloc(&one, 100));
    }
    alloc(&one, 9000);
    drop(one);
    let after = stats();
    let more = |name| value(&after, name) - value(&before, name);
    assert_eq!(more("allocs"), 4);
    assert_eq!(more("requested_bytes"), 3 * 100 + 9000);
    assert!(more("frees") >= 3, "{} frees", more("frees"));
}

/// Prior art: slub_kunit test_leak_destroy; ttm_pool ttm_pool_fini_basic.
fn nothing_is_held_once_every_arena_is_closed() {
    alone();
    let one = arena();
    for size in [32, 100, 4 * KIB, 5 * page(), 64 * KIB, 3 * MIB] {
        let block = alloc(&one, size);
        alloc(&one, size);
        free(&one, block);
    }
    assert_ne!(value(&stats(), "held_bytes"), 0);
    drop(one);
    let stats = stats();
    for name in [
        "arenas",
        "live_blocks",
        "live_bytes",
        "free_bytes",
        "held_bytes",
    ] {
        assert_eq!(value(&stats, name), 0, "{name}");
    }
    assert_eq!(value(&stats, "metadata_bytes"), 0);
}

#[track_caller]
fn classes() -> Classes {
    Classes::read().expect("debugfs is mounted")
}

#[track_caller]
fn class(classes: &Classes, class: u64, column: &str) -> u64 {
    let value = classes.get(class, column);
    value.unwrap_or_else(|| panic!("classes has {column} of {class}: {:?}", classes.columns))
}

fn classes_have_a_row_a_size_class() {
    let classes = classes();
    let rows: Vec<u64> = classes.column("size").expect("size").collect();
    let shifts = SMALLEST.ilog2()..=largest_block().ilog2();
    assert_eq!(rows, shifts.map(|shift| 1 << shift).collect::<Vec<u64>>());
    for name in ["live", "free", "held", "splits", "merges", "grows", "waits"] {
        assert!(
            classes.columns.iter().any(|column| column == name),
            "{name} in {:?}",
            classes.columns
        );
    }
}

/// Prior art: scudo wrappers_c.MallInfo, wrappers_c.MallInfo2.
fn classes_count_the_blocks_of_their_class() {
    alone();
    let arena = arena();
    for (size, count) in [(32, 3), (1000, 2), (4 * KIB, 4), (64 * KIB, 1)] {
        let blocks: Vec<_> = (0..count).map(|_| alloc(&arena, size)).collect();
        let own = size.next_power_of_two();
        assert_eq!(class(&classes(), own, "live"), count, "of {size} bytes");
        for block in blocks {
            free(&arena, block);
        }
        assert_eq!(class(&classes(), own, "live"), 0, "of {size} bytes");
    }
}

fn classes_and_stats_add_up() {
    alone();
    let sums = |column| -> u64 {
        let classes = classes();
        let values = classes.column(column);
        values.unwrap_or_else(|| panic!("{column}")).sum()
    };
    let columns = ["live", "splits", "merges", "grows", "waits"];
    let before = columns.map(sums);
    let arenas = [arena(), arena()];
    for size in [32, 33, 700, 5000, 70_000] {
        alloc(&arenas[0], size);
        free(&arenas[1], alloc(&arenas[1], size));
    }
    let after = columns.map(sums);
    let stats = arenas.each_ref().map(stat);
    let values = |stat: &Stat| {
        [
            stat.live_blocks,
            stat.splits,
            stat.merges,
            stat.grows,
            stat.waits,
        ]
    };
    for (i, column) in columns.into_iter().enumerate() {
        let sum: u64 = stats.iter().map(|stat| values(stat)[i]).sum();
        assert_eq!(after[i] - before[i], sum, "{column}");
    }
    // Live and free blocks of all classes add up to the held bytes.
    let held: u64 = stats.iter().map(|stat| stat.held_bytes).sum();
    assert_eq!(sums("held"), held);
}

fn failures_are_counted_by_errno() {
    let before = stats();
    let arena = arena();
    refused(arena.alloc(0, DEFAULT), nix::errno::Errno::EINVAL);
    refused(arena.free(0), nix::errno::Errno::ENOENT);
    refused(arena.free(32), nix::errno::Errno::ENOENT);
    let after = stats();
    assert_eq!(value(&after, "failures") - value(&before, "failures"), 3);
    // Each errno has a line of its own, and they sum up to all failures.
    let by_errno = |stats: &Stats| -> Vec<(String, u64)> {
        let lines = stats.0.iter().cloned();
        lines
            .filter(|(name, _)| name.starts_with("failures_"))
            .collect()
    };
    let sum: u64 = by_errno(&after).iter().map(|(_, count)| count).sum();
    assert_eq!(sum, value(&after, "failures"), "{:?}", by_errno(&after));
}

fn reading_in_small_pieces_returns_whole_lines() {
    for name in ["stats", "classes"] {
        let mut file = File::open(format!("{DIR}/{name}")).unwrap();
        let mut text = Vec::new();
        let mut piece = [0; 7];
        loop {
            match file.read(&mut piece).unwrap() {
                0 => break,
                n => text.extend_from_slice(&piece[..n]),
            }
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with('\n'));
        match name {
            "stats" => assert!(!Stats::parse(&text).unwrap().0.is_empty()),
            _ => assert!(!Classes::parse(&text).unwrap().rows.is_empty()),
        }
    }
}
