// SPDX-License-Identifier: GPL-2.0-only

//! The engine: which range of an arena's address space a request gets.
//!
//! It decides and does nothing else: it holds no page, allocates no metadata, takes no lock and knows
//! nothing of the kernel. Its caller brings and drops the memory of the ranges that it names, and tells
//! it of that; lends it metadata ([`Backend`], [`Prealloc`]) and drops what it has no more use for
//! ([`Garbage`]), so the same files compile into the module and into the host's tests.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | page | the unit in which memory comes and goes; `PAGE_KIB` KiB |
//! | backed | with memory behind it; the rest is address space |
//! | run | free pages side by side, all backed or all unbacked, as many as there are |
//! | block | what a request gets: part of a page, or whole pages |
//! | divided | a page that has blocks smaller than itself ([`Tree`]) |
//! | extent | a run, a block of whole pages, a divided page, or a range that is isolated |
//! | frontier | page numbers from there on are not in use, and have no record |
//!
//! # How it works
//!
//! Free pages that lie side by side are one run, whatever blocks they were (boundary tags, Knuth,
//! 1973; here out of band, [`directory`]). Runs are found by good fit through two-level lists (TLSF,
//! Masmano et al., 2004; [`lists`]). A request takes, in this order:
//!
//! 1. the block of its class that was freed last (Quick Fit, Weinstock and Wulf, 1988; [`quick`]);
//! 2. a backed run that fits;
//! 3. a backed run whose end borders on unbacked space, and memory for the rest;
//! 4. unbacked space, and memory for all of it.
//!
//! That memory is new as long as the arena does not hold more than the slack allows beyond the most
//! that its blocks ever needed ([`Engine::reuse_target`]); beyond that, and wherever there is none to
//! be had, it is that of free runs elsewhere ([`reclaim`]). So a request fails only when memory is
//! really used up.
//!
//! Blocks are aligned to their size class, but to no more than 64 KiB unless a request asks for it.
//! Below a page every divided page is a small buddy tree of its own (Knowlton, 1965; [`tree`]). It
//! is on one list, that of its largest free block; within it the smallest block that fits is taken.
//!
//! # Invariants
//!
//! `held == live + free + pending` in bytes; from page 0 to the frontier each page is in exactly one
//! extent; two neighbouring runs are never of one backing. [`Engine::check`] states them all, and
//! proves them.

mod alloc;
mod batch;
mod check;
mod class;
mod copy;
mod directory;
mod discard;
mod free;
mod holes;
mod lazy;
mod lists;
mod lookup;
mod lose;
mod map;
mod quick;
mod reclaim;
mod request;
mod resize;
mod runs;
mod stats;
mod subpage;
mod surplus;
mod transit;
mod tree;
mod wait_queue;

// Some of these only the tests on the host name.
#[allow(unused_imports)]
pub use self::{
    class::{max_shift, ALIGN_SHIFT, MAX_ALIGN_SHIFT, MIN_SHIFT},
    free::{Loose, Unfinished},
    resize::{Growth, ResizeError, Resized},
};
pub use batch::Batch;
pub use check::Violation;
pub use copy::{LiveExtent, LiveShape, Still};
pub use directory::{
    Backend, Changes, Entry, Garbage, Metadata, MetadataCounts, Part, Prealloc, Record,
    CHUNK_PAGES, MAX_PAGES, PART_LEN, ROOT_LEN,
};
pub use discard::{Discard, DiscardError, Discarding};
pub use holes::Holed;
pub use lazy::{Touch, Untouchable};
pub use lose::Loss;
pub use map::{Content, Extent};
pub use quick::{Drained, Stack, QUICK_LISTS};
pub use reclaim::Isolated;
pub use request::{
    Admission, FreeError, Policy, Refusal, Releasing, Request, Reservation, HEADER_BYTES,
};
pub use stats::{ClassCounters, Counters};
pub use surplus::Surplus;
pub use tree::Tree;
pub use wait_queue::{Ticket, WaitQueue, WaiterSlot};

use directory::Directory;
use lists::Lists;
use quick::Quick;
use stats::ClassStats;
use transit::Transits;

/// The most blocks that are dealt with in one call.
pub const BATCH: u32 = 64;

/// The default slack, in thousandths.
pub const SLACK_PERMILLE: u32 = 50;

/// The freelists of one arena, over pages of `PAGE_KIB` KiB.
pub struct Engine<B: Backend, const PAGE_KIB: usize> {
    directory: Directory<B, PAGE_KIB>,
    lists: Lists,
    quick: Quick<B::Slice<Stack>>,
    /// Page numbers from here on are in no extent.
    frontier: u32,
    span: u32,
    /// The address space has been used: it is not changed any more.
    is_used: bool,
    /// Pages in backed runs.
    free_pages: u32,
    /// How much more than the most that was needed may be held, in thousandths; without a bound if
    /// `None`.
    slack_permille: Option<u32>,
    /// Bytes of all pages.
    held_bytes: u64,
    /// Pages of blocks that have no memory: lost, or not touched yet.
    holes: u32,
    /// Of these, pages of lazy blocks, live or reserved, which have their room under the limits.
    owed: u32,
    transits: Transits,
    /// Bytes of all blocks that are live or reserved, with the pages that these still miss, but
    /// for pages of live blocks that are owed.
    claimed: u64,
    /// The most that this has been when a block became live.
    peak_bytes: u64,
    requested_bytes: u64,
    moved_bytes: u64,
    faulted_bytes: u64,
    stats: [ClassStats; class::CLASSES],
    /// Chunks before this page have been dismantled.
    dismantled: u32,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    const PAGE_SHIFT: u32 = class::page_shift(PAGE_KIB);
    const PAGE_BYTES: u64 = 1 << Self::PAGE_SHIFT;
    /// The largest block is `1 << MAX_SHIFT` bytes.
    pub const MAX_SHIFT: u32 = class::max_shift(PAGE_KIB);

    /// An empty arena of `span` pages of address space, at most [`MAX_PAGES`].
    ///
    /// `quick` has [`QUICK_LISTS`] stacks, all default.
    pub fn new(span: u32, quick: B::Slice<Stack>) -> Self {
        Self {
            directory: Directory::new(),
            lists: Lists::new(),
            quick: Quick::new(quick),
            frontier: 0,
            span: span.min(MAX_PAGES),
            is_used: false,
            free_pages: 0,
            slack_permille: Some(SLACK_PERMILLE),
            held_bytes: 0,
            holes: 0,
            owed: 0,
            transits: Transits::default(),
            claimed: 0,
            peak_bytes: 0,
            requested_bytes: 0,
            moved_bytes: 0,
            faulted_bytes: 0,
            stats: [ClassStats::default(); class::CLASSES],
            dismantled: 0,
        }
    }

    /// Changes the address space to `pages` pages. Returns whether it did: not when that is none or
    /// more than [`MAX_PAGES`], nor once some of it was used.
    pub fn set_span(&mut self, pages: u32) -> bool {
        let may = !self.is_used && (1..=MAX_PAGES).contains(&pages);
        if may {
            self.span = pages;
        }
        may
    }

    /// Bytes of address space.
    pub fn span_bytes(&self) -> u64 {
        u64::from(self.span) << Self::PAGE_SHIFT
    }

    /// How much more than the most that its blocks ever needed the arena may hold before it reuses
    /// scattered free memory instead of growing, in thousandths; `None` is without a bound.
    pub fn slack_permille(&self) -> Option<u32> {
        self.slack_permille
    }

    /// Sets that.
    pub fn set_slack_permille(&mut self, slack: Option<u32>) {
        self.slack_permille = slack;
    }

    /// Ends the arena piece by piece: hands out one chunk of metadata, to be dropped outside the lock; `None` when none is left. Nothing else may be called afterwards.
    pub fn dismantle(&mut self) -> Option<B::Slice<Record<B, PAGE_KIB>>> {
        let (next, chunk) = self.directory.dismantle(self.dismantled)?;
        self.dismantled = next;
        Some(chunk)
    }
}
