// SPDX-License-Identifier: GPL-2.0-only

//! The state of an arena, and the lock that protects it: [`Arena::lock`] takes it, and returns a
//! [`StateGuard`], which holds it until it is dropped.
//!
//! # Locks
//!
//! In the order in which they are taken:
//!
//! 1. the registry's mutex, around the list of arenas;
//! 2. `mmap_lock` or a VMA's lock, of the kernel, around a page fault and around POPULATE;
//! 3. the lock of a folio of the page cache: a fault holds it from the lookup until the page is mapped,
//!    the core while it moves or splits the folio, and a removal of memory, which waits for it except
//!    under reclaim; below it the core's own locks (`i_mmap_rwsem`, `i_pages`, page tables, LRU lists);
//! 4. an arena's `state`, a spin lock: its engine, waiters and counters. Lookups in the page cache under
//!    it take none of the page cache's locks;
//! 5. the lock of one wait queue, a spin lock: of an arena's pollers, or of the shared limit's listeners
//!    (pollers of any arena, and sleeping threads). The scheduler's locks are taken under it.
//!
//! A cgroup's list of members of the shrinker (`list_lru`) has a spin lock of its own. Under it the
//! shrinker takes a reference to a member, and none of these locks.
//!
//! Two guards use `state` when they are dropped: `wait::Place` locks it, and is dropped without the lock
//! held; `StateGuard` publishes the number of free pages before it unlocks, which takes no lock.
//!
//! Under `state` user memory is touched only with page faults disabled, nothing is allocated and nothing
//! sleeps: the engine returns the metadata that it needs, the caller drops the lock, allocates it, and
//! calls the engine again. No thread holds two locks of one of these kinds.
//!
//! Tracepoints are reported without `state`, but for a release, which has to be reported before another
//! request can get the block. Probes do not sleep, and take none of these locks.
//!
//! # States of a block
//!
//! | state | entered by | left by |
//! | --- | --- | --- |
//! | free | a new arena; `cancel`; `free` | `reserve` |
//! | reserved | `reserve` | `prepared`, then `commit`; or `cancel` |
//! | live | `commit`, once the block is reported to the caller | `free` |
//!
//! Only the call that reserved a block can use the reservation: a release at its offset finds no live
//! block. A page fault maps what the page cache has there, whatever the state of the block.

use super::{
    counters::Events,
    request::AllocOptions,
    Arena, //
};
use crate::{
    engine::{
        Changes,
        Counters,
        Policy,
        Request,
        WaitQueue,
        WaiterSlot, //
    },
    ffi::errno::edquot,
    mm::backend::{
        KernelEngine,
        Table, //
    },
};
use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            spinlock::SpinLockBackend,
            Guard, //
        }, //
    },
    task::Task, //
};

pub(super) type WaitingTask = ARef<Task>;
/// The threads that wait for a block, in a table of the kernel's memory.
pub(super) type Waiters = WaitQueue<Request, WaitingTask, Table<WaiterSlot<Request, WaitingTask>>>;

/// The change in free pages, in either direction, after which the kernel's statistics are updated.
const BATCH: i64 = 256;

/// Counters of an arena that are read without its lock.
pub(super) struct Published {
    /// The number of free pages.
    free_pages: Atomic<u32>,
}

impl Published {
    /// Returns zeros.
    pub(super) fn new() -> Self {
        Self {
            free_pages: Atomic::new(0),
        }
    }

    /// Returns the number of free pages at the last unlock.
    pub(super) fn free_pages(&self) -> u32 {
        self.free_pages.load(Relaxed)
    }
}

/// The locked state of an arena. Publishes the number of free pages and unlocks when it is dropped.
pub(super) struct StateGuard<'a> {
    pub(super) arena: &'a Arena,
    state: Guard<'a, State, SpinLockBackend>,
}

impl Arena {
    /// Locks the state, a spin lock.
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
    /// Publishes the number of free pages, and adjusts the headroom that the metadata takes of the limits.
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

    /// Adds `more` free pages to the kernel's statistics, from which MemAvailable is computed.
    fn count(&mut self, more: i64) {
        self.arena.node.add_reclaimable(more);
        self.state.counted_pages += more;
    }

    /// Removes the arena's pages from the kernel's statistics and its metadata from the limits, before
    /// it ends.
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

/// The data that the arena's lock protects.
pub(super) struct State {
    pub(super) engine: KernelEngine,
    /// The free pages that are in the kernel's statistics.
    pub(super) counted_pages: i64,
    /// The engine's counters at the last check for idle arenas.
    pub(super) idle_counters: Counters,
    /// The page number below which the shrinker goes on, downwards.
    pub(super) cursor: u32,
    /// The most bytes of a contiguous block: the size of the largest folio.
    pub(super) contiguous_bytes: u64,
    /// The most bytes of pages that it may hold.
    pub(super) limit: u64,
    /// Bytes of pages that have headroom under the limits and are being allocated; not in the held bytes.
    pub(super) promised: u64,
    /// Bytes that metadata takes of both limits; `None` once the arena has ended.
    pub(super) metadata_taken: Option<u64>,
    pub(super) waiters: Waiters,
    /// The smallest request that was refused since `poll` last reported the arena ready.
    pub(super) refused: Option<Request>,
    pub(super) events: Events,
}

impl State {
    /// Returns the bytes that the arena takes of both limits: its pages, those being allocated, the
    /// untouched pages of lazy blocks, and metadata.
    pub(super) fn taken(&self) -> u64 {
        let owed = u64::from(self.engine.owed_pages()) << PAGE_SHIFT;
        self.engine.held_bytes() + self.promised + owed + self.metadata_taken.unwrap_or_default()
    }

    /// Refuses a request that no release can ever serve: `E2BIG` when it is contiguous and larger than
    /// the largest folio, `EDQUOT` when it is larger than the arena's limit.
    #[inline]
    pub(super) fn admit(&self, options: &AllocOptions) -> Result {
        let request = &options.request;
        let mut bytes = request.bytes();
        if request.policy == Policy::Contiguous {
            if bytes > self.contiguous_bytes {
                return Err(E2BIG);
            }
            // The folio is a power of 2 pages, all of which belong to the block.
            bytes = bytes.next_power_of_two();
        }
        let more = request.policy.may_grow() || options.wait.is_some();
        if more && bytes > self.limit && bytes <= 1 << KernelEngine::MAX_SHIFT {
            return Err(edquot());
        }
        Ok(())
    }
}
