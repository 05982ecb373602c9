// SPDX-License-Identifier: GPL-2.0-only

//! The limit on the memory that all arenas hold together, and the wait queue of its listeners: the pollers of
//! all arenas, and the waiters whose requests may grow, which are in the queue of their own arena, too.
//! [`SharedLimit::wake`] wakes all listeners. It is called by [`SharedLimit::uncharge`], and by
//! `Arena::offer` in `wait.rs`.

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

/// Limits that the administrator sets, in bytes of pages.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// The limit of all arenas together.
    pub(crate) all: u64,
    /// The limit of a new arena.
    pub(crate) arena: u64,
    /// The most that the lazy blocks of one arena may have reserved and not touched.
    pub(crate) lazy: u64,
    /// The slack of a new arena, in thousandths; `None` for no bound.
    pub(crate) slack_permille: Option<u32>,
}

impl Limits {
    /// Decodes the module's parameters: three limits in MiB, and a slack in thousandths or
    /// `FREELIST_SLACK_NONE`. A limit of 0 is the default: four fifths of the machine's memory for
    /// `all`, `all` for `arena`, half of `arena` for `lazy`. `EINVAL`, with a line in the kernel's log,
    /// when the slack is out of range.
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
                    "slack_permille={} is over {}: set at most that, or {} for no bound\n",
                    slack_permille,
                    MAX_SLACK_PERMILLE,
                    FREELIST_SLACK_NONE
                );
            })?,
        })
    }
}

/// A limit in bytes, and the part of it that is charged.
///
/// An arena is charged before it allocates pages, so that two arenas that grow at once cannot both use
/// the last bytes.
pub(crate) struct SharedLimit {
    bytes: u64,
    charged: Charged,
    /// The arenas that were refused since the last [`SharedLimit::wake`]: none (0), the one of this
    /// number, or [`SEVERAL`].
    refused: Atomic<u64>,
    /// Threads that sleep until bytes are returned, and pollers of any arena: each may have been
    /// refused because of this limit.
    listeners: PollQueue,
}

/// More than one arena.
const SEVERAL: u64 = u64::MAX;

/// The number of bytes that are charged.
struct Charged(Atomic<u64>);

impl SharedLimit {
    /// Returns a limit with nothing charged. `ENOMEM` when memory is short.
    pub(crate) fn new(bytes: u64) -> Result<Arc<Self>> {
        let listeners = PollQueue::new()?;
        let limit = Self {
            bytes,
            charged: Charged(Atomic::new(0)),
            refused: Atomic::new(0),
            listeners,
        };
        Ok(Arc::new(limit, GFP_KERNEL)?)
    }

    /// Returns the wait queue of pollers of any arena and of threads that sleep until bytes are
    /// returned, each a [`Sleeper`](crate::ffi::poll_queue::Sleeper).
    pub(crate) fn listeners(&self) -> &PollQueue {
        &self.listeners
    }

    /// Returns the bytes that are not charged.
    pub(crate) fn headroom(&self) -> u64 {
        self.bytes.saturating_sub(self.charged.0.load(Relaxed))
    }

    /// Returns the limit itself, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Charges `bytes` and returns true; charges nothing and returns false if fewer are left.
    pub(crate) fn try_charge(&self, bytes: u64) -> bool {
        let mut before = self.charged.0.load(Relaxed);
        loop {
            let after = match before.checked_add(bytes) {
                Some(after) if after <= self.bytes => after,
                _ => return false,
            };
            match self.charged.0.cmpxchg(before, after, Relaxed) {
                Ok(_) => return true,
                Err(now) => before = now,
            }
        }
    }

    /// Charges `bytes`, beyond the limit if fewer are left.
    pub(crate) fn charge(&self, bytes: u64) {
        if bytes > 0 {
            self.charged.0.fetch_add(bytes, Relaxed);
        }
    }

    /// Returns whether nothing is charged.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn is_unused(&self) -> bool {
        self.charged.0.load(Relaxed) == 0
    }

    /// Uncharges `bytes` that were charged, and wakes the listeners but the caller itself: a caller whose request
    /// failed afterwards must not wake itself.
    pub(crate) fn uncharge(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.charged.0.fetch_sub(bytes, Relaxed);
        self.wake();
    }

    /// Notes that `arena` will be refused unless other arenas have free memory. From now on an arena
    /// that gets some calls [`SharedLimit::wake`].
    pub(crate) fn refuse(&self, arena: u64) {
        match self.refused.cmpxchg(0, arena, Relaxed) {
            Err(other) if other != arena => self.refused.store(SEVERAL, Relaxed),
            _ => {}
        }
    }

    /// Returns whether another arena than `arena` was refused, which could use free memory of `arena`.
    #[inline]
    pub(crate) fn has_refused_another_than(&self, arena: u64) -> bool {
        let refused = self.refused.load(Relaxed);
        refused != 0 && refused != arena
    }

    /// Returns whether any thread sleeps or polls on this limit.
    pub(crate) fn has_listeners(&self) -> bool {
        !self.listeners.is_idle()
    }

    /// Wakes all listeners but the caller, because an arena has free memory.
    pub(crate) fn wake(&self) {
        self.refused.store(0, Relaxed);
        self.listeners.wake();
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        // Every path uncharges exactly the bytes that it charged, also after an error. The unload of the
        // module proves this for all calls on it.
        debug_assert_eq!(self.0.load(Relaxed), 0);
    }
}
