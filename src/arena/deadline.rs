// SPDX-License-Identifier: GPL-2.0-only

//! The end of a wait for a block.

use crate::ffi::task;

/// The end of a wait.
#[derive(Clone, Copy)]
pub(crate) enum Deadline {
    /// The caller does not wait.
    Passed,
    /// Until this time, in nanoseconds of the monotonic clock.
    At(i64),
    /// For ever.
    Never,
}

impl Deadline {
    /// Returns the time `timeout_ns` nanoseconds from now; [`Deadline::Never`] if that is negative.
    pub(crate) fn after(timeout_ns: i64) -> Self {
        match timeout_ns {
            0 => Self::Passed,
            1.. => Self::At(task::now_ns().saturating_add(timeout_ns)),
            _ => Self::Never,
        }
    }

    /// Returns the nanoseconds that are left, at least 0; `forever` for [`Deadline::Never`].
    pub(crate) fn rest(self, forever: i64) -> i64 {
        match self {
            Self::Passed => 0,
            Self::At(end) => (end - task::now_ns()).max(0),
            Self::Never => forever,
        }
    }

    /// Returns the earlier of this and `end`, in nanoseconds of the monotonic clock.
    pub(super) fn or_at(self, end: i64) -> i64 {
        match self {
            Self::Passed => 0,
            Self::At(at) => at.min(end),
            Self::Never => end,
        }
    }
}
