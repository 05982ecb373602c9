// SPDX-License-Identifier: MIT OR Apache-2.0

//! A map as a picture: rows of address space, in which each extent has its length.

use freelist::debugfs::Extent;
use svg::node::element::{Group, Rectangle, Text, Title};
use svg::Document;

use super::{amount, Kind, View};
use crate::show::unit;

/// The width of a row in pixels.
const WIDTH: f64 = 1024.0;
const LEFT: f64 = 110.0;
const TOP: f64 = 110.0;
const ROW: f64 = 18.0;
const GAP: f64 = 4.0;
/// The most rows.
const ROWS: u64 = 40;
const PAGES: u64 = 64;

/// A part of a row, with its beginning and end in bytes.
#[derive(Clone, Copy)]
struct Piece {
    from: u64,
    to: u64,
    kind: Kind,
    /// The bytes of the extent whose kind it has.
    longest: u64,
}

/// Draws the map as a self-contained picture.
pub(crate) fn draw(view: &View) -> Document {
    let span = view.span();
    let row = span
        .div_ceil(ROWS)
        .max(view.kinds.page() * PAGES)
        .next_power_of_two();
    let rows = span.div_ceil(row).max(1);
    let height = TOP + rows as f64 * (ROW + GAP) + GAP;
    let width = LEFT + WIDTH + 20.0;
    let document = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", "sans-serif")
        .set("font-size", 12)
        .add(Title::new(view.title.as_str()))
        .add(rectangle(0.0, 0.0, width, height, "#ffffff"))
        .add(text(12.0, 26.0, &view.title).set("font-size", 18))
        .add(text(12.0, 46.0, &format!("a row is {}", unit(row))));
    let mut group = Group::new();
    for number in 0..rows {
        let y = TOP + number as f64 * (ROW + GAP);
        let label = format!("{:#x}", number * row);
        group = group.add(text(LEFT - 8.0, y + ROW - 5.0, &label).set("text-anchor", "end"));
    }
    legend(document, view).add(group).add(bands(view, row))
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, colour: &str) -> Rectangle {
    Rectangle::new()
        .set("x", x)
        .set("y", y)
        .set("width", width)
        .set("height", height)
        .set("fill", colour)
}

fn text(x: f64, y: f64, content: &str) -> Text {
    Text::new(content).set("x", x).set("y", y)
}

/// Draws the kinds that occur, with their bytes, in two rows.
fn legend(mut document: Document, view: &View) -> Document {
    for (at, (kind, bytes)) in view.sums().into_iter().enumerate() {
        let (column, line) = ((at % 4) as f64, (at / 4) as f64);
        let (x, y) = (12.0 + column * 285.0, 60.0 + line * 20.0);
        let name = Title::new(kind.meaning());
        document = document
            .add(rectangle(x, y, 12.0, 12.0, kind.colour()).set("class", kind.name()))
            .add(text(x + 18.0, y + 10.5, &amount(kind, bytes)).add(name));
    }
    document
}

/// Draws all rows. Each extent has a title, which viewers show under the pointer.
fn bands(view: &View, row: u64) -> Group {
    let mut bands = Bands {
        group: Group::new(),
        number: 0,
        scale: WIDTH / row as f64,
        pixel: row / WIDTH as u64,
        short: Vec::new(),
    };
    let mut at = 0;
    view.kinds
        .each_cell(&view.extents, row, |number, extent, bytes| {
            if number != bands.number {
                bands.end_row();
                (bands.number, at) = (number, 0);
            }
            let piece = Piece {
                from: at,
                to: at + bytes,
                kind: view.kinds.of(extent),
                longest: bytes,
            };
            at += bytes;
            if bytes >= bands.pixel {
                bands.add(&piece, Some(describe(view, extent)));
            } else {
                bands.join(piece);
            }
        });
    bands.end_row();
    bands.group
}

/// The rows that were drawn, and the one that is being drawn.
struct Bands {
    group: Group,
    number: usize,
    /// The pixels of a byte.
    scale: f64,
    /// The bytes of a pixel.
    pixel: u64,
    /// The extents of this row that are shorter than a pixel.
    short: Vec<Piece>,
}

impl Bands {
    fn add(&mut self, piece: &Piece, title: Option<String>) {
        let shape = rectangle(
            LEFT + piece.from as f64 * self.scale,
            TOP + self.number as f64 * (ROW + GAP),
            (piece.to - piece.from) as f64 * self.scale,
            ROW,
            piece.kind.colour(),
        )
        .set("class", piece.kind.name());
        let shape = match title {
            Some(title) => shape
                .set("stroke", "#ffffff")
                .set("stroke-width", 0.3)
                .add(Title::new(title)),
            None => shape,
        };
        self.group = std::mem::take(&mut self.group).add(shape);
    }

    /// Joins an extent shorter than a pixel with its neighbours, up to a pixel. The piece has the kind of its
    /// longest extent; unbacked counts only if there is no other.
    fn join(&mut self, piece: Piece) {
        match self.short.last_mut() {
            Some(before) if before.to == piece.from && piece.to - before.from <= self.pixel => {
                let counts = |piece: &Piece| (piece.kind != Kind::Unbacked, piece.longest);
                if counts(&piece) > counts(before) {
                    (before.kind, before.longest) = (piece.kind, piece.longest);
                }
                before.to = piece.to;
            }
            _ => self.short.push(piece),
        }
    }

    /// Draws the short pieces of this row, with neighbours of the same kind as one.
    fn end_row(&mut self) {
        let short = std::mem::take(&mut self.short);
        let alike = |a: &Piece, b: &Piece| a.kind == b.kind && a.to == b.from;
        for run in short.chunk_by(alike) {
            let piece = Piece {
                to: run[run.len() - 1].to,
                ..run[0]
            };
            self.add(&piece, None);
        }
    }
}

/// Describes an extent in a line.
fn describe(view: &View, extent: &Extent) -> String {
    let kind = view.kinds.of(extent);
    let orders = match extent.orders {
        Some((least, most)) if least != most => format!(", folios of 2^{least} to 2^{most} pages"),
        Some((order, _)) => format!(", folios of 2^{order} pages"),
        None => String::new(),
    };
    format!(
        "{:#x}: {}{orders}",
        extent.offset,
        amount(kind, view.kinds.bytes(extent))
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;
    use crate::pixels::Pixels;
    use freelist::debugfs::Map;

    #[test]
    fn every_kind_is_drawn_at_its_offset() {
        // A row is 256 KiB, of 32.
        let view = view();
        let pixels = Pixels::of(&draw(&view).to_string());
        let at = |offset: u64| {
            let (row, rest) = (offset / (256 << 10), offset % (256 << 10));
            let x = LEFT + rest as f64 * WIDTH / f64::from(256 << 10);
            pixels.at(x + 4.0, TOP + row as f64 * (ROW + GAP) + ROW / 2.0)
        };
        for (offset, kind) in [
            (0, Kind::Live),
            (0xff000, Kind::Live),
            (0x100000, Kind::Subpage),
            (0x101000, Kind::Free),
            (0x1ff000, Kind::Free),
            (0x200000, Kind::Huge),
            (0x400000, Kind::Untouched),
            (0x600000, Kind::Unbacked),
            (0x780000, Kind::Pending),
            (0x7ff000, Kind::Pending),
        ] {
            assert_eq!(at(offset), kind.colour(), "{offset:#x}");
        }
    }

    #[test]
    fn the_legend_names_the_drawn_kinds_only() {
        let text = draw(&view()).to_string();
        for kind in Kind::ALL {
            assert!(
                text.contains(&format!("class=\"{}\"", kind.name())),
                "{kind:?}"
            );
        }
        assert!(text.contains("huge 2.00 MiB"));
        let mut one = view();
        one.extents.truncate(1);
        let text = draw(&one).to_string();
        assert!(
            text.contains("live 1.00 MiB") && !text.contains("huge"),
            "{text}"
        );
    }

    #[test]
    fn a_picture_needs_nothing_beside_it_and_takes_any_name() {
        let mut view = view();
        view.title = "arena 1 of <&\"x'> (pid 1)".to_owned();
        let text = draw(&view).to_string();
        // The name of the XML name space is the only address.
        assert_eq!(text.matches("http").count(), 1, "{text}");
        assert!(!text.contains("href") && !text.contains("url("), "{text}");
        assert!(!text.contains("<&"), "{text}");
        Pixels::of(&text);
    }

    #[test]
    fn a_picture_of_many_small_blocks_is_small() {
        let mut rows = String::from("offset pages shift live free orders content\n");
        for at in 0..100_000u64 {
            let offset = at * 8192;
            rows += &format!("{offset:#x} 1 12 4096 0 0-0 live\n");
            rows += &format!("{:#x} 1 12 0 4096 0-0 free\n", offset + 4096);
        }
        let mut view = view();
        view.extents = Map::parse(&rows).unwrap().0;
        let text = draw(&view).to_string();
        assert!(text.len() < 64 << 10, "{} bytes", text.len());
        // No extent of a row is missing.
        let pixels = Pixels::of(&text);
        for x in 0..WIDTH as u32 {
            let colour = pixels.at(LEFT + f64::from(x) + 0.5, TOP + ROW / 2.0);
            assert_ne!(colour, "#ffffff", "{x}");
        }
    }
}
