// SPDX-License-Identifier: GPL-2.0-only

//! Options of an allocation: the request flags of the contract (`uapi/freelist.h`), decoded.
//!
//! The places of a new flag:
//!
//! | file | what is added |
//! | --- | --- |
//! | `uapi/freelist.h` | its number; then run `scripts/bindings` |
//! | `device/ioctl.rs` | `FLAGS`, which INFO reports; `options`, which decodes it; for RESIZE `RESIZE_FLAGS` and `resize` |
//! | this file | a field of [`AllocOptions`]; `flags`; `takes_as_it_is` and `is_met`, if the block needs more work |
//! | `arena/prepare.rs` | that work, in `prepare`; for a block that is live already, as with POPULATE: `alloc.rs`, `bulk.rs`, `resize.rs` |
//! | `engine/request.rs` | a field of `Request`, in place of that of `AllocOptions`, if the flag selects the range of a block |
//! | `c/freelist_trace.h` | its name in `FREELIST_TRACE_FLAGS` |
//! | `client/src/flags.rs` | `Flags` and `Features` |
//! | `man/freelist.4` | its description, which `tests/manual` checks |
//! | `tests/device/src/suites/` | its name in `tracepoints.rs`; a test of its promise |

use super::deadline::Deadline;
use crate::{
    engine::{
        Policy,
        Request,
        Reservation, //
    },
    ffi::raw::*,
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

    /// Returns the flags of the request, as the contract has them: `FREELIST_POPULATE` alone where
    /// it is lazy too, as it backs all pages at once.
    pub(super) fn flags(&self) -> u32 {
        let (split, grow, contiguous) = match self.request.policy {
            Policy::Reuse { split, grow } => (split, grow, false),
            Policy::Contiguous => (false, true, true),
        };
        let flags = [
            (split, FREELIST_LARGER),
            (grow, FREELIST_GROW),
            (self.wait.is_some(), FREELIST_WAIT),
            (self.zero, FREELIST_ZERO),
            (contiguous, FREELIST_CONTIG),
            (self.request.headed, FREELIST_HEADER),
            (self.populate, FREELIST_POPULATE),
            (self.request.lazy, FREELIST_LAZY),
        ];
        let set = flags.into_iter().filter(|(is_set, _)| *is_set);
        set.fold(0, |all, (_, flag)| all | flag)
    }

    /// Returns whether a reserved block needs no further work: memory, zeroing or a header.
    pub(super) fn is_met(&self, pending: &Reservation) -> bool {
        pending.missing() == pending.owed()
            && !pending.is_headed()
            && !(self.zero && pending.stale() > 0)
    }
}
