// SPDX-License-Identifier: GPL-2.0

//! What lies where in an arena, for people.

use super::backend::Backend;
use super::directory::Head;
use super::Engine;

/// What a stretch of pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A block of whole pages.
    Live,
    /// Memory that any request may have.
    Free,
    /// Address space.
    Unbacked,
    /// A block that is being made, or memory that is about to leave.
    Pending,
    /// A page that is divided into smaller blocks.
    Subpage,
}

/// Pages side by side that are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first page.
    pub page: u32,
    /// How many.
    pub pages: u32,
    /// The size class of the slot that they lie in; of a divided page that of its largest free
    /// block, 0 if it has none.
    pub shift: u8,
    /// What they are.
    pub content: Content,
    /// Bytes of live blocks in them.
    pub live_bytes: u64,
    /// Bytes of free blocks in them.
    pub free_bytes: u64,
}

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Calls `see` with all that lies in the arena, from its beginning to the end of what was ever
    /// used, without gaps. Takes time in proportion to its blocks and runs.
    pub fn map(&self, mut see: impl FnMut(Extent)) {
        let mut page = 0;
        while page < self.frontier {
            page = self.map_head(page, &mut see);
        }
    }

    /// Shows what begins at `page`. Gives the page behind it. Blocks on quick lists look like
    /// pending ones.
    fn map_head(&self, page: u32, see: &mut impl FnMut(Extent)) -> u32 {
        let Some(head) = self.directory.head(page) else {
            debug_assert!(false, "every page belongs to something");
            return self.frontier;
        };
        let (order, end, pages, content) = match head {
            Head::Interior => return self.frontier,
            Head::Free { order, backed, .. } => {
                (*order, page + (1 << order), *backed, Content::Free)
            }
            Head::Reserved {
                order,
                whole,
                pages,
                ..
            } => {
                let end = page + if *whole { 1 << order } else { *pages };
                let content = if self.is_quick(page, *order) {
                    Content::Free
                } else {
                    Content::Pending
                };
                (*order, end, *pages, content)
            }
            Head::Live {
                order,
                whole,
                pages,
                ..
            } => {
                let end = page + if *whole { 1 << order } else { *pages };
                (*order, end, *pages, Content::Live)
            }
            Head::Subpage(tree) => {
                let (free_bytes, live_bytes) = tree.bytes();
                let backed = self
                    .directory
                    .record(page)
                    .is_some_and(|record| record.page.is_some());
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
        let shift = Self::PAGE_SHIFT as u8 + order;
        let bytes = |of| {
            if content == of {
                u64::from(pages) << Self::PAGE_SHIFT
            } else {
                0
            }
        };
        let with = |page, pages, content, live_bytes, free_bytes| Extent {
            page,
            pages,
            shift,
            content,
            live_bytes,
            free_bytes,
        };
        if pages > 0 {
            see(with(
                page,
                pages,
                content,
                bytes(Content::Live),
                bytes(Content::Free),
            ));
        }
        if page + pages < end {
            see(with(
                page + pages,
                end - page - pages,
                Content::Unbacked,
                0,
                0,
            ));
        }
        end
    }
}
