// SPDX-License-Identifier: GPL-2.0

//! How much memory all arenas together may hold.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

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
