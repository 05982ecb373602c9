// SPDX-License-Identifier: GPL-2.0-only

//! The texts of debugfs and of `/proc/PID/fdinfo`. Sizes are in bytes.

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
        debugfs::View,
        raw::freelist_stat, //
    }, //
};
use kernel::{
    fmt::{
        self,
        Display,
        Formatter, //
    },
    page::PAGE_SHIFT,
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    }, //
};

/// Calls a macro with the names of all fields of STAT, in their order.
macro_rules! with_fields {
    ($macro:ident) => {
        $macro! {
            live_blocks live_bytes free_bytes held_bytes metadata_bytes limit_bytes
            requested_bytes allocs frees grows splits merges waits timeouts trims shrinks failures
            moved_bytes faulted_bytes huge_bytes
        }
    };
}

/// The file `stats`: the sums over all arenas, a name and a value a line.
pub(super) struct Stats;

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

/// Writes the lines of an arena in `/proc/PID/fdinfo/FD`.
pub(crate) fn show_fdinfo(arena: &Arena, out: &SeqFile) {
    let mut snapshot = Snapshot::default();
    let waiters = arena.snapshot(&mut snapshot);
    let stat = snapshot.stat();
    seq_print!(out, "freelist_arena:\t{}\n", arena.id());
    seq_print!(out, "freelist_arena_bytes:\t{}\n", arena.bounds().span);
    macro_rules! lines {
        ($($name:ident)*) => {$(
            seq_print!(out, "freelist_{}:\t{}\n", stringify!($name), stat.$name);
        )*};
    }
    with_fields!(lines);
    seq_print!(out, "freelist_waiters:\t{waiters}\n");
}

/// The file `classes`: a row a size class, summed over all arenas.
pub(super) struct ByClass;

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

/// The file `arenas`: a row an arena.
pub(super) struct Arenas;

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
                arena.opener().pid(),
                stat.live_bytes,
                stat.free_bytes,
                stat.held_bytes,
                stat.limit_bytes,
                waiters,
                arena.opener()
            );
        });
        Ok(())
    }
}

/// The file `arenas.d/ID/map`: a row an extent of the arena.
pub(super) struct Map;

impl Map {
    /// The most bytes of a row: the numbers of the largest arena, and the longest word.
    const ROW: usize = 77;
}

/// The least and the largest order of an extent's folios, shown as `LEAST-LARGEST`.
struct Orders(Option<(u32, u32)>);

impl Display for Orders {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            // At most two digits each, right-aligned.
            Some((least, largest)) => write!(f, "{least:>3}-{largest:<2}"),
            None => write!(f, "{:>6}", "-"),
        }
    }
}

impl View for Map {
    type Of = Arena;

    fn size_hint(arena: &Arena) -> usize {
        // With room for the header, and for extents that appear before the text is written.
        let rows = arena.map_len();
        (rows + rows / 8 + 8) * Self::ROW
    }

    fn show(arena: &Arena, out: &SeqFile) -> Result {
        seq_print!(
            out,
            "{:>14} {:>9} {:>5} {:>12} {:>12} {:>6} content\n",
            "offset",
            "pages",
            "shift",
            "live",
            "free",
            "orders"
        );
        for extent in &arena.map()? {
            let content = match extent.content {
                Content::Live => "live",
                Content::Free => "free",
                Content::Unbacked => "unbacked",
                Content::Pending => "pending",
                Content::Subpage => "subpage",
            };
            seq_print!(
                out,
                "{:>#14x} {:>9} {:>5} {:>12} {:>12} {} {content}\n",
                u64::from(extent.page) << PAGE_SHIFT,
                extent.pages,
                extent.shift,
                extent.live_bytes,
                extent.free_bytes,
                Orders(arena.orders(extent))
            );
        }
        Ok(())
    }
}
