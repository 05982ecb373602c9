// SPDX-License-Identifier: GPL-2.0-only

//! Frees one block.

use super::{
    state::StateGuard,
    Arena, //
};
use crate::{
    engine::{
        FreeError,
        Holed,
        Unfinished,
        MAX_PAGES, //
    },
    ffi::{
        nospec,
        task,
        trace, //
    },
    mm::backend::KernelGarbage, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

impl Arena {
    /// Frees the live block at `offset`. May sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the offset is not aligned for a block, beyond the arena, or inside a live block |
    /// | `ENOENT` | no live block begins there |
    /// | `EUCLEAN` | its header was overwritten; the block is free all the same |
    pub(crate) fn free(&self, offset: u64) -> Result {
        if trace::Free::is_enabled() {
            return self.free_traced(offset);
        }
        let mut state = self.lock();
        match state.free(offset)? {
            None => {}
            Some(Unfinished::Loose(loose)) if loose.is_pages() => state.engine.merge_whole(loose),
            Some(rest) => {
                drop(state);
                return self.finish_free(rest);
            }
        }
        self.wake(&mut state);
        Ok(())
    }

    /// Frees a block as [`Arena::free`] does, and traces it. May sleep.
    #[cold]
    #[inline(never)]
    pub(super) fn free_traced(&self, offset: u64) -> Result {
        let mut state = self.lock();
        let rest = state.free_traced(offset)?;
        self.wake(&mut state);
        drop(state);
        rest.map_or(Ok(()), |rest| self.finish_free(rest))
    }

    /// Completes a release that takes more than one hold of the lock. May sleep.
    #[inline(never)]
    fn finish_free(&self, rest: Unfinished) -> Result {
        match rest {
            Unfinished::Headed(taken) => self.retire(taken),
            Unfinished::Holed(holed) => {
                self.release_holed(holed);
                Ok(())
            }
            Unfinished::Loose(loose) => {
                // Dropped after the unlock.
                let mut garbage = KernelGarbage::default();
                let mut state = self.lock();
                state.engine.merge(loose, &mut garbage);
                self.wake(&mut state);
                Ok(())
            }
        }
    }
}

impl Arena {
    /// Frees pages, of which some have no memory, in bounded steps, and uncharges the headroom that was
    /// reserved for these. May sleep.
    pub(super) fn release_holed(&self, holed: Holed) {
        let mut rest = Some(holed);
        let mut headroom = 0;
        while let Some(holed) = rest {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let (some, more) = self.lock().engine.release_holed(holed, &mut garbage);
            headroom += u64::from(some);
            rest = more;
            task::resched();
        }
        self.shared_limit.uncharge(headroom << PAGE_SHIFT);
        self.wake_unlocked();
    }
}

impl StateGuard<'_> {
    /// Frees the live block at `offset`. Returns the part of the work that is left to the caller, if
    /// any.
    #[inline(always)]
    pub(super) fn free(&mut self, offset: u64) -> Result<Option<Unfinished>> {
        Ok(self.engine.free(offset_nospec(offset).ok_or(EINVAL)?)?)
    }

    /// Frees a block and reports it, before another request can get it: hence under the lock. A block
    /// with a header is reserved until [`Arena::retire`], which reports it.
    #[cold]
    #[inline(never)]
    pub(super) fn free_traced(&mut self, offset: u64) -> Result<Option<Unfinished>> {
        let known = offset_nospec(offset).ok_or(EINVAL);
        let bytes = known.map_or(0, |offset| self.engine.live_bytes(offset));
        let result = known.and_then(|offset| Ok(self.engine.free(offset)?));
        if !matches!(result, Ok(Some(Unfinished::Headed(_)))) {
            let bytes = if result.is_ok() { bytes } else { 0 };
            self.arena.trace_free(offset, bytes, &result);
        }
        result
    }
}

/// Returns `offset` if it is below the end of the largest arena, else `None`. Under speculation, too, the
/// result is never beyond that end.
pub(super) fn offset_nospec(offset: u64) -> Option<u64> {
    let page = nospec::index_nospec(offset >> PAGE_SHIFT, MAX_PAGES)?;
    Some((u64::from(page) << PAGE_SHIFT) | (offset & (PAGE_SIZE as u64 - 1)))
}

impl From<FreeError> for Error {
    fn from(error: FreeError) -> Self {
        match error {
            FreeError::Misaligned | FreeError::Beyond | FreeError::Inside => EINVAL,
            FreeError::NotLive => ENOENT,
        }
    }
}
