// SPDX-License-Identifier: GPL-2.0

//! A block allocated and freed by the raw calls, while its list is not empty: alone, and in batches.

use std::os::fd::AsFd;

use anyhow::Result;

use crate::clock::{each, Clock};
use crate::print::{size, Printer};
use crate::samples::Samples;
use crate::sys::{self, Raw};

const SIZES: [usize; 7] = [32, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20];
/// The blocks of a batch.
const BATCH: usize = 64;
/// The sizes that are compared in batches: one of each kind of block.
const IN_BATCHES: [usize; 3] = [64, 1 << 10, 4 << 10];
const COUNT: usize = 1000;

pub fn run(printer: Printer, clock: Clock) -> Result<()> {
    let raw = Raw::open();
    let null = std::fs::File::open("/dev/null")?;
    let mut nothing = [(); 3].map(|()| Samples::default());
    let mut pairs = SIZES.map(|_| Samples::default());
    let mut batches = IN_BATCHES.map(|_| Samples::default());
    let mut offsets = [0; BATCH];
    for _ in 0..clock.rounds() {
        nothing[0].add(each(COUNT, sys::getppid));
        nothing[1].add(each(COUNT, || sys::empty(null.as_fd())));
        nothing[2].add(each(COUNT, || sys::empty(raw.as_fd())));
        for (size, pairs) in SIZES.iter().zip(&mut pairs) {
            raw.free(raw.alloc(*size, 0));
            pairs.add(each(COUNT, || raw.free(raw.alloc(*size, 0))));
        }
        for (size, batches) in IN_BATCHES.iter().zip(&mut batches) {
            raw.alloc_bulk(*size, &mut offsets);
            raw.free_bulk(&offsets);
            let batch = each(COUNT / BATCH, || {
                raw.alloc_bulk(*size, &mut offsets);
                raw.free_bulk(&offsets);
            });
            batches.add(batch / BATCH as f64);
        }
    }
    let [getppid, null, own] = &nothing;
    for (column, samples) in [
        ("getppid", getppid),
        ("ioctl_of_null", null),
        ("ioctl_of_freelist", own),
    ] {
        printer.cell("nothing", "call", column, samples);
    }
    // The kernel's part of any driver's call, without the work of this module for an unknown one.
    let empty = Samples::best([null, own], clock);
    let two = Samples::from_iter([2.0 * empty.value(clock)]);
    for (bytes, pair) in SIZES.into_iter().zip(&pairs) {
        printer.cell("pair", size(bytes), "alone", pair);
    }
    for (bytes, batch) in IN_BATCHES.into_iter().zip(&batches) {
        printer.cell("pair", size(bytes), "in_a_batch", batch);
    }
    let worst = Samples::worst(&pairs, clock);
    let over = Samples::from_iter([worst.value(clock) / two.value(clock)]);
    printer.counted("pair_over_two_empty_ioctls", &over, "ratio", "<=1.75");
    for (bytes, batch) in IN_BATCHES.into_iter().zip(&batches) {
        let at = SIZES
            .iter()
            .position(|other| *other == bytes)
            .expect("a size of pairs");
        let ratio = batch.over(&pairs[at], clock);
        printer.counted(
            &format!("batch_over_pair_{}", size(bytes)),
            &ratio,
            "ratio",
            "<=0.125",
        );
    }
    Ok(())
}
