// SPDX-License-Identifier: GPL-2.0

//! Two threads on two CPUs against one.

use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::allocator::{Allocator, Block, Client};
use crate::clock::Clock;
use crate::print::Printer;
use crate::samples::Samples;
use crate::sys::{self, Raw};

/// How long threads work for a sample.
const TIME: Duration = Duration::from_millis(60);
const ROUNDS: usize = 25;
/// Operations between two looks at the clock.
const BATCH: usize = 50;
/// Bytes of a block of the raw calls.
const BYTES: usize = 64;

/// What a thread does all the time.
type Work<'a> = Box<dyn FnMut() + 'a>;

/// Blocks of a thread through the client: of many sizes, replaced in no order.
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

/// What there is for threads to use.
struct Things {
    arenas: [Raw; 2],
    client: Client,
}

/// Operations a second of `count` threads together.
fn rate<'a>(count: usize, first: usize, work: &(dyn Fn(usize) -> Work<'a> + Sync)) -> f64 {
    let barrier = Barrier::new(count);
    let one = |cpu: usize| {
        let mut cpus = CpuSet::new();
        cpus.set(cpu).expect("a CPU");
        sched_setaffinity(Pid::from_raw(0), &cpus).expect("the CPU is there");
        let mut work = work(cpu);
        (0..BATCH).for_each(|_| work());
        barrier.wait();
        let (begin, mut done) = (Instant::now(), 0);
        while begin.elapsed() < TIME {
            (0..BATCH).for_each(|_| work());
            done += BATCH;
        }
        done as f64 / begin.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || one((first + number) % 2)))
            .collect();
        let rates = threads
            .into_iter()
            .map(|thread| thread.join().expect("it ended well"));
        rates.sum()
    })
}

pub fn run(printer: Printer, clock: Clock) -> Result<()> {
    ensure!(
        thread::available_parallelism()?.get() >= 2,
        "this wants two CPUs"
    );
    let things = Things {
        arenas: [Raw::open(), Raw::open()],
        client: Client::open(),
    };
    let things = &things;
    let pair =
        |arena: usize| move || things.arenas[arena].free(things.arenas[arena].alloc(BYTES, 0));
    let client = |_| -> Work<'_> {
        let mut churn = Churn::new(&things.client);
        Box::new(move || churn.once())
    };
    type Kind<'a> = (&'static str, &'a (dyn Fn(usize) -> Work<'a> + Sync));
    let kinds: [Kind<'_>; 4] = [
        ("empty_ioctls", &|thread| {
            Box::new(move || sys::empty(things.arenas[thread].as_fd()))
        }),
        ("client", &client),
        ("two_arenas", &|thread| Box::new(pair(thread))),
        ("one_arena", &|_| Box::new(pair(0))),
    ];
    let mut rates = kinds.map(|_| [Samples::default(), Samples::default()]);
    for round in 0..ROUNDS {
        for ((_, work), rates) in kinds.iter().zip(&mut rates) {
            rates[0].add(rate(1, round % 2, work));
            rates[1].add(rate(2, 0, work));
        }
    }
    let scaling = rates.each_ref().map(|[one, two]| two.over(one, clock));
    for (((name, _), rates), scaling) in kinds.iter().zip(&rates).zip(&scaling) {
        let each = |rate: &Samples| rate.map(|rate| 1e9 / rate);
        printer.cell("threads", "one", name, &each(&rates[0]));
        printer.cell("threads", "two", name, &each(&rates[1]));
        printer.cell_in("threads", "two_over_one", name, scaling, "times");
    }
    let [empty, client, two, one] = &scaling;
    for (name, scaling, aim) in [
        ("threads_client", client, ">=0.95"),
        ("threads_two_arenas", two, ">=0.95"),
        ("threads_one_arena", one, "-"),
    ] {
        printer.figure(name, &scaling.over(empty, clock), "ratio", aim);
    }
    Ok(())
}
