// SPDX-License-Identifier: GPL-2.0-only

//! Clones of an arena: the live blocks of a source become live in a target, at the same offsets.
//!
//! | step | arena | what it does |
//! | --- | --- | --- |
//! | [`Engine::live_from`] | source | finds live blocks; changes nothing |
//! | [`Engine::reserve_at`] | target | reserves the block at its offset; it is backed as any reserved block |
//! | [`Engine::still_has`], [`Engine::copy_tree`] | source | checks that the block is still live |
//! | [`Engine::commit`], [`Engine::commit_divided`] | target | makes it live; [`Engine::cancel`] undoes it |
//!
//! Each step visits a bounded number of extents, and no call on the source waits for the target. A
//! block that is live from the first step to the last is copied. A block that was allocated, freed or
//! resized in between may be copied or not. Pending blocks are not copied.

use super::class::Class;
use super::head::Head;
use super::request::{header_bytes, Reservation};
use super::{Backend, Engine, Metadata, Prealloc, Refusal};

/// Adjacent pages of one live block, or a divided page with live blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveExtent {
    /// The page number of the first page.
    pub page: u32,
    /// How many pages it has.
    pub pages: u32,
    /// Which blocks it has.
    pub shape: LiveShape,
}

/// The blocks of a [`LiveExtent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveShape {
    /// One block of whole pages.
    Block {
        /// It begins with a header.
        headed: bool,
        /// Its pages are contiguous in physical memory.
        contiguous: bool,
    },
    /// One divided page, with at least one live block.
    Divided,
}

/// The state in which a block of a source is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    /// Live, with memory in all pages.
    Whole,
    /// Live, with pages that have no memory or are in transit.
    Holed,
    /// Freed or resized.
    Gone,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Calls `see` with each extent of live blocks from page number `from` on, which is 0 or the
    /// result of an earlier call. Visits at most `max_extents` extents, live or not.
    ///
    /// Returns the page number at which the next call goes on; `None` at the end.
    pub fn live_from(
        &self,
        from: u32,
        max_extents: u32,
        mut see: impl FnMut(LiveExtent),
    ) -> Option<u32> {
        let mut page = self.resume(from)?;
        for _ in 0..max_extents {
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

    /// Returns the shape of the live blocks of an extent; `None` where no block is live.
    fn live_shape(head: &Head<B, PAGE_KIB>) -> Option<LiveShape> {
        match head {
            Head::Live {
                headed, contiguous, ..
            } => Some(LiveShape::Block {
                headed: *headed,
                contiguous: *contiguous,
            }),
            Head::Subpage(tree, ..) if tree.has_live() => Some(LiveShape::Divided),
            _ => None,
        }
    }

    /// Reserves the pages of an extent of a source in the target, at the same page numbers. A divided
    /// page is reserved as a whole, for [`Engine::commit_divided`].
    ///
    /// Fails with [`Refusal::Need`] where metadata is lacked, and with [`Refusal::NoSpace`] where the
    /// pages are in use or lie beyond the address space. Nothing has changed then.
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
            // The source does not keep the requested size.
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

    /// Makes the next `pages` missing pages of a reserved block of a target holes, as they have no
    /// memory in the source. Needs no metadata.
    ///
    /// `lazy`: the pages get memory when they are touched, and are owed from now on.
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

    /// Returns whether a reserved block of a target has holes.
    pub fn has_hole(&self, reservation: &Reservation) -> bool {
        self.has_holes(reservation.first_page(), reservation.class.pages())
    }

    /// Returns the state of a block of a source after its bytes were copied.
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

    /// Copies the live nodes of a divided page of a source to the tree in `prealloc`, for
    /// [`Engine::commit_divided`]. Returns whether any block is live.
    pub fn copy_tree(
        &self,
        page: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<bool, Metadata> {
        Self::ensure_tree(prealloc)?;
        match (self.directory.head(page), &mut prealloc.tree) {
            (Some(Head::Subpage(tree, ..)), Some(copy)) if tree.has_live() => {
                copy.copy_live(tree);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Makes the blocks live that [`Engine::copy_tree`] has copied, in the page that was reserved for
    /// them. The rest of the page becomes free.
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
