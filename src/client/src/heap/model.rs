// SPDX-License-Identifier: MIT OR Apache-2.0

//! The heap over a simulated arena: how much memory it holds for the requests of programs. The result is the
//! same on any machine. Everything but the thread-local access to a cache is the code that runs over the module.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

use super::cache::{Cache, Owned};
use super::central::Source;
use super::class::{Class, GRAIN_BYTES, UNIT_BYTES};
use super::small::Small;
use crate::error::{Call, Error, Result};
use crate::sync::can_heavy_barrier;
use crate::sys::Errno;

/// A simulated arena of grains. It allocates the lowest free grains, and knows which grains have memory.
pub(super) struct Pages(Mutex<State>);

struct State {
    /// Live blocks: the number of grains of each, by the first one.
    live: BTreeMap<usize, usize>,
    /// For each grain, whether it is in a live block, and whether it has memory.
    used: Vec<bool>,
    present: Vec<bool>,
    present_count: usize,
    discards: usize,
    /// The lowest grain that may be free.
    low: usize,
    /// The grains in live blocks, and the most that there may be.
    live_grains: usize,
    limit: usize,
}

impl State {
    fn set_present(&mut self, grains: std::ops::Range<usize>, present: bool) {
        for grain in grains {
            self.present_count -= usize::from(self.present[grain]);
            self.present[grain] = present;
            self.present_count += usize::from(present);
        }
    }

    /// Returns the first of `count` free grains at a multiple of `align`.
    fn find(&self, count: usize, align: usize) -> Option<usize> {
        let mut at = self.low.next_multiple_of(align);
        while at + count <= self.used.len() {
            match self.used[at..at + count].iter().rposition(|used| *used) {
                None => return Some(at),
                Some(last) => at = (at + last + 1).next_multiple_of(align),
            }
        }
        None
    }
}

impl Pages {
    /// Makes an arena of `bytes` bytes without a limit.
    pub(super) fn new(bytes: usize) -> Self {
        Self::limited(bytes, bytes)
    }

    /// Makes an arena of `bytes` bytes, of which `limit` may be in live blocks.
    fn limited(bytes: usize, limit: usize) -> Self {
        let grains = bytes / GRAIN_BYTES;
        Self(Mutex::new(State {
            live: BTreeMap::new(),
            used: vec![false; grains],
            present: vec![false; grains],
            present_count: 0,
            discards: 0,
            low: 0,
            live_grains: 0,
            limit: limit / GRAIN_BYTES,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Allocates a block; if `lazy`, without its memory.
    fn alloc(&self, bytes: usize, lazy: bool) -> Option<usize> {
        let mut state = self.lock();
        let count = bytes.div_ceil(GRAIN_BYTES);
        let align = count.next_power_of_two().min(UNIT_BYTES / GRAIN_BYTES);
        if state.live_grains + count > state.limit {
            return None;
        }
        let first = state.find(count, align)?;
        state.live_grains += count;
        state.used[first..first + count].fill(true);
        state.set_present(first..first + count, !lazy);
        state.live.insert(first, count);
        while state.used.get(state.low) == Some(&true) {
            state.low += 1;
        }
        Some(first * GRAIN_BYTES)
    }

    fn free(&self, offset: usize) {
        let mut state = self.lock();
        let first = offset / GRAIN_BYTES;
        let count = state.live.remove(&first);
        let count = count.unwrap_or_else(|| panic!("{offset:#x} is freed twice"));
        state.live_grains -= count;
        state.used[first..first + count].fill(false);
        state.set_present(first..first + count, false);
        state.low = state.low.min(first);
    }

    /// Touches all pages of a block.
    pub(super) fn touch(&self, offset: usize, bytes: usize) {
        let end = (offset + bytes).div_ceil(GRAIN_BYTES);
        self.lock().set_present(offset / GRAIN_BYTES..end, true);
    }

    /// Returns the number of live blocks.
    pub(super) fn live(&self) -> usize {
        self.lock().live.len()
    }

    /// Returns the bytes of grains that have memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.lock().present_count * GRAIN_BYTES
    }

    /// Returns the number of grains that were discarded.
    pub(super) fn discards(&self) -> usize {
        self.lock().discards
    }
}

impl Source for Pages {
    fn alloc_slabs(&self, bytes: usize, lazy: bool, slabs: &mut [u64]) -> Result<usize> {
        let mut count = 0;
        for slab in slabs {
            let Some(offset) = self.alloc(bytes, lazy) else {
                break;
            };
            *slab = offset as u64;
            count += 1;
        }
        match count {
            0 => Err(Error::refused(Call::Stat)(Errno::DQUOT)),
            _ => Ok(count),
        }
    }

    fn free_slabs(&self, slabs: &[u64]) {
        for slab in slabs {
            self.free(*slab as usize);
        }
    }

    fn discard(&self, offset: usize, bytes: usize) -> bool {
        let (first, count) = (offset / GRAIN_BYTES, bytes / GRAIN_BYTES);
        let mut state = self.lock();
        let mut blocks = state.live.range(..=first).rev();
        let block = blocks.next().map(|(start, grains)| start + grains);
        assert!(
            block.is_some_and(|end| first + count <= end),
            "in a live block"
        );
        let before = state.present_count;
        state.set_present(first..first + count, false);
        state.discards += before - state.present_count;
        true
    }
}

/// A heap with one thread for each cache.
struct Heap {
    pages: Pages,
    small: Small,
}

/// One of the heap's threads.
struct Thread<'a> {
    heap: &'a Heap,
    cache: Box<Cache>,
    /// How many of its requests took the slow path.
    slow: Cell<usize>,
}

impl Heap {
    fn new(limit: usize) -> Self {
        let bytes = 2 * limit;
        assert!(can_heavy_barrier(), "membarrier(2) is refused here");
        let base = NonNull::dangling().with_addr(NonZeroUsize::new(1 << 40).unwrap());
        let small = Small::new(base, bytes).unwrap();
        small.open_tables(bytes).unwrap();
        Self {
            pages: Pages::limited(bytes, limit),
            small,
        }
    }

    fn thread(&self) -> Thread<'_> {
        let cache = Box::<Cache>::default();
        // SAFETY: The cache stays in its box, and is removed when the thread is dropped.
        unsafe { self.small.caches.add(&cache) };
        let slow = Cell::new(0);
        Thread {
            heap: self,
            cache,
            slow,
        }
    }

    /// Frees what the heap can free, as under memory pressure. Returns whether it freed any slab.
    fn relieve(&self) -> bool {
        self.small.drain(&self.pages).unwrap();
        self.small.central.trim(&self.pages) > 0
    }

    fn discard(&self) {
        self.small.central.discard(&self.pages, &self.small.table);
    }
}

impl Thread<'_> {
    fn enter(&self) -> Owned<'_> {
        self.slow.set(self.slow.get() + 1);
        self.heap.small.caches.enter(&self.cache).unwrap()
    }

    /// Allocates a block and touches it; `None` where the arena has no more.
    fn alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        let Heap { pages, small } = self.heap;
        let Some(class) = Class::of(bytes.max(1)) else {
            let offset = pages.alloc(bytes, true)?;
            small
                .table
                .set_large(offset, bytes.next_multiple_of(GRAIN_BYTES));
            pages.touch(offset, bytes);
            return Some(small.at(offset));
        };
        let block = self.cache.pop(class.place()).or_else(|| {
            let refill = || {
                let owned = self.enter();
                small.refill(pages, &owned, class).unwrap().ok()
            };
            refill().or_else(|| if self.heap.relieve() { refill() } else { None })
        })?;
        pages.touch(small.offset(block.as_ptr()), bytes.max(1));
        Some(block)
    }

    fn free(&self, block: NonNull<u8>) {
        let Heap { pages, small } = self.heap;
        let offset = small.offset(block.as_ptr());
        let place = small.table.place(offset).unwrap();
        if self.cache.push(place, block) {
            return;
        }
        match place.class() {
            Some(class) => {
                let owned = self.enter();
                small.spill(pages, &owned, class, block).unwrap();
            }
            None => {
                assert!(small.table.clear_large(offset).is_some());
                pages.free(offset);
            }
        }
    }
}

impl Drop for Thread<'_> {
    fn drop(&mut self) {
        let Heap { pages, small } = self.heap;
        if std::thread::panicking() {
            return;
        }
        small.caches.remove(&self.cache);
        let owned = small.caches.enter(&self.cache).unwrap();
        small.empty(pages, &owned).unwrap();
    }
}

mod tests {
    use super::super::cache::MAX_KEPT_BYTES;
    use super::*;

    /// Has 200 threads allocate 200 blocks of a size each, and keep one.
    fn survivors<'a>(heap: &'a Heap, size: usize) -> (Vec<Thread<'a>>, Vec<NonNull<u8>>) {
        let threads: Vec<_> = (0..200).map(|_| heap.thread()).collect();
        let keep = |(index, thread): (usize, &Thread<'a>)| {
            let blocks: Vec<_> = (0..200).map(|_| thread.alloc(size).unwrap()).collect();
            for (other, block) in blocks.iter().enumerate() {
                if other != index * 37 % 200 {
                    thread.free(*block);
                }
            }
            blocks[index * 37 % 200]
        };
        let blocks = threads.iter().enumerate().map(keep).collect();
        (threads, blocks)
    }

    #[test]
    fn two_hundred_threads_that_sleep_keep_64_kib_each_at_most() {
        for size in [16, 100, 1000, 5000, 20_000, 32 << 10] {
            let heap = Heap::new(1 << 30);
            let (threads, _) = survivors(&heap, size);
            for thread in &threads {
                assert!(thread.cache.kept_bytes() <= MAX_KEPT_BYTES);
            }
            // A thread that used all sizes keeps no more than that.
            let thread = &threads[0];
            for size in (1..200).map(|step| step * 160) {
                let blocks: Vec<_> = (0..70).map(|_| thread.alloc(size).unwrap()).collect();
                blocks.into_iter().for_each(|block| thread.free(block));
                assert!(thread.cache.kept_bytes() <= MAX_KEPT_BYTES, "{size}");
            }
        }
    }

    #[test]
    fn a_block_that_survives_in_each_of_two_hundred_threads_holds_its_pages() {
        for size in [16, 100, 1000, 5000, 9000, 20_000, 32 << 10] {
            let heap = Heap::new(1 << 30);
            let (threads, blocks) = survivors(&heap, size);
            let pages = 200 * size.div_ceil(GRAIN_BYTES).max(1) * GRAIN_BYTES;
            heap.relieve();
            heap.discard();
            // A block that does not fill whole pages may lie in one page more.
            let held = heap.pages.held_bytes();
            assert!(held <= pages + 200 * GRAIN_BYTES, "{held} bytes of {size}");
            if size <= 1000 {
                assert!(held <= pages);
            }
            for (thread, block) in threads.iter().zip(blocks) {
                thread.free(block);
            }
            drop(threads);
            heap.relieve();
            assert_eq!(heap.pages.live(), 0);
        }
    }

    #[test]
    fn caches_of_sleeping_threads_do_not_exhaust_a_limit() {
        let heap = Heap::new(4 << 20);
        let threads: Vec<_> = (0..60).map(|_| heap.thread()).collect();
        // Each cache keeps about 64 KiB, which is nearly all memory together.
        for thread in &threads {
            for size in [64, 256, 512, 1000, 2000, 4000] {
                let blocks: Vec<_> = (0..40).map(|_| thread.alloc(size).unwrap()).collect();
                blocks.into_iter().for_each(|block| thread.free(block));
            }
        }
        let kept: usize = threads.iter().map(|thread| thread.cache.kept_bytes()).sum();
        assert!(kept > 2 << 20, "{kept}");
        for size in [112, 3072, 28 << 10] {
            let last = heap.thread();
            let mut live = Vec::new();
            while let Some(block) = last.alloc(size) {
                live.push(block);
            }
            let used = live.len() * size;
            assert!(used > (4 << 20) * 95 / 100, "{used} bytes of {size}");
            live.into_iter().for_each(|block| last.free(block));
        }
        // The threads that slept allocate again.
        for thread in &threads {
            let block = thread.alloc(64).unwrap();
            thread.free(block);
        }
    }

    /// Blocks that a cache cannot keep move between it and the slabs in batches.
    #[test]
    fn a_thousand_blocks_of_many_sizes_take_the_slow_path_in_batches() {
        const COUNT: usize = 1000;
        let heap = Heap::new(16 << 20);
        let thread = heap.thread();
        let mut before = 0;
        for round in 0..30 {
            let size = |index: usize| 16 + index * 7 % 1000;
            let blocks = (0..COUNT).map(|index| thread.alloc(size(index)).unwrap());
            let blocks: Vec<_> = blocks.collect();
            (0..COUNT).for_each(|index| thread.free(blocks[index * 7 % COUNT]));
            if round == 20 {
                before = thread.slow.get();
            }
        }
        let each = (thread.slow.get() - before) as f64 / (9 * COUNT) as f64;
        println!("{each:.3} visits of the slow path for a block");
        assert!(each <= 0.6, "{each}");
    }

    #[cfg(feature = "trace")]
    mod traces {
        use super::*;
        use crate::trace::{Event, Trace};

        /// Replays a trace, and returns the peak of held memory divided by the peak of requested memory.
        fn held_over_asked_for(trace: &Trace) -> f64 {
            let heap = Heap::new(1 << 30);
            let thread = heap.thread();
            let mut blocks = vec![None; trace.sizes.len()];
            let mut peak = 0;
            for event in &trace.events {
                match event {
                    Event::Alloc(block) => {
                        blocks[*block] = thread.alloc(trace.sizes[*block] as usize);
                        assert!(blocks[*block].is_some());
                    }
                    Event::Free(block) => thread.free(blocks[*block].take().unwrap()),
                    Event::Mark(_) => {}
                }
                peak = heap.pages.held_bytes().max(peak);
            }
            peak as f64 / trace.peak().bytes as f64
        }

        #[test]
        fn recorded_programs_hold_at_most_1_12_times_their_requested_bytes() {
            let names = [
                "small_sqlite3",
                "small_git_log",
                "torch_resnet18",
                "torch_gpt",
                "torch_unet",
            ];
            for name in names {
                let file = format!("../../tests/traces/{name}.txt.gz");
                let trace =
                    Trace::read(concat!(env!("CARGO_MANIFEST_DIR"), "/").to_owned() + &file);
                let ratio = held_over_asked_for(&trace.unwrap());
                println!("{name}: held {ratio:.4} of what is asked for");
                assert!(ratio <= 1.12, "{name}: {ratio:.4}");
            }
        }

        /// Replays another trace, whose path is in this environment variable.
        #[test]
        fn another_trace_is_replayed() {
            if let Some(path) = std::env::var_os("FREELIST_TRACE") {
                let ratio = held_over_asked_for(&Trace::read(path).unwrap());
                println!("held {ratio:.4} of what is asked for");
            }
        }
    }
}
