// SPDX-License-Identifier: GPL-2.0-only

//! What is asked of the engine, and what it answers.

use super::class::Class;
use super::Metadata;
use core::ops::Range;

/// Bytes of the header of a block that has one.
pub const HEADER_BYTES: u64 = 16;

/// Bytes of a block's header, if it is `headed`.
pub(super) fn header_bytes(headed: bool) -> u64 {
    u64::from(headed) * HEADER_BYTES
}

/// Where the memory of a block may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A free block of the request's own list will do.
    Reuse {
        /// A larger free run may be split, and free memory elsewhere be moved here.
        split: bool,
        /// New pages may be asked for.
        grow: bool,
    },
    /// All of its pages are new, side by side: no free block will do.
    Contiguous,
}

impl Default for Policy {
    fn default() -> Self {
        Self::Reuse {
            split: false,
            grow: false,
        }
    }
}

impl Policy {
    /// Whether a larger run may be split.
    pub(super) fn may_split(self) -> bool {
        matches!(self, Self::Reuse { split: true, .. })
    }

    /// Whether new pages may be asked for.
    pub fn may_grow(self) -> bool {
        matches!(self, Self::Reuse { grow: true, .. } | Self::Contiguous)
    }

    /// Whether the request's own list is all that there is for it.
    pub fn is_exact(self) -> bool {
        self == Self::default()
    }
}

/// What of the free memory a request is let have, while others may be waiting for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// All of it.
    #[default]
    Full,
    /// Whole free pages are set aside for a waiter: parts of divided pages, and new pages.
    SubpageOrGrow,
    /// Parts of divided pages alone: the request waits, and is not the oldest that does.
    SubpageOnly,
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Bytes, at least 1.
    pub size: u64,
    /// The block is aligned to `1 << align_shift` bytes at least, at most
    /// [`MAX_ALIGN_SHIFT`](super::MAX_ALIGN_SHIFT).
    pub align_shift: u32,
    /// Where its memory may come from.
    pub policy: Policy,
    /// The block begins with [`HEADER_BYTES`] that are not the caller's.
    pub headed: bool,
    /// Pages that have no memory yet get it when they are touched. Not with `headed` or
    /// [`Policy::Contiguous`].
    pub lazy: bool,
}

impl Request {
    /// Bytes that it takes, with the header.
    pub fn bytes(&self) -> u64 {
        self.size.saturating_add(header_bytes(self.headed))
    }

    /// Whether the memory of free runs elsewhere may be moved to the block.
    pub(super) fn may_move(&self, admission: Admission) -> bool {
        let may = matches!(
            self.policy,
            Policy::Reuse { split: true, .. } | Policy::Reuse { grow: true, .. }
        );
        may && admission == Admission::Full
    }

    /// Whether new pages may be asked for, as it is admitted.
    pub(super) fn may_grow(&self, admission: Admission) -> bool {
        self.policy.may_grow() && admission != Admission::SubpageOnly
    }
}

/// Why a block could not be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Allocate one of these, add it to the prealloc, call again. Nothing has changed.
    Need(Metadata),
    /// Drop the garbage after an unlock, call again: there was more to do than one hold of the lock
    /// is long.
    Again,
    /// The size is 0.
    Zero,
    /// The size, with the header, is over the largest block.
    TooBig,
    /// The alignment is over the largest.
    Alignment,
    /// There is no free block that the request may take.
    Empty,
    /// No address space is left for a block of this size.
    NoSpace,
}

impl From<Metadata> for Refusal {
    fn from(metadata: Metadata) -> Self {
        Self::Need(metadata)
    }
}

/// Why a block could not be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The offset is not a multiple of 16.
    Misaligned,
    /// The offset is not below the end of the arena.
    Beyond,
    /// The offset is inside a live block, not at its beginning.
    Inside,
    /// Nothing live is there.
    NotLive,
}

/// A block that is being allocated: no other request can get it, no one can free it.
///
/// It has to be given to `commit` or `cancel`; dropped, its block is lost until the arena ends.
#[must_use = "a reservation that is neither committed nor cancelled is lost"]
#[derive(Debug)]
pub struct Reservation {
    /// Bytes from the beginning of the arena, of the header if there is one.
    pub(super) start: u64,
    pub(super) class: Class,
    pub(super) headed: bool,
    pub(super) requested: u64,
    /// Leading pages that the block had when it was reserved.
    pub(super) had: u32,
    /// Leading pages that may have old bytes.
    pub(super) stale: u32,
    pub(super) missing: u32,
    /// Its missing pages come when they are touched.
    pub(super) lazy: bool,
    /// Pages without memory that have their room under the limits.
    pub(super) owed: u32,
    pub(super) movable: bool,
    /// Its pages lie side by side in physical memory.
    pub(super) contiguous: bool,
}

impl Reservation {
    /// A block that has all its memory, of old bytes, and no header.
    #[inline(always)]
    pub(super) fn ready(start: u64, class: Class, requested: u64) -> Self {
        let pages = class.pages();
        Self {
            start,
            class,
            headed: false,
            requested,
            had: pages,
            stale: pages,
            missing: 0,
            lazy: false,
            owed: 0,
            movable: false,
            contiguous: false,
        }
    }

    /// Where the caller's part of it begins, in bytes from the beginning of the arena.
    pub fn offset(&self) -> u64 {
        self.start + header_bytes(self.headed)
    }

    /// Bytes that are the caller's.
    pub fn block_bytes(&self) -> u64 {
        self.class.block_bytes() - header_bytes(self.headed)
    }

    /// All its bytes in the arena, those of its header too.
    pub fn extent(&self) -> Range<u64> {
        self.start..self.start + self.class.block_bytes()
    }

    /// Whether it has a header, at the beginning of its extent.
    pub fn is_headed(&self) -> bool {
        self.headed
    }

    /// Whether its pages lie side by side in physical memory.
    pub fn is_contiguous(&self) -> bool {
        self.contiguous
    }

    /// Pages that have no memory yet: the last ones of the block.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Whether the pages that it misses come when they are touched: it is to have their room
    /// ([`Engine::owe`](super::Engine::owe)), not their memory.
    pub fn is_lazy(&self) -> bool {
        self.lazy
    }

    /// Returns how many of its pages have no memory, but their room under the limits.
    pub fn owed(&self) -> u32 {
        self.owed
    }

    /// Whether free pages may be moved here from elsewhere.
    pub fn is_movable(&self) -> bool {
        self.movable
    }

    /// Leading pages of the block that may have old bytes; those after them are known to be zero.
    pub fn stale(&self) -> u32 {
        self.stale
    }

    /// The page number of its first page.
    pub fn first_page(&self) -> u32 {
        self.class.page_of(self.start)
    }

    /// The page number of the next page that has no memory yet.
    pub fn next_page(&self) -> u32 {
        self.end_page() - self.missing
    }

    /// The page number behind its last page.
    pub fn end_page(&self) -> u32 {
        self.first_page() + self.class.pages()
    }

    /// The bytes of each of its pages that are the block's.
    pub fn within(&self) -> Range<usize> {
        self.class.within(self.start)
    }
}

/// A block with a header that is being freed: its header is looked at, then it goes to `release`.
#[must_use = "a block that is not released is lost"]
#[derive(Debug)]
pub struct Releasing {
    pub(super) start: u64,
    pub(super) class: Class,
}

impl Releasing {
    /// The page number of its first page.
    pub fn first_page(&self) -> u32 {
        self.class.page_of(self.start)
    }

    /// All its bytes in the arena, those of its header too.
    pub fn extent(&self) -> Range<u64> {
        self.start..self.start + self.class.block_bytes()
    }

    /// The bytes of each of its pages that are the block's.
    pub fn within(&self) -> Range<usize> {
        self.class.within(self.start)
    }
}
