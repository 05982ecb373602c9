// SPDX-License-Identifier: GPL-2.0

//! The engine: power-of-2 freelists over the pages of one arena.
//!
//! It decides which block a request gets and nothing else: it fetches no page, allocates no
//! metadata, takes no lock and knows nothing of the kernel. Whoever calls it lends it pages and
//! metadata ([`Backend`]) and calls again when it asks for them, so the same files compile into the
//! module and into the host's tests.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | page | the unit in which memory comes and goes; `PAGE_KIB` KiB |
//! | order | a run of order `k` spans `1 << k` pages and is aligned to its size |
//! | slot | an aligned power-of-2 range of page numbers, whatever lies in it |
//! | run | a free slot on a list: its first `backed` pages have memory behind them, the rest is address space |
//! | empty | a run with `backed == 0` |
//! | block | what a request gets: part of a page, or whole pages |
//! | subpage block | one smaller than a page, which is divided for it ([`Tree`]) |
//! | divided | a page that is divided into blocks smaller than itself ([`Tree`]) |
//! | head | the record of the first page of a run or block; all other records are interior |
//!
//! # How it works
//!
//! Page numbers are managed by a binary buddy system (Knowlton, 1965) whose nodes remember how
//! many of their leading pages are backed. A run that is not empty is *canonical*: its order is the
//! smallest that holds its backed pages (`backed > 1 << (order - 1)`), which is also the shape of a
//! live block of that many pages. So a released block of 5.1 MiB becomes a run that serves the next
//! request for 5.1 MiB as it is, although only part of its 8 MiB slot has memory.
//!
//! Two halves of a slot join when the result is backed from its beginning without a gap: the left
//! half is wholly backed, or the right half is empty (`joined` in `runs.rs`).
//!
//! Below a page every divided page is a small buddy tree of its own. It is on one list, that of its
//! largest free block; within it the smallest block that fits is taken.
//!
//! A block that is freed stays as it is for a while, on the quick list of its class (`quick.rs`), so
//! that the same size again costs neither a split nor a merge.
//!
//! A page is not tied to its page number. When no run fits a request, its block gets an empty slot
//! and the memory of free runs elsewhere, piece by piece: a piece is *isolated* (nobody can get
//! it), its mappings are removed, and its pages leave by value (`reclaim.rs`). Pages go back to the
//! system in the same way, and the metadata of chunks without memory goes with them. Large runs are
//! what large requests need: memory leaves from the smallest run of several pages first, and a run
//! that is much larger than a block stays whole while smaller ones have as many pages.
//!
//! Runs are found by good fit through a two-level table of lists (as in TLSF, Masmano et al., 2004):
//! by order, then by the leading bits of `backed`. Every operation costs O(orders), plus O(pages)
//! for pages that get or lose their memory; nothing scans.
//!
//! # Invariants
//!
//! `held == live + free + pending` in bytes, no page number is in two runs or blocks, and free
//! halves that could join have joined. [`Engine::check`] states them all, and proves them.

mod backend;
mod batch;
mod check;
mod class;
mod directory;
mod free;
mod lists;
mod map;
mod quick;
mod reclaim;
mod runs;
mod subpage;
mod tree;
mod wait_queue;

pub use backend::{Backend, Kit, Metadata};
pub use batch::Batch;
pub use check::Violation;
pub use class::{ClassCounters, Counters, MAX_SHIFT, MIN_SHIFT};
pub use directory::{Entry, Record, CHUNK_PAGES, MAX_PAGES, PART_LEN, ROOT_LEN};
pub use free::Unfinished;
pub use map::{Content, Extent};
pub use quick::{Stack, QUICK_LISTS};
pub use reclaim::Isolated;
pub use tree::Tree;
pub use wait_queue::{Ticket, WaitQueue, WaiterSlot};

use class::{Class, ClassStats, Shape};
use core::ops::Range;
use directory::{Directory, Head, CHUNK_ORDER};
use lists::Lists;
use quick::Quick;
use runs::Reserved;

/// The most pages that change their backing in one call.
pub const BATCH: u32 = 64;

/// Bytes of the header of a block that has one.
pub const HEADER_BYTES: u64 = 16;

/// Bytes of a block's header, if it is `headed`.
fn header_bytes(headed: bool) -> u64 {
    u64::from(headed) * HEADER_BYTES
}

/// What a caller wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Bytes, at least 1.
    pub size: u64,
    /// A larger free block may be split, and free memory elsewhere be moved here.
    pub larger: bool,
    /// New pages may be asked for.
    pub grow: bool,
    /// The block begins with [`HEADER_BYTES`] that are not the caller's.
    pub headed: bool,
    /// All of its pages have to be new: no free block will do.
    pub contiguous: bool,
    /// Free whole pages are set aside for somebody else: what is left is parts of divided pages,
    /// and growing.
    pub modest: bool,
}

impl Request {
    /// Bytes that it takes, with the header.
    pub fn bytes(&self) -> u64 {
        self.size.saturating_add(header_bytes(self.headed))
    }

    /// Whether the memory of free blocks elsewhere may be used.
    fn may_move(&self) -> bool {
        (self.larger || self.grow) && !self.contiguous && !self.modest
    }
}

/// Why [`Engine::reserve`] gave no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Make one of these, put it into the kit, call again. Nothing has changed.
    Need(Metadata),
    /// The size is 0.
    Zero,
    /// The size, with the header, is over the largest block.
    TooBig,
    /// No free block that the request may take.
    Empty,
    /// No address space is left for a block of this size.
    NoSpace,
}

/// Why [`Engine::free`] refused an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// Not a multiple of 16.
    Misaligned,
    /// Not below the end of the arena.
    Beyond,
    /// Inside a live block, not at its beginning.
    Inside,
    /// Nothing live is there.
    NotLive,
}

/// A block that is reserved and not live yet: nobody else can get it, nobody can free it.
///
/// It has to be given to [`Engine::commit`] or [`Engine::cancel`]; dropped, its block is lost until
/// the arena ends.
#[must_use = "a reservation that is neither committed nor cancelled is lost"]
#[derive(Debug)]
pub struct Pending {
    /// Bytes from the beginning of the arena, of the header if there is one.
    start: u64,
    class: Class,
    headed: bool,
    requested: u64,
    /// Pages that the block had when it was reserved.
    had: u32,
    /// Leading pages that may have old bytes.
    stale: u32,
    missing: u32,
    movable: bool,
}

impl Pending {
    /// A block that has all its memory, of old bytes, and no header.
    #[inline(always)]
    fn ready(start: u64, class: Class, requested: u64) -> Self {
        let pages = class.pages();
        Self {
            start,
            class,
            headed: false,
            requested,
            had: pages,
            stale: pages,
            missing: 0,
            movable: false,
        }
    }

    /// Where the caller's part of it begins, in bytes from the beginning of the arena: aligned to
    /// the size class, or [`HEADER_BYTES`] behind that.
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

    /// Pages that [`Engine::back`] still has to bring.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Whether free pages may be moved here from elsewhere.
    pub fn is_movable(&self) -> bool {
        self.movable
    }

    /// Leading pages of the block that may have old bytes; those behind them are fresh.
    pub fn stale(&self) -> u32 {
        self.stale
    }

    /// The pages that were brought so far are not fresh: they come from elsewhere in the arena.
    pub fn mark_stale(&mut self) {
        self.stale = self.class.pages() - self.missing;
    }

    /// The bytes of each of its pages that are the block's.
    pub fn within(&self) -> Range<usize> {
        self.class.within(self.start)
    }
}

/// The freelists of one arena, over pages of `PAGE_KIB` KiB.
pub struct Engine<M: Backend, const PAGE_KIB: usize> {
    directory: Directory<M, PAGE_KIB>,
    lists: Lists,
    quick: Quick<M::Slice<Stack>>,
    /// Page numbers from here on have never been used.
    frontier: u32,
    span: u32,
    /// Pages with memory in runs.
    run_pages: u32,
    /// Bytes of all pages.
    held_bytes: u64,
    /// Bytes of all blocks that are live or reserved, with the pages that these still miss.
    claimed: u64,
    /// The most that this has been when a block became live.
    peak_bytes: u64,
    requested_bytes: u64,
    class_stats: [ClassStats; class::COUNT],
}

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    const PAGE_SHIFT: u32 = class::page_shift(PAGE_KIB);
    const PAGE_BYTES: u64 = 1 << Self::PAGE_SHIFT;
    const MAX_ORDER: u8 = (MAX_SHIFT - Self::PAGE_SHIFT) as u8;

    /// An empty arena of `span` pages of address space, at most [`MAX_PAGES`].
    ///
    /// `root` has [`ROOT_LEN`] entries, all `None`; `quick` has [`QUICK_LISTS`], all default.
    pub fn new(
        span: u32,
        root: M::Slice<Option<M::Slice<Entry<M, PAGE_KIB>>>>,
        quick: M::Slice<Stack>,
    ) -> Self {
        Self {
            directory: Directory::new(root),
            lists: Lists::new(),
            quick: Quick::new(quick),
            frontier: 0,
            span: span.min(MAX_PAGES),
            run_pages: 0,
            held_bytes: 0,
            claimed: 0,
            peak_bytes: 0,
            requested_bytes: 0,
            class_stats: [ClassStats::default(); class::COUNT],
        }
    }

    /// Changes the address space to `pages` pages. Says whether it did: not when that is none or
    /// more than [`MAX_PAGES`], nor once some of it was used.
    pub fn set_span(&mut self, pages: u32) -> bool {
        let may = self.frontier == 0 && (1..=MAX_PAGES).contains(&pages);
        if may {
            self.span = pages;
        }
        may
    }

    /// Bytes of address space.
    pub fn span_bytes(&self) -> u64 {
        u64::from(self.span) << Self::PAGE_SHIFT
    }

    /// Reserves a block.
    ///
    /// While [`Pending::missing`] is not 0 the block has too few pages: bring them with
    /// [`Engine::back`]. For a request without `grow` as many are free elsewhere
    /// ([`Engine::isolate`]).
    pub fn reserve(
        &mut self,
        request: &Request,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Pending, Refusal> {
        let class = Class::of(request, Self::PAGE_SHIFT)?;
        if !request.contiguous {
            if let Some(pending) = self.reserve_quick(request, class) {
                return Ok(pending);
            }
        }
        let pending = self.reserve_class(request, class, kit)?;
        self.claimed += class.block_bytes();
        Ok(pending)
    }

    fn reserve_class(
        &mut self,
        request: &Request,
        class: Class,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Pending, Refusal> {
        if !request.contiguous {
            match self.reserve_listed(request, class, kit) {
                Err(Refusal::Empty) => {}
                result => return result,
            }
            if (request.larger || request.grow) && self.drain(kit) {
                match self.reserve_listed(request, class, kit) {
                    Err(Refusal::Empty) => {}
                    result => return result,
                }
            }
        }
        if !request.grow && !self.could_move(request, class) {
            return Err(Refusal::Empty);
        }
        match class.shape() {
            Shape::Pages { pages, order } => {
                let reserved = self.reserve_unbacked(request, pages, order, kit)?;
                Ok(self.pending(reserved, request, class))
            }
            Shape::Subpage { shift } => {
                Self::ensure_tree(kit)?;
                let reserved = self.reserve_unbacked(request, 1, 0, kit)?;
                self.divide_page(reserved, request, class, shift, kit)
            }
        }
    }

    /// Whether a block can be made of free memory that lies elsewhere.
    fn could_move(&self, request: &Request, class: Class) -> bool {
        request.may_move() && class.pages() <= self.run_pages
    }

    /// Whether a request could be served now, if it were allowed `headroom` bytes of new pages and
    /// these were there.
    pub fn could_serve(
        &mut self,
        request: &Request,
        headroom: u64,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> bool {
        let Ok(class) = Class::of(request, Self::PAGE_SHIFT) else {
            return false;
        };
        if !request.contiguous {
            if self.has_quick(request, class) || self.has_listed(request, class) {
                return true;
            }
            if (request.larger || request.grow)
                && self.drain(kit)
                && self.has_listed(request, class)
            {
                return true;
            }
        }
        let moved = if request.may_move() {
            self.run_pages
        } else {
            0
        };
        let headroom = if request.grow {
            headroom >> Self::PAGE_SHIFT
        } else {
            0
        };
        (request.larger || request.grow) && u64::from(class.pages()) <= u64::from(moved) + headroom
    }

    /// Whether [`Engine::reserve_listed`] would find something.
    fn has_listed(&self, request: &Request, class: Class) -> bool {
        match class.shape() {
            Shape::Pages { pages, order } => self.find_run(request, pages, order).is_some(),
            Shape::Subpage { shift } => {
                self.lists.find_subpage(shift, request.larger).is_some()
                    || request.larger && self.find_run(request, 1, 0).is_some()
            }
        }
    }

    /// Whether a request is for a part of a page.
    pub fn is_subpage(&self, request: &Request) -> bool {
        let class = Class::of(request, Self::PAGE_SHIFT);
        class.is_ok_and(|class| matches!(class.shape(), Shape::Subpage { .. }))
    }

    /// Counts a request that slept.
    pub fn count_wait(&mut self, request: &Request) {
        if let Ok(class) = Class::of(request, Self::PAGE_SHIFT) {
            self.class_stats[class.index()].waits += 1;
        }
    }

    /// Of the `missing` pages of reserved blocks, how many should come from free blocks elsewhere so
    /// that the arena does not hold much more than its blocks ever needed: growing would take what
    /// it holds (with `promised` bytes that are on their way) above 1.01 times the peak.
    pub fn reuse_target(&self, missing: u32, promised: u64) -> u32 {
        let peak = self.peak_bytes.max(self.claimed);
        let more = u64::from(missing) << Self::PAGE_SHIFT;
        let after = self.held_bytes + promised + more;
        let over = after.saturating_sub(peak + peak / 100);
        let pages = over.div_ceil(Self::PAGE_BYTES).min(u64::from(missing));
        self.run_pages.min(pages as u32)
    }

    /// Pages with memory in free runs. Those on quick lists are not counted.
    pub fn run_pages(&self) -> u32 {
        self.run_pages
    }

    /// Reserves a block from what is free: of the request's own list, or a larger one.
    fn reserve_listed(
        &mut self,
        request: &Request,
        class: Class,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Pending, Refusal> {
        let shift = match class.shape() {
            Shape::Pages { pages, order } => {
                let reserved = self.reserve_run(request, pages, order, kit)?;
                return Ok(self.pending(reserved, request, class));
            }
            Shape::Subpage { shift } => shift,
        };
        let found = self.lists.find_subpage(shift, request.larger);
        let taken =
            found.and_then(|page| Some((page, self.take_node(page, Self::PAGE_SHIFT - shift)?)));
        if let Some((page, node)) = taken {
            return Ok(Pending {
                headed: request.headed,
                ..Pending::ready(self.node_offset(page, node), class, request.size)
            });
        }
        if !request.larger {
            return Err(Refusal::Empty);
        }
        // A whole page is a larger block, even the smallest.
        Self::ensure_tree(kit)?;
        let reserved = self.reserve_run(request, 1, 0, kit)?;
        self.divide_page(reserved, request, class, shift, kit)
    }

    /// A reservation of whole pages, or of the page that a block will lie in.
    fn pending(&self, reserved: Reserved, request: &Request, class: Class) -> Pending {
        Pending {
            start: u64::from(reserved.page) << Self::PAGE_SHIFT,
            class,
            headed: request.headed,
            requested: request.size,
            had: reserved.backed,
            stale: reserved.backed,
            missing: class.pages() - reserved.backed,
            movable: request.may_move(),
        }
    }

    /// Puts pages behind a pending block, at most [`BATCH`] a call.
    ///
    /// Takes them from `pages` until none is missing, `pages` ends, or metadata is missing: then
    /// no page is lost, and the call is to be made again with the kit filled.
    pub fn back(
        &mut self,
        pending: &mut Pending,
        pages: &mut impl Iterator<Item = M::Page>,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        let first = (pending.start >> Self::PAGE_SHIFT) as u32;
        let goal = pending.missing.saturating_sub(BATCH);
        while pending.missing > goal {
            let next = first + (pending.class.pages() - pending.missing);
            self.directory.ensure_chunk(next, kit)?;
            let most = pending.missing - goal;
            let came = self.directory.put_pages(next, most, pages);
            if came == 0 {
                break;
            }
            pending.missing -= came;
            self.held_bytes += u64::from(came) << Self::PAGE_SHIFT;
            match pending.class.shape() {
                Shape::Subpage { shift } => self.open_subpage(next, shift),
                Shape::Pages { .. } => {
                    if let Some(Head::Reserved { backed, .. }) = self.directory.head_mut(first) {
                        *backed += came;
                    }
                }
            }
        }
        Ok(())
    }

    /// The answer is out: the block is live.
    #[inline(always)]
    pub fn commit(&mut self, pending: Pending) {
        debug_assert_eq!(pending.missing, 0);
        let class = pending.class;
        self.count_allocs(class, 1, pending.requested);
        if pending.had < class.pages() {
            self.class_stats[class.index()].grows += 1;
        }
        self.enliven(pending.start, class, pending.headed);
    }

    /// Counts blocks that become live.
    #[inline(always)]
    fn count_allocs(&mut self, class: Class, count: u64, requested: u64) {
        let stats = &mut self.class_stats[class.index()];
        stats.allocs += count;
        if !class.is_subpage() {
            stats.live_pages += count * u64::from(class.pages());
        }
        self.requested_bytes += requested;
        self.peak_bytes = self.peak_bytes.max(self.claimed);
    }

    /// Makes a reserved block live.
    #[inline(always)]
    fn enliven(&mut self, start: u64, class: Class, is_headed: bool) {
        match self.directory.head_mut((start >> Self::PAGE_SHIFT) as u32) {
            Some(Head::Subpage(tree)) => tree.set_live(Self::node(start, class.shift()), is_headed),
            Some(head) => {
                if let Head::Reserved {
                    order,
                    whole,
                    pages,
                    ..
                } = *head
                {
                    *head = Head::Live {
                        order,
                        whole,
                        pages,
                        headed: is_headed,
                    };
                }
            }
            None => debug_assert!(false, "a pending block has a head"),
        }
    }

    /// Undoes a reservation.
    ///
    /// Pages that were brought for it go to `out` by value, at most [`BATCH`] a call, to be dropped
    /// after the unlock. So does a chunk that is left without memory, in a kit without one. `Some`:
    /// call again with it. `None`: done.
    pub fn cancel(
        &mut self,
        mut pending: Pending,
        kit: &mut Kit<M, PAGE_KIB>,
        out: &mut impl FnMut(M::Page),
    ) -> Option<Pending> {
        let page = (pending.start >> Self::PAGE_SHIFT) as u32;
        match pending.class.shape() {
            Shape::Subpage { .. } if pending.missing > 0 => {
                // The page never came, so nobody else has seen the tree.
                kit.tree = self.directory.take_tree(page).or(kit.tree.take());
                self.release_empty(page, 0, kit);
            }
            Shape::Subpage { shift } => {
                self.give_node(page, Self::node(pending.start, shift), kit);
            }
            Shape::Pages { pages, order } => {
                let mut backed = pages - pending.missing;
                let leaving = BATCH.min(backed - pending.had);
                for left in (0..=leaving).rev() {
                    // A chunk may have been made for a page that did not come.
                    if order >= CHUNK_ORDER && backed < pages {
                        self.give_chunk(page + backed, kit);
                    }
                    if left > 0 {
                        backed -= 1;
                        self.take_page(page + backed, out);
                    }
                }
                pending.missing = pages - backed;
                if let Some(Head::Reserved { backed: now, .. }) = self.directory.head_mut(page) {
                    *now = backed;
                }
                if backed > pending.had {
                    return Some(pending);
                }
                let head = self.directory.take_head(page, order);
                if backed == 0 {
                    self.release_empty(page, order, kit);
                } else if let Some(Head::Reserved { whole, .. }) = head {
                    self.release_block(page, order, whole, backed);
                }
            }
        }
        self.claimed -= pending.class.block_bytes();
        None
    }

    /// The page numbers of the live block in which page number `page` lies, or `page` alone if
    /// live blocks lie in it.
    pub fn live_extent(&self, page: u32) -> Option<Range<u32>> {
        let (first, head) = self.directory.locate(page, Self::MAX_ORDER)?;
        let pages = match head {
            Head::Live { pages, .. } => *pages,
            Head::Subpage(tree) if tree.any_live() => 1,
            _ => return None,
        };
        let extent = first..first + pages;
        extent.contains(&page).then_some(extent)
    }

    /// The page behind page number `page`.
    pub fn page(&self, page: u32) -> Option<&M::Page> {
        self.directory.record(page)?.page.as_ref()
    }

    /// The pages behind page numbers from `page` on, at most `most`: as many as are there, up to a
    /// multiple of [`CHUNK_PAGES`].
    pub fn pages(&self, page: u32, most: u32) -> impl Iterator<Item = &M::Page> {
        self.directory.pages(page, most)
    }

    /// The page `index` of a pending block, if it is there already.
    pub fn pending_page(&self, pending: &Pending, index: u32) -> Option<&M::Page> {
        let first = (pending.start >> Self::PAGE_SHIFT) as u32;
        self.page(first + index)
    }

    /// Bytes of all pages that the arena has.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The arena's counters.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            held_bytes: self.held_bytes,
            peak_bytes: self.peak_bytes,
            requested_bytes: self.requested_bytes,
            ..Counters::default()
        };
        for (index, stats) in self.class_stats.iter().enumerate() {
            counters.allocs += stats.allocs;
            counters.frees += stats.frees;
            counters.grows += stats.grows;
            counters.splits += stats.splits;
            counters.merges += stats.merges;
            let (live, free) = self.bytes_of(index);
            counters.live_bytes += live;
            counters.free_bytes += free;
        }
        counters.live_blocks = counters.allocs - counters.frees;
        counters.pending_bytes = counters.held_bytes - counters.live_bytes - counters.free_bytes;
        (counters.parts, counters.chunks, counters.trees) = self.directory.counts();
        counters
    }

    /// Bytes of the blocks of the size class `index` that are live, and of those that are free.
    fn bytes_of(&self, index: usize) -> (u64, u64) {
        let stats = &self.class_stats[index];
        let shift = MIN_SHIFT + index as u32;
        let quick: u64 = self
            .quick_blocks(index)
            .map(|(_, class)| class.block_bytes())
            .sum();
        if shift < Self::PAGE_SHIFT {
            let live = stats.allocs - stats.frees;
            (live << shift, (stats.listed << shift) + quick)
        } else {
            let bytes = |pages| pages << Self::PAGE_SHIFT;
            let listed = bytes(stats.listed_pages);
            (bytes(stats.live_pages), listed + quick)
        }
    }

    /// The counters of the size class `1 << shift` bytes; zeros outside
    /// [`MIN_SHIFT`]`..=`[`MAX_SHIFT`].
    pub fn class(&self, shift: u32) -> ClassCounters {
        if !(MIN_SHIFT..=MAX_SHIFT).contains(&shift) {
            return ClassCounters::default();
        }
        let index = (shift - MIN_SHIFT) as usize;
        let stats = &self.class_stats[index];
        let (live_bytes, free_bytes) = self.bytes_of(index);
        let free = stats.listed + self.quick_blocks(index).count() as u64;
        let largest = if shift < Self::PAGE_SHIFT {
            u64::from(free > 0) << shift
        } else {
            let run = self.largest_run((shift - Self::PAGE_SHIFT) as u8);
            let quick = self.newest_pages(shift);
            u64::from(run.max(quick)) << Self::PAGE_SHIFT
        };
        ClassCounters {
            live: stats.allocs - stats.frees,
            free,
            held: live_bytes + free_bytes,
            splits: stats.splits,
            merges: stats.merges,
            grows: stats.grows,
            waits: stats.waits,
            largest,
        }
    }

    /// Ends the arena piece by piece: hands out one chunk with its pages, to be dropped outside
    /// the lock; `None` when none is left. Nothing else may be called afterwards.
    pub fn dismantle(&mut self) -> Option<M::Slice<Record<M, PAGE_KIB>>> {
        while self.frontier > 0 {
            self.frontier = (self.frontier - 1) & !(CHUNK_PAGES as u32 - 1);
            if let Some(chunk) = self.directory.take_chunk(self.frontier) {
                return Some(chunk);
            }
        }
        None
    }
}

impl From<Metadata> for Refusal {
    fn from(metadata: Metadata) -> Self {
        Refusal::Need(metadata)
    }
}
