// SPDX-License-Identifier: GPL-2.0-only

//! One arena: the address space, blocks and limit of one open file. No file here is `unsafe`.

#![deny(unsafe_code)]

mod alloc;
pub(crate) mod bounds;
mod bulk;
mod clone;
pub(crate) mod counters;
pub(crate) mod deadline;
mod discard;
mod free;
mod grow;
mod header;
pub(crate) mod lazy;
#[cfg(CONFIG_KUNIT = "y")]
mod lookup;
mod lose;
mod metadata;
pub(crate) mod opener;
mod poll;
mod populate;
mod prepare;
mod promise;
mod reclaim;
pub(crate) mod registry;
pub(crate) mod request;
mod resize;
pub(crate) mod shared_limit;
mod state;
mod trace;
mod wait;

use crate::{
    engine::{
        Counters,
        Engine,
        Extent,
        Violation,
        QUICK_LISTS, //
    },
    ffi::{
        poll_queue::PollQueue,
        race_point::RacePoint,
        task, //
    },
    mm::{
        address_space::AddressSpace,
        backend::{
            table,
            KernelChunk, //
        },
        memcg::Memcg,
        statistics::Node, //
    }, //
};
use counters::{
    Classes,
    Events,
    Snapshot, //
};
use header::Secret;
use kernel::{
    new_spinlock,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc,
        SpinLock,
        UniqueArc, //
    }, //
};
use opener::Opener;
use shared_limit::{
    Limits,
    SharedLimit, //
};
use state::{
    Published,
    State,
    Waiters, //
};

/// Offsets of a new arena, in bytes.
const SPAN_BYTES: u64 = 64 << 30;
/// Extents that `map` copies under one hold of the lock.
const MAP_STEP: u32 = 256;

/// An arena, made by an open of the device.
#[pin_data]
pub(crate) struct Arena {
    id: u64,
    /// The highest limit that any caller may set, in bytes. A higher one takes `CAP_SYS_RESOURCE`.
    default_limit: u64,
    /// The most bytes that lazy blocks may have reserved and not touched: other arenas cannot use them.
    lazy_limit: u64,
    /// The limit of all arenas together.
    shared_limit: Arc<SharedLimit>,
    opener: Opener,
    /// The memory cgroup of the opener, which is charged for the arena.
    memcg: Memcg,
    address_space: AddressSpace,
    poll: PollQueue,
    /// The address of page number 0 in the newest mapping, of any process.
    base: Atomic<usize>,
    secret: Secret,
    /// Counters that are read without the lock.
    published: Published,
    /// The NUMA node that the opener ran on.
    node: Node,
    #[pin]
    state: SpinLock<State>,
}

impl Arena {
    /// Returns an empty arena that is charged to `memcg`, with the limit and the slack of `defaults`.
    /// `shared_limit` bounds all arenas together. `ENOMEM` when memory is short. May sleep.
    pub(crate) fn new(
        id: u64,
        memcg: Memcg,
        defaults: Limits,
        shared_limit: Arc<SharedLimit>,
    ) -> Result<Arc<Self>> {
        let parts = || -> Result<_> {
            let place = UniqueArc::new_uninit(GFP_KERNEL_ACCOUNT)?;
            let address_space = AddressSpace::new::<Self>()?;
            Ok((place, address_space, table(QUICK_LISTS)?, PollQueue::new()?))
        };
        let (place, address_space, quick, poll) = memcg.charge(parts)?;
        let contiguous_bytes = (PAGE_SIZE as u64) << address_space.max_order();
        let mut engine = Engine::new((SPAN_BYTES >> PAGE_SHIFT) as u32, quick);
        engine.set_slack_permille(defaults.slack_permille);
        let arena = pin_init!(Self {
            id,
            default_limit: defaults.arena,
            lazy_limit: defaults.lazy,
            shared_limit,
            opener: Opener::of_caller(),
            memcg,
            address_space,
            poll,
            base: Atomic::new(0),
            secret: Secret::new(),
            published: Published::new(),
            node: Node::of_caller(),
            state <- new_spinlock!(
                State {
                    engine,
                    counted_pages: 0,
                    idle_counters: Counters::default(),
                    cursor: u32::MAX,
                    contiguous_bytes,
                    limit: defaults.arena,
                    promised: 0,
                    metadata_taken: Some(0),
                    waiters: Waiters::new(),
                    refused: None,
                    events: Events::default(),
                },
                "freelist_arena"
            ),
        });
        Ok(place.pin_init_with(arena)?.into())
    }

    /// Returns its number, which no other arena of the loaded module ever has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the process that opened it.
    pub(crate) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Returns the memory cgroup that is charged for it.
    pub(crate) fn memcg(&self) -> &Memcg {
        &self.memcg
    }

    /// Returns its page cache.
    pub(crate) fn address_space(&self) -> &AddressSpace {
        &self.address_space
    }

    /// Returns all extents in the order of their offsets. The lock is dropped after each
    /// [`MAP_STEP`] extents: a change between two steps may be missed. `ENOMEM` when memory is short.
    /// May sleep.
    pub(crate) fn map(&self) -> Result<KVVec<Extent>> {
        let mut map = KVVec::new();
        let mut from = Some(0);
        while let Some(page) = from {
            map.reserve(MAP_STEP as usize, GFP_KERNEL)?;
            from = self.map_step(page, |extent| {
                // There is room for that many.
                let _ = map.push_within_capacity(extent);
            });
        }
        Ok(map)
    }

    /// Calls `see` with at most [`MAP_STEP`] extents from page number `page` on, under the lock. Returns
    /// the page number to go on with; `None` at the end. May sleep.
    fn map_step(&self, page: u32, see: impl FnMut(Extent)) -> Option<u32> {
        let mut state = self.lock();
        state.engine.merge_deferred();
        let next = state.engine.map(page, MAP_STEP, see);
        drop(state);
        RacePoint::Map.reach();
        task::resched();
        next
    }

    /// Returns the smallest and the largest order of the folios that back an extent; `None` if none
    /// does. May sleep.
    pub(crate) fn orders(&self, extent: &Extent) -> Option<(u32, u32)> {
        let end = extent.page + extent.pages;
        let mut orders: Option<(u32, u32)> = None;
        let mut next = extent.page;
        while let Some(folio) = self.address_space.first_in(next..end) {
            let order = folio.order();
            let (min, max) = orders.unwrap_or((order, order));
            orders = Some((min.min(order), max.max(order)));
            next = folio.range().end.max(next + 1);
            task::resched();
        }
        orders
    }

    /// Returns the number of extents that [`Arena::map`] would have. May sleep.
    pub(crate) fn map_len(&self) -> usize {
        let mut len = 0;
        let mut from = Some(0);
        while let Some(page) = from {
            from = self.map_step(page, |_| len += 1);
        }
        len
    }

    /// Counts a call that was refused.
    pub(crate) fn count_failure(&self, error: Error) {
        self.lock().events.failures.count(error);
    }

    /// Adds its counters, all of one moment, to `snapshot`. Returns the number of waiters.
    pub(crate) fn snapshot(&self, snapshot: &mut Snapshot) -> u32 {
        let mut state = self.lock();
        state.engine.merge_deferred();
        let counters = state.engine.counters();
        let metadata = state.metadata_bytes();
        let huge = self.address_space.huge_bytes();
        snapshot.add(&counters, metadata, huge, state.limit, &state.events);
        state.waiters.count()
    }

    /// Sets all running totals to `total`.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn seed_totals(&self, total: u64) {
        let mut state = self.lock();
        state.engine.seed_totals(total);
        state.events = Events::seeded(total);
    }

    /// Adds its counters by size class to `classes`.
    pub(crate) fn add_classes(&self, classes: &mut Classes) {
        let mut state = self.lock();
        state.engine.merge_deferred();
        classes.add(|shift| state.engine.class(shift));
    }

    /// Checks the engine's invariants. Takes time in proportion to the pages of the arena.
    #[cfg_attr(
        not(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y")),
        expect(dead_code)
    )]
    pub(crate) fn check(&self) -> Result<(), Violation> {
        self.lock().engine.check()
    }

    /// Frees all memory of the arena and its headroom under the limits. A pinned page is freed with its last
    /// pin. No other call may follow. May sleep.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        let taken = state.taken();
        let held = state.engine.held_bytes();
        state.end();
        drop(state);
        self.address_space.remove_all();
        loop {
            let chunk: Option<KernelChunk> = self.lock().engine.dismantle();
            if chunk.is_none() {
                break;
            }
            drop(chunk);
            task::resched();
        }
        self.shared_limit.uncharge(taken);
        self.trace_close(held);
    }
}
