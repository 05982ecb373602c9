// SPDX-License-Identifier: GPL-2.0

//! How much memory all arenas together may hold.

use crate::ffi;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// What the administrator has set, in bytes of pages.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// For all arenas together.
    pub(crate) all: u64,
    /// For one, until it sets its own.
    pub(crate) arena: u64,
}

impl Limits {
    /// Those of the module's parameters, in MiB. 0 is half of the machine's memory for all arenas,
    /// and the same for one as for all.
    pub(crate) fn from_mib(all: u64, arena: u64) -> Self {
        let bytes = |mib: u64, default| match mib {
            0 => default,
            mib => mib.saturating_mul(1 << 20),
        };
        let all = bytes(all, ffi::ram_bytes() / 2);
        Self {
            all,
            arena: bytes(arena, all),
        }
    }
}

/// A bound in bytes, and what of it is taken.
///
/// Bytes are taken before pages are asked for, so that two that grow at once cannot both use the
/// last of it.
pub(crate) struct Limit {
    bytes: u64,
    taken: Atomic<u64>,
}

impl Limit {
    /// A limit of which nothing is taken yet.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            taken: Atomic::new(0),
        }
    }

    /// The bound itself, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `bytes`, or nothing when that would be too much.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let mut before = self.taken.load(Relaxed);
        loop {
            let after = match before.checked_add(bytes) {
                Some(after) if after <= self.bytes => after,
                _ => return false,
            };
            match self.taken.cmpxchg(before, after, Relaxed) {
                Ok(_) => return true,
                Err(now) => before = now,
            }
        }
    }

    /// Whether all that was taken came back.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn is_unused(&self) -> bool {
        self.taken.load(Relaxed) == 0
    }

    /// Gives `bytes` back that were taken.
    pub(crate) fn give(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Every path takes and gives the same, also those that fail: whatever a whole run did with
        // the module is proved when it is unloaded.
        debug_assert_eq!(self.taken.load(Relaxed), 0);
    }
}
