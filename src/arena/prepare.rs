// SPDX-License-Identifier: GPL-2.0

//! What a reserved block gets before its caller hears of it.

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
    /// A reserved block as it is wanted: with all its pages, zero if so asked, with its header. Where
    /// that cannot be had it is undone. May sleep.
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

    /// The same, without undoing it.
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

    /// Zeroes what may have old bytes of a block that has its pages. Others may still write there,
    /// through a mapping that they had of it before; nobody can lose anything by that.
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
