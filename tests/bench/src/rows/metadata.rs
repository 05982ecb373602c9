// SPDX-License-Identifier: GPL-2.0

//! The module's metadata for the memory that it holds.

use anyhow::Result;

use crate::clock::Clock;
use crate::print::{size, Printer};
use crate::samples::Samples;
use crate::sys::Raw;

/// The bytes that are held.
const HELD: usize = 64 << 20;
const SIZES: [(usize, &str); 5] = [
    (32, "<=2.0"),
    (64, "-"),
    (1 << 10, "-"),
    (4 << 10, "<=0.6"),
    (1 << 20, "<=0.6"),
];

pub fn run(printer: Printer, _: Clock) -> Result<()> {
    for (bytes, aim) in SIZES {
        let raw = Raw::open();
        let mut offsets = vec![0; 1024];
        let mut left = HELD / bytes;
        while left > 0 {
            let batch = left.min(offsets.len());
            raw.alloc_bulk(bytes, &mut offsets[..batch]);
            left -= batch;
        }
        let stat = raw.stat();
        assert!(stat.held_bytes >= HELD as u64);
        let part = 100.0 * stat.metadata_bytes as f64 / stat.held_bytes as f64;
        let name = format!("metadata_{}", size(bytes));
        printer.figure(&name, &Samples::from_iter([part]), "%", aim);
    }
    Ok(())
}
