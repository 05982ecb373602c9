// SPDX-License-Identifier: GPL-2.0

//! Two threads on two CPUs against one.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Error, Result};
use clap::ValueEnum;
use freelist::uapi::FREELIST_LAZY;
use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::mman::MmapAdvise;
use nix::unistd::Pid;

use crate::allocator::{Allocator, Block, Client};
use crate::clock::Clock;
use crate::print::Printer;
use crate::probe;
use crate::samples::Samples;
use crate::sys::{self, Pages, Raw};

/// The time that threads work for a sample.
const TIME: Duration = Duration::from_millis(60);
const ROUNDS: usize = 25;
/// The bytes of a block of the raw calls.
const BYTES: usize = 64;
/// Bytes of new memory of an operation: whole huge pages.
const NEW: usize = 4 << 20;
const HUGE: usize = 2 << 20;
/// Bytes of each arena's mapping: those of a few operations of each thread.
const MAPPED: usize = 256 << 20;

/// The work that a thread repeats.
type Work<'a> = Box<dyn FnMut() + 'a>;

/// The blocks of a thread through the client: of many sizes, replaced in random order.
struct Churn<'a, A> {
    allocator: &'a A,
    rng: fastrand::Rng,
    blocks: Vec<Block>,
}

impl<'a, A: Allocator> Churn<'a, A> {
    fn new(allocator: &'a A) -> Self {
        Self {
            allocator,
            rng: fastrand::Rng::with_seed(1),
            blocks: (0..512).map(|_| Block::NONE).collect(),
        }
    }

    fn once(&mut self) {
        let at = self.rng.usize(..self.blocks.len());
        let size = 16 << self.rng.u32(0..7);
        self.blocks[at].free(self.allocator);
        self.blocks[at] = Block::new(self.allocator, size);
    }
}

/// The kind of work of the threads.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    /// The baseline of all others.
    EmptyIoctls,
    Client,
    TwoArenas,
    OneArena,
    /// New memory of an arena each, touched and freed: blocks of 4 MiB.
    NewBlocks,
    /// New memory of one arena, touched and discarded: a lazy block of 4 MiB each.
    NewLazy,
    /// New anonymous memory, touched and dropped, in small pages.
    #[value(name = "new_anonymous_4kib")]
    NewSmall,
    /// The same in huge pages.
    #[value(name = "new_anonymous_huge")]
    NewHuge,
}

impl Kind {
    /// Returns the name in tables.
    fn name(self) -> String {
        let value = self.to_possible_value().expect("none is hidden");
        value.get_name().to_owned()
    }

    /// Returns how many operations there are between two readings of the clock.
    fn batch(self) -> usize {
        match self {
            Self::EmptyIoctls | Self::Client | Self::TwoArenas | Self::OneArena => 50,
            Self::NewBlocks | Self::NewLazy | Self::NewSmall | Self::NewHuge => 1,
        }
    }
}

/// A lazy block, freed when it is dropped.
struct Lazy<'a> {
    arena: &'a Raw,
    offset: usize,
}

impl<'a> Lazy<'a> {
    fn new(arena: &'a Raw) -> Self {
        let offset = arena.alloc(NEW, FREELIST_LAZY);
        Self { arena, offset }
    }
}

impl Drop for Lazy<'_> {
    fn drop(&mut self) {
        self.arena.free(self.offset);
    }
}

/// Touches new memory of one mapping and drops it, again and again.
fn anonymous(pages: MmapAdvise) -> Work<'static> {
    let memory = Pages::anonymous(NEW + HUGE);
    memory.advise(pages);
    // Whole huge pages, wherever it begins.
    let at = memory.as_ptr().align_offset(HUGE);
    Box::new(move || {
        memory.touch(at, NEW);
        memory.advise(MmapAdvise::MADV_DONTNEED);
    })
}

/// The resources that threads use.
struct Things {
    arenas: [Raw; 2],
    views: [Pages; 2],
    client: Client,
}

impl Things {
    fn open() -> Result<Self> {
        ensure!(
            thread::available_parallelism()?.get() >= 2,
            "this needs two CPUs"
        );
        let arenas = [Raw::open(), Raw::open()];
        Ok(Self {
            views: arenas.each_ref().map(|arena| arena.map(MAPPED)),
            arenas,
            client: Client::open(),
        })
    }

    /// Returns the work of the thread on a CPU.
    fn work(&self, kind: Kind, cpu: usize) -> Work<'_> {
        let pair = |arena: usize| {
            let arena = &self.arenas[arena];
            Box::new(move || arena.free(arena.alloc(BYTES, 0)))
        };
        match kind {
            Kind::EmptyIoctls => Box::new(move || sys::empty(self.arenas[cpu].as_fd())),
            Kind::Client => {
                let mut churn = Churn::new(&self.client);
                Box::new(move || churn.once())
            }
            Kind::TwoArenas => pair(cpu),
            Kind::OneArena => pair(0),
            Kind::NewBlocks => {
                let (arena, view) = (&self.arenas[cpu], &self.views[cpu]);
                Box::new(move || {
                    let offset = arena.alloc(NEW, 0);
                    view.touch(offset, NEW);
                    arena.free(offset);
                    arena.trim();
                })
            }
            Kind::NewLazy => {
                let block = Lazy::new(&self.arenas[0]);
                Box::new(move || {
                    self.views[0].touch(block.offset, NEW);
                    block.arena.discard(block.offset, NEW);
                })
            }
            Kind::NewSmall => anonymous(MmapAdvise::MADV_NOHUGEPAGE),
            Kind::NewHuge => anonymous(MmapAdvise::MADV_HUGEPAGE),
        }
    }

    /// Returns the operations per second of threads on `cpus` together, over `time`.
    fn rate(&self, kind: Kind, cpus: Range<usize>, time: Duration) -> f64 {
        let barrier = Barrier::new(cpus.len());
        let one = |cpu: usize| {
            let mut cpus = CpuSet::new();
            cpus.set(cpu).expect("a CPU");
            sched_setaffinity(Pid::from_raw(0), &cpus).expect("the CPU is there");
            let mut work = self.work(kind, cpu);
            let batch = kind.batch();
            (0..batch).for_each(|_| work());
            barrier.wait();
            let (begin, mut done) = (Instant::now(), 0);
            while begin.elapsed() < time {
                (0..batch).for_each(|_| work());
                done += batch;
            }
            done as f64 / begin.elapsed().as_secs_f64()
        };
        let one = &one;
        thread::scope(|scope| {
            let threads: Vec<_> = cpus.map(|cpu| scope.spawn(move || one(cpu))).collect();
            let rates = threads
                .into_iter()
                .map(|thread| thread.join().expect("it ended well"));
            rates.sum()
        })
    }
}

pub fn run(printer: Printer, clock: Clock) -> Result<()> {
    let things = Things::open()?;
    let kinds = Kind::value_variants();
    let mut rates = vec![[Samples::default(), Samples::default()]; kinds.len()];
    for round in 0..ROUNDS {
        let one = round % 2;
        for (kind, rates) in kinds.iter().zip(&mut rates) {
            rates[0].add(things.rate(*kind, one..one + 1, TIME));
            rates[1].add(things.rate(*kind, 0..2, TIME));
        }
    }
    let scaling: Vec<_> = rates
        .iter()
        .map(|[one, two]| two.over(one, clock))
        .collect();
    for ((kind, rates), scaling) in kinds.iter().zip(&rates).zip(&scaling) {
        let (name, each) = (kind.name(), |rate: &Samples| rate.map(|rate| 1e9 / rate));
        printer.cell("threads", "one", &name, &each(&rates[0]));
        printer.cell("threads", "two", &name, &each(&rates[1]));
        printer.cell_in("threads", "two_over_one", &name, scaling, "times");
    }
    // `kinds` are all of them, in the order of their values.
    let scaling = |kind: Kind| &scaling[kind as usize];
    for (kind, aim) in [
        (Kind::Client, ">=0.95"),
        (Kind::TwoArenas, ">=0.95"),
        (Kind::OneArena, ">=0.9"),
    ] {
        let name = format!("threads_{}", kind.name());
        let ours = scaling(kind).over(scaling(Kind::EmptyIoctls), clock);
        printer.figure(&name, &ours, "ratio", aim);
    }
    for kind in [Kind::NewBlocks, Kind::NewLazy] {
        for peer in [Kind::NewSmall, Kind::NewHuge] {
            let name = format!("threads_{}_over_{}", kind.name(), peer.name());
            let ours = scaling(kind).over(scaling(peer), clock);
            printer.figure(&name, &ours, "ratio", ">=1");
        }
    }
    Ok(())
}

/// Runs two threads for some seconds, for a profile.
pub fn probe(args: &[String]) -> Result<()> {
    let [kind, seconds] = args else {
        bail!("the arguments are the work and the seconds");
    };
    let kind = Kind::from_str(kind, false).map_err(Error::msg)?;
    let time = Duration::from_secs(seconds.parse()?);
    let rate = Things::open()?.rate(kind, 0..2, time);
    probe::value("each", 1e9 / rate);
    Ok(())
}
