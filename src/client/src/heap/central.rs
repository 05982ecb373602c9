// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all threads share of small blocks: the slabs with free blocks, by
//! class, and slabs that are wholly free.
//!
//! Threads come here with batches, when a magazine of their cache is empty or
//! full, so the locks are seldom taken and seldom waited for.
//!
//! # Locks
//!
//! 1. A class's list: its slabs' links, and their bits.
//! 2. The pool of wholly free slabs.
//!
//! At most one is held at a time, and none across a call of the module.

use std::array;
use std::sync::PoisonError;

use super::class::{Class, CLASSES, MOST_CACHED, SLAB_BYTES, SLAB_SHIFT};
use super::slab::Slab;
use super::table::{Table, Unit};
use crate::error::Result;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::{Anonymous, Errno, Fork};

/// Wholly free slabs that are kept, at most: 2 MiB.
const MOST_SPARE: usize = 32;
/// Slabs that are asked for or given back in one call, at most.
const BATCH: usize = MOST_SPARE / 2;
/// One slab is asked for in a call for so many that the heap has, so that a
/// small heap stays small.
const SLABS_PER_BATCH: usize = 8;

/// Where slabs come from, by their offsets in bytes.
pub(crate) trait Source {
    /// Asks for as many slabs as there is room for; says how many came, at
    /// least one.
    fn take(&self, slabs: &mut [u64]) -> Result<usize>;
    /// Gives slabs back.
    fn give(&self, slabs: &[u64]);
}

/// A block came back that was not handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotLive {
    /// Its offset in the arena, in bytes.
    pub(crate) offset: usize,
}

/// Slabs of one class with free blocks: the first one, plus 1; 0 is none.
type List = u32;

struct Pool {
    /// Wholly free slabs; the last one goes first.
    spare: [u64; MOST_SPARE],
    count: usize,
    /// Slabs that the heap has, those in use too.
    held: usize,
}

impl Pool {
    fn pop(&mut self) -> Option<u64> {
        self.count = self.count.checked_sub(1)?;
        Some(self.spare[self.count])
    }

    /// `false` when it is full.
    fn push(&mut self, slab: u64) -> bool {
        match self.spare.get_mut(self.count) {
            Some(place) => {
                *place = slab;
                self.count += 1;
                true
            }
            None => false,
        }
    }

    /// Takes up to [`BATCH`] slabs out that came first, to be given back.
    fn leave(&mut self, into: &mut [u64; BATCH]) -> usize {
        let count = self.count.min(BATCH);
        into[..count].copy_from_slice(&self.spare[..count]);
        self.spare.copy_within(count..self.count, 0);
        self.count -= count;
        self.held -= count;
        count
    }
}

/// Small blocks that are in no thread's cache.
pub(crate) struct Central {
    lists: [Mutex<List>; CLASSES],
    slabs: Anonymous<Slab>,
    pool: Mutex<Pool>,
}

/// A lock is good after a panic too: nothing in here panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Central {
    /// For an arena of `units` times 64 KiB. Only addresses are used; a source
    /// gives slabs that [`Central::open`] has made room for.
    pub(crate) fn new(units: usize) -> std::result::Result<Self, Errno> {
        Ok(Self {
            lists: array::from_fn(|_| Mutex::new(0)),
            slabs: Anonymous::reserve(units, Fork::Keep)?,
            pool: Mutex::new(Pool {
                spare: [0; MOST_SPARE],
                count: 0,
                held: 0,
            }),
        })
    }

    /// Has room for what is known of the first `units` slabs.
    pub(crate) fn open(&self, units: usize) -> std::result::Result<(), Errno> {
        self.slabs.open(units)
    }

    /// Takes blocks of `class`, as many as `into` has room for where that makes
    /// no new slab, and at least one. Says how many came.
    pub(crate) fn take(
        &self,
        source: &impl Source,
        table: &Table,
        class: Class,
        into: &mut [usize],
    ) -> Result<usize> {
        let mut list = lock(&self.lists[class.number()]);
        if *list == 0 {
            drop(list);
            let slab = self.take_slab(source)? as usize;
            self.slab(slab).divide(class);
            table.set(slab, Unit::Slab(class));
            list = lock(&self.lists[class.number()]);
            self.link(&mut list, slab);
        }
        let mut count = 0;
        while count < into.len() && *list != 0 {
            let base = (*list as usize - 1) << SLAB_SHIFT;
            let slab = self.slab(base);
            count += slab.take(class, base, &mut into[count..]);
            if slab.free() == 0 {
                self.unlink(&mut list, base);
            }
        }
        Ok(count)
    }

    /// Takes the blocks of `class` at `offsets` back. A slab that is wholly
    /// free then leaves, unless it is the only one of its class with free
    /// blocks. Stops at a block that is not live.
    pub(crate) fn put(
        &self,
        source: &impl Source,
        table: &Table,
        class: Class,
        offsets: &[usize],
    ) -> std::result::Result<(), NotLive> {
        let base = |offset: &usize| offset & !(SLAB_BYTES - 1);
        let mut left = [0; MOST_CACHED];
        for offsets in offsets.chunks(left.len()) {
            let mut count = 0;
            let mut list = lock(&self.lists[class.number()]);
            let mut runs = offsets.chunk_by(|one, next| base(one) == base(next));
            let result = runs.try_for_each(|run| {
                // Freed twice, its slab may be gone by now, or of another class.
                if table.unit(run[0]) != Some(Unit::Slab(class)) {
                    return Err(NotLive { offset: run[0] });
                }
                let base = base(&run[0]);
                let slab = self.slab(base);
                let before = slab.free();
                slab.put(class, run).map_err(|offset| NotLive { offset })?;
                if before == 0 {
                    self.link(&mut list, base);
                }
                if slab.free() == class.blocks() && self.is_not_alone(base) {
                    self.unlink(&mut list, base);
                    table.set(base, Unit::Nothing);
                    left[count] = base as u64;
                    count += 1;
                }
                Ok(())
            });
            drop(list);
            for slab in &left[..count] {
                self.put_slab(source, *slab);
            }
            result?;
        }
        Ok(())
    }

    /// Gives all wholly free slabs back, and says how many they were.
    pub(crate) fn trim(&self, source: &impl Source, table: &Table) -> usize {
        for class in Class::all() {
            let mut list = lock(&self.lists[class.number()]);
            let mut at = *list;
            let mut free = None;
            // At most one is kept; see `put()`.
            while at != 0 && free.is_none() {
                let base = (at as usize - 1) << SLAB_SHIFT;
                let slab = self.slab(base);
                at = slab.next.load(Relaxed);
                if slab.free() == class.blocks() {
                    self.unlink(&mut list, base);
                    table.set(base, Unit::Nothing);
                    free = Some(base as u64);
                }
            }
            drop(list);
            if let Some(slab) = free {
                self.put_slab(source, slab);
            }
        }
        let mut given = 0;
        loop {
            let mut slabs = [0; BATCH];
            let count = lock(&self.pool).leave(&mut slabs);
            if count == 0 {
                return given;
            }
            source.give(&slabs[..count]);
            given += count;
        }
    }

    /// A slab that is wholly free, in no list.
    fn take_slab(&self, source: &impl Source) -> Result<u64> {
        let mut pool = lock(&self.pool);
        if let Some(slab) = pool.pop() {
            return Ok(slab);
        }
        let batch = (pool.held / SLABS_PER_BATCH).clamp(1, BATCH);
        drop(pool);
        let mut slabs = [0; BATCH];
        let count = source.take(&mut slabs[..batch])?;
        lock(&self.pool).held += count;
        // The lowest is used first.
        for slab in slabs[1..count].iter().rev() {
            self.put_slab(source, *slab);
        }
        Ok(slabs[0])
    }

    /// Keeps a slab that is wholly free; gives some back if those are many.
    fn put_slab(&self, source: &impl Source, slab: u64) {
        let mut pool = lock(&self.pool);
        if pool.push(slab) {
            return;
        }
        let mut slabs = [0; BATCH];
        let count = pool.leave(&mut slabs);
        pool.push(slab);
        drop(pool);
        source.give(&slabs[..count]);
    }

    fn slab(&self, base: usize) -> &Slab {
        &self.slabs[base >> SLAB_SHIFT]
    }

    /// Whether its list has another slab than this, which is in it.
    fn is_not_alone(&self, base: usize) -> bool {
        let slab = self.slab(base);
        slab.next.load(Relaxed) != 0 || slab.previous.load(Relaxed) != 0
    }

    fn link(&self, list: &mut List, base: usize) {
        let (name, slab) = ((base >> SLAB_SHIFT) as u32 + 1, self.slab(base));
        slab.previous.store(0, Relaxed);
        slab.next.store(*list, Relaxed);
        if *list != 0 {
            self.slabs[*list as usize - 1].previous.store(name, Relaxed);
        }
        *list = name;
    }

    fn unlink(&self, list: &mut List, base: usize) {
        let slab = self.slab(base);
        let next = slab.next.swap(0, Relaxed);
        let previous = slab.previous.swap(0, Relaxed);
        if next != 0 {
            self.slabs[next as usize - 1]
                .previous
                .store(previous, Relaxed);
        }
        match previous {
            0 => *list = next,
            _ => self.slabs[previous as usize - 1].next.store(next, Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Call, Error};
    use std::collections::BTreeSet;

    const UNITS: usize = 256;

    /// An arena that hands the lowest slabs out, and knows which are live.
    struct Arena {
        live: Mutex<BTreeSet<u64>>,
        limit: usize,
    }

    impl Arena {
        fn of(limit: usize) -> Self {
            Self {
                live: Mutex::default(),
                limit,
            }
        }

        fn live(&self) -> usize {
            lock(&self.live).len()
        }
    }

    impl Source for Arena {
        fn take(&self, slabs: &mut [u64]) -> Result<usize> {
            let mut live = lock(&self.live);
            let all = (0..self.limit as u64).map(|unit| unit << SLAB_SHIFT);
            let free: Vec<u64> = all.filter(|slab| !live.contains(slab)).collect();
            let count = free.len().min(slabs.len());
            if count == 0 {
                return Err(Error::refused(Call::Stat)(Errno::DQUOT));
            }
            slabs[..count].copy_from_slice(&free[..count]);
            live.extend(&free[..count]);
            Ok(count)
        }

        fn give(&self, slabs: &[u64]) {
            let mut live = lock(&self.live);
            for slab in slabs {
                assert!(live.remove(slab), "{slab:#x} was given back twice");
            }
        }
    }

    struct Fixture {
        arena: Arena,
        table: Table,
        central: Central,
    }

    impl Fixture {
        fn new(limit: usize) -> Self {
            let (table, central) = (Table::new(UNITS).unwrap(), Central::new(UNITS).unwrap());
            table.open(UNITS).unwrap();
            central.open(UNITS).unwrap();
            Self {
                arena: Arena::of(limit),
                table,
                central,
            }
        }

        fn take(&self, class: Class, count: usize) -> Result<Vec<usize>> {
            let mut taken = vec![0; count];
            let count = self
                .central
                .take(&self.arena, &self.table, class, &mut taken)?;
            taken.truncate(count);
            Ok(taken)
        }

        fn put(&self, class: Class, offsets: &[usize]) -> std::result::Result<(), NotLive> {
            self.central.put(&self.arena, &self.table, class, offsets)
        }

        fn trim(&self) -> usize {
            self.central.trim(&self.arena, &self.table)
        }
    }

    #[test]
    fn no_block_is_handed_out_twice_and_all_come_back() {
        let fixture = Fixture::new(UNITS);
        let mut live: Vec<(Class, usize)> = Vec::new();
        let mut bytes = BTreeSet::new();
        for round in 0..20 {
            for class in Class::all() {
                for offset in fixture.take(class, 7 + round).unwrap() {
                    assert_eq!(offset % class.bytes(), 0);
                    assert!((offset..offset + class.bytes())
                        .step_by(16)
                        .all(|byte| bytes.insert(byte)));
                    live.push((class, offset));
                }
            }
            // Every third goes back.
            let mut index = 0;
            live.retain(|(class, offset)| {
                index += 1;
                if index % 3 == 0 {
                    fixture.put(*class, &[*offset]).unwrap();
                    for byte in (*offset..offset + class.bytes()).step_by(16) {
                        bytes.remove(&byte);
                    }
                }
                index % 3 != 0
            });
        }
        for (class, offset) in live {
            fixture.put(class, &[offset]).unwrap();
        }
        let held = fixture.arena.live();
        assert!(held <= MOST_SPARE + CLASSES, "{held} slabs are kept");
        assert_eq!(fixture.trim(), held);
        assert_eq!(fixture.arena.live(), 0);
    }

    #[test]
    fn a_small_heap_asks_for_one_slab_at_a_time() {
        let fixture = Fixture::new(UNITS);
        for (number, class) in Class::all().take(8).enumerate() {
            fixture.take(class, 1).unwrap();
            assert_eq!(fixture.arena.live(), number + 1);
        }
    }

    #[test]
    fn a_slab_that_is_free_serves_another_class() {
        let fixture = Fixture::new(2);
        let (small, large) = (Class::of(16).unwrap(), Class::of(32 << 10).unwrap());
        let blocks = fixture.take(small, 4096 + 1).unwrap();
        assert_eq!((blocks.len(), fixture.arena.live()), (4096, 1));
        let more = fixture.take(small, 1).unwrap();
        assert!(fixture.take(large, 1).is_err());
        fixture.put(small, &more).unwrap();
        fixture.put(small, &blocks).unwrap();
        // One slab of the class stays, the other one is there for all.
        assert_eq!(fixture.take(large, 2).unwrap().len(), 2);
        assert!(fixture.take(large, 1).is_err());
        assert_eq!(fixture.trim(), 1);
        assert_eq!(fixture.take(large, 1).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_live_is_not_taken_back() {
        let fixture = Fixture::new(UNITS);
        let class = Class::of(100).unwrap();
        let blocks = fixture.take(class, 10).unwrap();
        let refused = |offset| Err(NotLive { offset });
        fixture.put(class, &blocks[3..5]).unwrap();
        assert_eq!(fixture.put(class, &blocks[3..]), refused(blocks[3]));
        assert_eq!(fixture.put(class, &[128 * 20]), refused(128 * 20));
        let other = Class::of(16).unwrap();
        assert_eq!(fixture.put(other, &blocks[..1]), refused(blocks[0]));
        // Beyond any slab, and beyond the arena.
        assert_eq!(fixture.put(class, &[1 << 20]), refused(1 << 20));
        assert_eq!(fixture.put(class, &[1 << 40]), refused(1 << 40));
    }

    #[test]
    fn wholly_free_slabs_beyond_a_few_go_back() {
        let fixture = Fixture::new(UNITS);
        let class = Class::of(32 << 10).unwrap();
        let blocks = fixture.take(class, 1).unwrap();
        let mut all = blocks;
        while fixture.arena.live() < 200 {
            all.extend(fixture.take(class, 2).unwrap());
        }
        fixture.put(class, &all).unwrap();
        let held = fixture.arena.live();
        assert!(held <= MOST_SPARE + 1, "{held}");
        // Nor is anything known where they were.
        fixture.trim();
        let mut units = (0..UNITS).map(|unit| fixture.table.unit(unit << SLAB_SHIFT));
        assert!(units.all(|unit| unit == Some(Unit::Nothing)));
    }

    #[test]
    fn threads_share_slabs_and_lose_nothing() {
        let fixture = Fixture::new(UNITS);
        let fixture = &fixture;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..300 {
                        let class = Class::numbered(((round + thread) % 3) * 5).unwrap();
                        let blocks = fixture.take(class, 1 + round as usize % 64).unwrap();
                        fixture.put(class, &blocks).unwrap();
                    }
                });
            }
        });
        fixture.trim();
        assert_eq!(fixture.arena.live(), 0);
    }
}
