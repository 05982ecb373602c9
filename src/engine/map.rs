// SPDX-License-Identifier: GPL-2.0-only

//! What lies where in an arena, for people.

use super::class::Class;
use super::head::Head;
use super::{Backend, Engine};

/// What a stretch of pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A block of whole pages.
    Live,
    /// Memory that any request may have.
    Free,
    /// Address space.
    Unbacked,
    /// A block that is being allocated or freed, or memory that is about to leave.
    Pending,
    /// A page that is divided into smaller blocks.
    Subpage,
}

/// Pages side by side that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first page.
    pub page: u32,
    /// How many.
    pub pages: u32,
    /// The size class of a block of that length; of a divided page that of its largest free block,
    /// 0 if it has none.
    pub shift: u8,
    /// What they are.
    pub content: Content,
    /// Bytes of live blocks in them.
    pub live_bytes: u64,
    /// Bytes of free blocks in them.
    pub free_bytes: u64,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Calls `see` with what lies in the arena from page number `from` on, which is 0 or what an
    /// earlier call returned, up to the frontier, without gaps: at most `most` extents. Returns
    /// the page number behind them, `None` at the end. What changes between two calls may be missed.
    pub fn map(&self, from: u32, most: u32, mut see: impl FnMut(Extent)) -> Option<u32> {
        let mut page = self.resume(from)?;
        for _ in 0..most {
            if page >= self.frontier {
                return None;
            }
            page = self.map_head(page, &mut see);
        }
        (page < self.frontier).then_some(page)
    }

    /// Returns where a walk in steps goes on that had come to page number `from`, at which an extent
    /// began then: where the next one begins now, or `None` at the end.
    pub(super) fn resume(&self, from: u32) -> Option<u32> {
        if from == 0 {
            return Some(0);
        }
        let (start, head) = self.directory.extent_of(from)?;
        Some(match start < from {
            true => start + head.pages(),
            false => from,
        })
    }

    /// Shows what begins at `page`. Returns the page number behind it.
    fn map_head(&self, page: u32, see: &mut impl FnMut(Extent)) -> u32 {
        let Some(head) = self.directory.head(page) else {
            debug_assert!(false, "every page belongs to something");
            return self.frontier;
        };
        let content = match head {
            Head::None => return self.frontier,
            Head::Backed { .. } => Content::Free,
            Head::Unbacked { .. } => Content::Unbacked,
            Head::Reserved { pages, .. } if self.is_quick(page, *pages) => Content::Free,
            Head::Reserved { .. } => Content::Pending,
            Head::Live { .. } => Content::Live,
            Head::Subpage(tree) => {
                let (free_bytes, live_bytes) = tree.bytes();
                let backed = self.directory.is_backed(page);
                let largest = tree.largest().map_or(0, |depth| Self::PAGE_SHIFT - depth);
                let quick = if free_bytes + live_bytes < Self::PAGE_BYTES {
                    self.quick_bytes_in(page)
                } else {
                    0
                };
                see(Extent {
                    page,
                    pages: 1,
                    shift: largest as u8,
                    content: if backed {
                        Content::Subpage
                    } else {
                        Content::Pending
                    },
                    live_bytes,
                    free_bytes: if backed { free_bytes + quick } else { 0 },
                });
                return page + 1;
            }
        };
        let pages = head.pages();
        let bytes = |of| {
            if content == of {
                u64::from(pages) << Self::PAGE_SHIFT
            } else {
                0
            }
        };
        see(Extent {
            page,
            pages,
            shift: Class::of_pages(pages, Self::PAGE_SHIFT).shift() as u8,
            content,
            live_bytes: bytes(Content::Live),
            free_bytes: bytes(Content::Free),
        });
        page + pages
    }
}
