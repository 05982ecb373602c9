// SPDX-License-Identifier: GPL-2.0

//! The module stays while it is in use. Last of all suites: a failure here
//! takes the device away.
//! Prior art: vulnerabilities unload_while_open, unload_while_mapped, unload_while_waiting.

use std::fs::File;

use freelist::uapi::FREELIST_SLACK_NONE;
use freelist::Flags;
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};
use nix::sys::signal::{kill, Signal};

use crate::harness::{skip, suite};
use crate::kit::module::{self, MODULE};
use crate::kit::process::spawn_child;
use crate::kit::{
    alloc, arena, check, free, free_memory, meminfo, page, raw, scaled, shrinker, stat, View,
    DEFAULT, KIB,
};
use crate::{figure, trust};

suite!("freelist_unload":
    the_module_stays_while_an_arena_is_open,
    the_module_stays_while_only_a_mapping_lives,
    the_module_stays_while_only_a_child_has_the_arena,
    the_module_stays_while_a_file_of_debugfs_is_open,
    the_module_stays_while_a_thread_waits,
    the_slack_of_an_arena_is_the_modules_parameter,
    limits_in_mebibytes_are_as_large_as_there_are_numbers,
    a_module_is_loaded_and_unloaded_beside_reclaim,
    a_module_that_is_loaded_and_unloaded_holds_nothing,
);

#[track_caller]
fn unloading_is_refused() {
    if !std::path::Path::new("/sys/module/freelist/refcnt").exists() {
        skip("the module is built in");
    }
    let result = delete_module(c"freelist", DeleteModuleFlags::O_NONBLOCK);
    assert!(
        matches!(result, Err(Errno::EWOULDBLOCK | Errno::EBUSY)),
        "{result:?}"
    );
}

/// Prior art: vulnerabilities unload_while_open.
fn the_module_stays_while_an_arena_is_open() {
    let arena = arena();
    unloading_is_refused();
    let block = alloc(&arena, 64);
    unloading_is_refused();
    arena.free(block.offset).unwrap();
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// Prior art: vulnerabilities unload_while_mapped.
fn the_module_stays_while_only_a_mapping_lives() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    drop(arena);
    unloading_is_refused();
    // A fault after that needs the module's code.
    view.store(page() as usize, 1);
    assert_eq!(view.load(page() as usize), 1);
}

fn the_module_stays_while_a_file_of_debugfs_is_open() {
    let arena = arena();
    let dir = std::path::Path::new(freelist::debugfs::DIR);
    let of_arena = std::fs::read_dir(dir.join("arenas.d")).unwrap();
    let of_arena = of_arena.flatten().next().unwrap().path();
    let paths = [
        dir.join("stats"),
        dir.join("classes"),
        dir.join("arenas"),
        of_arena.join("map"),
    ];
    let mut files = paths.map(|path| std::fs::File::open(path).unwrap());
    drop(arena);
    unloading_is_refused();
    // The arena's own file outlives it, and is empty.
    let mut text = String::new();
    let _ = std::io::Read::read_to_string(&mut files[3], &mut text);
    for file in files {
        unloading_is_refused();
        drop(file);
    }
}

/// Prior art: vulnerabilities unload_while_waiting.
fn the_module_stays_while_a_thread_waits() {
    use crate::kit::waiter::{sleeps_in_ioctl, waiting};
    let shared = arena();
    shared.set_limit(page()).unwrap();
    alloc(&shared, page());
    let child = spawn_child(|| {
        let request = waiting(page(), crate::kit::DEFAULT, None);
        let _ = crate::kit::raw::alloc(&shared, request);
    });
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    // No other process has the arena.
    drop(shared);
    unloading_is_refused();
    nix::sys::signal::kill(child.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    child.wait();
}

fn the_module_stays_while_only_a_child_has_the_arena() {
    let shared = arena();
    let (read, write) = nix::unistd::pipe().unwrap();
    let child = spawn_child(|| {
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).unwrap();
        alloc(&shared, 64);
    });
    drop(shared);
    unloading_is_refused();
    nix::unistd::write(&write, b"x").unwrap();
    child.succeed();
}

/// The cycles after which the kernel's own caches do not grow any more.
const WARM: usize = 100;

/// Returns the slope of the line that fits `values` best, in bytes for each step.
fn slope(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let terms = values.iter().enumerate().map(|(at, value)| {
        let from_middle = at as f64 - middle;
        (from_middle * (value - mean), from_middle * from_middle)
    });
    let (above, below) = terms.fold((0.0, 0.0), |sum, term| (sum.0 + term.0, sum.1 + term.1));
    above / below
}

/// Returns the bytes of memory that are in use and cannot be reclaimed at once.
fn used() -> u64 {
    let reclaimable = ["Cached", "Buffers", "SReclaimable"].map(meminfo);
    meminfo("MemTotal") - reclaimable.iter().sum::<u64>() - free_memory()
}

fn the_slack_of_an_arena_is_the_modules_parameter() {
    if !std::path::Path::new("/sys/module/freelist/refcnt").exists() {
        skip("the module is built in");
    }
    let file = File::open(MODULE).unwrap();
    let slack_with = |parameters| {
        finit_module(&file, parameters, ModuleInitFlags::empty())?;
        let now = raw::limit(arena(), 0, 0);
        module::unload();
        now.map(|now| now.slack_permille)
    };
    module::unload();
    let slacks = [
        c"",
        c"slack_permille=0",
        c"slack_permille=1000",
        c"slack_permille=1001",
        c"slack_permille=4294967294",
        c"slack_permille=4294967295",
    ]
    .map(slack_with);
    module::load(&file).expect("it was loaded before");
    let refused = Err(Errno::EINVAL);
    let none = Ok(FREELIST_SLACK_NONE);
    assert_eq!(slacks, [Ok(50), Ok(0), Ok(1000), refused, refused, none]);
}

/// A number of MiB that is too large in bytes is no limit, instead of a small one.
///
/// Prior art: reports udmabuf-CVE-2025-37803.
fn limits_in_mebibytes_are_as_large_as_there_are_numbers() {
    if !std::path::Path::new("/sys/module/freelist/refcnt").exists() {
        skip("the module is built in");
    }
    let file = File::open(MODULE).unwrap();
    let with = |parameters| {
        finit_module(&file, parameters, ModuleInitFlags::empty())?;
        let arena = arena();
        let blocks = [64, 3 * page()].map(|size| alloc(&arena, size));
        let lazy = arena.alloc(3 * page(), DEFAULT | Flags::LAZY);
        let limit = arena.stat().unwrap().limit_bytes;
        let copy = arena.copy();
        let served = lazy.is_ok() && copy.is_ok();
        blocks.into_iter().for_each(|block| free(&arena, block));
        check();
        drop((arena, copy));
        module::unload();
        Ok::<_, Errno>((limit >= 1 << 43, served))
    };
    module::unload();
    let limits = [
        c"limit_mb=18446744073709551615",
        c"limit_mb=17592186044416 arena_limit_mb=17592186044416",
        c"limit_mb=17592186044415 lazy_limit_mb=17592186044417",
        c"limit_mb=17592186044415 arena_limit_mb=9223372036854775808",
    ]
    .map(with);
    // A value that is not a number is refused.
    let none = finit_module(
        &file,
        c"limit_mb=18446744073709551616",
        ModuleInitFlags::empty(),
    );
    module::load(&file).expect("it was loaded before");
    assert_eq!(limits, [Ok((true, true)); 4]);
    assert!(none.is_err(), "{none:?}");
}

/// The shrinker is called from its registration until it is gone.
///
/// Prior art: reports zfs#13940, zfs#2136.
fn a_module_is_loaded_and_unloaded_beside_reclaim() {
    let Ok(file) = File::open(MODULE) else {
        skip("the module's file is not there");
    };
    let reclaim = spawn_child(|| loop {
        shrinker::force(None);
    });
    for _ in 0..scaled(6) {
        module::unload();
        module::load(&file).expect("it was loaded before");
        let arena = arena();
        let keep = alloc(&arena, 5 * page());
        let view = View::shared(&arena, 0, 64 * KIB as usize);
        view.store(keep.offset as usize, 1);
        free(&arena, alloc(&arena, 300 * KIB));
        assert_eq!(view.load(keep.offset as usize), 1);
    }
    kill(reclaim.pid(), Signal::SIGKILL).unwrap();
    reclaim.wait();
    check();
}

/// Prior art: slub_kunit test_leak_destroy.
fn a_module_that_is_loaded_and_unloaded_holds_nothing() {
    let Ok(file) = File::open(MODULE) else {
        skip("the module's file is not there");
    };
    let cycles = scaled(5);
    let memory: Vec<f64> = (0..cycles)
        .map(|_| {
            let arena = arena();
            for size in [32, page(), 300 * KIB] {
                let block = alloc(&arena, size);
                let view = View::shared(&arena, block.offset / page() * page(), size as usize);
                view.store(0, 1);
                if size > page() {
                    free(&arena, block);
                }
            }
            drop(arena);
            module::unload();
            module::load(&file).expect("it was loaded before");
            used() as f64
        })
        .collect();
    // The module works as before.
    assert_eq!(stat(&arena()).allocs, 0);
    if let Some(warm @ [_, _, ..]) = memory.get(WARM..) {
        let slope = slope(warm) / KIB as f64;
        figure!("{cycles} loads and unloads: {slope:.2} KiB more in use with each");
        trust!("load_cycles", cycles, "cycles", ">=500");
        trust!(
            "load_cycles_slope",
            format_args!("{slope:.2}"),
            "KiB",
            "<=1"
        );
        assert!(slope <= 1.0);
    }
}
