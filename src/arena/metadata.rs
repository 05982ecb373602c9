// SPDX-License-Identifier: GPL-2.0-only

//! Charges the metadata of an arena to its limits.
//!
//! Metadata is free of charge up to [`FREE_BYTES`] and one part in [`FREE_PART`] of the held bytes, which
//! is enough for blocks of any size. Patterns such as one live page in each chunk need more, and a
//! caller could use them to make the kernel allocate several times its limit: this metadata takes headroom
//! under the limits, as pages do.
//!
//! An allocation that grows fails before metadata without headroom is allocated. Three kinds of metadata may
//! exceed the limits, so that the next growth fails: that of a touch; that which becomes too much
//! because pages are released; and the buddy tree of a divided page, as it is smaller than the share
//! free of charge of its own page, and a free page can always be divided so.

use super::{
    state::{
        State,
        StateGuard, //
    },
    Arena, //
};
use crate::{
    engine::Metadata,
    ffi::errno::edquot,
    mm::backend::{
        self,
        bytes_of,
        metadata_bytes,
        KernelPrealloc, //
    }, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Bytes of metadata that are free of charge.
const FREE_BYTES: u64 = 64 << 10;
/// One part in so many of the held bytes is free of charge, too.
const FREE_PART: u64 = 32;

const _: () = assert!(bytes_of(Metadata::Tree) * FREE_PART <= PAGE_SIZE as u64);

impl Arena {
    /// Allocates metadata that the engine needs to grow. May sleep.
    ///
    /// `EDQUOT` when a limit has no headroom for it, `ENOMEM` when memory is short.
    pub(super) fn make(&self, metadata: Metadata, prealloc: &mut KernelPrealloc) -> Result {
        if metadata == Metadata::Tree {
            return self.make_in_any_case(metadata, prealloc);
        }
        let state = self.lock();
        let due = state.metadata_due(bytes_of(metadata));
        let more = due.saturating_sub(state.metadata_taken.unwrap_or(due));
        let has_headroom = more == 0
            || (state.taken() + more <= state.limit && self.shared_limit.headroom() >= more);
        drop(state);
        if !has_headroom {
            return Err(edquot());
        }
        self.make_in_any_case(metadata, prealloc)
    }

    /// Allocates metadata without regard to the limits. `ENOMEM` when memory is short. May sleep.
    pub(super) fn make_in_any_case(
        &self,
        metadata: Metadata,
        prealloc: &mut KernelPrealloc,
    ) -> Result {
        self.memcg.charge(|| backend::make(metadata, prealloc))
    }
}

impl State {
    /// Returns the bytes of all metadata of the arena.
    pub(super) fn metadata_bytes(&self) -> u64 {
        size_of::<Arena>() as u64 + metadata_bytes(self.engine.metadata())
    }

    /// Returns the bytes of metadata that the limits are charged, if there were `more` bytes of it.
    fn metadata_due(&self, more: u64) -> u64 {
        let free = FREE_BYTES + self.engine.held_bytes() / FREE_PART;
        (self.metadata_bytes() + more).saturating_sub(free)
    }
}

impl StateGuard<'_> {
    /// Adjusts the metadata's charge to its present size, beyond the limits if necessary.
    pub(super) fn settle_metadata(&mut self) {
        let Some(taken) = self.metadata_taken else {
            return;
        };
        let due = self.metadata_due(0);
        self.metadata_taken = Some(due);
        let limit = &self.arena.shared_limit;
        if due > taken {
            limit.charge(due - taken);
        } else {
            limit.uncharge(taken - due);
        }
    }
}
