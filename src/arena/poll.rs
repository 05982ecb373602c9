// SPDX-License-Identifier: GPL-2.0-only

//! Polls an arena: it is ready when the smallest request that was refused could be served.

use super::{
    state::State,
    Arena, //
};
use crate::{
    engine::Request,
    ffi::poll_queue::PollQueue,
    mm::{
        backend::KernelGarbage,
        shrinker, //
    }, //
};
use kernel::page::PAGE_SHIFT;

impl Arena {
    /// Returns the two queues that a poller enters: the arena's own, and that of the shared limit,
    /// which is woken when another arena releases memory.
    pub(crate) fn polls(&self) -> [&PollQueue; 2] {
        [&self.poll, self.shared_limit.listeners()]
    }

    /// Notes a request that was refused, if it is the smallest one, so that [`Arena::is_ready`] knows what
    /// pollers wait for.
    pub(super) fn remember_refused(&self, request: &Request) {
        let mut state = self.lock();
        let smaller = |refused: Request| request.bytes() < refused.bytes();
        if state.refused.is_none_or(smaller) {
            state.refused = Some(*request);
        }
    }

    /// Returns whether the smallest refused request could be served now, if other arenas released
    /// `reclaimable` bytes.
    pub(super) fn could_serve_refused(&self, state: &mut State, reclaimable: u64) -> bool {
        let Some(refused) = state.refused else {
            return false;
        };
        let admission = state.waiters.admission(None, false);
        let headroom = self.headroom_with(state, reclaimable);
        state
            .engine
            .could_serve(&refused, admission, headroom, &mut KernelGarbage::default())
    }

    /// Returns whether the smallest request that was refused since the last `true` could be served now;
    /// `true`, too, if none was refused. May sleep.
    pub(crate) fn is_ready(&self) -> bool {
        self.drain();
        let mut state = self.lock();
        let mut ready = state.refused.is_none() || self.could_serve_refused(&mut state, 0);
        if !ready && self.could_serve_refused(&mut state, u64::MAX) {
            // Only other arenas have headroom for it. Noted before they are asked: memory that is freed
            // after that causes a wake-up.
            self.shared_limit.refuse(self.id);
            drop(state);
            let reclaimable = shrinker::reclaimable_of_others(self) << PAGE_SHIFT;
            state = self.lock();
            ready = state.refused.is_none() || self.could_serve_refused(&mut state, reclaimable);
        }
        if ready {
            state.refused = None;
        }
        ready
    }
}
