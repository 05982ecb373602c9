// SPDX-License-Identifier: GPL-2.0

//! The shared parts of the client's heap, from the same files, with loom's locks and atomics instead of the
//! standard library's, to run them in every order of threads.
//!
//! [`Heap`] is the heap without the caches of threads: slabs, the table of blocks, and an arena of pages.
//! [`Kept`] is a thread's magazine of a class, which others drain.

#![warn(missing_docs)]
// The files' own tests are run by the client; those of this crate are in tests/.
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

/// The types that the files have from `crate::sync`.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic;
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// Orders accesses as a fence: in loom both kinds of barrier together are a fence in each thread.
    pub(crate) fn light_barrier() {
        atomic::fence(atomic::Ordering::SeqCst);
    }

    pub(crate) fn heavy_barrier() -> bool {
        atomic::fence(atomic::Ordering::SeqCst);
        true
    }
}

/// Memory as from the system: values as if all their bytes were zero.
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

/// The only error here.
mod error {
    /// The arena is full.
    #[derive(Debug)]
    pub(crate) struct Exhausted;

    pub(crate) type Result<T> = std::result::Result<T, Exhausted>;
}

#[expect(dead_code, reason = "what only a thread's own cache uses of them")]
mod heap;
#[path = "../../../src/client/src/malloc/once.rs"]
mod once;

/// A pair that is computed once, and read without waiting.
pub struct Pair(once::Once<(u32, u32)>);

impl Pair {
    /// Makes one without a value.
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

    /// Returns the stored pair, or `pair`, which it stores unless another thread is storing one.
    pub fn get_or_store(&self, pair: (u32, u32)) -> (u32, u32) {
        self.0.get_or_compute(|_| pair)
    }
}

/// A thread's blocks of one class, by numbers from 1.
pub struct Kept(Magazine);

/// The bytes of these blocks.
const KEPT_BYTES: usize = 16;

impl Kept {
    /// Makes an empty one.
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

    /// Takes the newest block.
    pub fn pop(&self) -> Option<usize> {
        let block = self.0.pop()?;
        Some(block.addr().get() / KEPT_BYTES)
    }

    /// Takes all blocks, in another thread.
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

/// A simulated arena of 4 KiB pages, which allocates the lowest free pages in one call, as the module does.
struct Arena {
    /// The number of pages of each live block, by its first page.
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
            assert!(pages.is_some(), "{slab:#x} is freed twice");
        }
    }

    fn discard(&self, offset: usize, bytes: usize) -> bool {
        self.users.are(offset, bytes, 0);
        true
    }
}

/// The user of each KiB of the arena; 0 if none. Relaxed, so that a change is seen in order only if the
/// heap orders it.
struct Users(Vec<AtomicU32>);

/// The unit of blocks' sizes in these tests: each unit is checked, and there should be few.
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

/// A live block, with its size.
#[derive(Debug)]
pub struct Block {
    offset: usize,
    bytes: usize,
}

impl Block {
    /// Returns a copy, to free the block twice.
    pub fn again(&self) -> Self {
        Self { ..*self }
    }
}

/// The heap, with the users of its blocks.
pub struct Heap {
    central: Central,
    table: Table,
    arena: Arena,
}

impl Heap {
    /// Makes a heap with an arena of `pages` times 4 KiB.
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

    /// Allocates at most `count` small blocks, as a thread without a cache does. Returns fewer if the arena is
    /// full.
    pub fn take(&self, bytes: usize, count: usize, user: u32) -> Vec<Block> {
        let class = Class::of(bytes).unwrap();
        let (mut taken, bytes) = (Vec::new(), class.bytes());
        let hand = |offset| taken.push(offset);
        let first = self
            .central
            .take(&self.arena, &self.table, class, count - 1, hand);
        let blocks = first.ok().into_iter().chain(taken);
        let blocks = blocks.map(|offset| Block { offset, bytes });
        blocks.inspect(|block| self.begin(block, user)).collect()
    }

    /// Frees small blocks of one class, whose user this is.
    pub fn put(&self, blocks: Vec<Block>, user: u32) {
        for block in &blocks {
            self.end(block, user);
        }
        let Some(first) = blocks.first() else {
            return;
        };
        // The class is looked up in the table, as a thread knows only addresses.
        let class = self.table.class(first.offset).expect("it is in a slab");
        let offsets = blocks.iter().map(|block| block.offset);
        let put = self.central.put(&self.arena, &self.table, class, offsets);
        put.expect("they are live");
    }

    /// Allocates a large block of one page, as the heap does; `None` if the arena is full.
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

    /// Frees a large block, as the heap does; `false` if it is not live.
    pub fn put_large(&self, block: &Block) -> bool {
        let is_known = self.table.clear_large(block.offset).is_some();
        if is_known {
            self.arena.free_slabs(&[block.offset as u64]);
        }
        is_known
    }

    /// Frees the slabs that are wholly free.
    pub fn trim(&self) {
        self.central.trim(&self.arena);
    }

    /// Discards pages in which no block is in use.
    pub fn discard(&self) {
        self.central.discard(&self.arena, &self.table);
    }

    /// Checks that all memory was freed to the arena.
    pub fn ends(&self) {
        self.trim();
        assert!(self.arena.live.lock().unwrap().is_empty());
    }

    /// Notes the only user of a block.
    fn begin(&self, block: &Block, user: u32) {
        assert_eq!(block.offset % MIN_BYTES, 0);
        self.arena.users.become_of(block, 0, user);
        // Lets other threads run that might take the block for theirs.
        thread::yield_now();
    }

    /// Ends the use of a block, and checks that it had no other user.
    pub fn end(&self, block: &Block, user: u32) {
        self.arena.users.become_of(block, user, 0);
    }
}
