// SPDX-License-Identifier: GPL-2.0

//! How an arena grows: pages for a reserved block, in batches, within the limits.

use super::Arena;
use crate::{
    engine::{
        Pending,
        BATCH, //
    },
    ffi,
    memory::{
        make,
        KernelKit, //
    },
    page::Supply,
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Room under the limits for pages that are being brought. To be given to [`Arena::forget`].
#[must_use]
struct Promise {
    bytes: u64,
}

impl Arena {
    /// Brings the pages that a reserved block lacks, in batches, without the lock in between. What
    /// was brought before an error stays with the block: `cancel` takes it back.
    ///
    /// `EDQUOT` when a limit forbids it, `ENOMEM` when memory is short, `EINTR` when the caller is
    /// being killed. May sleep.
    pub(super) fn fill(&self, pending: &mut Pending, kit: &mut KernelKit) -> Result {
        if pending.missing() == 0 {
            return Ok(());
        }
        let mut promise = self.promise(pending.missing())?;
        let result = self.bring(pending, kit, &mut promise);
        self.forget(promise);
        result
    }

    fn bring(&self, pending: &mut Pending, kit: &mut KernelKit, promise: &mut Promise) -> Result {
        let mut supply = Supply::new();
        while pending.missing() > 0 {
            if supply.is_empty() {
                if ffi::fatal_signal() {
                    return Err(EINTR);
                }
                let want = pending.missing().min(BATCH);
                self.account.charge(|| supply.fill(want))?;
                ffi::resched();
            }
            let before = pending.missing();
            let mut state = self.state.lock();
            let result = state.engine.back(pending, &mut supply, kit);
            let came = u64::from(before - pending.missing()) << PAGE_SHIFT;
            state.promised -= came;
            promise.bytes -= came;
            drop(state);
            if let Err(metadata) = result {
                self.account.charge(|| make(metadata, kit))?;
            }
        }
        Ok(())
    }

    /// Reserves room for `pages` pages under both limits.
    fn promise(&self, pages: u32) -> Result<Promise> {
        let bytes = u64::from(pages) << PAGE_SHIFT;
        let mut state = self.state.lock();
        let held = state.engine.counters().held_bytes + state.promised;
        // Nothing is taken in vain, not even for a moment: somebody else might be refused for it.
        if held + bytes > state.limit || !self.shared_limit.take(bytes) {
            return Err(EDQUOT);
        }
        state.promised += bytes;
        Ok(Promise { bytes })
    }

    /// Gives back what is left of a promise.
    fn forget(&self, promise: Promise) {
        if promise.bytes > 0 {
            self.state.lock().promised -= promise.bytes;
            self.shared_limit.give(promise.bytes);
        }
    }
}
