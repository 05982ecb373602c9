// SPDX-License-Identifier: GPL-2.0

//! Recorded allocations of real programs (`tests/traces/`), every block touched.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use freelist::trace::{Event, Trace};

use crate::allocator::{Allocator, Block};
use crate::allocators::{named, AS_THEY_COME, KEEPING};
use crate::clock::{timed, Clock};
use crate::print::Printer;
use crate::probe::{self, Subject};
use crate::samples::Samples;

/// The directory in which `scripts/bench` puts the traces.
const TRACES: &str = "traces";
const SMALL: [&str; 2] = ["small_sqlite3", "small_git_log"];
const TRAINING: [&str; 3] = ["torch_resnet18", "torch_gpt", "torch_unet"];
/// The rounds of a training run: each is long, and an allocator does not have huge pages from the system in each of
/// them.
const TRAINING_ROUNDS: usize = 3;
/// The number of times that a process replays a trace.
const TIMES: usize = 3;

/// The first time that a process replays it, and the best of the others.
const PARTS: [&str; 2] = ["first", "again"];

/// A step of a trace, in a compact form.
#[derive(Clone, Copy)]
enum Step {
    Alloc { block: usize, size: usize },
    Free { block: usize },
}

impl Step {
    /// Encodes the step as two numbers: the block, and its size plus 1; 0 is its release.
    fn bytes(self) -> [u8; 8] {
        let (block, size) = match self {
            Self::Alloc { block, size } => (block, size + 1),
            Self::Free { block } => (block, 0),
        };
        (((block as u64) << 32) | size as u64).to_le_bytes()
    }

    #[inline]
    fn of(bytes: [u8; 8]) -> Self {
        let both = u64::from_le_bytes(bytes);
        let (block, size) = ((both >> 32) as usize, (both & 0xffff_ffff) as usize);
        match size.checked_sub(1) {
            Some(size) => Self::Alloc { block, size },
            None => Self::Free { block },
        }
    }
}

/// Writes the steps of a trace to a file that takes one block to read: a probe's allocator has allocated little
/// before.
fn prepare(name: &str) -> Result<Prepared> {
    let trace = Trace::read(Path::new(TRACES).join(format!("{name}.txt.gz")))?;
    let step = |event: &Event| match *event {
        Event::Alloc(block) => Some(Step::Alloc {
            block,
            size: trace.sizes[block] as usize,
        }),
        Event::Free(block) => Some(Step::Free { block }),
        Event::Mark(_) => None,
    };
    let steps: Vec<u8> = trace
        .events
        .iter()
        .filter_map(step)
        .flat_map(Step::bytes)
        .collect();
    let path = format!("{name}.steps");
    fs::write(&path, &steps)?;
    Ok(Prepared {
        args: [path, trace.sizes.len().to_string()],
        events: (steps.len() / 8) as f64,
        peak: trace.peak().bytes as f64,
    })
}

/// A trace in the form for a probe.
struct Prepared {
    /// The file and the number of its blocks.
    args: [String; 2],
    events: f64,
    peak: f64,
}

/// Replays a trace once, and frees the blocks that it leaves.
#[inline(never)]
fn replay(allocator: &impl Allocator, steps: &[u8], blocks: &mut [Block]) -> Duration {
    let time = timed(|| {
        for step in steps.chunks_exact(8) {
            match Step::of(step.try_into().expect("eight bytes")) {
                Step::Alloc { block, size } => blocks[block] = Block::new(allocator, size),
                Step::Free { block } => blocks[block].free(allocator),
            }
        }
    });
    for block in blocks {
        block.free(allocator);
    }
    time
}

/// Returns a line of /proc/self/status, in bytes.
fn status(name: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("a line in KiB")?.parse::<f64>()? * 1024.0)
}

/// Measures in a process of its own: the time of the first replay, the best of those after it, and the peak of
/// memory above that before the first one.
pub fn probe(allocator: &impl Allocator, args: &[String]) -> Result<()> {
    let [path, count] = args else {
        bail!("a file, and how many blocks are in it");
    };
    let steps = fs::read(path)?;
    let mut blocks: Vec<Block> = (0..count.parse()?).map(|_| Block::NONE).collect();
    // From here on the peak of resident memory is that of the trace.
    fs::write("/proc/self/clear_refs", "5")?;
    let before = status("VmRSS")?;
    let first = replay(allocator, &steps, &mut blocks);
    let resident = status("VmHWM")? - before;
    let held = allocator.held().map_or(resident, |held| held as f64);
    let again = (1..TIMES).map(|_| replay(allocator, &steps, &mut blocks));
    let again = again.min().context("it is done more than once")?;
    probe::value("first", first.as_nanos() as f64);
    probe::value("again", again.as_nanos() as f64);
    probe::value("held", held);
    probe::value("resident", resident);
    Ok(())
}

/// The measurements of a trace, by allocator.
struct Replays {
    subjects: Vec<Subject>,
    /// All durations, by [`PARTS`].
    times: Vec<[Samples; 2]>,
    /// Held memory over what was asked for, at the peak.
    held: Vec<Samples>,
    resident: Vec<Samples>,
    events: f64,
}

impl Replays {
    fn of(trace: &str, clock: Clock, subjects: Vec<Subject>, rounds: usize) -> Result<Self> {
        let prepared = prepare(trace)?;
        let args = prepared.args.each_ref().map(String::as_str);
        let mut replays = Self {
            times: vec![Default::default(); subjects.len()],
            held: vec![Samples::default(); subjects.len()],
            resident: vec![Samples::default(); subjects.len()],
            subjects,
            events: prepared.events,
        };
        let mut loops = Samples::default();
        for _ in 0..rounds {
            loops.add(probe::run("trace", Subject::Nothing, &args)?.get("again")?);
            for (at, subject) in replays.subjects.iter().enumerate() {
                let values = probe::run("trace", *subject, &args)?;
                for (samples, part) in replays.times[at].iter_mut().zip(PARTS) {
                    samples.add(values.get(part)?);
                }
                replays.held[at].add(values.get("held")? / prepared.peak);
                replays.resident[at].add(values.get("resident")? / prepared.peak);
            }
        }
        // The loop's own cost, which is the same for all.
        let loops = loops.value(clock);
        for samples in replays.times.iter_mut().flatten() {
            *samples = samples.map(|time| time - loops);
        }
        Ok(replays)
    }

    fn find(&self, name: &str) -> usize {
        let found = self
            .subjects
            .iter()
            .position(|subject| subject.name() == name);
        found.expect("it was measured")
    }
}

pub fn small(printer: Printer, clock: Clock) -> Result<()> {
    for trace in SMALL {
        let mut subjects = Subject::and(&AS_THEY_COME);
        subjects.insert(1, Subject::Global);
        let replays = Replays::of(trace, clock, subjects, clock.rounds())?;
        for (at, subject) in replays.subjects.iter().enumerate() {
            for (part, samples) in PARTS.iter().zip(&replays.times[at]) {
                let each = samples.map(|time| time / replays.events);
                printer.cell(
                    "small",
                    format_args!("{trace}_{part}"),
                    subject.name(),
                    &each,
                );
            }
        }
        let ours = &replays.times[replays.find("freelist")];
        for (other, aim) in [
            ("glibc", "<=1"),
            ("mimalloc", "<=1.3"),
            ("jemalloc", "-"),
            ("tcmalloc", "-"),
        ] {
            let theirs = &replays.times[replays.find(named(other).name)];
            for (part, (ours, theirs)) in PARTS.iter().zip(ours.iter().zip(theirs)) {
                let ratio = ours.over(theirs, clock);
                printer.counted(
                    &format!("{trace}_{part}_over_{other}"),
                    &ratio,
                    "ratio",
                    aim,
                );
            }
        }
    }
    Ok(())
}

pub fn training(printer: Printer, clock: Clock) -> Result<()> {
    for trace in TRAINING {
        let others: Vec<_> = AS_THEY_COME.into_iter().chain(KEEPING).collect();
        let replays = Replays::of(trace, clock, Subject::and(&others), TRAINING_ROUNDS)?;
        for (at, subject) in replays.subjects.iter().enumerate() {
            let unit = match clock {
                Clock::Instructions => "million_instructions",
                Clock::Wall => "ms",
            };
            for (part, samples) in PARTS.iter().zip(&replays.times[at]) {
                let row = format!("{trace}_{part}");
                printer.cell_in(
                    "training",
                    &row,
                    subject.name(),
                    &samples.map(|time| time / 1e6),
                    unit,
                );
            }
            printer.cell_in("held", trace, subject.name(), &replays.held[at], "ratio");
        }
        let ours = replays.find("freelist");
        for (at, part) in PARTS.iter().enumerate() {
            let times = |name: &str| &replays.times[replays.find(name)][at];
            for (other, keeping) in AS_THEY_COME.iter().zip(&KEEPING) {
                let theirs = Samples::best([times(other.name), times(keeping.name)], clock);
                let ratio = times("freelist").over(theirs, clock);
                let name = format!("{trace}_{part}_over_{}", other.name);
                printer.counted(&name, &ratio, "ratio", "<=1");
            }
        }
        if clock == Clock::Instructions {
            printer.figure(
                &format!("{trace}_held"),
                &replays.held[ours],
                "ratio",
                "<=1.05",
            );
            printer.figure(
                &format!("{trace}_resident"),
                &replays.resident[ours],
                "ratio",
                "-",
            );
        }
    }
    Ok(())
}
