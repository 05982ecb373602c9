// SPDX-License-Identifier: GPL-2.0

//! What threads share of the client's heap, the very same files, in which loom's locks and
//! atomics are in the place of those of the standard library, to run them in every order of threads.
//!
//! [`Heap`] is the heap but for what a thread keeps for itself: slabs, the table of what lies
//! where, and an arena that hands out 64 KiB at a time.

#![warn(missing_docs)]
// Its tests are in tests/: the files' own are the client's to run.
#![cfg(not(test))]

use std::collections::BTreeSet;
use std::mem::MaybeUninit;

use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::sync::Mutex;
use loom::thread;

use heap::central::{Central, Source};
use heap::class::{Class, MIN_BYTES, SLAB_BYTES, SLAB_SHIFT};
use heap::table::{Table, Unit};

/// What the files call the standard library's.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic;
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

/// Memory that the system would map: values that are as if all their bytes were zero.
mod sys {
    use std::ops::Deref;

    pub(crate) use rustix::io::Errno;

    pub(crate) enum Fork {
        Keep,
        Wipe,
    }

    pub(crate) struct Anonymous<T>(Box<[T]>);

    impl<T: Default> Anonymous<T> {
        pub(crate) fn new(len: usize, _: Fork) -> Result<Self, Errno> {
            Ok(Self((0..len).map(|_| T::default()).collect()))
        }

        pub(crate) fn reserve(len: usize, fork: Fork) -> Result<Self, Errno> {
            Self::new(len, fork)
        }

        pub(crate) fn open(&self, _: usize) -> Result<(), Errno> {
            Ok(())
        }
    }

    impl<T> Deref for Anonymous<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }
}

/// Errors, of which there is one here.
mod error {
    /// The arena has no more.
    #[derive(Debug)]
    pub(crate) struct Exhausted;

    pub(crate) type Result<T> = std::result::Result<T, Exhausted>;
}

#[expect(dead_code, reason = "what only a thread's own cache uses of them")]
mod heap;
#[path = "../../../src/client/src/malloc/once.rs"]
mod once;

/// A pair that is computed once, read without waiting.
pub struct Pair(once::Once<(u32, u32)>);

impl Pair {
    /// Without a value.
    #[expect(clippy::new_without_default, reason = "a test has no use for it")]
    pub fn new() -> Self {
        Self(once::Once {
            state: AtomicU32::new(once::EMPTY),
            value: sync::UnsafeCell::new(MaybeUninit::zeroed()),
        })
    }

    /// Returns the pair that is stored, if one is.
    pub fn get(&self) -> Option<(u32, u32)> {
        self.0.get()
    }

    /// Returns the pair that is stored, or this one, which is stored then if no other one is being
    /// stored.
    pub fn get_or_store(&self, pair: (u32, u32)) -> (u32, u32) {
        self.0.get_or_compute(|_| pair)
    }
}

/// An arena of 64 KiB blocks, of which it hands the lowest out first, as a call of the module does.
struct Arena {
    live: Mutex<BTreeSet<u64>>,
    units: u64,
}

impl Source for Arena {
    fn take(&self, slabs: &mut [u64]) -> error::Result<usize> {
        let mut live = self.live.lock().unwrap();
        let free = (0..self.units).map(|unit| unit << SLAB_SHIFT);
        let free: Vec<u64> = free.filter(|slab| !live.contains(slab)).collect();
        let count = free.len().min(slabs.len());
        if count == 0 {
            return Err(error::Exhausted);
        }
        slabs[..count].copy_from_slice(&free[..count]);
        live.extend(&free[..count]);
        Ok(count)
    }

    fn give(&self, slabs: &[u64]) {
        let mut live = self.live.lock().unwrap();
        for slab in slabs {
            assert!(live.remove(slab), "{slab:#x} is given back twice");
        }
    }
}

/// A block that is in use, and how large it is.
#[derive(Debug)]
pub struct Block {
    offset: usize,
    bytes: usize,
}

impl Block {
    /// The same block, for who frees it twice.
    pub fn again(&self) -> Self {
        Self { ..*self }
    }
}

/// The heap, and what is in its blocks.
pub struct Heap {
    central: Central,
    table: Table,
    arena: Arena,
    /// The user of each [`GRAIN`] of the arena; 0 is none. Relaxed, so that it is only seen
    /// in order where the heap makes one.
    users: Vec<AtomicU32>,
}

/// Blocks are multiples of it in these tests: each is looked at, and there should be few.
const GRAIN: usize = 16 << 10;

impl Heap {
    /// With an arena of `units` times 64 KiB.
    pub fn new(units: usize) -> Self {
        Self {
            central: Central::new(units).unwrap(),
            table: Table::new(units).unwrap(),
            arena: Arena {
                live: Mutex::new(BTreeSet::new()),
                units: units as u64,
            },
            users: (0..units * SLAB_BYTES / GRAIN)
                .map(|_| AtomicU32::new(0))
                .collect(),
        }
    }

    /// Takes at most `count` small blocks, as a thread does that keeps none. None where the arena
    /// has no more.
    pub fn take(&self, bytes: usize, count: usize, user: u32) -> Vec<Block> {
        let class = Class::of(bytes).unwrap();
        let mut taken = vec![0; count];
        let taken = match self
            .central
            .take(&self.arena, &self.table, class, &mut taken)
        {
            Ok(count) => &taken[..count],
            Err(error::Exhausted) => &[],
        };
        let bytes = class.bytes();
        let blocks = taken.iter().map(|&offset| Block { offset, bytes });
        blocks.inspect(|block| self.begin(block, user)).collect()
    }

    /// Gives small blocks of one class back that are this user's.
    pub fn put(&self, blocks: Vec<Block>, user: u32) {
        for block in &blocks {
            self.end(block, user);
        }
        let offsets: Vec<usize> = blocks.iter().map(|block| block.offset).collect();
        let Some(first) = offsets.first() else {
            return;
        };
        // The class is what the table says, as a thread knows only addresses.
        let Some(Unit::Slab(class)) = self.table.unit(*first) else {
            panic!("{first:#x} is in no slab");
        };
        let put = self.central.put(&self.arena, &self.table, class, &offsets);
        put.expect("they are live");
    }

    /// Takes a large block, as the heap does; `None` where the arena has no more.
    pub fn take_large(&self, user: u32) -> Option<Block> {
        let mut offset = [0];
        self.arena.take(&mut offset).ok()?;
        let (offset, bytes) = (offset[0] as usize, SLAB_BYTES);
        self.table.set(offset, Unit::Large(bytes));
        let block = Block { offset, bytes };
        self.begin(&block, user);
        Some(block)
    }

    /// Gives a large block back, as the heap does; `false` if it is none.
    pub fn put_large(&self, block: &Block) -> bool {
        let is_known = self.table.clear_large(block.offset).is_some();
        if is_known {
            self.arena.give(&[block.offset as u64]);
        }
        is_known
    }

    /// Gives back to the arena what is wholly free.
    pub fn trim(&self) {
        self.central.trim(&self.arena, &self.table);
    }

    /// That all came back.
    pub fn ends(&self) {
        self.trim();
        assert!(self.arena.live.lock().unwrap().is_empty());
    }

    /// Notes the only user of a block.
    fn begin(&self, block: &Block, user: u32) {
        assert_eq!(block.offset % MIN_BYTES, 0);
        self.users_become(block, 0, user);
        // Others have a chance to think that it is theirs.
        thread::yield_now();
    }

    /// Notes that the user of a block is done with it, and checks that there was no other.
    pub fn end(&self, block: &Block, user: u32) {
        self.users_become(block, user, 0);
    }

    fn users_become(&self, block: &Block, old: u32, new: u32) {
        for user in &self.users[block.offset / GRAIN..(block.offset + block.bytes) / GRAIN] {
            assert_eq!(user.load(Relaxed), old, "{block:?}");
            user.store(new, Relaxed);
        }
    }
}
