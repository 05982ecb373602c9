// SPDX-License-Identifier: GPL-2.0-only

//! The map of an arena, as debugfs shows it.

use super::class::Class;
use super::head::Head;
use super::{Backend, Engine};

/// The content of an extent of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A live block of whole pages.
    Live,
    /// Free memory: a backed run, or a block on a quick list.
    Free,
    /// Address space without memory.
    Unbacked,
    /// A block that is being allocated or freed, an isolated range, or a divided page without memory.
    Pending,
    /// A divided page.
    Subpage,
}

/// Adjacent pages with one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The page number of the first page.
    pub page: u32,
    /// How many pages it has.
    pub pages: u32,
    /// The shift of the size class of a block of that length. Of a divided page: the shift of its
    /// largest free block, 0 if it has none.
    pub shift: u8,
    /// Its content.
    pub content: Content,
    /// Bytes of its live blocks.
    pub live_bytes: u64,
    /// Bytes of its free blocks.
    pub free_bytes: u64,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Calls `see` with the extents of the arena from page number `from` on, which is 0 or the result
    /// of an earlier call, without gaps, up to the frontier: at most `max_extents`.
    ///
    /// Returns the page number at which the next call goes on; `None` at the end. Changes between two
    /// calls may be missed.
    pub fn map(&self, from: u32, max_extents: u32, mut see: impl FnMut(Extent)) -> Option<u32> {
        let mut page = self.resume(from)?;
        for _ in 0..max_extents {
            if page >= self.frontier {
                return None;
            }
            page = self.map_head(page, &mut see);
        }
        (page < self.frontier).then_some(page)
    }

    /// Returns the page number at which a walk goes on after a step that ended at `from`: the first
    /// page at or after `from` at which an extent begins now. `None` at the end.
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

    /// Calls `see` with the extent that begins at `page`. Returns the page number after it.
    fn map_head(&self, page: u32, see: &mut impl FnMut(Extent)) -> u32 {
        let Some(head) = self.directory.head(page) else {
            debug_assert!(false, "every page belongs to an extent");
            return self.frontier;
        };
        let content = match head {
            Head::None => return self.frontier,
            Head::Backed { .. } => Content::Free,
            Head::Unbacked { .. } => Content::Unbacked,
            Head::Reserved { pages, .. } if self.is_quick(page, *pages) => Content::Free,
            Head::Reserved { .. } => Content::Pending,
            Head::Live { .. } => Content::Live,
            Head::Subpage(tree, ..) => {
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
