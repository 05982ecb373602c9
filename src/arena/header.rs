// SPDX-License-Identifier: GPL-2.0-only

//! The header in front of a block, `FREELIST_HEADER`, which detects writes before the block.
//!
//! A header is compared at the release, and never used for anything else: the block's class, its list
//! and whether it has a header are known out of band. It holds the block's offset and length, mixed with
//! a secret of the arena, so that zeros, old data or the header of another block do not match.

use super::Arena;
use crate::{
    engine::{
        Releasing,
        Reservation,
        HEADER_BYTES, //
    },
    ffi::{
        errno::euclean,
        random, //
    },
    mm::backend::KernelGarbage, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

type Header = [[u8; 8]; HEADER_BYTES as usize / 8];

/// Two random words that every header of an arena is mixed with.
pub(super) struct Secret([Atomic<u64>; 2]);

impl Secret {
    /// Draws a new secret.
    pub(super) fn new() -> Self {
        Self([(); 2].map(|()| Atomic::new(random::random())))
    }

    /// Takes over the secret of another arena whose blocks are going to be copied here, so that their
    /// headers match in the copy, too. No block with a header may be here yet.
    pub(super) fn adopt(&self, of: &Self) {
        for (word, of) in self.0.iter().zip(&of.0) {
            word.store(of.load(Relaxed), Relaxed);
        }
    }
}

impl Arena {
    fn header_of(&self, extent: Range<u64>) -> Header {
        let [one, two] = &self.secret.0;
        let bytes = extent.end - extent.start;
        [
            (extent.start ^ one.load(Relaxed)).to_ne_bytes(),
            (bytes ^ two.load(Relaxed)).to_ne_bytes(),
        ]
    }

    /// Writes the header of a reserved block that has its pages.
    pub(super) fn write_header(&self, pending: &Reservation) {
        let page = pending.first_page();
        if let Some(folio) = self.address_space.folio(page) {
            let header = self.header_of(pending.extent());
            folio.write(page, pending.within().start, header.as_flattened());
        }
    }

    /// Completes the release of a block with a header. `EUCLEAN` when the header was overwritten; the
    /// block is free all the same.
    pub(super) fn retire(&self, taken: Releasing) -> Result {
        let page = taken.first_page();
        let mut found = Header::default();
        if let Some(folio) = self.address_space.folio(page) {
            folio.read(page, taken.within().start, found.as_flattened_mut());
        }
        let intact = found == self.header_of(taken.extent());
        let result = if intact { Ok(()) } else { Err(euclean()) };
        let extent = taken.extent();
        let bytes = extent.end - extent.start - HEADER_BYTES;
        self.trace_free(extent.start + HEADER_BYTES, bytes, &result);
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut state = self.lock();
        state.engine.release(taken, &mut garbage);
        self.wake(&mut state);
        drop(state);
        result
    }
}
