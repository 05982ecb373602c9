// SPDX-License-Identifier: GPL-2.0

//! Free memory of an idle arena is returned to the system.

use std::ffi::CStr;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use freelist::Arena;
use nix::kmod::{finit_module, ModuleInitFlags};

use crate::harness::{skip, suite};
use crate::kit::module::{self, MODULE};
use crate::kit::waiter::{waiting, Waiter};
use crate::kit::{alloc, arena, check, free, page, stat, thread, touch_all, View, DEFAULT, MIB};

suite!("freelist_idle":
    an_idle_arena_releases_its_free_memory,
    an_arena_that_is_used_keeps_its_free_memory,
    free_memory_that_a_waiter_needs_is_not_released,
    with_idle_s_0_free_memory_is_never_released,
);

/// More than twice the time after which memory is returned, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `work` with a module that was loaded with `parameters`.
fn with_module(parameters: &CStr, work: impl FnOnce()) {
    if !Path::new("/sys/module/freelist/refcnt").exists() {
        skip("the module is built in");
    }
    let Ok(file) = File::open(MODULE) else {
        skip("the module's file is not there");
    };
    module::unload();
    finit_module(&file, parameters, ModuleInitFlags::empty()).expect("it was loaded before");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    module::unload();
    module::load(&file).expect("it was loaded before");
    if let Err(cause) = result {
        std::panic::resume_unwind(cause);
    }
}

/// Returns an arena with a live block of 1 MiB and 8 MiB of free memory, all of it touched.
fn with_free_memory() -> Arena {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    for block in [MIB, 8 * MIB].map(|bytes| alloc(&arena, bytes)) {
        touch_all(&view, block.offset, block.bytes);
        if block.bytes > MIB {
            free(&arena, block);
        }
    }
    assert!(stat(&arena).free_bytes >= 8 * MIB);
    arena
}

/// Returns whether the arena holds more than its blocks need. Pages that are on their way to the system count.
fn has_free_memory(arena: &Arena) -> bool {
    let now = arena.stat().unwrap();
    now.held_bytes > now.live_bytes
}

/// Waits until no memory of the arena is free, without a call that allocates or frees. Returns whether that happened
/// in time.
fn wait_until_none_is_free(arena: &Arena) -> bool {
    let start = Instant::now();
    while has_free_memory(arena) {
        if start.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
    true
}

/// Returns arenas whose free memory was released as they were idle. If the system is short of memory it may
/// reclaim some of it before, and other arenas are tried.
fn released_when_idle() -> [Arena; 3] {
    for _ in 0..8 {
        let arenas = [(); 3].map(|()| with_free_memory());
        for arena in &arenas {
            assert!(wait_until_none_is_free(arena), "{:?}", stat(arena));
            let now = stat(arena);
            assert_eq!((now.held_bytes, now.live_bytes), (MIB, MIB));
            assert!(now.trims + now.shrinks >= 8 * MIB / page());
        }
        if arenas.iter().all(|arena| stat(arena).shrinks == 0) {
            return arenas;
        }
    }
    panic!("the system reclaimed memory of idle arenas each time");
}

fn an_idle_arena_releases_its_free_memory() {
    with_module(c"idle_s=1", || {
        let [arena, ..] = &released_when_idle();
        check();
        // Once more, after the arena was used again.
        free(arena, alloc(arena, 4 * MIB));
        assert!(stat(arena).free_bytes >= 4 * MIB);
        assert!(wait_until_none_is_free(arena));
        check();
    });
}

fn an_arena_that_is_used_keeps_its_free_memory() {
    with_module(c"idle_s=3", || {
        let (used, idle) = (with_free_memory(), with_free_memory());
        let start = Instant::now();
        while start.elapsed() < PATIENCE && has_free_memory(&idle) {
            free(&used, alloc(&used, page()));
            assert!(stat(&used).free_bytes >= 8 * MIB);
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(stat(&idle).free_bytes, 0);
    });
}

fn free_memory_that_a_waiter_needs_is_not_released() {
    with_module(c"idle_s=1", || {
        let arena = with_free_memory();
        arena.set_limit(stat(&arena).held_bytes).unwrap();
        thread::scope(|scope| {
            let waiter = Waiter::asleep(scope, &arena, waiting(9 * MIB, DEFAULT, None));
            thread::sleep(Duration::from_secs(4));
            assert!(stat(&arena).free_bytes >= 8 * MIB);
            arena.free(0).expect("the block of a MiB");
            waiter.served();
        });
        check();
    });
}

fn with_idle_s_0_free_memory_is_never_released() {
    with_module(c"idle_s=0", || {
        let arena = with_free_memory();
        thread::sleep(Duration::from_secs(3));
        assert!(stat(&arena).free_bytes >= 8 * MIB);
    });
    // The largest number does not overflow to a short time.
    with_module(c"idle_s=4294967295", || {
        let arena = with_free_memory();
        thread::sleep(Duration::from_secs(2));
        assert!(stat(&arena).free_bytes >= 8 * MIB);
    });
}
