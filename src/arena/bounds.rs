// SPDX-License-Identifier: GPL-2.0

//! What an arena may have at most: pages held, and offsets.

use super::{
    state::State,
    Arena, //
};
use crate::ffi::task;
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Bounds of an arena, in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The most that it may hold in pages.
    pub(crate) limit: u64,
    /// Its address space.
    pub(crate) span: u64,
}

impl Arena {
    /// What is in force.
    pub(crate) fn bounds(&self) -> Bounds {
        self.state.lock().bounds()
    }

    /// Changes what is given, and tells `answer` what is in force then. All or nothing, also when
    /// `answer` fails. May sleep.
    ///
    /// A limit below what is held refuses growth from now on, and free pages leave.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | `span` is not in whole pages, more than an arena can have, or too late: blocks were asked for before |
    /// | `EPERM` | `limit` is raised above the default, without `CAP_SYS_RESOURCE` |
    pub(crate) fn set_bounds(
        &self,
        limit: Option<u64>,
        span: Option<u64>,
        answer: impl FnOnce(Bounds) -> Result,
    ) -> Result {
        let span = span.map(pages_of).transpose()?;
        let mut privileged = false;
        let (before, now) = loop {
            let mut state = self.state.lock();
            let before = state.bounds();
            let most = before.limit.max(self.default_limit);
            if !privileged && limit.is_some_and(|limit| limit > most) {
                drop(state);
                // Asked only where it matters: that it was is remembered of the caller.
                privileged = task::may_exceed_defaults();
                if !privileged {
                    return Err(EPERM);
                }
                continue;
            }
            if span.is_some_and(|pages| !state.engine.set_span(pages)) {
                return Err(EINVAL);
            }
            state.limit = limit.unwrap_or(before.limit);
            break (before, state.bounds());
        };
        let result = answer(now).inspect_err(|_| {
            let mut state = self.state.lock();
            // What somebody else has set since then stays, and a span that is in use by now.
            if state.bounds() == now {
                state.limit = before.limit;
                if let (Some(_), Ok(pages)) = (span, pages_of(before.span)) {
                    state.engine.set_span(pages);
                }
            }
        });
        if result.is_ok() && limit.is_some() {
            self.shrink_to_limit();
            // There may be room now.
            self.wake_unlocked();
        }
        result
    }

    /// Gives as many free pages back as are held beyond the limit. May sleep.
    fn shrink_to_limit(&self) {
        let state = self.state.lock();
        let held = state.engine.held_bytes();
        let beyond = held.saturating_sub(state.limit).div_ceil(PAGE_SIZE as u64);
        drop(state);
        if beyond > 0 {
            self.trim_pages(beyond, 0);
        }
    }
}

impl State {
    fn bounds(&self) -> Bounds {
        Bounds {
            limit: self.limit,
            span: self.engine.span_bytes(),
        }
    }
}

/// Bytes as pages; `EINVAL` when they are not whole, or too many to be counted.
fn pages_of(bytes: u64) -> Result<u32> {
    if bytes % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL);
    }
    u32::try_from(bytes >> PAGE_SHIFT).map_err(|_| EINVAL)
}
