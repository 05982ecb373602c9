// SPDX-License-Identifier: MIT OR Apache-2.0

//! The small blocks that all threads share: by class the slabs that have free blocks, and the slabs that are
//! wholly free.
//!
//! A thread calls with a batch when a magazine of its cache is empty or full, so the locks are seldom taken and
//! seldom contended.
//!
//! # Locks
//!
//! 1. A class's list: the links of its slabs, and their bitmaps.
//! 2. The pool of wholly free slabs.
//!
//! A thread holds at most one of them, and none during a call of the module but DISCARD, which needs the slab's
//! class locked so that no thread takes blocks of it meanwhile.

use std::array;
use std::sync::PoisonError;

use super::class::{Class, CLASSES, GRAIN_BYTES, GRAIN_SHIFT};
use super::pool::{Pool, BATCH};
use super::slab::Slab;
use super::table::Table;
use crate::error::Result;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::{Anonymous, Errno, Fork};

/// The number of slabs whose pages are discarded in one hold of their class's lock.
const DISCARDS_PER_LOCK: usize = 4;

/// The source of slabs, which are named by their offsets in bytes.
pub(crate) trait Source {
    /// Allocates slabs of `bytes` bytes each, aligned to the next power of 2, as many as `slabs` has entries
    /// if there is memory; if `lazy`, their memory is allocated at the first touch. Returns how many it
    /// allocated, at least one.
    fn alloc_slabs(&self, bytes: usize, lazy: bool, slabs: &mut [u64]) -> Result<usize>;
    /// Frees slabs.
    fn free_slabs(&self, slabs: &[u64]);
    /// Discards whole pages inside of a slab. Returns `false` if they keep their memory.
    fn discard(&self, offset: usize, bytes: usize) -> bool;
}

/// A block was freed that was not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotLive {
    /// The offset of the block in the arena, in bytes.
    pub(crate) offset: usize,
}

/// The list of a class's slabs that have free blocks and live ones: the first slab, as the number of its first
/// grain plus 1; 0 if the list is empty.
type List = u32;

/// Small blocks that are in no thread's cache.
pub(crate) struct Central {
    lists: [Mutex<List>; CLASSES],
    /// The slabs, by their first grain.
    slabs: Anonymous<Slab>,
    pool: Mutex<Pool>,
    /// Grains that were touched again after a discard, since [`Pool::is_discard_due`] was called last.
    touched: AtomicU32,
}

/// Takes a lock. It is good after a panic too: no code under it panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Central {
    /// Makes the lists of an arena of `bytes` bytes. That takes address space only; [`Central::open`] has to
    /// come before a source allocates slabs there.
    pub(crate) fn new(bytes: usize) -> std::result::Result<Self, Errno> {
        Ok(Self {
            lists: array::from_fn(|_| Mutex::new(0)),
            slabs: Anonymous::reserve(bytes.div_ceil(GRAIN_BYTES), Fork::Keep)?,
            pool: Mutex::new(Pool::new()),
            touched: AtomicU32::new(0),
        })
    }

    /// Extends the table of slabs to the first `bytes` bytes of the arena.
    pub(crate) fn open(&self, bytes: usize) -> std::result::Result<(), Errno> {
        self.slabs.open(bytes.div_ceil(GRAIN_BYTES))
    }

    /// Takes a block of `class`, and up to `more` where that makes no new slab; returns the offset of the first
    /// and hands over those of the others. `hand` uses nothing of the heap.
    pub(crate) fn take(
        &self,
        source: &impl Source,
        table: &Table,
        class: Class,
        mut more: usize,
        mut hand: impl FnMut(usize),
    ) -> Result<usize> {
        let mut list = lock(&self.lists[class.number()]);
        if *list == 0 {
            drop(list);
            let slab = self.take_slab(source, class)? as usize;
            self.slab(slab).divide(class);
            table.set_slab(slab, class);
            list = lock(&self.lists[class.number()]);
            self.link(&mut list, slab);
        }
        let mut first = None;
        loop {
            let base = base_of(*list);
            let slab = self.slab(base);
            let mut taking = slab.taking(class, base);
            let first = *first.get_or_insert_with(|| taking.next().unwrap_or_default());
            while more > 0 {
                let Some(offset) = taking.next() else { break };
                hand(offset);
                more -= 1;
            }
            let (free, touched) = taking.end();
            if touched > 0 {
                self.touched.fetch_add(touched, Relaxed);
            }
            if free == 0 {
                self.unlink(&mut list, base);
            }
            if more == 0 || *list == 0 {
                return Ok(first);
            }
        }
    }

    /// Puts the blocks of `class` at `offsets` into their slabs, under its lock: they are no more than a thread
    /// keeps. A slab that is wholly free then is taken off the list. Stops at a block that is not live.
    pub(crate) fn put(
        &self,
        source: &impl Source,
        table: &Table,
        class: Class,
        offsets: impl Iterator<Item = usize>,
    ) -> std::result::Result<(), NotLive> {
        let (place, blocks) = (Some(class.place()), class.blocks());
        let (mut result, mut leaving) = (Ok(()), 0);
        let mut list = lock(&self.lists[class.number()]);
        for offset in offsets {
            let base = class.slab_at(offset);
            // Freed twice, its slab may be gone by now, or of another class.
            let put = match table.place(offset) == place {
                true => self.slab(base).put(class, offset),
                false => None,
            };
            match put {
                Some(free) if free == blocks => {
                    if free > 1 {
                        self.unlink(&mut list, base);
                    }
                    table.clear_slab(base, class);
                    self.link(&mut leaving, base);
                }
                Some(1) => self.link(&mut list, base),
                Some(_) => {}
                None => {
                    result = Err(NotLive { offset });
                    break;
                }
            }
        }
        drop(list);
        // In no other list, so that the links are this thread's.
        while leaving != 0 {
            let base = base_of(leaving);
            self.unlink(&mut leaving, base);
            self.put_slab(source, table, base as u64, class.slab_bytes());
        }
        result
    }

    /// Frees all slabs that are wholly free, and returns their number.
    pub(crate) fn trim(&self, source: &impl Source) -> usize {
        let mut given = 0;
        loop {
            match self.free_some(source) {
                0 => return given,
                count => given += count,
            }
        }
    }

    /// Discards the pages in which no block is in use, and returns how many grains those are.
    pub(crate) fn discard(&self, source: &impl Source, table: &Table) -> u32 {
        let classes = Class::all().filter(|class| class.slab_bytes() > GRAIN_BYTES);
        classes
            .map(|class| self.discard_of(source, table, class))
            .sum()
    }

    fn discard_of(&self, source: &impl Source, table: &Table, class: Class) -> u32 {
        let (mut discarded, mut at) = (0, None);
        loop {
            let list = lock(&self.lists[class.number()]);
            // Continue after the last hold of the lock, if that slab is still in the list.
            let is_listed = |name: &u32| {
                let base = base_of(*name);
                *name != 0
                    && table.class(base) == Some(class)
                    && (1..class.blocks()).contains(&self.slab(base).free())
            };
            let mut next = match at {
                None => *list,
                Some(name) => Some(name).filter(is_listed).unwrap_or(0),
            };
            let mut done = 0;
            while next != 0 && done < DISCARDS_PER_LOCK {
                let base = base_of(next);
                next = self.slab(base).next.load(Relaxed);
                let grains = self.discard_slab(source, class, base);
                done += usize::from(grains > 0);
                discarded += grains;
            }
            drop(list);
            if next == 0 {
                return discarded;
            }
            at = Some(next);
        }
    }

    /// Discards a slab's unused pages. The caller holds the lock of its class.
    fn discard_slab(&self, source: &impl Source, class: Class, base: usize) -> u32 {
        let slab = self.slab(base);
        let (unused, mut discarded) = (slab.unused(class), 0);
        let mut left = unused;
        while left != 0 {
            let first = left.trailing_zeros();
            let count = (left >> first).trailing_ones();
            let (offset, bytes) = (
                base + ((first as usize) << GRAIN_SHIFT),
                (count as usize) << GRAIN_SHIFT,
            );
            let run = ((1 << count) - 1) << first;
            if source.discard(offset, bytes) {
                slab.discard(run);
                discarded += count;
            }
            left &= !run;
        }
        discarded
    }

    /// Takes a slab that is wholly free and in no list.
    fn take_slab(&self, source: &impl Source, class: Class) -> Result<u64> {
        let bytes = class.slab_bytes();
        let (slab, is_large) = {
            let mut pool = lock(&self.pool);
            (pool.pop(bytes), pool.is_large())
        };
        if let Some(slab) = slab {
            return Ok(slab);
        }
        self.ask_for_slabs(source, class, is_large)
    }

    /// Asks the source for slabs, of which the first is returned and the others are kept. Frees some of the kept
    /// slabs before if too much `is_kept`.
    #[cold]
    fn ask_for_slabs(&self, source: &impl Source, class: Class, is_kept: bool) -> Result<u64> {
        if is_kept {
            self.free_some(source);
        }
        let bytes = class.slab_bytes();
        let batch = lock(&self.pool).batch(bytes);
        let mut slabs = [0; BATCH];
        let count = source.alloc_slabs(bytes, class.is_lazy(), &mut slabs[..batch])?;
        lock(&self.pool).add(count * bytes);
        // The slab with the lowest address is used first.
        for slab in slabs[1..count].iter().rev() {
            self.keep_slab(source, *slab, bytes);
        }
        Ok(slabs[0])
    }

    /// Keeps a slab that is wholly free, and frees some if there are many. If the heap has become much
    /// smaller by that, discards the unused pages of its other slabs.
    fn put_slab(&self, source: &impl Source, table: &Table, slab: u64, bytes: usize) {
        if !self.keep_slab(source, slab, bytes) {
            return;
        }
        let touched = self.touched.swap(0, Relaxed);
        let is_due = lock(&self.pool).is_discard_due(touched);
        if is_due {
            let discarded = self.discard(source, table);
            lock(&self.pool).note_discard(discarded);
        }
    }

    /// Keeps a slab that is wholly free. Returns whether it freed others for that.
    fn keep_slab(&self, source: &impl Source, slab: u64, bytes: usize) -> bool {
        let mut has_freed = false;
        while !lock(&self.pool).push(slab, bytes) {
            self.free_some(source);
            has_freed = true;
        }
        has_freed
    }

    /// Frees some slabs that are wholly free, and returns their number.
    fn free_some(&self, source: &impl Source) -> usize {
        let mut slabs = [0; BATCH];
        let count = lock(&self.pool).take_oldest(&mut slabs);
        if count > 0 {
            source.free_slabs(&slabs[..count]);
        }
        count
    }

    fn slab(&self, base: usize) -> &Slab {
        &self.slabs[base >> GRAIN_SHIFT]
    }

    fn link(&self, list: &mut List, base: usize) {
        let (name, slab) = ((base >> GRAIN_SHIFT) as u32 + 1, self.slab(base));
        slab.previous.store(0, Relaxed);
        slab.next.store(*list, Relaxed);
        if *list != 0 {
            self.slab(base_of(*list)).previous.store(name, Relaxed);
        }
        *list = name;
    }

    fn unlink(&self, list: &mut List, base: usize) {
        let slab = self.slab(base);
        let (next, previous) = (slab.next.load(Relaxed), slab.previous.load(Relaxed));
        if next != 0 {
            self.slab(base_of(next)).previous.store(previous, Relaxed);
        }
        match previous {
            0 => *list = next,
            _ => self.slab(base_of(previous)).next.store(next, Relaxed),
        }
    }
}

/// Returns the offset of the slab that a list has under this number.
fn base_of(name: u32) -> usize {
    (name as usize - 1) << GRAIN_SHIFT
}

#[cfg(test)]
#[path = "central/tests.rs"]
mod tests;
