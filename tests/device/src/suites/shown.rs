// SPDX-License-Identifier: GPL-2.0

//! debugfs `arenas`, `arenas.d` and `check`: what every arena has, and where.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use freelist::debugfs::{self, ArenaRow, Arenas, DIR};
use freelist::Arena;
use nix::errno::Errno;

use crate::harness::{skip, suite};
use crate::kit::{alloc, arena, free, huge_page, page, stat, thread, DEFAULT, KIB};

suite!("freelist_shown":
    every_arena_has_a_row_with_its_owner,
    a_name_stays_in_its_row_whatever_is_in_it,
    the_map_is_without_gaps_and_adds_up,
    the_map_shows_each_extent_with_its_content,
    a_map_is_of_one_moment,
    trim_releases_free_pages,
    trim_takes_numbers_only,
    the_files_of_a_closed_arena_are_of_no_use,
    no_invariant_is_broken,
);

fn arenas() -> Vec<ArenaRow> {
    Arenas::read().expect("debugfs is mounted").0
}

/// Returns the row of an arena that was just opened: the last.
#[track_caller]
fn row() -> ArenaRow {
    let own = |row: &ArenaRow| row.pid == u64::from(std::process::id());
    let row = arenas().into_iter().rev().find(own);
    row.expect("an arena of this process has a row")
}

fn file(id: u64, name: &str) -> PathBuf {
    Path::new(DIR).join(format!("arenas.d/{id}/{name}"))
}

/// Prior art: scudo wrappers_c.MallocInfo.
fn every_arena_has_a_row_with_its_owner() {
    let before = arenas().len();
    let arenas_open: Vec<Arena> = (0..3).map(|_| arena()).collect();
    for (i, arena) in arenas_open.iter().enumerate() {
        for size in [100, 5000 << i, 64 * KIB] {
            alloc(arena, size);
            free(arena, alloc(arena, 2 * size));
        }
    }
    let rows = arenas();
    assert_eq!(rows.len(), before + 3);
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    for (row, arena) in rows[before..].iter().zip(&arenas_open) {
        let stat = stat(arena);
        assert_eq!(row.pid, u64::from(std::process::id()));
        assert_eq!(row.name, name.trim_end());
        assert_eq!(row.live, stat.live_bytes);
        assert_eq!(row.free, stat.free_bytes);
        assert_eq!(row.held, stat.held_bytes);
        assert_eq!(row.limit, stat.limit_bytes);
    }
    assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));
    drop(arenas_open);
    assert_eq!(arenas().len(), before);
}

fn a_name_stays_in_its_row_whatever_is_in_it() {
    fs::write("/proc/self/comm", "a b\nc\\d\x7f").unwrap();
    let _arena = arena();
    assert_eq!(row().name, "a b\\x0ac\\x5cd\\x7f");
}

/// A row of a map.
#[derive(Debug, Clone)]
struct Extent {
    offset: u64,
    pages: u64,
    live: u64,
    free: u64,
    orders: String,
    content: String,
}

/// Returns the map of an arena, which has no gaps.
#[track_caller]
fn map(id: u64) -> Vec<Extent> {
    let text = debugfs::map(id).expect("an open arena has a map");
    assert!(text.ends_with('\n'));
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(
        header,
        ["offset", "pages", "shift", "live", "free", "orders", "content"]
    );
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(text) => u64::from_str_radix(text, 16).unwrap(),
        None => text.parse().unwrap(),
    };
    let extent = |line: &str| {
        let row: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(row.len(), header.len(), "{line}");
        Extent {
            offset: number(row[0]),
            pages: number(row[1]),
            live: number(row[3]),
            free: number(row[4]),
            orders: row[5].to_owned(),
            content: row[6].to_owned(),
        }
    };
    let map: Vec<Extent> = lines.map(extent).collect();
    let mut end = 0;
    for extent in &map {
        assert_eq!(extent.offset, end, "{extent:?}");
        assert_ne!(extent.pages, 0, "{extent:?}");
        end += extent.pages * page();
    }
    map
}

/// Prior art: scudo combined.IterateOverChunks, primary.PrimaryIterate, secondary.AllocatorIterate.
fn the_map_is_without_gaps_and_adds_up() {
    let arena = arena();
    let id = row().id;
    assert_eq!(map(id).len(), 0);
    let mut live = Vec::new();
    for round in 0..200 {
        let size = 20 + (round * round * 37) % (40 * KIB);
        live.push(alloc(&arena, size));
        if round % 3 == 0 {
            free(&arena, live.swap_remove((round as usize * 7) % live.len()));
        }
        if round % 20 == 0 {
            let (map, stat) = (map(id), stat(&arena));
            assert_eq!(map.iter().map(|row| row.live).sum::<u64>(), stat.live_bytes);
            assert_eq!(map.iter().map(|row| row.free).sum::<u64>(), stat.free_bytes);
        }
    }
}

/// Prior art: scudo combined.IterateOverChunks, wrappers_c.MallocIterateBoundary.
fn the_map_shows_each_extent_with_its_content() {
    let arena = arena();
    let id = row().id;
    let odd = alloc(&arena, 3 * page());
    let small = alloc(&arena, 64);
    let at = |offset: u64| {
        let map = map(id).into_iter();
        map.filter(|row| row.offset <= offset).next_back().unwrap()
    };
    let row = at(odd.offset);
    assert_eq!((row.content.as_str(), row.live), ("live", 3 * page()));
    let (orders, why) = match huge_page() {
        Some(_) => ("0-1", "two pages and one"),
        None => ("0-0", "single pages"),
    };
    assert_eq!(row.orders, orders, "{why}");
    // No address space between them.
    assert_eq!(small.offset, odd.offset + 3 * page());
    let row = at(small.offset);
    assert_eq!((row.content.as_str(), row.live), ("subpage", 64));
    assert_eq!(row.free, page() - 64);
    free(&arena, odd);
    assert_eq!(at(odd.offset).content, "free");
    arena.trim(0).unwrap();
    let row = at(odd.offset);
    assert_eq!(
        (row.content.as_str(), row.orders.as_str()),
        ("unbacked", "-")
    );
}

fn a_map_is_of_one_moment() {
    let arena = arena();
    let id = row().id;
    let done = AtomicBool::new(false);
    let mut blocks: Vec<_> = (0..64).map(|_| alloc(&arena, 3 * page())).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            // 64 blocks are live, or 65 while one is replaced.
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                let moved = alloc(&arena, 3 * page());
                free(&arena, std::mem::replace(&mut blocks[turn % 64], moved));
                turn += 1;
            }
        });
        for _ in 0..200 {
            let live = map(id).iter().filter(|row| row.content == "live").count();
            assert!((64..=65).contains(&live), "{live} blocks at one moment");
        }
        done.store(true, Ordering::Relaxed);
    });
    let live = map(id).into_iter().filter(|row| row.content == "live");
    assert_eq!(live.count(), 64);
}

fn trim_releases_free_pages() {
    let arena = arena();
    let id = row().id;
    let keep = alloc(&arena, 5 * page());
    free(&arena, alloc(&arena, 100 * page()));
    assert_eq!(stat(&arena).held_bytes, 105 * page());
    debugfs::trim(id, 20 * page()).unwrap();
    assert_eq!(stat(&arena).held_bytes, 25 * page());
    debugfs::trim(id, 0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 5 * page());
    assert_eq!(stat(&arena).trims, 100);
    free(&arena, keep);
}

fn trim_takes_numbers_only() {
    let arena = arena();
    let id = row().id;
    free(&arena, alloc(&arena, 10 * page()));
    let write = |text: &str| {
        let mut file = File::options().write(true).open(file(id, "trim")).unwrap();
        let result = file.write(text.as_bytes());
        result.map_err(|error| error.raw_os_error().map(Errno::from_raw).unwrap())
    };
    for wrong in ["x", "-1", "1 2", "1k", "", "0x"] {
        assert_eq!(write(wrong), Err(Errno::EINVAL), "{wrong:?}");
    }
    assert_eq!(write("99999999999999999999999"), Err(Errno::ERANGE));
    assert_eq!(stat(&arena).held_bytes, 10 * page());
    assert_eq!(write("0x2000\n"), Ok(7));
    assert_eq!(stat(&arena).held_bytes, 0x2000 / page() * page());
    assert_eq!(write("0"), Ok(1));
    assert_eq!(stat(&arena).held_bytes, 0);
}

fn the_files_of_a_closed_arena_are_of_no_use() {
    let arena = arena();
    let id = row().id;
    alloc(&arena, 5000);
    let mut read = File::open(file(id, "map")).unwrap();
    let mut written = File::options().write(true).open(file(id, "trim")).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(read.read(&mut bytes).unwrap(), 16);
    drop(arena);
    let errno = |error: std::io::Error| error.raw_os_error().map(Errno::from_raw);
    assert_eq!(read.read(&mut bytes).map_err(errno), Err(Some(Errno::EIO)));
    assert_eq!(written.write(b"0").map_err(errno), Err(Some(Errno::EIO)));
    assert!(!file(id, "").exists());
}

fn no_invariant_is_broken() {
    if !Path::new(DIR).join("check").exists() {
        skip("this kernel is not made for tests");
    }
    let arenas = [arena(), arena()];
    for size in [32, 100, 5000, 70_000] {
        for arena in &arenas {
            alloc(arena, size);
            let mut offsets = [0; 10];
            arena.alloc_bulk(size, DEFAULT, &mut offsets).unwrap();
            arena.free_bulk(&offsets[5..]).unwrap();
        }
    }
    let text = fs::read_to_string(Path::new(DIR).join("check")).unwrap();
    assert!(text.lines().count() >= arenas.len());
    for line in text.lines() {
        let (id, verdict) = line.split_once(' ').unwrap();
        assert!(id.parse::<u64>().is_ok(), "{line}");
        assert_eq!(verdict, "ok", "{line}");
    }
}
