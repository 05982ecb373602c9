// SPDX-License-Identifier: GPL-2.0

//! One block that comes back.

use super::{
    state::State,
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
        task, //
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
    /// Takes the live block at `offset` back.
    ///
    /// `EINVAL` when the offset cannot be one, is beyond the arena or inside a live block,
    /// `ENOENT` when nothing live is there, `EUCLEAN` when its header was overwritten: then the block
    /// is released all the same.
    pub(crate) fn free(&self, offset: u64) -> Result {
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

    /// Does what is left of a release.
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
    /// Releases pages some of which have no memory, in steps; their room under the limits is free with
    /// that. May sleep.
    pub(super) fn release_holed(&self, holed: Holed) {
        let mut rest = Some(holed);
        let mut room = 0;
        while let Some(holed) = rest {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let (some, more) = self.lock().engine.release_holed(holed, &mut garbage);
            room += u64::from(some);
            rest = more;
            task::resched();
        }
        self.shared_limit.give(room << PAGE_SHIFT);
        self.wake_unlocked();
    }
}

impl State {
    /// Takes the live block at `offset` back, as far as the engine does at once.
    #[inline(always)]
    pub(super) fn free(&mut self, offset: u64) -> Result<Option<Unfinished>> {
        Ok(self.engine.free(offset_nospec(offset).ok_or(EINVAL)?)?)
    }
}

/// `offset` where it is below the end of the largest arena, else `None`; so under speculation too.
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
