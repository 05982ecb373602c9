// SPDX-License-Identifier: GPL-2.0

//! What an arena's lock protects.
//!
//! # Locks
//!
//! In the order in which they are taken:
//!
//! 1. the registry's mutex, around the list of arenas;
//! 2. `mmap_lock` or a VMA's lock, of the kernel, around a page fault and around POPULATE;
//! 3. a folio's lock, of the page cache: by a fault, from its lookup until the page is mapped; by the
//!    core while it moves or splits the folio; by what takes memory away, which waits for it except
//!    under reclaim; and the core's own below that (`i_mmap_rwsem`, `i_pages`, page tables, LRU lists);
//! 4. an arena's `state`, a spin lock: its engine and what goes with it. The page cache is looked at
//!    under it, without its locks;
//! 5. the locks of two wait queues, each a spin lock: that of who polls an arena, and that of who listens
//!    to the shared limit (pollers of any arena, and threads that sleep); the scheduler's below that.
//!
//! A cgroup's list of members of the shrinker (`list_lru`) has a spin lock of its own. Under it a reference
//! to a member is taken, and none of these locks.
//!
//! Two guards take `state` or use it when they are dropped: `wait::Place` locks it, and is dropped where
//! nobody holds it; `StateGuard` publishes what is free before it unlocks, which takes no lock.
//!
//! Under `state` no user memory is touched but with page faults disabled, nothing is allocated and
//! nothing sleeps: the engine says what it lacks, the lock is dropped, it is made, the engine is called
//! again. Nobody takes two of these locks of one kind at once.
//!
//! # States of a block
//!
//! | state | comes by | goes by |
//! | --- | --- | --- |
//! | free | the beginning; `cancel`; `free` | `reserve` |
//! | reserved | `reserve` | `prepared`, then `commit`; or `cancel` |
//! | live | `commit`, when the caller has the answer | `free` |
//!
//! Nobody but the call that reserved it can do anything with a reserved block: a release at its offset
//! finds nothing live there. A page fault finds what is in the page cache, of whatever block.

use super::{
    counters::Events,
    request::AllocOptions,
    wait,
    Arena, //
};
use crate::{
    engine::{
        Changes,
        Policy,
        Request, //
    },
    ffi::errno::edquot,
    mm::backend::KernelEngine, //
};
use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            spinlock::SpinLockBackend,
            Guard, //
        }, //
    }, //
};

/// Pages that are free, or no longer, before the kernel's statistics hear of it.
const BATCH: i64 = 256;

/// What others ask of an arena without its lock.
pub(super) struct Published {
    /// Pages that are free.
    free_pages: Atomic<u32>,
}

impl Published {
    /// Nothing is free.
    pub(super) fn new() -> Self {
        Self {
            free_pages: Atomic::new(0),
        }
    }

    /// Pages that are free, about.
    pub(super) fn free_pages(&self) -> u32 {
        self.free_pages.load(Relaxed)
    }
}

/// An arena's state, locked until this is dropped.
pub(super) struct StateGuard<'a> {
    pub(super) arena: &'a Arena,
    state: Guard<'a, State, SpinLockBackend>,
}

impl Arena {
    /// Locks the state.
    #[inline(always)]
    pub(super) fn lock(&self) -> StateGuard<'_> {
        StateGuard {
            arena: self,
            state: self.state.lock(),
        }
    }
}

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl StateGuard<'_> {
    /// Publishes what is free, and settles with the limits what the metadata takes.
    #[inline(never)]
    fn publish(&mut self) {
        let Changes { free, held } = self.state.engine.take_changes();
        if held {
            self.settle_metadata();
        }
        if !free {
            return;
        }
        let free_pages = self.state.engine.free_pages();
        self.arena.published.free_pages.store(free_pages, Relaxed);
        let more = i64::from(free_pages) - self.state.counted_pages;
        if more.abs() >= BATCH {
            self.count(more);
        }
    }

    /// So many more pages are free, for the kernel's statistics: MemAvailable has them.
    fn count(&mut self, more: i64) {
        self.arena.node.add_reclaimable(more);
        self.state.counted_pages += more;
    }

    /// The arena ends: none of its pages is free any more.
    pub(super) fn end(&mut self) {
        self.count(-self.state.counted_pages);
        self.state.metadata_taken = None;
    }
}

impl Drop for StateGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.state.engine.has_changes() {
            self.publish();
        }
    }
}

/// What the arena's lock protects.
pub(super) struct State {
    pub(super) engine: KernelEngine,
    /// Free pages, as the kernel's statistics have them.
    pub(super) counted_pages: i64,
    /// Where the shrinker goes on, as a page number: downwards.
    pub(super) cursor: u32,
    /// The most bytes of a contiguous block: those of the largest folio.
    pub(super) contiguous_bytes: u64,
    /// The most bytes of pages that it may hold.
    pub(super) limit: u64,
    /// Bytes of pages that are being brought, beyond those held.
    pub(super) promised: u64,
    /// Bytes that metadata has taken of both limits; `None` once the arena has ended.
    pub(super) metadata_taken: Option<u64>,
    pub(super) waiters: wait::Queue,
    /// The smallest request that was refused, of those since `poll` last said that one could be
    /// served.
    pub(super) refused: Option<Request>,
    pub(super) events: Events,
}

impl State {
    /// Returns the bytes of what the arena holds, is being brought, owes to lazy blocks, and has taken
    /// for metadata: all that it has taken of both limits.
    pub(super) fn taken(&self) -> u64 {
        let owed = u64::from(self.engine.owed_pages()) << PAGE_SHIFT;
        self.engine.held_bytes() + self.promised + owed + self.metadata_taken.unwrap_or_default()
    }

    /// Refuses what can never be had: `E2BIG` when it is more than a folio can have, `EDQUOT` when it is
    /// more than the arena may hold.
    #[inline]
    pub(super) fn admit(&self, options: &AllocOptions) -> Result {
        let request = &options.request;
        let mut bytes = request.bytes();
        if request.policy == Policy::Contiguous {
            if bytes > self.contiguous_bytes {
                return Err(E2BIG);
            }
            // What is over counts as the block's.
            bytes = bytes.next_power_of_two();
        }
        let more = request.policy.may_grow() || options.wait.is_some();
        if more && bytes > self.limit && bytes <= 1 << KernelEngine::MAX_SHIFT {
            return Err(edquot());
        }
        Ok(())
    }
}
