// SPDX-License-Identifier: GPL-2.0

//! What a caller wants of a block.

use super::wait::Deadline;
use crate::engine::{
    Policy,
    Request,
    Reservation, //
};

/// A request, with what the engine need not know of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct AllocOptions {
    /// What the engine looks for.
    pub(crate) request: Request,
    /// The block reads as zero.
    pub(crate) zero: bool,
    /// The caller waits until it is there, no longer than that.
    pub(crate) wait: Option<Deadline>,
    /// It is mapped into the caller's address space, where the arena is.
    pub(crate) populate: bool,
}

/// Says whether the copy of an answer to a caller may take a page fault.
#[derive(Clone, Copy)]
pub(crate) enum MayFault {
    /// Under the arena's lock: not.
    No,
    /// Where it may sleep.
    Yes,
}

impl AllocOptions {
    /// Whether a free block that has its memory will do as it is.
    pub(super) fn takes_as_it_is(&self) -> bool {
        !(self.zero
            || self.request.policy == Policy::Contiguous
            || self.request.headed
            || self.request.align_shift > 0)
    }

    /// Whether a reserved block is as it is wanted already.
    pub(super) fn is_met(&self, pending: &Reservation) -> bool {
        pending.missing() == pending.owed()
            && !pending.is_headed()
            && !(self.zero && pending.stale() > 0)
    }
}
