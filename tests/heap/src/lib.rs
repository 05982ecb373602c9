// SPDX-License-Identifier: GPL-2.0

//! What threads share of the client's heap, the very same files, in which loom's locks and
//! atomics are in the place of those of the standard library, to run them in every order of threads.
//!
//! [`Heap`] is the heap but for what a thread keeps for itself: slabs, the table of what lies
//! where, and an arena that hands out pages. [`Kept`] is what a thread keeps of a class, which others drain.

#![warn(missing_docs)]
// Its tests are in tests/: the files' own are the client's to run.
#![cfg(not(test))]

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::sync::Mutex;
use loom::thread;

use heap::central::{Central, Source};
use heap::class::{Class, GRAIN_BYTES, MAX_CACHED, MIN_BYTES};
use heap::magazine::Magazine;
use heap::table::Table;

/// What the files call the standard library's.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic;
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// The system's two kinds together order accesses as a barrier in each thread would.
    pub(crate) fn light_barrier() {
        atomic::fence(atomic::Ordering::SeqCst);
    }

    pub(crate) fn heavy_barrier() -> bool {
        atomic::fence(atomic::Ordering::SeqCst);
        true
    }
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

/// Blocks of one class that a thread keeps, by numbers from 1.
pub struct Kept(Magazine);

/// Bytes of the blocks that it keeps.
const KEPT_BYTES: usize = 16;

impl Kept {
    /// Without any.
    #[expect(clippy::new_without_default, reason = "a test has no use for it")]
    pub fn new() -> Self {
        let magazine = Magazine::default();
        let class = Class::of(KEPT_BYTES).unwrap();
        magazine.set_bound(class.max_cached(), class.start());
        Self(magazine)
    }

    /// Keeps a block.
    pub fn push(&self, number: usize) -> bool {
        let address = NonZeroUsize::new(number * KEPT_BYTES).unwrap();
        self.0.push(NonNull::dangling().with_addr(address))
    }

    /// Takes the block that came last.
    pub fn pop(&self) -> Option<usize> {
        let block = self.0.pop()?;
        Some(block.addr().get() / KEPT_BYTES)
    }

    /// Takes all, in another thread.
    pub fn drain(&self) -> Vec<usize> {
        let mut blocks = [ptr::null_mut(); MAX_CACHED];
        let closed = self.0.close();
        let count = closed.take(sync::heavy_barrier(), &mut blocks);
        let blocks = blocks[..count].iter();
        blocks
            .map(|block: &*mut u8| block.addr() / KEPT_BYTES)
            .collect()
    }
}

/// An arena of 4 KiB pages, of which it hands the lowest out first, as a call of the module does.
struct Arena {
    /// Live blocks, by their first pages: how many they have.
    live: Mutex<BTreeMap<usize, usize>>,
    pages: usize,
    users: Users,
}

impl Arena {
    fn free(live: &BTreeMap<usize, usize>, first: usize, count: usize) -> bool {
        let before = live.range(..first + count).next_back();
        before.is_none_or(|(start, pages)| start + pages <= first)
    }
}

impl Source for Arena {
    fn alloc_slabs(&self, bytes: usize, _: bool, slabs: &mut [u64]) -> error::Result<usize> {
        let mut live = self.live.lock().unwrap();
        let pages = bytes / GRAIN_BYTES;
        let mut count = 0;
        for first in (0..=self.pages.saturating_sub(pages)).step_by(pages.next_power_of_two()) {
            if count < slabs.len() && first + pages <= self.pages && Self::free(&live, first, pages)
            {
                live.insert(first, pages);
                slabs[count] = (first * GRAIN_BYTES) as u64;
                count += 1;
            }
        }
        match count {
            0 => Err(error::Exhausted),
            _ => Ok(count),
        }
    }

    fn free_slabs(&self, slabs: &[u64]) {
        let mut live = self.live.lock().unwrap();
        for slab in slabs {
            let pages = live.remove(&(*slab as usize / GRAIN_BYTES));
            assert!(pages.is_some(), "{slab:#x} is given back twice");
        }
    }

    fn discard(&self, offset: usize, bytes: usize) -> bool {
        self.users.are(offset, bytes, 0);
        true
    }
}

/// Who uses each KiB of the arena; 0 is nobody. Relaxed, so that it is only seen
/// in order where the heap makes one.
struct Users(Vec<AtomicU32>);

/// Blocks are multiples of it in these tests: each is looked at, and there should be few.
const CELL_BYTES: usize = 1 << 10;

impl Users {
    fn of(&self, offset: usize, bytes: usize) -> &[AtomicU32] {
        &self.0[offset / CELL_BYTES..(offset + bytes) / CELL_BYTES]
    }

    fn are(&self, offset: usize, bytes: usize, user: u32) {
        for cell in self.of(offset, bytes) {
            assert_eq!(cell.load(Relaxed), user, "{bytes} bytes at {offset:#x}");
        }
    }

    fn become_of(&self, block: &Block, old: u32, new: u32) {
        self.are(block.offset, block.bytes, old);
        for cell in self.of(block.offset, block.bytes) {
            cell.store(new, Relaxed);
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
}

impl Heap {
    /// With an arena of `pages` times 4 KiB.
    pub fn new(pages: usize) -> Self {
        let bytes = pages * GRAIN_BYTES;
        let users = (0..bytes / CELL_BYTES).map(|_| AtomicU32::new(0));
        Self {
            central: Central::new(bytes).unwrap(),
            table: Table::new(bytes).unwrap(),
            arena: Arena {
                live: Mutex::new(BTreeMap::new()),
                pages,
                users: Users(users.collect()),
            },
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
        let class = self.table.class(*first).expect("it is in a slab");
        let put = self.central.put(&self.arena, &self.table, class, &offsets);
        put.expect("they are live");
    }

    /// Takes a large block of a page, as the heap does; `None` where the arena has no more.
    pub fn take_large(&self, user: u32) -> Option<Block> {
        let mut offset = [0];
        self.arena
            .alloc_slabs(GRAIN_BYTES, true, &mut offset)
            .ok()?;
        let (offset, bytes) = (offset[0] as usize, GRAIN_BYTES);
        self.table.set_large(offset, bytes);
        let block = Block { offset, bytes };
        self.begin(&block, user);
        Some(block)
    }

    /// Gives a large block back, as the heap does; `false` if it is none.
    pub fn put_large(&self, block: &Block) -> bool {
        let is_known = self.table.clear_large(block.offset).is_some();
        if is_known {
            self.arena.free_slabs(&[block.offset as u64]);
        }
        is_known
    }

    /// Gives back to the arena what is wholly free.
    pub fn trim(&self) {
        self.central.trim(&self.arena);
    }

    /// Discards pages in which no block is in use.
    pub fn discard(&self) {
        self.central.discard(&self.arena, &self.table);
    }

    /// That all came back.
    pub fn ends(&self) {
        self.trim();
        assert!(self.arena.live.lock().unwrap().is_empty());
    }

    /// Notes the only user of a block.
    fn begin(&self, block: &Block, user: u32) {
        assert_eq!(block.offset % MIN_BYTES, 0);
        self.arena.users.become_of(block, 0, user);
        // Others have a chance to think that it is theirs.
        thread::yield_now();
    }

    /// Notes that the user of a block is done with it, and checks that there was no other.
    pub fn end(&self, block: &Block, user: u32) {
        self.arena.users.become_of(block, user, 0);
    }
}
