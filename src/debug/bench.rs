// SPDX-License-Identifier: GPL-2.0-only

//! debugfs `bench`: the costs of the module in the kernel, beside those of the slab and the buddy
//! allocator, measured when the file is read. In the build for benchmarks only.
//!
//! Each line is `# bench: NAME VALUE UNIT AIM`. A time is in nanoseconds for one operation, the least of
//! several rounds. In a VM whose clock counts instructions (`scripts/vm --icount`) it is a number of
//! instructions.

use crate::{
    arena::{
        registry::Registry,
        request::AllocOptions,
        Arena, //
    },
    debug::baseline::{
        self,
        Cache,
        Pages, //
    },
    engine::{Admission, Batch, Engine, Policy, Refusal, Request, Unfinished, QUICK_LISTS},
    ffi::{
        debugfs::View,
        task, //
    },
    mm::{
        backend::{
            make,
            table,
            KernelEngine,
            KernelGarbage,
            KernelPrealloc, //
        },
        memcg::Memcg, //
    },
};
use kernel::{
    fmt::{
        self,
        Display,
        Formatter, //
    },
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    },
    sync::SpinLock, //
};

/// Rounds of a measurement. The fastest one counts: the others include interrupts.
const ROUNDS: u32 = 15;
/// Operations of a round: short enough that most rounds see no interrupt.
const COUNT: u32 = 512;
/// Blocks of a batch, as in the bulk calls.
const BATCH: usize = 64;
/// Pages by which an arena grows in a round.
const GROWTH: usize = 256;

/// A value with two decimals.
#[derive(Clone, Copy)]
struct Hundredths(u64);

impl Hundredths {
    fn of(value: u64, by: u64) -> Self {
        Self((value * 100).checked_div(by).unwrap_or_default())
    }

    /// Returns the ratio of this value to `other`.
    fn over(self, other: Self) -> Self {
        Self::of(self.0, other.0)
    }
}

impl Display for Hundredths {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Runs all rounds, each of which times `N` parts of `count` operations. Returns the nanoseconds of one
/// operation of each part, the least of all rounds.
fn least_of_parts<const N: usize>(
    count: u32,
    mut round: impl FnMut() -> Result<[i64; N]>,
) -> Result<[Hundredths; N]> {
    let mut least = [i64::MAX; N];
    for _ in 0..ROUNDS {
        for (least, part) in least.iter_mut().zip(round()?) {
            *least = part.min(*least);
        }
        task::resched();
    }
    Ok(least.map(|ns| Hundredths::of(ns.max(0) as u64, count.into())))
}

/// Returns the nanoseconds that `work` takes.
fn timed(work: impl FnOnce() -> Result) -> Result<i64> {
    let start = task::now_ns();
    work()?;
    Ok(task::now_ns() - start)
}

/// Returns the nanoseconds of one of the `count` operations of `work`, the least of all rounds.
fn least(count: u32, mut work: impl FnMut() -> Result) -> Result<Hundredths> {
    let [least] = least_of_parts(count, || Ok([timed(&mut work)?]))?;
    Ok(least)
}

/// Returns a request for `size` bytes with `FREELIST_DEFAULT`.
fn request(size: u64) -> Request {
    Request {
        size,
        policy: Policy::Reuse {
            split: true,
            grow: true,
        },
        ..Request::default()
    }
}

/// Allocates a block from the engine as ALLOC does: as a rule on the fast path.
#[inline(always)]
fn alloc(
    engine: &mut KernelEngine,
    size: u64,
    prealloc: &mut KernelPrealloc,
) -> Result<u64, Refusal> {
    let request = request(size);
    let pending = match engine.reserve_fast(size, request.policy) {
        Some(pending) => pending,
        None => engine.reserve(
            &request,
            Admission::Full,
            prealloc,
            &mut KernelGarbage::default(),
        )?,
    };
    let offset = pending.offset();
    engine.commit(pending);
    Ok(offset)
}

/// Frees a block.
#[inline(always)]
fn free(engine: &mut KernelEngine, offset: u64) -> Result {
    match engine.free(offset)? {
        None => {}
        Some(Unfinished::Headed(taken)) => engine.release(taken, &mut KernelGarbage::default()),
        Some(Unfinished::Loose(loose)) => engine.merge(loose, &mut KernelGarbage::default()),
        // No block here has a page without memory.
        Some(Unfinished::Holed(_)) => return Err(EIO),
    }
    Ok(())
}

/// Allocates a block for each of `offsets`, the first ones on the fast path of a bulk call. Unlocks only
/// to allocate metadata.
fn alloc_batch(
    engine: &SpinLock<KernelEngine>,
    size: u64,
    prealloc: &mut KernelPrealloc,
    offsets: &mut [u64; BATCH],
) -> Result {
    let mut starts = [0; BATCH];
    let mut batch = Batch::new(&mut starts);
    let mut locked = engine.lock();
    let mut done = 0;
    if locked.reserve_batch(size, BATCH, &mut batch) {
        for (place, offset) in offsets.iter_mut().zip(batch.offsets()) {
            *place = *offset;
            done += 1;
        }
        locked.commit_batch(&mut batch);
    }
    for place in offsets.iter_mut().skip(done) {
        *place = loop {
            match alloc(&mut locked, size, prealloc) {
                Err(Refusal::Need(metadata)) => {
                    drop(locked);
                    make(metadata, prealloc)?;
                    locked = engine.lock();
                }
                result => break result?,
            }
        };
    }
    Ok(())
}

/// Frees blocks as FREE_BULK does.
fn free_batch(engine: &SpinLock<KernelEngine>, mut offsets: &[u64]) -> Result {
    let mut locked = engine.lock();
    while let [first, others @ ..] = offsets {
        offsets = match locked.free_alike(offsets) {
            0 => {
                free(&mut locked, *first)?;
                others
            }
            count => offsets.get(count..).unwrap_or_default(),
        };
    }
    Ok(())
}

/// Allocates a block and reports its pages as backed: the engine itself touches no memory.
fn grow(engine: &SpinLock<KernelEngine>, size: u64, prealloc: &mut KernelPrealloc) -> Result<u64> {
    let mut pending = loop {
        let mut garbage = KernelGarbage::default();
        let result =
            (engine.lock()).reserve(&request(size), Admission::Full, prealloc, &mut garbage);
        match result {
            Err(Refusal::Need(metadata)) => make(metadata, prealloc)?,
            Err(Refusal::Again) => {}
            result => break result?,
        }
    };
    let missing = pending.missing();
    loop {
        let result = engine.lock().ensure_backing(&pending, missing, prealloc);
        match result {
            Ok(()) => break,
            Err(metadata) => make(metadata, prealloc)?,
        }
    }
    let mut engine = engine.lock();
    engine.back(&mut pending, missing);
    let offset = pending.offset();
    engine.commit(pending);
    Ok(offset)
}

/// Makes an engine of 1 GiB of address space.
///
/// Out of line, as its frame has copies of the engine: with them in the frame of a caller that measures,
/// the kernel's stack overflows.
#[inline(never)]
fn new_engine() -> Result<Pin<KBox<SpinLock<KernelEngine>>>> {
    let span = (1 << 30) / PAGE_SIZE as u32;
    let engine = Engine::new(span, table(QUICK_LISTS)?);
    KBox::pin_init(new_spinlock!(engine, "freelist_bench"), GFP_KERNEL)
}

/// The costs of an engine for blocks of one size that are on its quick list or in its runs.
struct EngineCosts {
    /// An allocation and a free, with one lock for all.
    bare: Hundredths,
    /// An allocation and a free, each under the lock, as in an arena.
    pair: Hundredths,
    /// An allocation and a free, with one lock for each batch.
    batch: Hundredths,
}

impl EngineCosts {
    fn measure(size: u64) -> Result<Self> {
        let engine = new_engine()?;
        let engine: &SpinLock<KernelEngine> = &engine;
        let mut prealloc = KernelPrealloc::default();
        // From here on the engine has enough free blocks.
        let mut offsets = [0; BATCH];
        for offset in &mut offsets {
            *offset = grow(engine, size, &mut prealloc)?;
        }
        for offset in offsets {
            free(&mut engine.lock(), offset)?;
        }
        let bare = least(COUNT, || {
            let engine = &mut *engine.lock();
            for _ in 0..COUNT {
                let offset = alloc(engine, size, &mut prealloc)?;
                free(engine, offset)?;
            }
            Ok(())
        })?;
        let pair = least(COUNT, || {
            for _ in 0..COUNT {
                let offset = alloc(&mut engine.lock(), size, &mut prealloc)?;
                free(&mut engine.lock(), offset)?;
            }
            Ok(())
        })?;
        let batch = least(COUNT, || {
            for _ in 0..COUNT as usize / BATCH {
                alloc_batch(engine, size, &mut prealloc, &mut offsets)?;
                free_batch(engine, &offsets)?;
            }
            Ok(())
        })?;
        Ok(Self { bare, pair, batch })
    }
}

/// The costs of an arena for each page that it grows by and is trimmed by.
struct GrowthCosts {
    grow: Hundredths,
    trim: Hundredths,
}

impl GrowthCosts {
    /// Measures growth by blocks of `size` bytes.
    fn measure(arena: &Arena, size: usize) -> Result<Self> {
        let options = AllocOptions {
            request: request(size as u64),
            ..AllocOptions::default()
        };
        let mut offsets = KVec::with_capacity(GROWTH, GFP_KERNEL)?;
        let [grow, trim] = least_of_parts(GROWTH as u32, || {
            let grow = timed(|| {
                for _ in 0..GROWTH * PAGE_SIZE / size {
                    arena.alloc(&options, |_, offset, _| {
                        Ok(offsets.push_within_capacity(offset)?)
                    })?;
                }
                Ok(())
            })?;
            let trim = timed(|| {
                while let Some(offset) = offsets.pop() {
                    arena.free(offset)?;
                }
                arena.trim(0);
                Ok(())
            })?;
            Ok([grow, trim])
        })?;
        Ok(Self { grow, trim })
    }
}

/// The output, a line a figure.
struct Table<'a>(&'a SeqFile);

impl Table<'_> {
    fn time(&self, name: fmt::Arguments<'_>, value: Hundredths) {
        seq_print!(self.0, "# bench: {name} {value} ns -\n");
    }

    fn ratio(&self, name: fmt::Arguments<'_>, value: Hundredths, aim: &str) {
        seq_print!(self.0, "# bench: {name} {value} ratio <={aim}\n");
    }

    /// Measures a slab cache for objects of `size` bytes, which Debian's kernels zero. Returns the cost of
    /// a pair alone, and of one in a batch.
    fn slab(&self, size: u32) -> Result<[Hundredths; 2]> {
        let cache = Cache::new(size)?;
        let pair = least(COUNT, || cache.pairs(COUNT))?;
        let batch = least(COUNT, || cache.batches::<BATCH>(COUNT / BATCH as u32))?;
        self.time(fmt!("kernel_slab_pair_{size}"), pair);
        self.time(fmt!("kernel_slab_in_a_batch_{size}"), batch);
        Ok([pair, batch])
    }

    /// Measures the engine for blocks of `size` bytes, beside the costs of a slab cache.
    fn blocks(&self, size: u32, slab: [Hundredths; 2]) -> Result {
        let engine = EngineCosts::measure(size.into())?;
        self.time(fmt!("kernel_engine_bare_pair_{size}"), engine.bare);
        self.time(fmt!("kernel_engine_pair_{size}"), engine.pair);
        self.time(fmt!("kernel_engine_in_a_batch_{size}"), engine.batch);
        let [pair, batch] = slab;
        let pair = engine.pair.over(pair);
        self.ratio(fmt!("kernel_engine_over_slab_pair_{size}"), pair, "1.0");
        let batch = engine.batch.over(batch);
        self.ratio(
            fmt!("kernel_engine_over_slab_in_a_batch_{size}"),
            batch,
            "1.0",
        );
        Ok(())
    }

    /// Measures growth, beside as many zeroed pages of the buddy allocator.
    fn growth(&self, registry: &Registry) -> Result {
        let pair = least(COUNT, || baseline::page_pairs(COUNT))?;
        self.time(fmt!("kernel_buddy_page_pair"), pair);
        let mut pages = KBox::new(Pages::<GROWTH>::new(), GFP_KERNEL)?;
        let [taken, given] = least_of_parts(GROWTH as u32, || {
            let taken = timed(|| pages.take())?;
            let given = timed(|| {
                pages.free();
                Ok(())
            })?;
            Ok([taken, given])
        })?;
        self.time(fmt!("kernel_buddy_page_taken"), taken);
        self.time(fmt!("kernel_buddy_page_given"), given);
        let arena = registry.open(Memcg::of_caller())?;
        for pages in [1, 16, 256] {
            let costs = GrowthCosts::measure(&arena, pages * PAGE_SIZE);
            let Ok(costs) = costs else {
                registry.close(&arena);
                return costs.map(|_| ());
            };
            self.time(fmt!("kernel_grow_by_{pages}_a_page"), costs.grow);
            self.time(fmt!("kernel_shrink_by_{pages}_a_page"), costs.trim);
            let ratio = costs.grow.over(pair);
            self.ratio(fmt!("kernel_grow_by_{pages}_over_buddy"), ratio, "1.3");
        }
        registry.close(&arena);
        Ok(())
    }
}

/// The file `bench`.
pub(crate) struct Costs;

impl View for Costs {
    type Of = Registry;

    fn size_hint(_: &Registry) -> usize {
        // Large enough for all lines, so that `show` measures once.
        4 * PAGE_SIZE
    }

    fn show(registry: &Registry, out: &SeqFile) -> Result {
        let table = Table(out);
        table.time(
            fmt!("kernel_lock_pair"),
            least(COUNT, || baseline::lock_pairs(COUNT))?,
        );
        for size in [64, 4096] {
            let kmalloc = least(COUNT, || baseline::kmalloc_pairs(size, COUNT))?;
            table.time(fmt!("kernel_kmalloc_pair_{size}"), kmalloc);
        }
        table.slab(PAGE_SIZE as u32)?;
        let slab = table.slab(64)?;
        for size in [32, 64, 256, 2 << 10, 4 << 10, 64 << 10, 1 << 20] {
            table.blocks(size, slab)?;
        }
        table.growth(registry)
    }
}
