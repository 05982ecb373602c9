// SPDX-License-Identifier: GPL-2.0

//! How much memory all arenas together may hold.

use crate::{
    arena::bounds::{
        slack_of,
        MAX_SLACK_PERMILLE, //
    },
    ffi::{
        poll_queue::PollQueue,
        raw::FREELIST_SLACK_NONE, //
    },
    mm::statistics, //
};
use kernel::{
    new_spinlock,
    page::PAGE_SHIFT,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    },
    task::Task, //
};

/// What the administrator has set.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// For all arenas together, in bytes of pages.
    pub(crate) all: u64,
    /// For one, until it sets its own, in bytes of pages.
    pub(crate) arena: u64,
    /// The most that the lazy blocks of one arena may be owed, in bytes of pages.
    pub(crate) lazy: u64,
    /// The slack of an arena, until it sets its own, in thousandths; `None` is without a bound.
    pub(crate) slack_permille: Option<u32>,
}

impl Limits {
    /// Reads the module's parameters: limits in MiB, where 0 is four fifths of the machine's memory for
    /// all arenas, the same for one as for all, and half of that for what lazy blocks may be owed; and a
    /// slack as in `freelist_limit`, but that 0 is none. `EINVAL`, and a line in the kernel's log, when the
    /// slack is out of range.
    pub(crate) fn from_parameters(
        all: u64,
        arena: u64,
        lazy: u64,
        slack_permille: u32,
    ) -> Result<Self> {
        let bytes = |mib: u64, default| match mib {
            0 => default,
            mib => mib.saturating_mul(1 << 20),
        };
        let whole_pages = |bytes: u64| bytes >> PAGE_SHIFT << PAGE_SHIFT;
        let all = bytes(all, whole_pages(statistics::ram_bytes() / 5 * 4));
        let arena = bytes(arena, all);
        Ok(Self {
            all,
            arena,
            lazy: bytes(lazy, whole_pages(arena / 2)),
            slack_permille: slack_of(slack_permille).inspect_err(|_| {
                pr_err!(
                    "slack_permille={} is over {}: give less, or {} for no bound\n",
                    slack_permille,
                    MAX_SLACK_PERMILLE,
                    FREELIST_SLACK_NONE
                );
            })?,
        })
    }
}

/// A bound in bytes, and what of it is taken.
///
/// Bytes are taken before pages are asked for, so that two that grow at once cannot both use the
/// last of it.
#[pin_data]
pub(crate) struct SharedLimit {
    bytes: u64,
    taken: Taken,
    /// Who was refused since it was last told that others have free memory: no arena (0), the one of
    /// this number, or [`SEVERAL`].
    refused: Atomic<u64>,
    next_sleeper: Atomic<u64>,
    /// Who sleeps until there is more of it.
    #[pin]
    sleepers: SpinLock<RBTree<u64, Sleeping>>,
    /// Who polls an arena, which may have been refused because of this limit.
    poll: PollQueue,
}

/// More than one arena.
const SEVERAL: u64 = u64::MAX;

/// Bytes that are taken.
struct Taken(Atomic<u64>);

/// Somebody who sleeps, or is about to.
struct Sleeping {
    task: ARef<Task>,
    woken: bool,
}

impl SharedLimit {
    /// A limit of which nothing is taken yet. `ENOMEM` when memory is short.
    pub(crate) fn new(bytes: u64) -> Result<Arc<Self>> {
        let poll = PollQueue::new()?;
        Arc::pin_init(
            pin_init!(Self {
                bytes,
                taken: Taken(Atomic::new(0)),
                refused: Atomic::new(0),
                next_sleeper: Atomic::new(0),
                sleepers <- new_spinlock!(RBTree::new(), "freelist_sleepers"),
                poll,
            }),
            GFP_KERNEL,
        )
    }

    /// Who polls an arena.
    pub(crate) fn poll(&self) -> &PollQueue {
        &self.poll
    }

    /// How many bytes are not taken.
    pub(crate) fn headroom(&self) -> u64 {
        self.bytes.saturating_sub(self.taken.0.load(Relaxed))
    }

    /// The bound itself, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `bytes`, or nothing when that would be too much.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let mut before = self.taken.0.load(Relaxed);
        loop {
            let after = match before.checked_add(bytes) {
                Some(after) if after <= self.bytes => after,
                _ => return false,
            };
            match self.taken.0.cmpxchg(before, after, Relaxed) {
                Ok(_) => return true,
                Err(now) => before = now,
            }
        }
    }

    /// Takes `bytes`, also when that is too much.
    pub(crate) fn take_in_any_case(&self, bytes: u64) {
        if bytes > 0 {
            self.taken.0.fetch_add(bytes, Relaxed);
        }
    }

    /// Whether all that was taken came back.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn is_unused(&self) -> bool {
        self.taken.0.load(Relaxed) == 0
    }

    /// Gives `bytes` back that were taken, and wakes who sleeps until there are some, or polls. Not
    /// the caller, who may have taken them in vain himself.
    pub(crate) fn give(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.taken.0.fetch_sub(bytes, Relaxed);
        self.wake();
    }

    /// An arena is going to be refused, unless it finds free memory in others: from now on those that
    /// come to have some say so by [`SharedLimit::wake`].
    pub(crate) fn refuse(&self, arena: u64) {
        match self.refused.cmpxchg(0, arena, Relaxed) {
            Err(other) if other != arena => self.refused.store(SEVERAL, Relaxed),
            _ => {}
        }
    }

    /// Whether free memory of `arena` would be of use to another one.
    #[inline]
    pub(crate) fn is_wanted_from(&self, arena: u64) -> bool {
        let refused = self.refused.load(Relaxed);
        refused != 0 && refused != arena
    }

    /// Whether somebody sleeps until there is more of it, or polls.
    pub(crate) fn has_listeners(&self) -> bool {
        !self.poll.is_idle() || self.sleepers.lock().values().next().is_some()
    }

    /// Some arena has free memory: wakes who sleeps or polls, to take it. Not the caller.
    pub(crate) fn wake(&self) {
        self.refused.store(0, Relaxed);
        let caller = current!().as_ptr();
        for sleeping in self.sleepers.lock().values_mut() {
            if sleeping.task.as_ptr() != caller {
                sleeping.woken = true;
                sleeping.task.wake_up();
            }
        }
        self.poll.wake();
    }
}

/// The caller, as somebody who is woken when others give back what they have of a limit.
pub(crate) struct Sleeper<'a> {
    limit: &'a SharedLimit,
    id: u64,
}

impl<'a> Sleeper<'a> {
    /// From now on it is woken. `ENOMEM` when memory is short.
    pub(crate) fn new(limit: &'a SharedLimit) -> Result<Self> {
        let id = limit.next_sleeper.fetch_add(1, Relaxed);
        let sleeping = Sleeping {
            task: ARef::from(&**current!()),
            woken: false,
        };
        // Made before the lock is taken.
        let node = RBTreeNode::new(id, sleeping, GFP_KERNEL_ACCOUNT)?;
        limit.sleepers.lock().insert(node);
        Ok(Self { limit, id })
    }

    /// Forgets what was given up to now: who calls this looks for himself.
    pub(crate) fn scan(&self) {
        if let Some(sleeping) = self.limit.sleepers.lock().get_mut(&self.id) {
            sleeping.woken = false;
        }
    }

    /// Whether something was given since it looked.
    pub(crate) fn is_woken(&self) -> bool {
        let sleepers = self.limit.sleepers.lock();
        sleepers
            .get(&self.id)
            .is_some_and(|sleeping| sleeping.woken)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        let node = self.limit.sleepers.lock().remove_node(&self.id);
        drop(node);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Every path takes and gives the same, also those that fail: whatever a whole run did with
        // the module is proved when it is unloaded.
        debug_assert_eq!(self.0.load(Relaxed), 0);
    }
}
