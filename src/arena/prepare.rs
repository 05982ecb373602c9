// SPDX-License-Identifier: GPL-2.0-only

//! Prepares a reserved block before it is reported: memory, zeroing, header.

use super::{
    request::AllocOptions,
    Arena, //
};
use crate::{
    engine::Reservation,
    ffi::task,
    mm::backend::KernelPrealloc, //
};
use kernel::prelude::*;

impl Arena {
    /// Prepares a reserved block, or cancels it if that fails. May sleep.
    ///
    /// `EDQUOT` when a limit forbids its pages, `ENOMEM` when memory is short, `EINTR` when the
    /// caller is being killed.
    pub(super) fn prepared(
        &self,
        mut pending: Reservation,
        options: &AllocOptions,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Reservation> {
        match self.prepare(&mut pending, options, prealloc) {
            Ok(()) => Ok(pending),
            Err(error) => {
                self.cancel(pending);
                Err(error)
            }
        }
    }

    /// Backs the missing pages of a reserved block, zeroes it if the options ask for that, and writes
    /// its header. After an error the caller has to cancel the block. May sleep.
    ///
    /// Errors are those of [`Arena::prepared`].
    pub(super) fn prepare(
        &self,
        pending: &mut Reservation,
        options: &AllocOptions,
        prealloc: &mut KernelPrealloc,
    ) -> Result {
        self.fill(pending, prealloc, &options.request)?;
        if options.zero {
            self.zero(pending)?;
        }
        if pending.is_headed() {
            self.write_header(pending);
        }
        Ok(())
    }

    /// Zeroes the stale pages of a block. A program that still writes there, through an older mapping of
    /// the arena, writes into a block that it has freed: the result is its own fault. `EINTR` when the
    /// caller is being killed. May sleep.
    fn zero(&self, pending: &Reservation) -> Result {
        let first = pending.first_page();
        let stale = first..first + pending.stale();
        let go_on = || !task::fatal_signal();
        match self.address_space.zero(&stale, pending.within(), go_on) {
            true => Ok(()),
            false => Err(EINTR),
        }
    }
}
