// SPDX-License-Identifier: GPL-2.0

//! What is shown of the arenas: in debugfs, and in `/proc/PID/fdinfo`. Sizes are in bytes.

use crate::{
    arena::Arena,
    counts::{
        Classes,
        Snapshot, //
    },
    debugfs::{
        Dir,
        ReadFile,
        View, //
    },
    ffi::raw::freelist_stat,
    registry::Registry, //
};
use kernel::{
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    },
    sync::Arc, //
};

/// The module's directory in debugfs, with its files.
pub(crate) struct Files {
    _stats: ReadFile<Stats>,
    _classes: ReadFile<ByClass>,
    _arenas: ReadFile<Arenas>,
    #[cfg(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y"))]
    _check: ReadFile<Check>,
    #[cfg(CONFIG_FAULT_INJECTION)]
    _delays: Dir,
}

impl Files {
    /// Makes them. `ENOMEM` when memory is short.
    pub(crate) fn new(registry: &Arc<Registry>) -> Result<Self> {
        let dir = Dir::new(c"freelist", None)?;
        Ok(Self {
            _stats: ReadFile::new(c"stats", &dir, registry.clone()),
            _classes: ReadFile::new(c"classes", &dir, registry.clone()),
            _arenas: ReadFile::new(c"arenas", &dir, registry.clone()),
            #[cfg(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y"))]
            _check: ReadFile::new(c"check", &dir, registry.clone()),
            #[cfg(CONFIG_FAULT_INJECTION)]
            _delays: crate::window::Window::files(&dir)?,
        })
    }
}

/// Calls a macro with the names of all fields of STAT, in their order.
macro_rules! with_fields {
    ($macro:ident) => {
        $macro! {
            live_blocks live_bytes free_bytes held_bytes metadata_bytes limit_bytes
            requested_bytes allocs frees grows splits merges waits timeouts trims shrinks failures
        }
    };
}

/// `stats`: a name and a value a line.
struct Stats;

impl View for Stats {
    type Of = Registry;

    fn show(registry: &Registry, out: &SeqFile) -> Result {
        let (arenas, sum) = registry.snapshot();
        let stat = freelist_stat {
            limit_bytes: registry.limit().bytes(),
            ..sum.stat()
        };
        seq_print!(out, "arenas {arenas}\n");
        macro_rules! lines {
            ($($name:ident)*) => {$(
                seq_print!(out, "{} {}\n", stringify!($name), stat.$name);
            )*};
        }
        with_fields!(lines);
        for (name, count) in sum.failures() {
            seq_print!(out, "failures_{name} {count}\n");
        }
        Ok(())
    }
}

/// `/proc/PID/fdinfo/FD`: the same of one arena.
pub(crate) fn show_fdinfo(arena: &Arena, out: &SeqFile) {
    let mut snapshot = Snapshot::default();
    arena.snapshot(&mut snapshot);
    let stat = snapshot.stat();
    seq_print!(out, "freelist_arena:\t{}\n", arena.id());
    seq_print!(out, "freelist_arena_bytes:\t{}\n", arena.bounds().span);
    macro_rules! lines {
        ($($name:ident)*) => {$(
            seq_print!(out, "freelist_{}:\t{}\n", stringify!($name), stat.$name);
        )*};
    }
    with_fields!(lines);
}

/// `classes`: a row a size class.
struct ByClass;

impl View for ByClass {
    type Of = Registry;

    fn show(registry: &Registry, out: &SeqFile) -> Result {
        let mut classes = Classes::new()?;
        registry.classes(&mut classes);
        seq_print!(
            out,
            "{:>5} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
            "shift",
            "size",
            "live",
            "free",
            "held",
            "splits",
            "merges",
            "grows",
            "waits",
            "largest"
        );
        for (shift, class) in classes.iter() {
            seq_print!(
                out,
                "{:>5} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
                shift,
                1u64 << shift,
                class.live,
                class.free,
                class.held,
                class.splits,
                class.merges,
                class.grows,
                0,
                class.largest
            );
        }
        Ok(())
    }
}

/// `arenas`: a row an arena.
struct Arenas;

impl View for Arenas {
    type Of = Registry;

    fn show(registry: &Registry, out: &SeqFile) -> Result {
        seq_print!(
            out,
            "{:>6} {:>7} {:>14} {:>14} {:>14} {:>14} {}\n",
            "id",
            "pid",
            "live",
            "free",
            "held",
            "limit",
            "name"
        );
        registry.for_each(|arena| {
            let mut snapshot = Snapshot::default();
            arena.snapshot(&mut snapshot);
            let stat = snapshot.stat();
            seq_print!(
                out,
                "{:>6} {:>7} {:>14} {:>14} {:>14} {:>14} {}\n",
                arena.id(),
                arena.owner().pid(),
                stat.live_bytes,
                stat.free_bytes,
                stat.held_bytes,
                stat.limit_bytes,
                arena.owner()
            );
        });
        Ok(())
    }
}

/// `check`: a row an arena, and whether its invariants hold. Slow.
#[cfg(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y"))]
struct Check;

#[cfg(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y"))]
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
