// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kinds of memory that a map shows, with their glyphs and colours.

use std::fs;

use anstyle::{AnsiColor, Style};
use freelist::debugfs::{Content, Extent};

/// The kind of memory at a position in an arena, in the order of the legend. If several have the same number of
/// bytes in a cell, the first is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A live block, in folios smaller than a huge page.
    Live,
    /// A live block that is at least partly in huge pages.
    Huge,
    /// A live block, or a part of one, without memory: untouched or discarded.
    Untouched,
    /// A page that is divided into smaller blocks.
    Subpage,
    /// Free pages with memory.
    Free,
    /// A reservation that is not live yet, or memory that is being reclaimed.
    Pending,
    /// Address space without memory.
    Unbacked,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Live,
        Self::Huge,
        Self::Untouched,
        Self::Subpage,
        Self::Free,
        Self::Pending,
        Self::Unbacked,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Huge => "huge",
            Self::Untouched => "untouched",
            Self::Subpage => "subpage",
            Self::Free => "free",
            Self::Pending => "pending",
            Self::Unbacked => "unbacked",
        }
    }

    /// Returns the description for a picture's legend.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Live => "live blocks",
            Self::Huge => "live blocks, wholly or partly in huge pages",
            Self::Untouched => "live blocks without memory: untouched or discarded",
            Self::Subpage => "pages divided into smaller blocks",
            Self::Free => "free pages with memory",
            Self::Pending => "reserved, or being reclaimed",
            Self::Unbacked => "address space without memory",
        }
    }

    /// Returns the character on a terminal, which is distinct without colours too.
    pub(crate) fn glyph(self) -> char {
        match self {
            Self::Live => '#',
            Self::Huge => 'H',
            Self::Untouched => 'o',
            Self::Subpage => '+',
            Self::Free => '-',
            Self::Pending => '?',
            Self::Unbacked => '.',
        }
    }

    /// Returns the colours of the character on a terminal.
    pub(crate) fn style(self) -> Style {
        let on = |colour: AnsiColor| AnsiColor::Black.on(colour);
        match self {
            Self::Live => on(AnsiColor::Blue),
            Self::Huge => on(AnsiColor::Cyan),
            Self::Untouched => on(AnsiColor::White),
            Self::Subpage => on(AnsiColor::Magenta),
            Self::Free => on(AnsiColor::Green),
            Self::Pending => on(AnsiColor::Yellow),
            Self::Unbacked => AnsiColor::BrightBlack.on_default(),
        }
    }

    /// Returns the colour in a picture, distinct for colour-blind readers too (Okabe and Ito, 2008).
    pub(crate) fn colour(self) -> &'static str {
        match self {
            Self::Live => "#0072b2",
            Self::Huge => "#003f66",
            Self::Untouched => "#a6cde6",
            Self::Subpage => "#cc79a7",
            Self::Free => "#009e73",
            Self::Pending => "#f0c828",
            Self::Unbacked => "#eeeeee",
        }
    }
}

/// The sizes of a page and a huge page, by which the kinds of extents are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kinds {
    page: u64,
    /// The log2 of the pages of a huge page; `None` without huge pages.
    huge_order: Option<u32>,
}

impl Kinds {
    /// Makes it from sizes in bytes; `huge` is 0 without huge pages.
    pub(crate) fn new(page: u64, huge: u64) -> Self {
        let huge_order = (huge / page).checked_ilog2();
        Self { page, huge_order }
    }

    pub(crate) fn of_this_machine() -> Self {
        let huge = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
        let huge = huge.ok().and_then(|text| text.trim().parse().ok());
        Self::new(rustix::param::page_size() as u64, huge.unwrap_or(0))
    }

    /// Returns the bytes of a page.
    pub(crate) fn page(self) -> u64 {
        self.page
    }

    pub(crate) fn bytes(self, extent: &Extent) -> u64 {
        extent.pages.saturating_mul(self.page)
    }

    pub(crate) fn end(self, extent: &Extent) -> u64 {
        extent.offset.saturating_add(self.bytes(extent))
    }

    pub(crate) fn of(self, extent: &Extent) -> Kind {
        match (extent.content, extent.orders) {
            (Content::Live, None) => Kind::Untouched,
            (Content::Live, Some((_, max_order))) => match self.huge_order {
                Some(huge) if max_order >= huge => Kind::Huge,
                _ => Kind::Live,
            },
            (Content::Subpage, _) => Kind::Subpage,
            (Content::Free, _) => Kind::Free,
            (Content::Pending, _) => Kind::Pending,
            (Content::Unbacked, _) => Kind::Unbacked,
        }
    }

    /// Calls `see` with the extents in each of `count` cells of `cell` bytes, from 0 on: the cell's number, the
    /// extent, and the bytes of it that lie there. `extents` are ascending.
    pub(crate) fn each_cell<'a>(
        self,
        extents: &'a [Extent],
        cell: u64,
        mut see: impl FnMut(usize, &'a Extent, u64),
    ) {
        for extent in extents {
            let (mut at, end) = (extent.offset, self.end(extent));
            while at < end {
                let number = at / cell;
                let next = end.min((number + 1) * cell);
                see(number as usize, extent, next - at);
                at = next;
            }
        }
    }
}
