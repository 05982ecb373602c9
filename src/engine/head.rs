// SPDX-License-Identifier: GPL-2.0-only

//! Heads: the descriptions of extents, kept at their first pages.

use super::{Backend, Tree, MAX_PAGES};

/// Bits of a page number in [`Links`].
const BITS: u32 = 28;
/// All of these bits.
const MASK: u32 = (1 << BITS) - 1;

const _: () = assert!(MAX_PAGES <= MASK);

/// The previous and the next element of a list, as page numbers; [`Links::END`] where there is none.
///
/// Packed, so that a head with them and a tree has no more than 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links([u8; 2 * BITS as usize / 8]);

impl Links {
    pub(super) const END: u32 = MASK;
    pub(super) const NONE: Self = Self([u8::MAX; 2 * BITS as usize / 8]);

    pub(super) fn new(prev: u32, next: u32) -> Self {
        let bits = u64::from(prev) | (u64::from(next) << BITS);
        let [a, b, c, d, e, f, g, _] = bits.to_le_bytes();
        Self([a, b, c, d, e, f, g])
    }

    fn bits(self) -> u64 {
        let [a, b, c, d, e, f, g] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, 0])
    }

    pub(super) fn prev(self) -> u32 {
        self.bits() as u32 & MASK
    }

    pub(super) fn next(self) -> u32 {
        (self.bits() >> BITS) as u32
    }

    pub(super) fn set_prev(&mut self, prev: u32) {
        *self = Self::new(prev, self.next());
    }

    pub(super) fn set_next(&mut self, next: u32) {
        *self = Self::new(self.prev(), next);
    }
}

/// Which pages of a live block have memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// All pages, except those whose memory was lost ([`Engine::lose`](super::Engine::lose)).
    Whole,
    /// The pages that were touched. The other pages are owed: they count against the limits.
    Lazy,
    /// As [`Memory::Lazy`], but a page was lost: no page gets memory any more, or the lost page
    /// would read as zeros.
    Damaged,
}

/// The description of the extent that begins at a page.
pub(super) enum Head<B: Backend, const PAGE_KIB: usize> {
    /// Nothing: the page lies inside an extent, or was never used.
    None,
    /// A run of free pages with memory. It is on a list.
    Backed { pages: u32, links: Links },
    /// A run of free pages without memory. It is on a list.
    Unbacked { pages: u32, links: Links },
    /// Pages that no request can get: a block that is being allocated or freed, a block on a quick
    /// list, or a range that is isolated.
    Reserved {
        pages: u32,
        /// How many leading pages have memory.
        backed: u32,
        /// The caller is about to back the other pages, without the lock.
        awaits_memory: bool,
    },
    /// A live block.
    Live {
        pages: u32,
        memory: Memory,
        headed: bool,
        /// Pages after it are reserved for it.
        growing: bool,
        /// Its pages are contiguous in physical memory.
        contiguous: bool,
    },
    /// A page that is divided into blocks smaller than a page. It is on a list while it has a free
    /// block.
    Subpage(B::Box<Tree<PAGE_KIB>>, Links),
}

impl<B: Backend, const PAGE_KIB: usize> Head<B, PAGE_KIB> {
    /// Returns the pages of the extent; 0 where nothing begins.
    pub(super) fn pages(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Backed { pages, .. }
            | Self::Unbacked { pages, .. }
            | Self::Reserved { pages, .. }
            | Self::Live { pages, .. } => *pages,
            Self::Subpage(..) => 1,
        }
    }
}
