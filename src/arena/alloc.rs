// SPDX-License-Identifier: GPL-2.0-only

//! Allocates one block: reserves it, reports it to the caller, and commits or cancels it.

use super::{
    reclaim::Headroom,
    request::{
        AllocOptions,
        MayFault, //
    },
    Arena, //
};
use crate::{
    engine::{
        Admission,
        Refusal,
        Request,
        Reservation,
        Ticket, //
    },
    ffi::{
        race_point::RacePoint,
        task,
        trace, //
    },
    mm::backend::{
        KernelEngine,
        KernelGarbage,
        KernelPrealloc, //
    }, //
};
use core::ops::Range;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// A block that the fast path has found.
enum Fast {
    /// It is live and reported: its bytes in the arena.
    Live(Range<u64>),
    /// It is reserved, and not reported yet.
    Reserved(Reservation),
}

impl Arena {
    /// Allocates one block and reports it to the caller.
    ///
    /// The block becomes live once `copy_out(may_fault, offset, block_bytes)` has succeeded. If that
    /// fails, the reservation is cancelled and the arena is unchanged. Under the arena's lock it is
    /// called with [`MayFault::No`], and if that fails once more with [`MayFault::Yes`].
    ///
    /// Context: may sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the size is 0 |
    /// | `E2BIG` | the size is over the largest block, or over the largest folio for a contiguous one |
    /// | `ENOMEM` | no free block serves the request and it may not grow, or memory is short |
    /// | `EDQUOT` | the arena would have to grow beyond a limit |
    /// | `ENOSPC` | no address space is left |
    /// | `EINTR` | the caller is being killed |
    /// | `EAGAIN` | the request would have to wait, on a nonblocking file |
    /// | `ETIMEDOUT` | the timeout passed |
    /// | `ERESTARTSYS` | a signal interrupted the wait |
    pub(crate) fn alloc(
        &self,
        options: &AllocOptions,
        mut copy_out: impl FnMut(MayFault, u64, u64) -> Result,
    ) -> Result {
        let extent = match self.alloc_fast(options, &mut copy_out) {
            Some(Fast::Live(extent)) => extent,
            unreported => {
                let pending = match unreported {
                    Some(Fast::Reserved(pending)) => pending,
                    _ => {
                        let result = self.obtain(options, &mut KernelPrealloc::default());
                        self.trace_refusal(options, &result);
                        result?
                    }
                };
                let result = self.report(pending, copy_out);
                self.trace_alloc(options, &result);
                result?
            }
        };
        if options.populate {
            self.populate([extent]);
        }
        Ok(())
    }

    /// Reports a prepared block to the caller and commits it, or cancels it if `copy_out` fails. Returns
    /// its bytes in the arena. May sleep.
    fn report(
        &self,
        pending: Reservation,
        copy_out: impl FnOnce(MayFault, u64, u64) -> Result,
    ) -> Result<Range<u64>> {
        RacePoint::Answer.reach();
        if let Err(error) = copy_out(MayFault::Yes, pending.offset(), pending.block_bytes()) {
            self.cancel(pending);
            return Err(error);
        }
        let extent = pending.extent();
        self.lock().engine.commit(pending);
        Ok(extent)
    }

    /// Takes a free block as it is, of a quick list or for a large block of a run, unless a waiter comes
    /// first. One hold of the lock commits it too, if `copy_out` succeeds without a page fault; otherwise
    /// the block stays reserved.
    #[inline(always)]
    fn alloc_fast(
        &self,
        options: &AllocOptions,
        copy_out: impl FnOnce(MayFault, u64, u64) -> Result,
    ) -> Option<Fast> {
        self.on_fast_path(options, |engine| {
            let Request { size, policy, .. } = options.request;
            let pending = engine.reserve_fast(size, policy)?;
            let reported = !RacePoint::Answer.is_open()
                && copy_out(MayFault::No, pending.offset(), pending.block_bytes()).is_ok();
            if !reported {
                return Some(Fast::Reserved(pending));
            }
            let extent = pending.extent();
            engine.commit(pending);
            Some(Fast::Live(extent))
        })
    }

    /// Calls `reserve` under the lock, if a free block as it is serves the request, no thread waits and
    /// the limit admits it. Never while allocations are traced, which the slow path alone does.
    #[inline(always)]
    pub(super) fn on_fast_path<T>(
        &self,
        options: &AllocOptions,
        reserve: impl FnOnce(&mut KernelEngine) -> Option<T>,
    ) -> Option<T> {
        if !options.takes_as_it_is() || trace::Alloc::is_enabled() {
            return None;
        }
        let mut state = self.lock();
        if state.waiters.count() > 0 || state.admit(options).is_err() {
            return None;
        }
        reserve(&mut state.engine)
    }

    /// Reserves a block. `ticket` is the caller's place among the waiters, if it has one: the engine
    /// admits it to the memory that is not set aside for the waiters before it. May sleep.
    pub(super) fn reserve(
        &self,
        options: &AllocOptions,
        ticket: Option<Ticket>,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Reservation> {
        let mut trimmed = false;
        loop {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let mut state = self.lock();
            state.admit(options)?;
            let admission = state.admission(options, ticket);
            let result = state
                .engine
                .reserve(&options.request, admission, prealloc, &mut garbage);
            drop(state);
            drop(garbage);
            match result {
                Err(Refusal::Need(metadata)) => {
                    self.make(metadata, prealloc)?;
                }
                Err(Refusal::Again) => task::resched(),
                // Backed free runs lie between unbacked ones: with their memory gone, these join.
                Err(Refusal::NoSpace)
                    if options.request.policy.may_grow()
                        && admission == Admission::Full
                        && !trimmed =>
                {
                    trimmed = true;
                    if self.release_free(u64::MAX, 0) == 0 {
                        return Err(ENOSPC);
                    }
                }
                result => return Ok(result?),
            }
        }
    }

    /// Cancels a reservation, and releases its memory and its headroom. May sleep.
    pub(super) fn cancel(&self, pending: Reservation) {
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let owed = u64::from(pending.owed()) << PAGE_SHIFT;
        let backed = self.lock().engine.cancel(pending, &mut garbage);
        drop(garbage);
        self.shared_limit.uncharge(owed);
        if let Some(isolated) = backed {
            self.drop_isolated(isolated, Headroom::Returned);
        }
        self.wake_unlocked();
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Zero | Refusal::Alignment => EINVAL,
            Refusal::TooBig => E2BIG,
            Refusal::Empty | Refusal::Need(_) | Refusal::Again => ENOMEM,
            Refusal::NoSpace => ENOSPC,
        }
    }
}
