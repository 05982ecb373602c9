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
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
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
pub(crate) struct SharedLimit {
    bytes: u64,
    taken: Taken,
    /// Who was refused since it was last told that others have free memory: no arena (0), the one of
    /// this number, or [`SEVERAL`].
    refused: Atomic<u64>,
    /// Who sleeps until there is more of it, and who polls an arena, which may have been refused
    /// because of this limit.
    listeners: PollQueue,
}

/// More than one arena.
const SEVERAL: u64 = u64::MAX;

/// Bytes that are taken.
struct Taken(Atomic<u64>);

impl SharedLimit {
    /// A limit of which nothing is taken yet. `ENOMEM` when memory is short.
    pub(crate) fn new(bytes: u64) -> Result<Arc<Self>> {
        let listeners = PollQueue::new()?;
        let limit = Self {
            bytes,
            taken: Taken(Atomic::new(0)),
            refused: Atomic::new(0),
            listeners,
        };
        Ok(Arc::new(limit, GFP_KERNEL)?)
    }

    /// Returns the wait queue of pollers of any arena, and of threads that sleep until there is more: a
    /// [`Sleeper`](crate::ffi::poll_queue::Sleeper).
    pub(crate) fn listeners(&self) -> &PollQueue {
        &self.listeners
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
        !self.listeners.is_idle()
    }

    /// Some arena has free memory: wakes who sleeps or polls, to take it. Not the caller.
    pub(crate) fn wake(&self) {
        self.refused.store(0, Relaxed);
        self.listeners.wake();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Every path takes and gives the same, also those that fail: whatever a whole run did with
        // the module is proved when it is unloaded.
        debug_assert_eq!(self.0.load(Relaxed), 0);
    }
}
