// SPDX-License-Identifier: GPL-2.0

//! A live block becomes longer or shorter where it is.
//!
//! What a longer one gets behind it is a reservation of its own until its memory is there: the block
//! never stops being live, and a release meanwhile is as good as ever.

use super::{
    free::offset_nospec,
    reclaim::Room,
    request::AllocOptions,
    Arena, //
};
use crate::{
    engine::{
        ResizeError,
        Resized, //
    },
    ffi::{
        errno::edquot,
        task, //
    },
    mm::backend::{
        KernelGarbage,
        KernelPrealloc, //
    }, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

impl Arena {
    /// Makes the live block at `offset` as long as `options` say, in whole pages. `answer` is told the
    /// bytes that it will have, before anything changes. May sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the size is 0; no block can begin there; the block has a header, or is below a page |
    /// | `E2BIG` | the size is over the largest block |
    /// | `ENOENT` | nothing live is there, or the block went while it was becoming longer |
    /// | `ENOSPC` | what lies behind the block is in use |
    /// | `EDQUOT` | it would have to grow, and a limit forbids it |
    /// | `ENOMEM` | it would have to grow, and may not, or memory is short |
    /// | `EINTR` | the caller is being killed |
    ///
    /// Nothing has changed then.
    pub(crate) fn resize(
        &self,
        offset: u64,
        options: &AllocOptions,
        answer: impl FnOnce(u64) -> Result,
    ) -> Result {
        let request = &options.request;
        let offset = offset_nospec(offset).ok_or(EINVAL)?;
        if request.size == 0 {
            return Err(EINVAL);
        }
        let bytes = request.size.checked_next_multiple_of(PAGE_SIZE as u64);
        answer(bytes.ok_or(E2BIG)?)?;
        let mut prealloc = KernelPrealloc::default();
        let mut drained = false;
        let mut growth = loop {
            let mut state = self.lock();
            let admission = state.admission(options, None);
            if request.size > state.limit && request.policy.may_grow() {
                return Err(edquot());
            }
            match state
                .engine
                .resize(offset, request.size, request.lazy, admission, &mut prealloc)
            {
                Ok(Resized::Shrunk(holed)) => {
                    drop(state);
                    self.release_holed(holed);
                    return Ok(());
                }
                Ok(Resized::Done) => {
                    // What was its tail serves others.
                    self.wake(&mut state);
                    drop(state);
                    return Ok(());
                }
                // Its memory is not to be had again by a call that may not grow.
                Ok(Resized::InTheWay(isolated)) if !request.policy.may_grow() => {
                    state.engine.putback(isolated);
                    return Err(ENOMEM);
                }
                Ok(Resized::InTheWay(isolated)) => {
                    drop(state);
                    self.drop_isolated(isolated, Room::Given);
                    self.wake_unlocked();
                    if task::fatal_signal() {
                        return Err(EINTR);
                    }
                    task::resched();
                }
                Ok(Resized::Growing(growth)) => break growth,
                // The other thread comes to an end.
                Err(ResizeError::Busy) => {
                    drop(state);
                    task::pause();
                    if task::fatal_signal() {
                        return Err(EINTR);
                    }
                }
                Err(ResizeError::Need(metadata)) => {
                    drop(state);
                    self.make(metadata, &mut prealloc)?;
                }
                // A block that was freed a moment ago is free memory too.
                Err(ResizeError::InUse) if !drained => {
                    drained = true;
                    drop(state);
                    self.drain();
                }
                Err(error) => return Err(error.into()),
            }
        };
        let extent = growth.extent();
        if let Err(error) = self.prepare(growth.reservation(), options, &mut prealloc) {
            self.cancel(growth.into_reservation());
            return Err(error);
        }
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let result = self.lock().engine.commit_growth(growth, &mut garbage);
        drop(garbage);
        if let Err(growth) = result {
            self.cancel(growth.into_reservation());
            return Err(ENOENT);
        }
        if options.populate {
            self.populate([extent]);
        }
        task::resched();
        Ok(())
    }
}

impl From<ResizeError> for Error {
    fn from(error: ResizeError) -> Self {
        match error {
            ResizeError::Need(_) | ResizeError::Busy => ENOMEM,
            ResizeError::Offset(error) => error.into(),
            ResizeError::Zero | ResizeError::Unsuited => EINVAL,
            ResizeError::TooBig => E2BIG,
            ResizeError::InUse => ENOSPC,
        }
    }
}
