// SPDX-License-Identifier: GPL-2.0

//! A buffer that is allocated, touched in every page, and freed, again and again.

use anyhow::{Context, Result};

use crate::allocator::{Allocator, Block};
use crate::allocators::AS_THEY_COME;
use crate::clock::{each, Clock};
use crate::print::{size, Printer};
use crate::probe::{self, Subject};
use crate::samples::Samples;
use crate::sys::{memfd, DmaHeap, Pages, Raw};

const SIZES: [usize; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// The size from which ten times fewer instructions are the aim; six times below.
const LARGE: usize = 64 << 10;

/// Returns the number of repetitions that take some hundred thousand instructions.
fn count(bytes: usize) -> usize {
    ((4 << 20) / bytes).clamp(4, 100)
}

/// The ways of programs without an allocator.
struct Ways {
    raw: Raw,
    view: Pages,
    heap: DmaHeap,
}

impl Ways {
    const NAMES: [&'static str; 4] = ["freelist_calls", "mmap", "memfd", "dma_buf"];

    fn open() -> Self {
        let raw = Raw::open();
        Self {
            view: raw.map(1 << 30),
            raw,
            heap: DmaHeap::open(),
        }
    }

    fn once(&self, way: &str, bytes: usize) {
        match way {
            "freelist_calls" => {
                let offset = self.raw.alloc(bytes, 0);
                self.view.touch(offset, bytes);
                self.raw.free(offset);
            }
            "mmap" => Pages::anonymous(bytes).touch(0, bytes),
            "memfd" => Pages::shared(memfd(bytes), bytes).touch(0, bytes),
            _ => Pages::shared(self.heap.alloc(bytes), bytes).touch(0, bytes),
        }
    }
}

pub fn run(printer: Printer, clock: Clock) -> Result<()> {
    let ways = Ways::open();
    let subjects = Subject::and(&AS_THEY_COME);
    let (mut large, mut small) = (Vec::new(), Vec::new());
    for bytes in SIZES {
        let mut by_way = Ways::NAMES.map(|_| Samples::default());
        let mut by_subject = vec![Samples::default(); subjects.len()];
        for _ in 0..clock.rounds() {
            for (way, samples) in Ways::NAMES.iter().zip(&mut by_way) {
                ways.once(way, bytes);
                samples.add(each(count(bytes), || ways.once(way, bytes)));
            }
            for (subject, samples) in subjects.iter().zip(&mut by_subject) {
                let values = probe::run("reuse", *subject, &[&bytes.to_string()])?;
                samples.add(values.get("each")?);
            }
        }
        for (way, samples) in Ways::NAMES.iter().zip(&by_way) {
            printer.cell("reuse", size(bytes), way, samples);
        }
        for (subject, samples) in subjects.iter().zip(&by_subject) {
            printer.cell("reuse", size(bytes), subject.name(), samples);
        }
        let [ours, others @ ..] = by_way;
        let fewer = others.map(|other| other.over(&ours, clock));
        if bytes >= LARGE {
            large.push(fewer);
        } else if bytes == SIZES[0] {
            small.push(fewer);
        }
    }
    for (which, aim, times) in [("large", ">=10", large), ("4KiB", ">=6", small)] {
        for (at, way) in Ways::NAMES[1..].iter().enumerate() {
            let worst = Samples::best(times.iter().map(|times| &times[at]), clock);
            let name = format!("reuse_{which}_fewer_than_{way}");
            printer.counted(&name, worst, "times", aim);
        }
    }
    Ok(())
}

pub fn probe(allocator: &impl Allocator, args: &[String]) -> Result<()> {
    let bytes: usize = args.first().context("a size")?.parse()?;
    let once = || Block::new(allocator, bytes).free(allocator);
    for _ in 0..3 {
        once();
    }
    probe::value("each", each(count(bytes), once));
    Ok(())
}
