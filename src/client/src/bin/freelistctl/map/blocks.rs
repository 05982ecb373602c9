// SPDX-License-Identifier: MIT OR Apache-2.0

//! A map as rows of blocks on a terminal.

use std::io::{self, Write};

use super::{amount, Kind, View};
use crate::show::unit;

/// The most rows of a map; a larger arena has more bytes in each block.
const ROWS: u64 = 48;
/// The characters of an offset and the blank after it.
const OFFSET: usize = 14;

/// Returns the width of the terminal in characters; 80 without a terminal.
pub(crate) fn width() -> usize {
    let size = ratatui::crossterm::terminal::size();
    size.map_or(80, |(columns, _)| usize::from(columns))
}

/// Returns the kind of most bytes of each cell. A cell is shown as unbacked only if all of it is, so that no
/// block is lost in a large arena.
fn cells(view: &View, cell: u64) -> Vec<Kind> {
    let count = view.span().div_ceil(cell) as usize;
    let mut sums = vec![[0; Kind::ALL.len()]; count];
    view.kinds
        .each_cell(&view.extents, cell, |at, extent, bytes| {
            sums[at][view.kinds.of(extent) as usize] += bytes;
        });
    let kind = |sums: &[u64; Kind::ALL.len()]| {
        let present = &sums[..Kind::Unbacked as usize];
        let largest = present.iter().max().filter(|bytes| **bytes != 0);
        let at = present.iter().position(|sum| Some(sum) == largest);
        at.map_or(Kind::Unbacked, |at| Kind::ALL[at])
    };
    sums.iter().map(kind).collect()
}

/// Prints the map, `width` characters wide: the legend with the bytes of each kind, then its rows. A sequence
/// of rows without memory is one line with a `*`.
pub(crate) fn print(out: &mut impl Write, view: &View, width: usize) -> io::Result<()> {
    let columns = prev_power_of_two(width.saturating_sub(OFFSET).clamp(16, 128));
    let (page, span) = (view.kinds.page(), view.span());
    // A cell is a power of 2 of pages, so that offsets are round.
    let cell = span
        .div_ceil(columns as u64 * ROWS)
        .max(page)
        .next_power_of_two();
    writeln!(out, "{}, {} a block", view.title, unit(cell))?;
    let legend: Vec<String> = view
        .sums()
        .into_iter()
        .map(|(kind, bytes)| {
            let (style, glyph) = (kind.style(), kind.glyph());
            format!("{style}{glyph}{style:#} {}", amount(kind, bytes))
        })
        .collect();
    writeln!(
        out,
        "{}",
        if legend.is_empty() {
            "empty".to_owned()
        } else {
            legend.join("  ")
        }
    )?;
    let mut skipped = false;
    let cells = cells(view, cell);
    for (number, row) in cells.chunks(columns).enumerate() {
        let is_last = (number + 1) * columns >= cells.len();
        if row.iter().all(|kind| *kind == Kind::Unbacked) && !is_last {
            if !skipped {
                writeln!(out, "*")?;
            }
            skipped = true;
            continue;
        }
        skipped = false;
        let offset = number as u64 * columns as u64 * cell;
        let at = format!("{offset:#x}");
        write!(out, "{at:<OFFSET$}")?;
        for run in row.chunk_by(|a, b| a == b) {
            let style = run[0].style();
            let glyphs: String = run.iter().map(|kind| kind.glyph()).collect();
            write!(out, "{style}{glyphs}{style:#}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Returns the largest power of 2 that is not above `number`.
fn prev_power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;
    use anstream::StripStream;
    use freelist::debugfs::Map;

    fn plain(view: &View, width: usize) -> String {
        let mut out = Vec::new();
        print(&mut StripStream::new(&mut out), view, width).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_has_a_glyph_at_its_offset() {
        // 64 columns, 48 rows: 4 KiB in each block, so that nothing is rounded.
        let text = plain(&view(), 80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "arena 3 of sh (pid 17), 4 KiB a block");
        assert_eq!(
            lines[1],
            "# live 1.00 MiB  H huge 2.00 MiB  o untouched 2.00 MiB  + subpage 0.00 MiB  \
             - free 1.00 MiB  ? pending 0.50 MiB  . unbacked 1.50 MiB"
        );
        assert_eq!(lines[2], format!("0x0           {}", "#".repeat(64)));
        assert_eq!(lines[6], format!("0x100000      +{}", "-".repeat(63)));
        assert_eq!(lines[10], format!("0x200000      {}", "H".repeat(64)));
        assert_eq!(lines[18], format!("0x400000      {}", "o".repeat(64)));
        assert_eq!(lines[26], "*");
        assert_eq!(lines[27], format!("0x780000      {}", "?".repeat(64)));
        assert_eq!(lines.len(), 29);
    }

    #[test]
    fn colours_are_those_of_the_legend() {
        let mut out = Vec::new();
        print(&mut out, &view(), 80).unwrap();
        let text = String::from_utf8(out).unwrap();
        for kind in Kind::ALL {
            let style = kind.style();
            let block = format!("{style}{}", kind.glyph());
            let times = text.matches(&block).count();
            assert!(times > usize::from(kind != Kind::Unbacked), "{kind:?}");
        }
    }

    #[test]
    fn a_large_arena_is_as_many_rows_as_a_small_one() {
        let mut view = view();
        let text = "offset pages shift live free orders content\n\
                    0x0 8388608 35 34359738368 0 9-9 live\n\
                    0x800000000 8388607 34 0 0 - unbacked\n\
                    0xffffff000 1 12 4096 0 0-0 live\n";
        view.extents = Map::parse(text).unwrap().0;
        let text = plain(&view, 80);
        assert!(text.lines().count() <= ROWS as usize + 2, "{text}");
        assert!(
            text.starts_with("arena 3 of sh (pid 17), 32 MiB a block"),
            "{text}"
        );
        // Most of its cell is unbacked, and all of it between.
        let last = text.lines().last().unwrap();
        assert_eq!(last, format!("0xf80000000   {}#", ".".repeat(63)));
        assert!(text.contains("H\n*\n0xf80000000"), "{text}");
    }

    #[test]
    fn an_arena_without_blocks_is_empty() {
        let mut view = view();
        view.extents.clear();
        assert_eq!(
            plain(&view, 80),
            "arena 3 of sh (pid 17), 4 KiB a block\nempty\n"
        );
    }
}
