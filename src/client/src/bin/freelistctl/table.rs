// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables as text: two blanks between columns, numbers aligned to the right.

use std::io::{self, Write};

use comfy_table::{presets, CellAlignment, ColumnConstraint, Table, Width};

/// The alignment of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Prints a table. `columns` are the names and the alignments of its columns; each is at least `width` characters
/// wide.
pub(crate) fn print(
    out: &mut impl Write,
    columns: &[(&str, Align)],
    width: u16,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(columns.iter().map(|(name, _)| *name));
    table.add_rows(rows);
    for (column, (_, align)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + 2)));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_blanks_at_the_end_and_never_wraps() {
        let mut out = Vec::new();
        let long = "a name with blanks ".repeat(20);
        let row = |number: &str, name: &str| vec![number.to_owned(), name.to_owned()];
        let columns = [("held", Align::Right), ("name", Align::Left)];
        let rows = [row("7.00 MiB", "sh"), row("123456789", long.trim_end())];
        print(&mut out, &columns, 4, rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "     held  name");
        assert_eq!(lines[1], " 7.00 MiB  sh");
        assert_eq!(lines[2], format!("123456789  {}", long.trim_end()));
        assert_eq!(lines.len(), 3);
    }
}
