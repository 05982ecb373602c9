// SPDX-License-Identifier: GPL-2.0

//! What an arena may have at most: pages held, and offsets.

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

/// Bounds of an arena, in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The most that it may hold in pages.
    pub(crate) limit: u64,
    /// Its address space.
    pub(crate) span: u64,
    /// How much more than the most that its blocks ever needed it may hold before it reuses scattered
    /// free memory, in thousandths; `None` is without a bound.
    pub(crate) slack_permille: Option<u32>,
}

/// The largest slack, in thousandths: as much again.
pub(crate) const MAX_SLACK_PERMILLE: u32 = 1000;

/// Reads a slack as user space and the module's parameter write it: in thousandths, or
/// `FREELIST_SLACK_NONE` for no bound. `EINVAL` when it is over [`MAX_SLACK_PERMILLE`].
pub(crate) fn slack_of(permille: u32) -> Result<Option<u32>> {
    match permille {
        FREELIST_SLACK_NONE => Ok(None),
        permille if permille <= MAX_SLACK_PERMILLE => Ok(Some(permille)),
        _ => Err(EINVAL),
    }
}

/// What is to be changed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Change {
    pub(crate) limit: Option<u64>,
    pub(crate) span: Option<u64>,
    /// As [`slack_of`] reads it.
    pub(crate) slack_permille: Option<u32>,
}

impl Arena {
    /// What is in force.
    pub(crate) fn bounds(&self) -> Bounds {
        self.lock().bounds()
    }

    /// Changes what is given, and tells `answer` what is in force then. All or nothing, also when
    /// `answer` fails. May sleep.
    ///
    /// A limit below what is held refuses growth from now on, and free pages leave.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the slack is over [`MAX_SLACK_PERMILLE`]; `span` is not in whole pages, more than an arena can have, or too late: blocks were asked for before |
    /// | `EPERM` | `limit` is raised above the default, without `CAP_SYS_RESOURCE` |
    pub(crate) fn set_bounds(
        &self,
        change: Change,
        answer: impl FnOnce(Bounds) -> Result,
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
            if let Some(slack) = slack_permille {
                state.engine.set_slack_permille(slack);
            }
            break (before, state.bounds());
        };
        let result = answer(now).inspect_err(|_| {
            let mut state = self.lock();
            // What somebody else has set since then stays, and a span that is in use by now.
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
            // There may be room now.
            self.wake_unlocked();
        }
        result
    }

    /// Wakes waiters that the limit has made hopeless: they find `EDQUOT`. In steps. May sleep.
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

    /// Gives as many free pages back as are held beyond the limit. May sleep.
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

/// Bytes as pages; `EINVAL` when they are not whole, or too many to be counted.
fn pages_of(bytes: u64) -> Result<u32> {
    if bytes % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL);
    }
    u32::try_from(bytes >> PAGE_SHIFT).map_err(|_| EINVAL)
}
