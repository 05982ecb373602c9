// SPDX-License-Identifier: GPL-2.0

//! Pairs of calls in an arena of many live blocks, and beside many arenas.

use anyhow::Result;

use crate::clock::{each, Clock};
use crate::print::{size, Printer};
use crate::samples::Samples;
use crate::sys::Raw;

const SIZES: [usize; 3] = [64, 8 << 10, 100 << 10];
const COUNT: usize = 400;

/// Allocates `count` live blocks of 32 bytes, each beside a free one.
fn litter(raw: &Raw, count: usize) {
    let mut offsets = vec![0; 1000];
    for _ in 0..2 * count / offsets.len() {
        raw.alloc_bulk(32, &mut offsets);
        let every_other: Vec<u64> = offsets.iter().copied().step_by(2).collect();
        raw.free_bulk(&every_other);
    }
    assert!(raw.stat().live_blocks >= count as u64);
}

/// Returns the costs of a block that is allocated and freed at once, and of one of many that are allocated, then all
/// freed in another order, for which no short list suffices.
fn costs(raw: &Raw, bytes: usize) -> [f64; 2] {
    let at_once = each(COUNT, || raw.free(raw.alloc(bytes, 0)));
    let later = each(1, || {
        let blocks: Vec<_> = (0..COUNT).map(|_| raw.alloc(bytes, 0)).collect();
        // Every seventh, so that no two neighbours are freed in sequence.
        for index in 0..COUNT {
            raw.free(blocks[index * 7 % COUNT]);
        }
    });
    [at_once, later / COUNT as f64]
}

/// The costs with few and with many blocks or arenas, round by round.
type Costs = [[Samples; 2]; 2];

fn add(costs: &mut [Samples; 2], new: [f64; 2]) {
    for (samples, cost) in costs.iter_mut().zip(new) {
        samples.add(cost);
    }
}

fn print(printer: Printer, clock: Clock, name: &str, [few, many]: &Costs) {
    for (how, few, many) in [("at_once", &few[0], &many[0]), ("later", &few[1], &many[1])] {
        let row = format!("{name}_{how}");
        printer.cell("scale", &row, "few", few);
        printer.cell("scale", &row, "many", many);
        printer.counted(&row, &many.over(few, clock), "ratio", "<=1.1");
    }
}

pub fn run(printer: Printer, clock: Clock) -> Result<()> {
    for bytes in SIZES {
        let (few, many) = (Raw::open(), Raw::open());
        litter(&few, 1000);
        litter(&many, 1_000_000);
        let mut samples = Costs::default();
        for round in 0..=clock.rounds() {
            for (raw, samples) in [&few, &many].into_iter().zip(&mut samples) {
                let new = costs(raw, bytes);
                // The first round grows the arena.
                if round > 0 {
                    add(samples, new);
                }
            }
        }
        print(printer, clock, &format!("blocks_{}", size(bytes)), &samples);
    }
    let (arena, bytes) = (Raw::open(), SIZES[0]);
    costs(&arena, bytes);
    let mut samples = Costs::default();
    for _ in 0..clock.rounds() {
        let [one, thousand] = &mut samples;
        add(one, costs(&arena, bytes));
        let others: Vec<Raw> = (0..1000).map(|_| Raw::open()).collect();
        for other in &others {
            other.alloc(bytes, 0);
        }
        add(thousand, costs(&arena, bytes));
    }
    print(printer, clock, "arenas", &samples);
    Ok(())
}
