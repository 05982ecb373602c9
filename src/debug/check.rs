// SPDX-License-Identifier: GPL-2.0-only

//! debugfs `check`: the invariants of all arenas, checked when the file is read. In kernels for tests
//! only.

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

/// The file `check`: a row an arena, with `ok` or its first violation. Slow.
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
