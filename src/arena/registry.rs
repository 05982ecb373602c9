// SPDX-License-Identifier: GPL-2.0-only

//! The registry of all arenas, and the limit that they share.

use crate::{
    arena::{
        counters::{
            Classes,
            Snapshot, //
        },
        shared_limit::{
            Limits,
            SharedLimit, //
        },
        Arena, //
    },
    mm::memcg::Memcg, //
};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};

/// The state under the registry's lock.
struct Arenas {
    open: RBTree<u64, Arc<Arena>>,
    /// The running totals of closed arenas.
    closed: Snapshot,
}

/// Every open arena, in the order of their numbers.
#[pin_data]
pub(crate) struct Registry {
    limit: Arc<SharedLimit>,
    /// The limits of a new arena.
    defaults: Limits,
    next_id: Atomic<u64>,
    #[pin]
    arenas: Mutex<Arenas>,
}

impl Registry {
    /// Returns an empty registry. `ENOMEM` when memory is short.
    pub(crate) fn new(limits: Limits) -> Result<Arc<Self>> {
        let limit = SharedLimit::new(limits.all)?;
        Arc::pin_init(
            pin_init!(Self {
                limit,
                defaults: limits,
                next_id: Atomic::new(1),
                arenas <- new_mutex!(
                    Arenas {
                        open: RBTree::new(),
                        closed: Snapshot::default(),
                    },
                    "freelist_registry"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the limit on the bytes that all arenas hold together.
    pub(crate) fn limit(&self) -> &SharedLimit {
        &self.limit
    }

    /// Opens an arena that is charged to `memcg`. `ENOMEM` when memory is short. May sleep.
    pub(crate) fn open(&self, memcg: Memcg) -> Result<Arc<Arena>> {
        let id = self.next_id.fetch_add(1, Relaxed);
        let arena = Arena::new(id, memcg, self.defaults, self.limit.clone())?;
        // The entry is allocated before the lock is taken.
        let entry = || RBTreeNode::new(id, arena.clone(), GFP_KERNEL_ACCOUNT);
        let entry = arena.memcg().charge(entry)?;
        self.arenas.lock().open.insert(entry);
        Ok(arena)
    }

    /// Closes an arena: keeps its running totals and frees everything else. May sleep.
    pub(crate) fn close(&self, arena: &Arena) {
        let mut arenas = self.arenas.lock();
        let mut last = Snapshot::default();
        arena.snapshot(&mut last);
        arenas.closed.keep_totals(&last);
        let listed = arenas.open.remove(&arena.id());
        drop(arenas);
        drop(listed);
        arena.end();
    }

    /// Returns the number of open arenas and the sum of all counters, the totals of closed arenas
    /// included. The counters of each arena are of one moment. May sleep.
    pub(crate) fn snapshot(&self) -> (u64, Snapshot) {
        let arenas = self.arenas.lock();
        let mut sum = arenas.closed;
        let mut count = 0;
        for arena in arenas.open.values() {
            arena.snapshot(&mut sum);
            count += 1;
        }
        (count, sum)
    }

    /// Calls `see` on every open arena, in the order of their numbers. May sleep.
    pub(crate) fn for_each(&self, mut see: impl FnMut(&Arena)) {
        for arena in self.arenas.lock().open.values() {
            see(arena);
        }
    }

    /// Adds the counters of all open arenas by size class. May sleep.
    pub(crate) fn classes(&self, classes: &mut Classes) {
        for arena in self.arenas.lock().open.values() {
            arena.add_classes(classes);
        }
    }
}
