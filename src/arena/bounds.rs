// SPDX-License-Identifier: GPL-2.0-only

//! The bounds of an arena: limit, span and slack.

use super::{
    state::State,
    Arena, //
};
use crate::{
    engine::BATCH,
    ffi::{
        raw::FREELIST_SLACK_NONE,
        task, //
    }, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Bounds of an arena.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The most bytes of pages that it may hold.
    pub(crate) limit: u64,
    /// The length of its address space, in bytes.
    pub(crate) span: u64,
    /// How much more than its blocks' highest need so far it may hold before it moves scattered free
    /// memory instead of growing, in thousandths of that need; `None` for no bound.
    pub(crate) slack_permille: Option<u32>,
}

/// The largest slack, in thousandths: twice the need is held then.
pub(crate) const MAX_SLACK_PERMILLE: u32 = 1000;

/// Decodes a slack of the uapi or of the module's parameter: thousandths, or `FREELIST_SLACK_NONE` for no
/// bound. `EINVAL` when it is over [`MAX_SLACK_PERMILLE`].
pub(crate) fn slack_of(permille: u32) -> Result<Option<u32>> {
    match permille {
        FREELIST_SLACK_NONE => Ok(None),
        permille if permille <= MAX_SLACK_PERMILLE => Ok(Some(permille)),
        _ => Err(EINVAL),
    }
}

/// New bounds; `None` leaves one unchanged.
#[derive(Clone, Copy, Default)]
pub(crate) struct Change {
    pub(crate) limit: Option<u64>,
    pub(crate) span: Option<u64>,
    /// As [`slack_of`] reads it.
    pub(crate) slack_permille: Option<u32>,
}

impl Arena {
    /// Returns the bounds in force.
    pub(crate) fn bounds(&self) -> Bounds {
        self.lock().bounds()
    }

    /// Changes bounds, and reports those in force afterwards through `copy_out`. If that fails, the
    /// bounds are as before. May sleep.
    ///
    /// With a limit below the held bytes the arena grows no more, and free pages are released.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the slack is over [`MAX_SLACK_PERMILLE`]; `span` is not a multiple of the page size, over the largest arena, or given after the first request |
    /// | `EPERM` | `limit` is raised above the default without `CAP_SYS_RESOURCE` |
    pub(crate) fn set_bounds(
        &self,
        change: Change,
        copy_out: impl FnOnce(Bounds) -> Result,
    ) -> Result {
        let Change {
            limit,
            span,
            slack_permille,
        } = change;
        let span = span.map(pages_of).transpose()?;
        let slack_permille = slack_permille.map(slack_of).transpose()?;
        let mut privileged = false;
        let (before, now) = loop {
            let mut state = self.lock();
            let before = state.bounds();
            let max = before.limit.max(self.default_limit);
            if !privileged && limit.is_some_and(|limit| limit > max) {
                drop(state);
                // Checked only where it matters: a check marks the task as having used the capability.
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
            if let Some(slack) = slack_permille {
                state.engine.set_slack_permille(slack);
            }
            break (before, state.bounds());
        };
        let result = copy_out(now).inspect_err(|_| {
            let mut state = self.lock();
            // Bounds that another thread has set since then stay, and so does a span that is in use.
            if state.bounds() == now {
                state.limit = before.limit;
                state.engine.set_slack_permille(before.slack_permille);
                if let (Some(_), Ok(pages)) = (span, pages_of(before.span)) {
                    state.engine.set_span(pages);
                }
            }
        });
        if result.is_ok() && limit.is_some() {
            self.shrink_to_limit();
            self.wake_hopeless();
            // A raised limit may serve a waiter.
            self.wake_unlocked();
        }
        result
    }

    /// Wakes the waiters whose requests are over the limit, in bounded steps: they fail with `EDQUOT`.
    /// May sleep.
    fn wake_hopeless(&self) {
        let mut from = Some(0);
        while let Some(next) = from {
            let mut state = self.lock();
            let limit = state.limit;
            from = state.waiters.wake_hopeless(
                next,
                BATCH as usize,
                |request| request.bytes() > limit,
                |task| task.wake_up(),
            );
            drop(state);
            task::resched();
        }
    }

    /// Releases free pages to the system until the limit is met or none is left. May sleep.
    fn shrink_to_limit(&self) {
        let state = self.lock();
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
            slack_permille: self.engine.slack_permille(),
        }
    }
}

/// Converts bytes to pages; `EINVAL` when they are not whole pages, or more pages than a `u32` counts.
fn pages_of(bytes: u64) -> Result<u32> {
    if bytes % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL);
    }
    u32::try_from(bytes >> PAGE_SHIFT).map_err(|_| EINVAL)
}
