// SPDX-License-Identifier: GPL-2.0-only

//! The engine: which range of an arena's address space a request gets.
//!
//! The engine only decides. It holds no page, allocates no metadata, takes no lock, has no `unsafe` and
//! imports nothing of the kernel, so the same files compile into the module and into the host's tests.
//! Its caller allocates and drops the memory of the ranges that the engine names, and reports both to
//! the engine. The caller also allocates metadata ([`Prealloc`]) and drops unused metadata ([`Garbage`]).
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | page | the unit of memory: `PAGE_KIB` KiB |
//! | backed, unbacked | a page with memory; a page of address space alone |
//! | run | adjacent free pages, all backed or all unbacked, as many as there are |
//! | block | what a request gets: a subpage block, or whole pages |
//! | divided page | a page that is split into subpage blocks ([`Tree`]) |
//! | extent | a run, a block of whole pages, a divided page, or a range that is isolated |
//! | frontier | the page number from which on no page belongs to an extent |
//! | reserved | of a block: no request gets it, and no caller can free it yet |
//! | stale | a page that may have old bytes of this arena; other new memory is zero |
//! | hole | a page of a block without memory: lost, discarded or not touched yet |
//! | owed | a hole that counts against the limits, as its block is lazy |
//! | in transit | a range of a live block that gets or loses memory at this moment, without the lock |
//!
//! # How it works
//!
//! Adjacent free pages are one run, whatever blocks they were (boundary tags, Knuth, 1973; here out of
//! band, [`directory`]). A request finds runs by good fit in two-level lists (TLSF, Masmano et al.,
//! 2004; [`lists`]). A request takes, in this order:
//!
//! 1. the block of its class that was freed last (Quick Fit, Weinstock and Wulf, 1988; [`quick`]);
//! 2. a backed run that fits, or the block that was just taken from one and freed ([`deferred`]);
//! 3. a backed run that ends at unbacked pages, and memory for these;
//! 4. unbacked pages, and memory for all of them.
//!
//! The memory for unbacked pages is new while the arena holds no more than its peak need plus the
//! slack ([`Engine::reuse_target`]). Beyond that, or where no new memory is allowed, the memory of
//! free runs elsewhere is dropped and allocated anew here ([`reclaim`]). So a request fails only when
//! free memory is used up.
//!
//! Blocks are aligned to their size class, but to no more than 64 KiB unless the request asks for
//! more. Every divided page is a buddy tree (Knowlton, 1965; [`tree`]), on the list of its largest free
//! block. A request takes the smallest free block that fits of the page that it finds.
//!
//! # Invariants
//!
//! `held + holes == live + free + pending` in bytes. Each page below the frontier belongs to exactly one
//! extent. Two neighbouring runs are never both backed or both unbacked. [`Engine::check`] lists all
//! invariants and proves them.

mod alloc;
mod batch;
mod bounds;
mod check;
mod class;
mod copy;
mod deferred;
mod directory;
mod discard;
mod free;
mod head;
mod holes;
mod lazy;
mod lists;
mod lookup;
mod lose;
mod map;
mod metadata;
mod quick;
mod reclaim;
mod records;
mod request;
mod resize;
mod runs;
mod stats;
mod subpage;
mod surplus;
mod transit;
mod tree;
mod wait_queue;

// Some of these names are used by the host's tests only.
#[allow(unused_imports)]
pub use self::{
    class::{max_shift, ALIGN_SHIFT, MAX_ALIGN_SHIFT, MIN_SHIFT},
    free::{Loose, Unfinished},
    resize::{Growth, ResizeError, Resized},
};
pub use batch::Batch;
pub use check::Violation;
pub use copy::{LiveExtent, LiveShape, Still};
pub use directory::{Changes, Entry, Part, Record, CHUNK_PAGES, MAX_PAGES, PART_LEN, ROOT_LEN};
pub use discard::{Discard, DiscardError, Discarding};
pub use holes::Holed;
pub use lazy::{Touch, Untouchable};
pub use lose::Loss;
pub use map::{Content, Extent};
pub use metadata::{Backend, Garbage, Metadata, MetadataCounts, Prealloc};
pub use quick::{Drained, Stack, QUICK_LISTS};
pub use reclaim::Isolated;
pub use request::{
    Admission, FreeError, Policy, Refusal, Releasing, Request, Reservation, HEADER_BYTES,
};
pub use stats::{ClassCounters, Counters};
pub use surplus::Surplus;
pub use tree::Tree;
pub use wait_queue::{Ticket, WaitQueue, WaiterSlot};

use deferred::LastLarge;
use directory::Directory;
use lists::Lists;
use quick::Quick;
use stats::ClassStats;
use transit::Transits;

/// The most blocks that one call allocates or frees.
pub const BATCH: u32 = 64;

/// The default slack, in thousandths.
pub const SLACK_PERMILLE: u32 = 50;

/// The freelists of one arena, over pages of `PAGE_KIB` KiB.
pub struct Engine<B: Backend, const PAGE_KIB: usize> {
    directory: Directory<B, PAGE_KIB>,
    lists: Lists,
    quick: Quick<B::Slice<Stack>>,
    last_large: Option<LastLarge>,
    /// Changes of runs so far; wraps.
    run_changes: u32,
    /// Page numbers from here on are in no extent.
    frontier: u32,
    span: u32,
    /// A page was used: the span no longer changes.
    is_used: bool,
    /// Pages in backed runs.
    free_pages: u32,
    /// How much more than `peak_bytes` may be held, in thousandths of it; `None` is no bound.
    slack_permille: Option<u32>,
    /// Bytes of all backed pages.
    held_bytes: u64,
    /// Pages of blocks without memory: lost, discarded, or not touched yet.
    holes: u32,
    /// Pages of lazy blocks, live or reserved, that have no memory but count against the limits.
    owed: u32,
    transits: Transits,
    /// Bytes of all blocks that are live or reserved, the missing pages included, the owed ones not.
    claimed: u64,
    /// The largest `claimed` at a moment when a block became live.
    peak_bytes: u64,
    requested_bytes: u64,
    moved_bytes: u64,
    faulted_bytes: u64,
    stats: [ClassStats; class::CLASSES],
    /// The chunks below this page number were dismantled.
    dismantled: u32,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    const PAGE_SHIFT: u32 = class::page_shift(PAGE_KIB);
    const PAGE_BYTES: u64 = 1 << Self::PAGE_SHIFT;
    /// The largest block is `1 << MAX_SHIFT` bytes.
    pub const MAX_SHIFT: u32 = class::max_shift(PAGE_KIB);

    /// Makes an empty arena of `span` pages of address space, at most [`MAX_PAGES`].
    ///
    /// `quick` has [`QUICK_LISTS`] default stacks.
    pub fn new(span: u32, quick: B::Slice<Stack>) -> Self {
        Self {
            directory: Directory::new(),
            lists: Lists::new(),
            quick: Quick::new(quick),
            last_large: None,
            run_changes: 0,
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
}
