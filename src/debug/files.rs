// SPDX-License-Identifier: GPL-2.0

//! What is shown of the arenas: in debugfs, and in `/proc/PID/fdinfo`. Sizes are in bytes.

use crate::{
    arena::{
        counters::{
            Classes,
            Snapshot, //
        },
        registry::Registry,
        Arena, //
    },
    engine::Content,
    ffi::{
        debugfs::{
            Command,
            Dir,
            ReadFile,
            View,
            WriteFile, //
        },
        raw::freelist_stat, //
    },
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    },
    str::CString,
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
    #[cfg(freelist_bench)]
    _bench: ReadFile<crate::debug::bench::Costs>,
    each: Dir,
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
            _delays: crate::ffi::race_point::Window::files(&dir)?,
            #[cfg(freelist_bench)]
            _bench: ReadFile::new(c"bench", &dir, registry.clone()),
            each: Dir::new(c"arenas.d", Some(&dir))?,
        })
    }

    /// The directory that has one of each arena.
    pub(crate) fn each(&self) -> &Dir {
        &self.each
    }
}

/// An arena's directory in debugfs, with its files.
pub(crate) struct ArenaFiles {
    _map: ReadFile<Map>,
    _trim: WriteFile<Trim>,
}

impl ArenaFiles {
    /// Makes them in `each`. `ENOMEM` when memory is short.
    pub(crate) fn new(each: &Dir, arena: &Arc<Arena>) -> Result<Self> {
        let name = CString::try_from_fmt(fmt!("{}", arena.id()))?;
        let dir = Dir::new(&name, Some(each))?;
        Ok(Self {
            _map: ReadFile::new(c"map", &dir, arena.clone()),
            _trim: WriteFile::new(c"trim", &dir, arena.clone()),
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
                class.waits,
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
            "{:>6} {:>7} {:>14} {:>14} {:>14} {:>14} {:>7} {}\n",
            "id",
            "pid",
            "live",
            "free",
            "held",
            "limit",
            "waiters",
            "name"
        );
        registry.for_each(|arena| {
            let mut snapshot = Snapshot::default();
            let waiters = arena.snapshot(&mut snapshot);
            let stat = snapshot.stat();
            seq_print!(
                out,
                "{:>6} {:>7} {:>14} {:>14} {:>14} {:>14} {:>7} {}\n",
                arena.id(),
                arena.owner().pid(),
                stat.live_bytes,
                stat.free_bytes,
                stat.held_bytes,
                stat.limit_bytes,
                waiters,
                arena.owner()
            );
        });
        Ok(())
    }
}

/// `arenas.d/ID/map`: a row for all that lies side by side and is the same.
struct Map;

impl Map {
    /// Bytes of a row: numbers as wide as those of the largest arena, the longest word.
    const ROW: usize = 70;
}

impl View for Map {
    type Of = Arena;

    fn room(arena: &Arena) -> usize {
        // Beside the header, some more may have come when it is shown.
        let rows = arena.map_len();
        (rows + rows / 8 + 8) * Self::ROW
    }

    fn show(arena: &Arena, out: &SeqFile) -> Result {
        seq_print!(
            out,
            "{:>14} {:>9} {:>5} {:>12} {:>12} content\n",
            "offset",
            "pages",
            "shift",
            "live",
            "free"
        );
        for extent in &arena.map()? {
            let content = match extent.content {
                Content::Live => "live",
                Content::Free => "free",
                Content::Unbacked => "unbacked",
                Content::Pending => "pending",
                Content::Broken => "broken",
            };
            seq_print!(
                out,
                "{:>#14x} {:>9} {:>5} {:>12} {:>12} {content}\n",
                u64::from(extent.page) << PAGE_SHIFT,
                extent.pages,
                extent.shift,
                extent.live_bytes,
                extent.free_bytes
            );
        }
        Ok(())
    }
}

/// `arenas.d/ID/trim`: free pages leave, until at most as many bytes as are written are left.
struct Trim;

impl Command for Trim {
    type Of = Arena;

    fn run(arena: &Arena, keep: u64) -> Result {
        arena.trim(keep);
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
