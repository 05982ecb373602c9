// SPDX-License-Identifier: GPL-2.0-only

//! Options of an allocation.

use super::wait::Deadline;
use crate::engine::{
    Policy,
    Request,
    Reservation, //
};

/// A request, with the options that do not concern the engine.
#[derive(Clone, Copy, Default)]
pub(crate) struct AllocOptions {
    /// Size, alignment and policy.
    pub(crate) request: Request,
    /// The block reads as zero.
    pub(crate) zero: bool,
    /// How long the caller waits for it; `None` if it does not.
    pub(crate) wait: Option<Deadline>,
    /// The block is mapped before the call returns, in each mapping of the arena that the caller has.
    pub(crate) populate: bool,
}

/// Whether a copy to the caller's memory may take a page fault.
#[derive(Clone, Copy)]
pub(crate) enum MayFault {
    /// It may not: the arena's lock is held.
    No,
    /// It may: the caller may sleep.
    Yes,
}

impl AllocOptions {
    /// Returns whether any backed free block serves the request without further work.
    pub(super) fn takes_as_it_is(&self) -> bool {
        !(self.zero
            || self.request.policy == Policy::Contiguous
            || self.request.headed
            || self.request.align_shift > 0)
    }

    /// Returns whether a reserved block needs no further work: memory, zeroing or a header.
    pub(super) fn is_met(&self, pending: &Reservation) -> bool {
        pending.missing() == pending.owed()
            && !pending.is_headed()
            && !(self.zero && pending.stale() > 0)
    }
}
