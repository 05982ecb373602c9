// SPDX-License-Identifier: GPL-2.0-only

//! Copies of an arena: the live blocks of a source become live in a target, at the same offsets.
//!
//! | step | of | the block is |
//! | --- | --- | --- |
//! | [`Engine::live_from`] | the source | found, and stays what it is |
//! | [`Engine::reserve_at`] | the target | reserved at its offset; it gets its memory as every reserved block |
//! | [`Engine::still_has`], [`Engine::copy_tree`] | the source | looked at again: it may have gone meanwhile |
//! | [`Engine::commit`], [`Engine::commit_divided`] | the target | live; or [`Engine::cancel`] undoes it |
//!
//! Each step looks at a bounded number of extents, and nothing in the source waits for the target. A
//! block that is live from the first step to the last is copied; one that was allocated, freed or
//! resized in between may be, or not. Blocks that are pending are in no copy.

use super::class::Class;
use super::head::Head;
use super::request::{header_bytes, Reservation};
use super::{Backend, Engine, Metadata, Prealloc, Refusal};

/// Pages of live blocks, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveExtent {
    /// The first page.
    pub page: u32,
    /// How many.
    pub pages: u32,
    /// What they are.
    pub shape: LiveShape,
}

/// What lies in a [`LiveExtent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveShape {
    /// One block of whole pages.
    Block {
        /// It begins with a header.
        headed: bool,
        /// Its pages lie side by side in physical memory.
        contiguous: bool,
    },
    /// One page that is divided into smaller blocks, some of which are live.
    Divided,
}

/// How a block of a source is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    /// It is there, with all its memory.
    Whole,
    /// It is there, and some of its pages have no memory.
    Holed,
    /// It was freed or resized.
    Gone,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Calls `see` with extents of live blocks from page number `from` on, which is 0 or what an
    /// earlier call returned. Looks at no more than `most` extents of any kind. Returns the page
    /// number after them, `None` at the end.
    pub fn live_from(&self, from: u32, most: u32, mut see: impl FnMut(LiveExtent)) -> Option<u32> {
        let mut page = self.resume(from)?;
        for _ in 0..most {
            if page >= self.frontier {
                return None;
            }
            let head = self.directory.head(page)?;
            if let Some(shape) = Self::live_shape(head) {
                see(LiveExtent {
                    page,
                    pages: head.pages(),
                    shape,
                });
            }
            page += head.pages();
        }
        (page < self.frontier).then_some(page)
    }

    /// What a head says of live blocks; `None` where there are none.
    fn live_shape(head: &Head<B, PAGE_KIB>) -> Option<LiveShape> {
        match head {
            Head::Live {
                headed, contiguous, ..
            } => Some(LiveShape::Block {
                headed: *headed,
                contiguous: *contiguous,
            }),
            Head::Subpage(tree) if tree.has_live() => Some(LiveShape::Divided),
            _ => None,
        }
    }

    /// Reserves the pages of an extent of a source where they lie there. A divided page is reserved
    /// as a whole, for [`Engine::commit_divided`].
    ///
    /// [`Refusal::Need`]: the call is to be made again with that in `prealloc`. [`Refusal::NoSpace`]:
    /// something is there, or the address space ends before.
    pub fn reserve_at(
        &mut self,
        extent: LiveExtent,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Reservation, Refusal> {
        let LiveExtent { page, pages, shape } = extent;
        self.claim_space(page, pages, prealloc)?;
        self.put_reserved(page, pages, 0);
        let class = Class::of_pages(pages, Self::PAGE_SHIFT);
        let bytes = class.block_bytes();
        self.claimed += bytes;
        let (headed, contiguous) = match shape {
            LiveShape::Block { headed, contiguous } => (headed, contiguous),
            LiveShape::Divided => (false, false),
        };
        Ok(Reservation {
            start: u64::from(page) << Self::PAGE_SHIFT,
            class,
            headed,
            // How much of it was asked for is not known.
            requested: bytes - header_bytes(headed),
            had: 0,
            stale: 0,
            missing: pages,
            lazy: false,
            owed: 0,
            movable: false,
            contiguous,
        })
    }

    /// Notes that the next `pages` that a reserved block of a target misses have no memory in the source,
    /// and get none. Where they are `lazy` they get it when they are touched: their room under the
    /// limits is the block's from now on. Needs no metadata.
    pub fn leave_hole(&mut self, reservation: &mut Reservation, pages: u32, lazy: bool) {
        let pages = pages.min(reservation.missing);
        if let Some(Head::Reserved { backed, .. }) =
            self.directory.head_mut(reservation.first_page())
        {
            *backed += pages;
            reservation.missing -= pages;
            self.holes += pages;
            if lazy {
                reservation.lazy = true;
                reservation.owed += pages;
                self.owed += pages;
                self.claimed -= u64::from(pages) << Self::PAGE_SHIFT;
            }
        }
    }

    /// Whether some pages of a reserved block of a target are holes.
    pub fn has_hole(&self, reservation: &Reservation) -> bool {
        self.has_holes(reservation.first_page(), reservation.class.pages())
    }

    /// How the block of an extent of a source is found after it was copied.
    pub fn still_has(&self, extent: LiveExtent) -> Still {
        let head = self.directory.head(extent.page);
        let same = head.is_some_and(|head| {
            head.pages() == extent.pages && Self::live_shape(head) == Some(extent.shape)
        });
        match same {
            false => Still::Gone,
            true if self.has_holes(extent.page, extent.pages) => Still::Holed,
            true => Still::Whole,
        }
    }

    /// Copies which blocks are live in a divided page of a source to a tree in `prealloc`, for
    /// [`Engine::commit_divided`]. Returns whether any is.
    pub fn copy_tree(
        &self,
        page: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<bool, Metadata> {
        Self::ensure_tree(prealloc)?;
        match (self.directory.head(page), &mut prealloc.tree) {
            (Some(Head::Subpage(tree)), Some(copy)) if tree.has_live() => {
                copy.copy_live(tree);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Makes the blocks live that [`Engine::copy_tree`] has found, in a page that was reserved for
    /// them. The rest of it is free.
    pub fn commit_divided(
        &mut self,
        reservation: Reservation,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) {
        debug_assert_eq!(reservation.missing, 0);
        let Some(mut tree) = prealloc.tree.take() else {
            debug_assert!(false, "the tree was copied before");
            return;
        };
        tree.free_rest();
        let page = reservation.first_page();
        let (_, live) = tree.bytes();
        self.claimed = self.claimed - Self::PAGE_BYTES + live;
        self.directory.take_head(page);
        self.open_copied(page, tree);
        self.peak_bytes = self.peak_bytes.max(self.claimed);
    }
}
