// SPDX-License-Identifier: GPL-2.0

//! Two threads on two CPUs against one.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Error, Result};
use clap::ValueEnum;
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::allocator::{Allocator, Block, Client};
use crate::clock::Clock;
use crate::print::Printer;
use crate::probe;
use crate::samples::Samples;
use crate::sys::{self, Raw};

/// The time that threads work for a sample.
const TIME: Duration = Duration::from_millis(60);
const ROUNDS: usize = 25;
/// The operations between two reads of the clock.
const BATCH: usize = 50;
/// The bytes of a block of the raw calls.
const BYTES: usize = 64;

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
}

impl Kind {
    /// Returns the name in tables.
    fn name(self) -> String {
        let value = self.to_possible_value().expect("none is hidden");
        value.get_name().to_owned()
    }
}

/// The resources that threads use.
struct Things {
    arenas: [Raw; 2],
    client: Client,
}

impl Things {
    fn open() -> Result<Self> {
        ensure!(
            thread::available_parallelism()?.get() >= 2,
            "this needs two CPUs"
        );
        Ok(Self {
            arenas: [Raw::open(), Raw::open()],
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
            (0..BATCH).for_each(|_| work());
            barrier.wait();
            let (begin, mut done) = (Instant::now(), 0);
            while begin.elapsed() < time {
                (0..BATCH).for_each(|_| work());
                done += BATCH;
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
    for (kind, ours) in kinds.iter().zip(&scaling) {
        let aim = match kind {
            Kind::EmptyIoctls => continue,
            Kind::Client | Kind::TwoArenas => ">=0.95",
            Kind::OneArena => ">=0.9",
        };
        let name = format!("threads_{}", kind.name());
        printer.figure(&name, &ours.over(&scaling[0], clock), "ratio", aim);
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
