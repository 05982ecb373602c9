// SPDX-License-Identifier: GPL-2.0

//! One block: reserving it, telling its caller, making it live or undoing it.

use super::{
    reclaim::Room,
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
        task, //
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

/// A block that was at hand.
enum Fast {
    /// Its caller has it: its bytes in the arena.
    Live(Range<u64>),
    /// Its caller is to be told.
    Reserved(Reservation),
}

impl Arena {
    /// Gives one block to a caller as it is wanted, who has it when `answer` (its offset, its bytes)
    /// has told so. If that fails nothing has happened; where it may not fault it is asked once more.
    /// May sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the size is 0 |
    /// | `E2BIG` | the size is over the largest block, or more than pages can lie side by side |
    /// | `ENOMEM` | the request may not do more, or memory is short |
    /// | `EDQUOT` | it would have to grow, and a limit forbids it |
    /// | `ENOSPC` | no address space is left |
    /// | `EINTR` | the caller is being killed |
    /// | `EAGAIN` | it would have to wait, and may not |
    /// | `ETIMEDOUT` | it has waited for nothing |
    /// | `ERESTARTSYS` | a signal came |
    pub(crate) fn alloc(
        &self,
        options: &AllocOptions,
        mut answer: impl FnMut(MayFault, u64, u64) -> Result,
    ) -> Result {
        let extent = match self.alloc_fast(options, &mut answer) {
            Some(Fast::Live(extent)) => extent,
            untold => {
                let pending = match untold {
                    Some(Fast::Reserved(pending)) => Some(pending),
                    _ => self.reserve_large(options),
                };
                let pending = match pending {
                    Some(pending) => pending,
                    None => self.obtain(options, &mut KernelPrealloc::default())?,
                };
                self.give_out(pending, answer)?
            }
        };
        if options.populate {
            self.populate([extent]);
        }
        Ok(())
    }

    /// Tells a caller of a block that is as it is wanted, and makes it live. Returns its bytes in the
    /// arena. May sleep.
    fn give_out(
        &self,
        pending: Reservation,
        answer: impl FnOnce(MayFault, u64, u64) -> Result,
    ) -> Result<Range<u64>> {
        RacePoint::Answer.reach();
        if let Err(error) = answer(MayFault::Yes, pending.offset(), pending.block_bytes()) {
            self.cancel(pending);
            return Err(error);
        }
        let extent = pending.extent();
        self.lock().engine.commit(pending);
        Ok(extent)
    }

    /// Allocates a block that has its memory, where nobody waits for it: under one hold of the lock if
    /// the caller can be told without a page fault, else it reserves it.
    #[inline(always)]
    fn alloc_fast(
        &self,
        options: &AllocOptions,
        answer: impl FnOnce(MayFault, u64, u64) -> Result,
    ) -> Option<Fast> {
        self.on_fast_path(options, |engine| {
            let pending = engine.reserve_fast(options.request.size)?;
            let told = !RacePoint::Answer.is_open()
                && answer(MayFault::No, pending.offset(), pending.block_bytes()).is_ok();
            if !told {
                return Some(Fast::Reserved(pending));
            }
            let extent = pending.extent();
            engine.commit(pending);
            Some(Fast::Live(extent))
        })
    }

    /// The same of a large one.
    #[inline(never)]
    fn reserve_large(&self, options: &AllocOptions) -> Option<Reservation> {
        let Request { size, policy, .. } = options.request;
        self.on_fast_path(options, |engine| engine.reserve_large(size, policy))
    }

    /// Lets `reserve` look for what is at hand, if that will do, and nobody waits for it.
    #[inline(always)]
    pub(super) fn on_fast_path<T>(
        &self,
        options: &AllocOptions,
        reserve: impl FnOnce(&mut KernelEngine) -> Option<T>,
    ) -> Option<T> {
        if !options.takes_as_it_is() {
            return None;
        }
        let mut state = self.lock();
        if state.waiters.count() > 0 || state.admit(options).is_err() {
            return None;
        }
        reserve(&mut state.engine)
    }

    /// Reserves a block, for a waiter as far as it is its turn.
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
                // Free memory keeps address space apart: without it, all of that merges.
                Err(Refusal::NoSpace)
                    if options.request.policy.may_grow()
                        && admission == Admission::Full
                        && !trimmed =>
                {
                    trimmed = true;
                    if self.give_up(u64::MAX, 0) == 0 {
                        return Err(ENOSPC);
                    }
                }
                result => return Ok(result?),
            }
        }
    }

    /// Undoes a reservation: what was brought for it leaves. May sleep.
    pub(super) fn cancel(&self, pending: Reservation) {
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let room = u64::from(pending.owed()) << PAGE_SHIFT;
        let brought = self.lock().engine.cancel(pending, &mut garbage);
        drop(garbage);
        self.shared_limit.give(room);
        if let Some(isolated) = brought {
            self.drop_isolated(isolated, Room::Given);
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
