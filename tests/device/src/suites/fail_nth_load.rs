// SPDX-License-Identifier: GPL-2.0

//! Failures of the kernel at every point of loading the module.

use std::fs::File;
use std::path::Path;

use freelist::debugfs;

use crate::harness::{skip, suite};
use crate::kit::fail_nth::switch;
use crate::kit::module::{self, MODULE};
use crate::kit::{alloc, arena, check, random, scaled, KIB};

suite!("freelist_fail_nth_load":
    loading_fails_cleanly,
);

/// A number above the failure points of a load, most of which are the loader's own.
const MAX_POINTS_OF_A_LOAD: usize = 1 << 16;

/// The number of failure points before the end that include all of the module's own code.
const LAST_OF_A_LOAD: usize = 240;

/// The module's own failure points are the last of a load. Each run tries one in eight of them, at random; a
/// scale of 8 tries all.
fn loading_fails_cleanly() {
    let Ok(file) = File::open(MODULE) else {
        skip("the module's file is not there");
    };
    let switch = switch();
    module::unload();
    // Returns whether there was such a point, and unloads a module that was loaded.
    let fails_at = |nth| {
        let (result, failed) = switch.run(nth, || module::load(&file));
        match result {
            Ok(()) => module::unload(),
            Err(error) => {
                assert!(failed, "{error}");
                for left in ["/sys/module/freelist", "/dev/freelist", debugfs::DIR] {
                    assert!(!Path::new(left).exists(), "{left} is left of point {nth}");
                }
            }
        }
        failed
    };
    let (mut last, mut beyond) = (1, MAX_POINTS_OF_A_LOAD);
    while last + 1 < beyond {
        let nth = last.midpoint(beyond);
        if fails_at(nth) {
            last = nth;
        } else {
            beyond = nth;
        }
    }
    let step = (8 / scaled(1)).max(1);
    let first = last.saturating_sub(LAST_OF_A_LOAD) + random().usize(..step);
    let tried = (first..=last)
        .step_by(step)
        .filter(|nth| fails_at(*nth))
        .count();
    eprintln!("{last} failure points, {tried} of the last {LAST_OF_A_LOAD} tried");
    module::load(&file).expect("nothing fails");
    let arena = arena();
    let block = alloc(&arena, KIB);
    arena.free(block.offset).unwrap();
    check();
}
