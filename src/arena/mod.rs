// SPDX-License-Identifier: GPL-2.0

//! One arena: what is behind one open file.

#![deny(unsafe_code)]

mod alloc;
pub(crate) mod bounds;
mod bulk;
mod clone;
pub(crate) mod counters;
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
mod populate;
mod prepare;
mod reclaim;
pub(crate) mod registry;
pub(crate) mod request;
mod resize;
pub(crate) mod shared_limit;
mod state;
pub(crate) mod wait;

use crate::{
    engine::{
        Engine,
        Extent,
        Violation,
        QUICK_LISTS, //
    },
    ffi::{
        poll_queue::PollQueue,
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
    State, //
};

/// Offsets of a new arena, in bytes.
const SPAN_BYTES: u64 = 64 << 30;
/// Extents that are copied for a map while the lock is held.
const MAP_STEP: u32 = 256;

/// What is behind one open of the device.
#[pin_data]
pub(crate) struct Arena {
    id: u64,
    /// The limit that everybody may set, in bytes; above it only the administrator.
    default_limit: u64,
    /// The most bytes that its lazy blocks may be owed: untouched, they keep others from them.
    lazy_limit: u64,
    /// That of all arenas together.
    shared_limit: Arc<SharedLimit>,
    opener: Opener,
    /// The opener's.
    memcg: Memcg,
    address_space: AddressSpace,
    poll: PollQueue,
    /// Where page number 0 was mapped last, in whatever process.
    base: Atomic<usize>,
    secret: Secret,
    /// What is told without the lock.
    published: Published,
    /// The node of memory that its opener ran on.
    node: Node,
    #[pin]
    state: SpinLock<State>,
}

impl Arena {
    /// Makes an empty arena that `memcg` pays for, with the limit and the slack of `defaults`; of what
    /// all arenas together may hold it gets what is left. `ENOMEM` when memory is short.
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
                    cursor: u32::MAX,
                    contiguous_bytes,
                    limit: defaults.arena,
                    promised: 0,
                    metadata_taken: Some(0),
                    waiters: wait::Queue::new(),
                    refused: None,
                    events: Events::default(),
                },
                "freelist_arena"
            ),
        });
        Ok(place.pin_init_with(arena)?.into())
    }

    /// Its number; no two that ever lived have the same.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Who opened it.
    pub(crate) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Who pays for it.
    pub(crate) fn memcg(&self) -> &Memcg {
        &self.memcg
    }

    /// Who polls it, and who polls any arena of the limit that they share: memory that another one
    /// gives up is of use too.
    pub(crate) fn polls(&self) -> [&PollQueue; 2] {
        [&self.poll, self.shared_limit.listeners()]
    }

    /// Its memory.
    pub(crate) fn address_space(&self) -> &AddressSpace {
        &self.address_space
    }

    /// What lies where in it, copied in steps of [`MAP_STEP`] extents; what changes between two of
    /// them may be missed. `ENOMEM` when memory is short. May sleep.
    pub(crate) fn map(&self) -> Result<KVVec<Extent>> {
        let mut map = KVVec::new();
        let mut from = Some(0);
        while let Some(page) = from {
            map.reserve(MAP_STEP as usize, GFP_KERNEL)?;
            from = self.lock().engine.map(page, MAP_STEP, |extent| {
                // There is room for that many.
                let _ = map.push_within_capacity(extent);
            });
            task::resched();
        }
        Ok(map)
    }

    /// The least and the largest order of the folios that the pages of an extent lie in; `None` where it
    /// has no memory. May sleep.
    pub(crate) fn orders(&self, extent: &Extent) -> Option<(u32, u32)> {
        let end = extent.page + extent.pages;
        let mut orders: Option<(u32, u32)> = None;
        let mut next = extent.page;
        while let Some(folio) = self.address_space.first_in(next..end) {
            let order = folio.order();
            let (least, most) = orders.unwrap_or((order, order));
            orders = Some((least.min(order), most.max(order)));
            next = folio.range().end.max(next + 1);
            task::resched();
        }
        orders
    }

    /// How long that would be. May sleep.
    pub(crate) fn map_len(&self) -> usize {
        let mut len = 0;
        let mut from = Some(0);
        while let Some(page) = from {
            from = self.lock().engine.map(page, MAP_STEP, |_| len += 1);
            task::resched();
        }
        len
    }

    /// Counts a call that was refused.
    pub(crate) fn count_failure(&self, error: Error) {
        self.lock().events.failures.count(error);
    }

    /// All of its counters, of one moment. Gives how many wait at that.
    pub(crate) fn snapshot(&self, snapshot: &mut Snapshot) -> u32 {
        let state = self.lock();
        let counters = state.engine.counters();
        let metadata = state.metadata_bytes();
        let huge = self.address_space.huge_bytes();
        snapshot.add(&counters, metadata, huge, state.limit, &state.events);
        state.waiters.count()
    }

    /// Sets its totals as if so much had happened already.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn seed_totals(&self, total: u64) {
        let mut state = self.lock();
        state.engine.seed_totals(total);
        state.events = Events::seeded(total);
    }

    /// The same by size class, added to what is in `classes`.
    pub(crate) fn add_classes(&self, classes: &mut Classes) {
        let state = self.lock();
        classes.add(|shift| state.engine.class(shift));
    }

    /// Proves the engine's invariants. Slow.
    #[cfg_attr(
        not(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y")),
        expect(dead_code)
    )]
    pub(crate) fn check(&self) -> Result<(), Violation> {
        self.lock().engine.check()
    }

    /// Ends the arena: all of its memory leaves, but pages that are pinned, which live on for the pins
    /// alone. No other call comes after this one. May sleep.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        let taken = state.taken();
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
        self.shared_limit.give(taken);
    }
}
