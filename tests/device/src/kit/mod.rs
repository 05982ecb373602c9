// SPDX-License-Identifier: GPL-2.0

//! The parts of tests.

pub mod batch;
pub mod calls;
pub mod cgroup;
pub mod delayed;
pub mod events;
pub mod fail_nth;
pub mod files;
pub mod filled;
pub mod lazy;
pub mod ledger;
pub mod module;
pub mod pages;
pub mod process;
pub mod raw;
pub mod shared;
pub mod shrinker;
pub mod thread;
pub mod trace;
pub mod uring;
pub mod view;
pub mod waiter;

use std::env;
use std::fmt::Debug;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use freelist::debugfs::Stats;
use freelist::{Arena, Block, Flags, Info, Stat};
use nix::errno::Errno;

pub use cgroup::Cgroup;
pub use ledger::Ledger;
pub use view::View;

/// Prints a measured figure, which is shown with the result of all tests.
#[macro_export]
macro_rules! figure {
    ($($words:tt)*) => { eprintln!("figure: {}", format_args!($($words)*)) };
}

/// Prints a figure of the report on trust, which the crate `freelist-report` makes: its name there, its value, its
/// unit, and its aim (`<=X`, `>=X`, `=X`, or `-`).
#[macro_export]
macro_rules! trust {
    ($name:expr, $value:expr, $unit:expr, $aim:expr) => {
        eprintln!("trust: {} {} {} {}", $name, $value, $unit, $aim)
    };
}

/// The environment variable in which the harness passes the factor for the work of longer tests to a test.
pub const SCALE_VARIABLE: &str = "FREELIST_SCALE";

/// The environment variable that repeats the random choices of an earlier run.
const SEED_VARIABLE: &str = "FREELIST_SEED";

/// 1 KiB.
pub const KIB: u64 = 1 << 10;
/// 1 MiB.
pub const MIB: u64 = 1 << 20;
/// The smallest size class, in bytes.
pub const SMALLEST: u64 = 32;
/// Returns the largest size class, in bytes.
pub fn largest_block() -> u64 {
    page() << 23
}
/// Splits free blocks, but takes no new pages.
pub const LARGER: Flags = Flags::LARGER;
/// Takes new pages.
pub const GROW: Flags = Flags::GROW;
/// LARGER and GROW.
pub const DEFAULT: Flags = Flags::DEFAULT;

/// Returns `count` times the factor of the command line.
pub fn scaled(count: usize) -> usize {
    let scale = env::var(SCALE_VARIABLE).ok();
    count * scale.and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Returns a random number generator, whose seed is printed, or taken from the environment.
pub fn random() -> fastrand::Rng {
    let seed = env::var(SEED_VARIABLE)
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{SEED_VARIABLE}={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Returns a size between 1 and `max` bytes, each magnitude with the same probability.
pub fn random_size(rng: &mut fastrand::Rng, max: u64) -> u64 {
    let shift = rng.u32(0..=max.ilog2());
    rng.u64(1..=(2u64 << shift).min(max))
}

/// Returns the system's page size, in bytes.
pub fn system_page() -> usize {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    page.ok().flatten().expect("the page size is known") as usize
}

/// Opens a new arena.
#[track_caller]
pub fn arena() -> Arena {
    Arena::open().unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the properties of the module.
#[track_caller]
pub fn info() -> Info {
    arena().info().expect("INFO")
}

/// Returns the arena's page size, in bytes: it is the system's, as the suite of INFO checks.
pub fn page() -> u64 {
    system_page() as u64
}

/// Writes a byte to every page of `bytes` bytes of a view, from `offset` on.
pub fn touch_all(view: &View, offset: u64, bytes: u64) {
    for at in (offset..offset + bytes).step_by(system_page()) {
        view.store(at as usize, 1);
    }
}

/// Returns the counters of an arena that was never above its limit, and checks that they add up.
#[track_caller]
pub fn stat(arena: &Arena) -> Stat {
    let stat = counters(arena);
    assert!(
        stat.held_bytes <= stat.limit_bytes,
        "more is held than the limit allows: {stat:?}"
    );
    stat
}

/// Returns the counters, and checks that they add up, even if more is live than the limit allows.
#[track_caller]
pub fn counters(arena: &Arena) -> Stat {
    let stat = arena.stat().expect("STAT");
    assert_eq!(
        stat.held_bytes,
        stat.live_bytes + stat.free_bytes,
        "held bytes are live or free: {stat:?}"
    );
    assert_eq!(
        stat.allocs - stat.frees,
        stat.live_blocks,
        "allocated blocks are live or freed: {stat:?}"
    );
    assert_eq!(stat.reserved, [0; 12]);
    stat
}

/// Has the module check the invariants of every arena, if it can.
#[track_caller]
pub fn check() {
    let path = std::path::Path::new(freelist::debugfs::DIR).join("check");
    if let Ok(text) = fs::read_to_string(path) {
        let wrong: Vec<&str> = text.lines().filter(|line| !line.ends_with(" ok")).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// Allocates a block, which must fit into the limit.
#[track_caller]
pub fn alloc(arena: &Arena, size: u64) -> Block {
    let block = arena.alloc(size, DEFAULT);
    block.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns an arena, a block of `pages` pages in it, and a view of the block: page `i` begins with the byte
/// `i + 1`.
#[track_caller]
pub fn numbered_pages(pages: usize) -> (Arena, Block, View) {
    partly_numbered_pages(pages, pages)
}

/// As [`numbered_pages`], but only the first `written` pages are written.
#[track_caller]
pub fn partly_numbered_pages(pages: usize, written: usize) -> (Arena, Block, View) {
    let (arena, page) = (arena(), system_page());
    let block = alloc(&arena, (pages * page) as u64);
    let view = View::shared(&arena, block.offset, pages * page);
    for i in 0..written {
        view.store(i * page, i as u8 + 1);
    }
    (arena, block, view)
}

/// Frees a live block.
#[track_caller]
pub fn free(arena: &Arena, block: Block) {
    let result = arena.free(block.offset);
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Checks that the call is refused, with this errno.
#[track_caller]
pub fn refused<T: Debug>(result: freelist::Result<T>, errno: Errno) {
    match result {
        Ok(got) => panic!("not refused with {errno}, but gave {got:x?}"),
        Err(error) => assert_eq!(error.errno(), Some(errno), "{error}"),
    }
}

/// Returns the size class of a request, in bytes.
pub fn class_of(size: u64) -> u64 {
    size.next_power_of_two().max(SMALLEST)
}

/// Returns the bytes of a block: its size class up to half a page, whole pages above.
pub fn block_bytes_of(size: u64, page: u64) -> u64 {
    if size <= page / 2 {
        class_of(size)
    } else {
        size.next_multiple_of(page)
    }
}

/// Returns the bytes that a test may allocate: within the arena's limit, and so that the machine keeps a
/// quarter of its available memory.
pub fn headroom() -> u64 {
    let available = meminfo("MemAvailable");
    info().limit_bytes.min(available / 4 * 3)
}

/// Returns a value of /proc/meminfo, in bytes.
pub fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = text.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_else(|| panic!("/proc/meminfo has {name}"))
        * KIB
}

/// Returns the number of an arena, and the statistics that the `fdinfo` of its file has.
#[track_caller]
pub fn fdinfo(arena: &Arena) -> (u64, Stats) {
    let path = format!("/proc/self/fdinfo/{}", arena.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).expect("/proc is mounted");
    freelist::fdinfo::parse(&text).unwrap_or_else(|| panic!("no arena in {text}"))
}

/// Returns the bytes of a huge page; `None` on a kernel without huge pages.
pub fn huge_page() -> Option<u64> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    Some(text.trim().parse().expect("bytes"))
}

/// Returns the bytes of the largest folio of the page cache: a huge page, or a page where there are none.
pub fn largest_folio() -> u64 {
    huge_page().unwrap_or_else(page)
}

/// Returns the bytes of unused memory: `MemFree`, and the pages on the lists of each CPU (pcp), which are up
/// to an eighth of a small machine's memory, and count neither as free nor as available.
pub fn free_memory() -> u64 {
    let zones = fs::read_to_string("/proc/zoneinfo").expect("/proc is mounted");
    let counts = zones
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("count:"));
    let on_cpus: u64 = counts
        .map(|count| count.trim().parse::<u64>().expect("a count of pages"))
        .sum();
    meminfo("MemFree") + on_cpus * page()
}
