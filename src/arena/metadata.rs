// SPDX-License-Identifier: GPL-2.0

//! Takes the metadata of an arena from its limits.
//!
//! Up to [`FREE_BYTES`] and a part of what is held, as much as blocks of any size need, it takes
//! nothing. What is beyond comes of patterns such as one page kept in each chunk, with which a caller
//! could make the kernel owe several times what the limits say: it takes room as pages do.
//!
//! Growing fails before metadata is made that has no room. What comes by a touch, or stays when pages
//! leave, is taken in any case: then the next to grow fails. So is a tree, which is of a page that is
//! held, and smaller than the free share of that: what is free can always be divided.

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

/// Bytes of metadata that take no room.
const FREE_BYTES: u64 = 64 << 10;
/// Of what is held, one part in so many takes none either.
const FREE_PART: u64 = 32;

const _: () = assert!(bytes_of(Metadata::Tree) * FREE_PART <= PAGE_SIZE as u64);

impl Arena {
    /// Makes metadata that the engine lacks to grow. May sleep.
    ///
    /// `EDQUOT` when a limit has no room for it, `ENOMEM` when memory is short.
    pub(super) fn make(&self, metadata: Metadata, prealloc: &mut KernelPrealloc) -> Result {
        if metadata == Metadata::Tree {
            return self.make_in_any_case(metadata, prealloc);
        }
        let state = self.lock();
        let due = state.metadata_due(bytes_of(metadata));
        let more = due.saturating_sub(state.metadata_taken.unwrap_or(due));
        let has_room = more == 0
            || (state.taken() + more <= state.limit && self.shared_limit.headroom() >= more);
        drop(state);
        if !has_room {
            return Err(edquot());
        }
        self.make_in_any_case(metadata, prealloc)
    }

    /// The same for what may not fail because of a limit.
    pub(super) fn make_in_any_case(
        &self,
        metadata: Metadata,
        prealloc: &mut KernelPrealloc,
    ) -> Result {
        self.memcg.charge(|| backend::make(metadata, prealloc))
    }
}

impl State {
    /// Returns the bytes of all metadata.
    pub(super) fn metadata_bytes(&self) -> u64 {
        size_of::<Arena>() as u64 + metadata_bytes(self.engine.metadata())
    }

    /// Returns the bytes that metadata has to take of the limits, if there is `more` of it.
    fn metadata_due(&self, more: u64) -> u64 {
        let free = FREE_BYTES + self.engine.held_bytes() / FREE_PART;
        (self.metadata_bytes() + more).saturating_sub(free)
    }
}

impl StateGuard<'_> {
    /// Takes for metadata what it has to take of the limits, or gives back what it need not.
    pub(super) fn settle_metadata(&mut self) {
        let Some(taken) = self.metadata_taken else {
            return;
        };
        let due = self.metadata_due(0);
        self.metadata_taken = Some(due);
        let limit = &self.arena.shared_limit;
        if due > taken {
            limit.take_in_any_case(due - taken);
        } else {
            limit.give(taken - due);
        }
    }
}
