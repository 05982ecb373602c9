// SPDX-License-Identifier: GPL-2.0

//! New memory: its pages touched for the first time, then returned to the system.

use std::time::Duration;

use anyhow::Result;
use freelist::uapi::FREELIST_POPULATE;
use nix::sys::mman::MmapAdvise;

use crate::clock::{timed, Clock};
use crate::print::Printer;
use crate::samples::Samples;
use crate::sys::{Pages, Raw};

/// The bytes of the memory: whole huge pages.
const BYTES: usize = 32 << 20;
const HUGE: usize = 2 << 20;

/// A way to get memory, with the times until it is touched and until it is returned.
type Way = (&'static str, fn(&Raw, &Pages) -> [Duration; 2]);

const WAYS: [Way; 5] = [
    ("by_faults", |raw, view| new(raw, view, 0)),
    ("populated", |raw, view| new(raw, view, FREELIST_POPULATE)),
    ("anonymous_4KiB", |_, _| {
        anonymous(MmapAdvise::MADV_NOHUGEPAGE, false)
    }),
    ("anonymous_4KiB_populated", |_, _| {
        anonymous(MmapAdvise::MADV_NOHUGEPAGE, true)
    }),
    ("anonymous_huge", |_, _| {
        anonymous(MmapAdvise::MADV_HUGEPAGE, false)
    }),
];

fn new(raw: &Raw, view: &Pages, flags: u32) -> [Duration; 2] {
    let mut offset = 0;
    let used = timed(|| {
        offset = raw.alloc(BYTES, flags);
        view.touch(offset, BYTES);
    });
    let released = timed(|| {
        raw.free(offset);
        raw.trim();
    });
    [used, released]
}

fn anonymous(pages: MmapAdvise, populated: bool) -> [Duration; 2] {
    let mut memory = None;
    let used = timed(|| {
        let new = Pages::anonymous(BYTES + HUGE);
        new.advise(pages);
        // Whole huge pages, at any address.
        let at = new.as_ptr().align_offset(HUGE);
        if populated {
            new.populate(at, BYTES);
        }
        new.touch(at, BYTES);
        memory = Some(new);
    });
    [used, timed(|| drop(memory))]
}

pub fn run(printer: Printer, clock: Clock) -> Result<()> {
    let raw = Raw::open();
    let view = raw.map(1 << 30);
    let mut samples = WAYS.map(|_| [Samples::default(), Samples::default()]);
    for round in 0..=clock.rounds() {
        for ((_, way), samples) in WAYS.iter().zip(&mut samples) {
            let times = way(&raw, &view);
            // The first round warms up everything but the memory: tables, lists of pages.
            if round > 0 {
                for (samples, time) in samples.iter_mut().zip(times) {
                    let mebibytes = (BYTES >> 20) as f64;
                    samples.add(time.as_nanos() as f64 / mebibytes);
                }
            }
        }
    }
    for ((name, _), [used, released]) in WAYS.iter().zip(&samples) {
        printer.cell("fresh", "1MiB_touched", name, used);
        printer.cell("fresh", "1MiB_released", name, released);
    }
    let [[by_faults, _], [populated, _], [small, _], [small_populated, _], [huge, _]] = &samples;
    let ratios = [
        (
            "fresh_populated_over_4KiB",
            populated.over(small, clock),
            "<=0.5",
        ),
        (
            "fresh_populated_over_4KiB_populated",
            populated.over(small_populated, clock),
            "-",
        ),
        (
            "fresh_by_faults_over_4KiB",
            by_faults.over(small, clock),
            "<=1",
        ),
        (
            "fresh_populated_over_huge",
            populated.over(huge, clock),
            "<=1.7",
        ),
    ];
    for (name, ratio, aim) in &ratios {
        printer.counted(name, ratio, "ratio", aim);
    }
    Ok(())
}
