// SPDX-License-Identifier: GPL-2.0

//! All arenas, and the limit that they share.

use crate::{
    arena::Arena,
    limit::Limit,
    stats::{
        Classes,
        Snapshot, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex, //
    },
};

/// What the registry's lock protects.
struct Arenas {
    open: RBTree<u64, Arc<Arena>>,
    next_id: u64,
    /// What arenas that are closed have counted.
    closed: Snapshot,
}

/// Every open arena, by its number.
#[pin_data]
pub(crate) struct Registry {
    limit: Limit,
    #[pin]
    arenas: Mutex<Arenas>,
}

impl Registry {
    /// An empty one.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                limit: Limit::half_of_ram(),
                arenas <- new_mutex!(
                    Arenas {
                        open: RBTree::new(),
                        next_id: 1,
                        closed: Snapshot::default(),
                    },
                    "freelist_registry"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// The limit on the bytes that all arenas hold.
    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Opens an arena. `ENOMEM` when memory is short.
    pub(crate) fn open(self: &Arc<Self>) -> Result<Arc<Arena>> {
        let mut arenas = self.arenas.lock();
        let id = arenas.next_id;
        let arena = Arena::new(id, self.clone())?;
        arenas
            .open
            .try_create_and_insert(id, arena.clone(), GFP_KERNEL_ACCOUNT)?;
        arenas.next_id += 1;
        Ok(arena)
    }

    /// Closes an arena: what it has counted stays, all else goes.
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

    /// The number of arenas, and their counters with those of closed ones. Each arena's are of one
    /// moment.
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

    /// The counters of open arenas by size class.
    pub(crate) fn classes(&self, classes: &mut Classes) {
        for arena in self.arenas.lock().open.values() {
            arena.add_classes(classes);
        }
    }
}
