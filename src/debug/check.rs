// SPDX-License-Identifier: GPL-2.0-only

//! Whether the invariants of all arenas hold. In kernels for tests only.

use crate::{
    arena::registry::Registry,
    ffi::debugfs::View, //
};
use kernel::{
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    }, //
};

/// `check`: a row an arena, and whether its invariants hold. Slow.
pub(super) struct Check;

impl View for Check {
    type Of = Registry;

    fn show(registry: &Registry, out: &SeqFile) -> Result {
        registry.for_each(|arena| match arena.check() {
            Ok(()) => seq_print!(out, "{} ok\n", arena.id()),
            Err(wrong) => {
                seq_print!(out, "{} page {}: {}\n", arena.id(), wrong.page, wrong.what)
            }
        });
        Ok(())
    }
}
