// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl map`: shows the layout of an arena, as blocks on the terminal or as a picture.

mod blocks;
mod kind;
mod picture;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use freelist::debugfs::{self, Arenas, Extent, Map};

use self::kind::{Kind, Kinds};
use crate::show::mib;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The arena's number, as in `stat`.
    #[arg(value_name = "ARENA")]
    id: u64,
    /// Write one self-contained picture (SVG) instead.
    #[arg(long, value_name = "FILE", conflicts_with = "rows")]
    svg: Option<PathBuf>,
    /// Print the rows of debugfs `arenas.d/ID/map` instead: offset, pages, live and
    /// free bytes, orders of folios.
    #[arg(long)]
    rows: bool,
}

/// A map with its title, and the sizes by which its kinds are known.
pub(crate) struct View {
    /// `arena 3 of python3 (pid 17)`.
    title: String,
    extents: Vec<Extent>,
    kinds: Kinds,
}

impl View {
    /// Returns the bytes of address space that the map covers.
    fn span(&self) -> u64 {
        let last = self.extents.last();
        last.map_or(0, |extent| self.kinds.end(extent))
    }

    /// Returns the bytes of each kind that occurs, in the order of the legend.
    fn sums(&self) -> Vec<(Kind, u64)> {
        let mut sums: Vec<(Kind, u64)> = Kind::ALL.map(|kind| (kind, 0)).into();
        for extent in &self.extents {
            sums[self.kinds.of(extent) as usize].1 += self.kinds.bytes(extent);
        }
        sums.retain(|(_, bytes)| *bytes != 0);
        sums
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.rows {
        write!(io::stdout(), "{}", debugfs::map(args.id)?)?;
        return Ok(());
    }
    let extents = Map::read(args.id)?.0;
    let rows = Arenas::read()?.0;
    let title = match rows.iter().find(|row| row.id == args.id) {
        Some(row) => format!("arena {} of {} (pid {})", row.id, row.name, row.pid),
        None => format!("arena {}", args.id),
    };
    let view = View {
        title,
        extents,
        kinds: Kinds::of_this_machine(),
    };
    match &args.svg {
        Some(path) => {
            svg::save(path, &picture::draw(&view)).with_context(|| path.display().to_string())?;
            let out = &mut io::stdout();
            writeln!(out, "{}: {}", path.display(), view.title)?;
        }
        None => blocks::print(&mut anstream::stdout(), &view, blocks::width())?,
    }
    Ok(())
}

/// Formats the bytes of a kind with its name.
fn amount(kind: Kind, bytes: u64) -> String {
    format!("{} {}", kind.name(), mib(bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a view of an extent of each kind, over 8 MiB with pages of 4 KiB.
    pub(crate) fn view() -> View {
        let text = "offset pages shift live free orders content\n\
            0x0 256 20 1048576 0 0-4 live\n\
            0x100000 1 11 64 4032 0-0 subpage\n\
            0x101000 255 20 0 1044480 0-4 free\n\
            0x200000 512 21 2097152 0 9-9 live\n\
            0x400000 512 21 2097152 0 - live\n\
            0x600000 384 21 0 0 - unbacked\n\
            0x780000 128 19 0 0 0-0 pending\n";
        View {
            title: "arena 3 of sh (pid 17)".to_owned(),
            extents: Map::parse(text).unwrap().0,
            kinds: Kinds::new(4096, 2 << 20),
        }
    }

    #[test]
    fn sums_are_of_every_kind_and_add_up() {
        let view = view();
        let sums = view.sums();
        assert_eq!(sums.len(), 7, "{sums:?}");
        assert_eq!(view.span(), 8 << 20);
        assert_eq!(sums.iter().map(|(_, bytes)| bytes).sum::<u64>(), 8 << 20);
        assert!(sums.contains(&(Kind::Huge, 2 << 20)));
        assert!(sums.contains(&(Kind::Untouched, 2 << 20)));
        assert!(sums.contains(&(Kind::Subpage, 4096)));
    }
}
