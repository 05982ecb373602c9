// SPDX-License-Identifier: GPL-2.0

//! What an arena's lock protects.
//!
//! # Locks
//!
//! In the order in which they are taken:
//!
//! 1. `mmap_lock` or a VMA's lock, of the kernel, around a page fault;
//! 2. an arena's `address_space`: shared by a fault, from its lookup until the page is mapped;
//!    exclusively for a moment, after pages were put out of reach and before they are unmapped;
//! 3. the registry's mutex, around the list of arenas;
//! 4. an arena's `state`, a spin lock: its engine and what goes with it.
//!
//! Under `state` no user memory is touched, nothing is allocated and nothing sleeps: the engine says
//! what it lacks, the lock is dropped, it is made, the engine is called again. Nobody takes two of
//! these locks of one kind at once.
//!
//! # States of a block
//!
//! | state | comes by | goes by |
//! | --- | --- | --- |
//! | free | the beginning; `cancel`; `free` | `reserve` |
//! | reserved | `reserve` | `prepared`, then `commit`; or `cancel` |
//! | live | `commit`, when the caller has the answer | `free` |
//!
//! Nobody but the call that reserved it can touch a reserved block: a release at its offset finds
//! nothing live there, a page fault no page.

use super::{
    counters::Events,
    request::AllocOptions,
    wait, //
};
use crate::{
    engine::{
        Policy,
        Request, //
    },
    ffi::errno::edquot,
    mm::{
        backend::KernelEngine,
        contiguous::Contiguous, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// What the arena's lock protects.
pub(super) struct State {
    pub(super) engine: KernelEngine,
    /// The most bytes of pages that it may hold.
    pub(super) limit: u64,
    /// Bytes of pages that are being brought, beyond those held.
    pub(super) promised: u64,
    pub(super) waiters: wait::Queue,
    /// The smallest request that was refused, of those since `poll` last said that one could be
    /// served.
    pub(super) refused: Option<Request>,
    pub(super) events: Events,
}

impl State {
    /// Refuses what can never be had: `E2BIG` when it is more than pages can lie side by side,
    /// `EDQUOT` when it is more than the arena may hold.
    #[inline]
    pub(super) fn admit(&self, options: &AllocOptions) -> Result {
        let request = &options.request;
        let bytes = request.bytes();
        if request.policy == Policy::Contiguous
            && bytes > u64::from(Contiguous::max_pages()) << PAGE_SHIFT
        {
            return Err(E2BIG);
        }
        let more = request.policy.may_grow() || options.wait.is_some();
        if more && bytes > self.limit && bytes <= 1 << KernelEngine::MAX_SHIFT {
            return Err(edquot());
        }
        Ok(())
    }
}
