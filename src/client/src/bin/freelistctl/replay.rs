// SPDX-License-Identifier: MIT OR Apache-2.0

//! Replays a trace through an arena.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use freelist::debugfs::{Classes, Stats};
use freelist::trace::{Event, Peak, Trace};
use freelist::{Arena, Block, Flags, Info, Mapping, Stat};

use crate::pattern;
use crate::progress::Progress;
use crate::timeline::{Header, Line, Mark, Moment, Writer};

/// The result of a replay.
pub(crate) struct Outcome {
    /// The duration of each ALLOC.
    pub(crate) allocs: Times,
    /// The duration of each FREE, with those at the end.
    pub(crate) frees: Times,
    /// The number of blocks that the trace leaves, which were freed at the end.
    pub(crate) left: usize,
    /// The number of allocations of 0 bytes, for which no call was made.
    pub(crate) empty: usize,
    /// The peak of the trace, in bytes as asked for.
    pub(crate) peak: Peak,
    /// The peak of bytes of pages that the arena held.
    pub(crate) peak_held: u64,
    /// The number of bytes that were checked.
    pub(crate) checked: u64,
    /// The number of these that were wrong.
    pub(crate) wrong: u64,
    /// Descriptions of the first blocks with wrong bytes.
    pub(crate) findings: Vec<String>,
    pub(crate) at_peak: Snapshot,
    pub(crate) at_end: Snapshot,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn passed(&self) -> bool {
        self.wrong == 0 && self.at_end.stat.live_blocks == 0
    }
}

/// The counters at one moment; those of debugfs if it can be read.
pub(crate) struct Snapshot {
    pub(crate) stat: Stat,
    pub(crate) stats: std::io::Result<Stats>,
    pub(crate) classes: std::io::Result<Classes>,
}

impl Snapshot {
    fn take(arena: &Arena) -> Result<Self> {
        Ok(Self {
            stat: arena.stat()?,
            stats: Stats::read(),
            classes: Classes::read(),
        })
    }
}

/// The durations of many calls.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    fn add<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        self.0.push(start.elapsed());
        result
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the mean in ns; 0 without calls.
    pub(crate) fn mean(&self) -> u128 {
        let total: Duration = self.0.iter().sum();
        total.as_nanos() / self.0.len().max(1) as u128
    }

    /// Returns the time in ns that `percent` of the calls do not exceed; 0 without calls.
    /// Writes a timeline of the arena from event to event.
    pub(crate) fn percentile(&self, percent: usize) -> u128 {
        let mut times = self.0.clone();
        times.sort_unstable();
        let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(at).map_or(0, Duration::as_nanos)
    }
}

/// A timeline of the arena from event to event, being written.
pub(crate) struct Timeline {
    writer: Writer,
    /// The number of events from one sample to the next.
    stride: usize,
    start: Instant,
}

impl Timeline {
    /// The approximate number of samples of a replay: more than a picture has pixels.
    const SAMPLES: usize = 4000;

    /// Creates the file `path` for the replay of the trace in `file`.
    pub(crate) fn create(path: &Path, file: &Path, trace: &Trace) -> Result<Self> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let header = Header::new(format!("replay of {name}"), "replay");
        Ok(Self {
            writer: Writer::create(path, header)?,
            stride: trace.events.len().div_ceil(Self::SAMPLES).max(1),
            start: Instant::now(),
        })
    }

    /// Takes a sample after event number `number`, from 0, if one is due or `must` is set.
    fn after(&mut self, arena: &Arena, number: usize, event: &Event, must: bool) -> Result<()> {
        let (time_ns, number) = (self.start.elapsed().as_nanos() as u64, number + 1);
        if let Event::Mark(text) = event {
            self.writer.write(&Line::Mark(Mark {
                time_ns,
                event: number as u64,
                text: text.clone(),
            }))?;
        }
        if must || number % self.stride == 0 {
            let moment = Moment::of_stat(time_ns, number as u64, &arena.stat()?);
            self.writer.write(&Line::Sample(moment))?;
        }
        Ok(())
    }
}

/// Replays `trace`.
pub(crate) fn run(
    arena: &Arena,
    info: &Info,
    trace: &Trace,
    mut progress: Progress,
    mut timeline: Option<Timeline>,
) -> Result<Outcome> {
    let peak = trace.peak();
    let mut replay = Replay::new(arena, info, trace)?;
    let mut at_peak = None;
    let start = Instant::now();
    for (i, event) in trace.events.iter().enumerate() {
        match event {
            Event::Alloc(block) => replay.alloc(*block),
            Event::Free(block) => replay.free(*block),
            Event::Mark(_) => Ok(()),
        }
        .with_context(|| format!("event {} of {}", i + 1, trace.events.len()))?;
        if i == peak.event {
            at_peak = Some(Snapshot::take(arena)?);
        }
        if let Some(timeline) = &mut timeline {
            let must = i == 0 || i == peak.event || i + 1 == trace.events.len();
            timeline.after(arena, i, event, must)?;
        }
        progress.advance(i + 1);
    }
    if let Some(timeline) = &mut timeline {
        timeline.writer.flush()?;
    }
    let left: Vec<usize> = (0..replay.blocks.len())
        .filter(|block| replay.blocks[*block].is_some())
        .collect();
    for block in &left {
        replay.free(*block).context("a block left at the end")?;
    }
    let took = start.elapsed();
    progress.finish(took);

    let at_end = Snapshot::take(arena)?;
    let at_peak = match at_peak {
        Some(snapshot) => snapshot,
        None => Snapshot::take(arena)?,
    };
    Ok(Outcome {
        allocs: replay.allocs,
        frees: replay.frees,
        left: left.len(),
        empty: replay.empty,
        peak,
        peak_held: replay.peak_held,
        checked: replay.checked,
        wrong: replay.wrong,
        findings: replay.findings,
        at_peak,
        at_end,
        took,
    })
}

struct Replay<'a> {
    arena: &'a Arena,
    memory: Mapping,
    page_size: u64,
    trace: &'a Trace,
    /// The live blocks, by number; `None` for allocations of 0 bytes.
    blocks: Vec<Option<Block>>,
    allocs: Times,
    frees: Times,
    empty: usize,
    peak_held: u64,
    checked: u64,
    wrong: u64,
    findings: Vec<String>,
}

impl<'a> Replay<'a> {
    fn new(arena: &'a Arena, info: &Info, trace: &'a Trace) -> Result<Self> {
        Ok(Self {
            arena,
            memory: arena.map(info.arena_bytes)?,
            page_size: info.page_size.into(),
            trace,
            blocks: vec![None; trace.sizes.len()],
            allocs: Times::default(),
            frees: Times::default(),
            empty: 0,
            peak_held: 0,
            checked: 0,
            wrong: 0,
            findings: Vec::new(),
        })
    }

    fn alloc(&mut self, number: usize) -> Result<()> {
        let size = self.trace.sizes[number];
        if size == 0 {
            self.empty += 1;
            return Ok(());
        }
        let block = self.allocs.add(|| self.arena.alloc(size, Flags::DEFAULT))?;
        anyhow::ensure!(
            block.bytes >= size,
            "ALLOC of {size} bytes returned a block of {}",
            block.bytes
        );
        pattern::write(&self.memory, self.page_size, number, block.offset, size)?;
        self.blocks[number] = Some(block);
        self.peak_held = self.peak_held.max(self.arena.stat()?.held_bytes);
        Ok(())
    }

    fn free(&mut self, number: usize) -> Result<()> {
        let Some(block) = self.blocks[number].take() else {
            return Ok(());
        };
        let size = self.trace.sizes[number];
        let (checked, wrong) =
            pattern::check(&self.memory, self.page_size, number, block.offset, size)?;
        self.checked += checked;
        self.wrong += wrong;
        if wrong != 0 && self.findings.len() < 8 {
            self.findings.push(format!(
                "block {number} of {size} bytes at offset {:#x}: {wrong} of {checked} bytes wrong",
                block.offset
            ));
        }
        self.frees.add(|| self.arena.free(block.offset))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let times = Times((1..=100).rev().map(Duration::from_nanos).collect());
        assert_eq!(times.mean(), 50);
        assert_eq!(times.percentile(50), 50);
        assert_eq!(times.percentile(99), 99);
        assert_eq!(Times::default().mean(), 0);
        assert_eq!(Times::default().percentile(99), 0);
    }
}
