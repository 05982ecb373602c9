// SPDX-License-Identifier: GPL-2.0

//! Recorded allocations of programs, as `tests/traces` has them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// A step of a program.
pub enum Step {
    /// It allocates `size` bytes.
    Alloc {
        /// The block's number.
        id: u64,
        /// In bytes.
        size: u64,
    },
    /// It frees the block `id`.
    Free {
        /// The block's number.
        id: u64,
    },
}

/// Returns the path of a trace of `tests/traces`, such as `torch_gpt`.
pub fn path(name: &str) -> PathBuf {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces");
    traces.join(format!("{name}.txt.gz"))
}

/// Reads a trace. Leaves out allocations of 0 bytes, and of fewer than `min_size`.
///
/// # Panics
///
/// When it cannot be read.
pub fn read(path: &Path, min_size: u64) -> Vec<Step> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut steps = Vec::new();
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let line = line.unwrap();
        let mut words = line.split_ascii_whitespace();
        let kind = words.next();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match kind {
            Some("a") => {
                let (id, size) = (number(), number());
                if size >= min_size.max(1) {
                    steps.push(Step::Alloc { id, size });
                }
            }
            Some("f") => steps.push(Step::Free { id: number() }),
            _ => {}
        }
    }
    steps
}
