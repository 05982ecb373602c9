// SPDX-License-Identifier: GPL-2.0-only

//! `FREELIST_IOC_RESIZE`: grows or shrinks a live block in place.
//!
//! The pages that a longer block gets after its end are a reservation of their own until they have
//! memory. The block stays live all the time, and may be freed meanwhile.

use super::{
    free::offset_nospec,
    reclaim::Headroom,
    request::AllocOptions,
    Arena, //
};
use crate::{
    engine::{
        Growth,
        Isolated,
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
    /// Changes the length of the live block at `offset` to the size in `options`, in whole pages. The
    /// new length in bytes is reported through `copy_out` before anything changes. May sleep.
    ///
    /// After an error the block is unchanged.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the size is 0; no block can begin at the offset; the block has a header, is contiguous or is below a page |
    /// | `E2BIG` | the size is over the largest block |
    /// | `ENOENT` | no live block begins there, or it was freed during the call |
    /// | `ENOSPC` | the pages after the block are in use |
    /// | `EDQUOT` | the arena would have to grow beyond a limit |
    /// | `ENOMEM` | the arena would have to grow and the call may not, or memory is short |
    /// | `EINTR` | the caller is being killed |
    pub(crate) fn resize(
        &self,
        offset: u64,
        options: &AllocOptions,
        copy_out: impl FnOnce(u64) -> Result,
    ) -> Result {
        let request = &options.request;
        let offset = offset_nospec(offset).ok_or(EINVAL)?;
        if request.size == 0 {
            return Err(EINVAL);
        }
        let bytes = request.size.checked_next_multiple_of(PAGE_SIZE as u64);
        copy_out(bytes.ok_or(E2BIG)?)?;
        let mut prealloc = KernelPrealloc::default();
        match self.begin_resize(offset, options, &mut prealloc)? {
            Some(growth) => self.grow_block(growth, options, &mut prealloc),
            None => Ok(()),
        }
    }

    /// Makes a block shorter, or reserves the pages after it that it is to get. May sleep.
    ///
    /// Errors are those of [`Arena::resize`].
    fn begin_resize(
        &self,
        offset: u64,
        options: &AllocOptions,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Option<Growth>> {
        let request = &options.request;
        let mut drained = false;
        loop {
            let mut state = self.lock();
            let admission = state.admission(options, None);
            if request.size > state.limit && request.policy.may_grow() {
                return Err(edquot());
            }
            match state
                .engine
                .resize(offset, request.size, request.lazy, admission, prealloc)
            {
                Ok(Resized::Shrunk(holed)) => {
                    drop(state);
                    self.release_holed(holed);
                    return Ok(None);
                }
                Ok(Resized::Done) => {
                    // The tail may serve a waiter.
                    self.wake(&mut state);
                    drop(state);
                    return Ok(None);
                }
                // A call that may not grow could not back these pages again.
                Ok(Resized::InTheWay(isolated)) if !request.policy.may_grow() => {
                    state.engine.putback(isolated);
                    return Err(ENOMEM);
                }
                Ok(Resized::InTheWay(isolated)) => {
                    drop(state);
                    self.make_way(isolated)?;
                }
                Ok(Resized::Growing(growth)) => return Ok(Some(growth)),
                // Another thread is changing these pages, in a bounded step.
                Err(ResizeError::Busy) => {
                    drop(state);
                    task::pause();
                    task::fail_if_killed()?;
                }
                Err(ResizeError::Need(metadata)) => {
                    drop(state);
                    self.make(metadata, prealloc)?;
                }
                // The pages may belong to a free block on a quick list.
                Err(ResizeError::InUse) if !drained => {
                    drained = true;
                    drop(state);
                    self.drain();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Releases free pages after a block, which are in its way. `EINTR` when the caller is being killed.
    /// May sleep.
    fn make_way(&self, isolated: Isolated) -> Result {
        self.drop_isolated(isolated, Headroom::Returned);
        self.wake_unlocked();
        task::fail_if_killed()?;
        task::resched();
        Ok(())
    }

    /// Backs the pages that a block gets, and makes them a part of it. `ENOENT` when the block was
    /// freed meanwhile. May sleep.
    fn grow_block(
        &self,
        mut growth: Growth,
        options: &AllocOptions,
        prealloc: &mut KernelPrealloc,
    ) -> Result {
        let extent = growth.extent();
        if let Err(error) = self.prepare(growth.reservation(), options, prealloc) {
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
