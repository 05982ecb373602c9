// SPDX-License-Identifier: GPL-2.0-only

//! The requests to the engine, and its answers.

use super::class::Class;
use super::Metadata;
use core::ops::Range;

/// Bytes of a block's header.
pub const HEADER_BYTES: u64 = 16;

/// Returns the bytes of the header of a block: 0 if it is not `headed`.
pub(super) fn header_bytes(headed: bool) -> u64 {
    u64::from(headed) * HEADER_BYTES
}

/// Where the memory of a block may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// From a free block of the request's own list, and from the sources that are allowed here.
    Reuse {
        /// A larger free run may be split, and the memory of free runs elsewhere reused.
        split: bool,
        /// New pages may be allocated.
        grow: bool,
    },
    /// From new pages alone, contiguous in physical memory. No free block serves.
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
    /// Returns whether a larger run may be split.
    pub(super) fn may_split(self) -> bool {
        matches!(self, Self::Reuse { split: true, .. })
    }

    /// Returns whether new pages may be allocated.
    pub fn may_grow(self) -> bool {
        matches!(self, Self::Reuse { grow: true, .. } | Self::Contiguous)
    }

    /// Returns whether only the request's own list serves it.
    pub fn is_exact(self) -> bool {
        self == Self::default()
    }
}

/// Which memory a request may take while other requests wait: the verdict of the wait queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// All free memory, and new pages.
    #[default]
    Full,
    /// Free subpage blocks and new pages: free whole pages are set aside for a waiter.
    SubpageOrGrow,
    /// Free subpage blocks alone: the request waits, and is not the oldest waiter.
    SubpageOnly,
}

/// A request for one block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Bytes, at least 1.
    pub size: u64,
    /// The block is aligned to `1 << align_shift` bytes at least, at most
    /// [`MAX_ALIGN_SHIFT`](super::MAX_ALIGN_SHIFT).
    pub align_shift: u32,
    /// Where its memory may come from.
    pub policy: Policy,
    /// The block begins with [`HEADER_BYTES`] bytes of header, beside the caller's bytes.
    pub headed: bool,
    /// Its pages without memory get memory when they are touched. Not allowed with `headed` or
    /// [`Policy::Contiguous`].
    pub lazy: bool,
}

impl Request {
    /// Returns the bytes to be allocated, the header included.
    pub fn bytes(&self) -> u64 {
        self.size.saturating_add(header_bytes(self.headed))
    }

    /// Returns whether the memory of free runs elsewhere may be reused for the block.
    pub(super) fn may_move(&self, admission: Admission) -> bool {
        let may = matches!(
            self.policy,
            Policy::Reuse { split: true, .. } | Policy::Reuse { grow: true, .. }
        );
        may && admission == Admission::Full
    }

    /// Returns whether new pages may be allocated under this admission.
    pub(super) fn may_grow(&self, admission: Admission) -> bool {
        self.policy.may_grow() && admission != Admission::SubpageOnly
    }
}

/// Why a block could not be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Metadata is lacked: allocate one of these, add it to the prealloc, call again. Nothing has
    /// changed.
    Need(Metadata),
    /// The bounded work of one call is done: unlock, drop the garbage, call again.
    Again,
    /// The size is 0.
    Zero,
    /// The size, with the header, exceeds the largest block.
    TooBig,
    /// The alignment exceeds the largest.
    Alignment,
    /// No free block serves the request, and it may not grow.
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
    /// The offset is at or beyond the end of the arena.
    Beyond,
    /// The offset is inside a live block, not at its beginning.
    Inside,
    /// No live block has the offset.
    NotLive,
}

/// A block that is being allocated: no other request can get it, and no caller can free it.
///
/// It has to be passed to `commit` or `cancel`. The block of a dropped reservation is lost until the
/// arena ends.
#[must_use = "a reservation that is neither committed nor cancelled is lost"]
#[derive(Debug)]
pub struct Reservation {
    /// Where the block begins, with its header, in bytes from the beginning of the arena.
    pub(super) start: u64,
    pub(super) class: Class,
    pub(super) headed: bool,
    pub(super) requested: u64,
    /// Leading pages that had memory when the block was reserved.
    pub(super) had: u32,
    /// Leading pages that may have old bytes.
    pub(super) stale: u32,
    /// Trailing pages that have no memory yet.
    pub(super) missing: u32,
    /// Its missing pages get memory when they are touched.
    pub(super) lazy: bool,
    /// Pages without memory that count against the limits.
    pub(super) owed: u32,
    /// The memory of free runs elsewhere may be reused for it.
    pub(super) movable: bool,
    /// Its pages are contiguous in physical memory.
    pub(super) contiguous: bool,
}

impl Reservation {
    /// Makes a reservation of a block that has all its memory, with old bytes, and no header.
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

    /// Returns where the caller's bytes begin, after the header, in bytes from the beginning of the
    /// arena.
    pub fn offset(&self) -> u64 {
        self.start + header_bytes(self.headed)
    }

    /// Returns how many bytes are the caller's.
    pub fn block_bytes(&self) -> u64 {
        self.class.block_bytes() - header_bytes(self.headed)
    }

    /// Returns its bytes in the arena, the header included.
    pub fn extent(&self) -> Range<u64> {
        self.start..self.start + self.class.block_bytes()
    }

    /// Returns whether the block begins with a header.
    pub fn is_headed(&self) -> bool {
        self.headed
    }

    /// Returns whether its pages are to be contiguous in physical memory.
    pub fn is_contiguous(&self) -> bool {
        self.contiguous
    }

    /// Returns how many pages have no memory yet: the last ones of the block.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Returns whether its missing pages get memory when they are touched. The caller counts them
    /// against the limits ([`Engine::owe`](super::Engine::owe)) instead of backing them.
    pub fn is_lazy(&self) -> bool {
        self.lazy
    }

    /// Returns how many pages without memory count against the limits.
    pub fn owed(&self) -> u32 {
        self.owed
    }

    /// Returns whether the memory of free runs elsewhere may be reused for it.
    pub fn is_movable(&self) -> bool {
        self.movable
    }

    /// Returns how many leading pages may have old bytes. The pages after them are known to be zero.
    pub fn stale(&self) -> u32 {
        self.stale
    }

    /// Returns the page number of its first page.
    pub fn first_page(&self) -> u32 {
        self.class.page_of(self.start)
    }

    /// Returns the page number of the first page that has no memory yet.
    pub fn next_page(&self) -> u32 {
        self.end_page() - self.missing
    }

    /// Returns the page number after its last page.
    pub fn end_page(&self) -> u32 {
        self.first_page() + self.class.pages()
    }

    /// Returns which bytes of each of its pages belong to the block.
    pub fn within(&self) -> Range<usize> {
        self.class.within(self.start)
    }
}

/// A block with a header that is being freed. Once its header was checked it has to be passed to
/// `release`.
#[must_use = "a block that is not released is lost"]
#[derive(Debug)]
pub struct Releasing {
    pub(super) start: u64,
    pub(super) class: Class,
}

impl Releasing {
    /// Returns the page number of its first page.
    pub fn first_page(&self) -> u32 {
        self.class.page_of(self.start)
    }

    /// Returns its bytes in the arena, the header included.
    pub fn extent(&self) -> Range<u64> {
        self.start..self.start + self.class.block_bytes()
    }

    /// Returns which bytes of each of its pages belong to the block.
    pub fn within(&self) -> Range<usize> {
        self.class.within(self.start)
    }
}
