// SPDX-License-Identifier: GPL-2.0-only

//! The invariants of the engine, and the validator that proves them. Slow: for tests and debug builds.
//!
//! 1. From page 0 to the frontier, extents follow one another without a gap or an overlap. No extent
//!    begins inside another one, or beyond the frontier.
//! 2. Exactly the pages that are backed by their head have memory, holes excepted. The bits and counts
//!    of a chunk agree with its records.
//! 3. `run.backing != neighbour.backing` for two neighbouring runs. No unbacked run ends at the
//!    frontier. Each run is on exactly one list, that of its length.
//! 4. The nodes of a divided page cover each granule at most once. No two buddies are both free. The
//!    page is on the list of its largest free node.
//! 5. A block on a quick list, kept for a waiter or deferred is in no free run and no free node.
//! 6. `held + holes == live + free + pending` and `claimed + owed == live + reserved`, in bytes. Every
//!    counter is what the walk counts.
//! 7. A range in transit lies in one live block, or is an orphan extent of its own. Its chunk has
//!    records.

use super::class::{Class, CLASSES};
use super::head::{Head, Links, Memory};
use super::lists::{Kind, ListId};
use super::stats::{ClassCounters, Counters};
use super::tree::{self, Tree};
use super::{Backend, Engine, CHUNK_PAGES, MIN_SHIFT};
use core::fmt;

/// A violated invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The page number at which the check failed; 0 where it concerns the whole arena, and a shift
    /// where it concerns the counters of a size class.
    pub page: u32,
    /// A description of the violation.
    pub what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.page, self.what)
    }
}

/// The memory of a divided page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PageMemory {
    Present,
    /// The memory was lost: live blocks keep the hole, free nodes are not served.
    Lost,
    /// The page was divided for a reserved block, and is not backed yet.
    Awaited,
}

/// The counts of a walk over the arena.
struct Tally {
    counters: Counters,
    classes: [ClassCounters; CLASSES],
    /// Runs and divided pages that belong on a list.
    listed: u64,
    trees: u64,
    free_pages: u32,
    /// Pages of blocks without memory.
    holes: u32,
    /// Holes of live lazy blocks.
    owed: u32,
    /// Bytes that are neither live nor free, missing pages included.
    reserved_bytes: u64,
    /// Whether the run right before the current page is backed; `None` after another extent.
    run_before: Option<bool>,
}

impl Tally {
    fn block(&mut self, class: Class, live: bool) {
        let bytes = class.block_bytes();
        // A run may be longer than the largest block.
        let last = CLASSES - 1;
        if let Some(row) = self.classes.get_mut(class.index().min(last)) {
            row.held += bytes;
            if live {
                row.live += 1;
                self.counters.live_blocks += 1;
                self.counters.live_bytes += bytes;
            } else {
                row.free += 1;
                self.counters.free_bytes += bytes;
            }
        }
    }

    fn run(&mut self, page: u32, is_backed: bool) -> Result<(), Violation> {
        self.listed += 1;
        let apart = self.run_before != Some(is_backed);
        expect(apart, page, "a run could join the one before it")?;
        self.run_before = Some(is_backed);
        Ok(())
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Checks all invariants of the arena, in time proportional to its pages. Returns the first
    /// violation.
    pub fn check(&self) -> Result<(), Violation> {
        let mut tally = Tally {
            counters: Counters::default(),
            classes: [ClassCounters::default(); CLASSES],
            listed: 0,
            trees: 0,
            free_pages: 0,
            holes: 0,
            owed: 0,
            reserved_bytes: 0,
            run_before: None,
        };
        let mut page = 0;
        let mut extents = 0;
        while page < self.frontier {
            page += self.check_extent(page, &mut tally)?;
            extents += 1;
        }
        expect(
            page == self.frontier,
            page,
            "an extent crosses the frontier",
        )?;
        let unbacked_last = tally.run_before == Some(false);
        expect(!unbacked_last, page, "an unbacked run ends at the frontier")?;
        tally.counters.held_bytes -= u64::from(tally.holes) << Self::PAGE_SHIFT;
        self.check_chunks(extents, tally.counters.held_bytes >> Self::PAGE_SHIFT)?;
        expect(self.holes == tally.holes, 0, "holes")?;
        self.check_transits()?;
        self.check_quick(&mut tally)?;
        self.check_lists(&tally)?;
        self.check_counters(&tally)
    }

    /// Checks the extent that begins at `page`. Returns how many pages it has.
    fn check_extent(&self, page: u32, tally: &mut Tally) -> Result<u32, Violation> {
        let Some(head) = self.directory.head(page) else {
            return fail(page, "the page belongs to no extent");
        };
        let pages = head.pages();
        expect(pages > 0, page, "an extent has no page")?;
        let backed = self.check_head(page, head, tally)?;
        self.check_pages(page, head, backed, tally)?;
        for at in [page, page + pages / 2, page + pages - 1] {
            let found = self.directory.start_of(at) == Some(page);
            expect(found, at, "the extent of a page is not found")?;
        }
        tally.counters.held_bytes += u64::from(backed) << Self::PAGE_SHIFT;
        Ok(pages)
    }

    /// Checks and counts an extent by its head. Returns how many of its leading pages should have
    /// memory, holes included.
    fn check_head(
        &self,
        page: u32,
        head: &Head<B, PAGE_KIB>,
        tally: &mut Tally,
    ) -> Result<u32, Violation> {
        let bytes = |pages| u64::from(pages) << Self::PAGE_SHIFT;
        let before = tally.run_before.take();
        Ok(match head {
            Head::None => return fail(page, "an empty head passes for an extent"),
            Head::Backed { pages, .. } => {
                tally.run_before = before;
                tally.run(page, true)?;
                tally.free_pages += *pages;
                tally.block(Class::of_pages(*pages, Self::PAGE_SHIFT), false);
                *pages
            }
            Head::Unbacked { .. } => {
                tally.run_before = before;
                tally.run(page, false)?;
                0
            }
            Head::Reserved { pages, backed, .. } => {
                expect(backed <= pages, page, "more backed pages than pages")?;
                tally.counters.pending_bytes += bytes(*backed);
                tally.reserved_bytes += bytes(*pages);
                *backed
            }
            Head::Live { pages, memory, .. } => {
                if *memory != Memory::Whole {
                    tally.owed += pages - self.directory.count_backed(page..page + pages);
                }
                tally.block(Class::of_pages(*pages, Self::PAGE_SHIFT), true);
                *pages
            }
            Head::Subpage(tree, ..) => {
                tally.trees += 1;
                let memory = match (self.directory.is_backed(page), tree.is_lost()) {
                    (true, true) => return fail(page, "a lost page has memory"),
                    (true, false) => PageMemory::Present,
                    (false, true) => PageMemory::Lost,
                    (false, false) => PageMemory::Awaited,
                };
                self.check_tree(page, tree, memory, tally)?;
                u32::from(memory != PageMemory::Awaited)
            }
        })
    }

    /// Checks which pages of an extent have memory, and counts its holes. `backed` is the result of
    /// [`Engine::check_head`].
    fn check_pages(
        &self,
        page: u32,
        head: &Head<B, PAGE_KIB>,
        backed: u32,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let mut at = page;
        while at < page + head.pages() {
            let (has, should) = (self.directory.is_backed(at), at - page < backed);
            let hole = self.holes > 0 && should && !has && !matches!(head, Head::Backed { .. });
            expect(
                has == should || hole,
                at,
                "the page's memory differs from its head",
            )?;
            expect(
                at == page || self.directory.head(at).is_none(),
                at,
                "an extent begins inside another",
            )?;
            let next = match self.directory.has_records(at) {
                true => at + 1,
                // No other page of its chunk has records either.
                false => (at / CHUNK_PAGES as u32 + 1) * CHUNK_PAGES as u32,
            };
            if hole {
                // In a chunk without records: all pages up to `next` that should have memory.
                tally.holes += next.min(page + backed) - at;
            }
            at = next;
        }
        Ok(())
    }

    /// Checks the nodes of a divided page, and counts its blocks.
    fn check_tree(
        &self,
        page: u32,
        tree: &Tree<PAGE_KIB>,
        memory: PageMemory,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let (mut used, mut live_bytes) = (0, 0);
        let mut covered_to = [0u64; 32];
        let mut wrong = None;
        let mut free_before = 0;
        tree.for_each(|node, live| {
            let depth = tree::depth(node);
            let bytes = Self::PAGE_BYTES >> depth;
            let start = tree::start::<PAGE_KIB>(node);
            if depth == 0 {
                wrong = Some("a divided page is free or live as a whole");
            }
            if lies_in_used(tree, node) {
                wrong = Some("a node lies in a free or live one");
            }
            // Nodes are visited by depth, and from left to right.
            if start < covered_to[depth as usize % 32] {
                wrong = Some("a node is both free and live");
            }
            covered_to[depth as usize % 32] = start + bytes;
            if !live {
                if node % 2 == 1 && free_before == node - 1 {
                    wrong = Some("two free buddies");
                }
                free_before = node;
            }
            used += bytes;
            let class = Class::of_subpage(Self::PAGE_SHIFT - depth, Self::PAGE_SHIFT);
            if memory == PageMemory::Present || memory == PageMemory::Lost && live {
                tally.block(class, live);
            } else if live {
                wrong = Some("a live block without memory");
            }
            live_bytes += u64::from(live) * bytes;
        });
        if let Some(what) = wrong {
            return fail(page, what);
        }
        expect(used <= Self::PAGE_BYTES, page, "the nodes exceed the page")?;
        tally.reserved_bytes += Self::PAGE_BYTES - used;
        match memory {
            PageMemory::Present => {
                tally.counters.pending_bytes += Self::PAGE_BYTES - used;
                tally.listed += u64::from(tree.largest().is_some());
            }
            PageMemory::Lost => tally.counters.pending_bytes += Self::PAGE_BYTES - live_bytes,
            PageMemory::Awaited => {}
        }
        Ok(())
    }

    /// Checks that as many bits are set as there are extents (each was found by its own bit), and that
    /// as many pages are counted as have memory.
    fn check_chunks(&self, extents: u32, held: u64) -> Result<(), Violation> {
        let (mut starts, mut backed) = (0, 0);
        for page in (0..self.frontier).step_by(CHUNK_PAGES) {
            let Some((more_starts, more_backed)) = self.directory.check_chunk(page) else {
                return fail(page, "the summaries of a chunk's bits are wrong");
            };
            starts += more_starts;
            backed += u64::from(more_backed);
        }
        expect(starts == extents, 0, "a start bit without an extent")?;
        expect(
            backed == held,
            0,
            "the count of backed pages differs from their bits",
        )?;
        let end = self.frontier.next_multiple_of(CHUNK_PAGES as u32);
        for page in self.frontier..end {
            let none = self.directory.head(page).is_none() && !self.directory.is_backed(page);
            expect(none, page, "an extent or memory beyond the frontier")?;
        }
        Ok(())
    }

    /// Checks that each range in transit lies in one live block, or is an extent of its own.
    fn check_transits(&self) -> Result<(), Violation> {
        for transit in self.transits.iter() {
            let (page, pages) = (transit.page, transit.pages);
            expect(
                self.directory.has_records(page),
                page,
                "a range in transit has no records",
            )?;
            let inside = match self.directory.extent_of(page) {
                Some((first, head @ Head::Live { .. })) => {
                    !transit.is_orphan && page + pages <= first + head.pages()
                }
                // A block that is being released may still contain it.
                Some((first, Head::Reserved { pages: has, .. })) => {
                    let whole = first == page && *has == pages;
                    whole || !transit.is_orphan && page + pages <= first + has
                }
                _ => false,
            };
            expect(inside, page, "a range in transit lies in no block")?;
        }
        Ok(())
    }

    /// Checks the unmerged blocks. The walk has counted them as reserved: counts them as free.
    fn check_quick(&self, tally: &mut Tally) -> Result<(), Violation> {
        for (index, row) in tally.classes.iter_mut().enumerate() {
            for (start, class) in self.unmerged_blocks(index) {
                let page = (start >> Self::PAGE_SHIFT) as u32;
                let shift = MIN_SHIFT + index as u32;
                match self.directory.head(page) {
                    Some(Head::Reserved { pages, backed, .. }) => {
                        let whole = *pages == *backed && *pages == class.pages();
                        expect(whole, page, "a quick block has another length")?;
                    }
                    Some(Head::Subpage(tree, ..)) if shift < Self::PAGE_SHIFT => {
                        let node = Self::node(start, shift);
                        expect(!tree.is_used(node), page, "a quick block is in use")?;
                    }
                    _ => return fail(page, "no block for one on a quick list"),
                }
                let bytes = class.block_bytes();
                expect(
                    tally.counters.pending_bytes >= bytes,
                    page,
                    "a quick block is counted twice",
                )?;
                tally.counters.pending_bytes -= bytes;
                tally.reserved_bytes -= bytes;
                tally.counters.free_bytes += bytes;
                row.free += 1;
                row.held += bytes;
            }
        }
        Ok(())
    }

    /// Checks that all elements of the lists belong there, and that no run or divided page is missing.
    fn check_lists(&self, tally: &Tally) -> Result<(), Violation> {
        let mut listed = 0;
        let mut result = Ok(());
        self.lists.for_each(|id, first, mapped| {
            if result.is_ok() {
                result = self.check_list(id, first, mapped, tally.listed, &mut listed);
            }
        });
        result?;
        expect(listed == tally.listed, 0, "a free extent is on no list")
    }

    fn check_list(
        &self,
        id: ListId,
        first: u32,
        mapped: bool,
        max_listed: u64,
        listed: &mut u64,
    ) -> Result<(), Violation> {
        let mapped_right = mapped == (first != Links::END);
        expect(mapped_right, first, "a list and its bit map differ")?;
        let (mut prev, mut page) = (Links::END, first);
        while page != Links::END {
            *listed += 1;
            expect(
                *listed <= max_listed,
                page,
                "a list has a loop or too many elements",
            )?;
            let (belongs, links) = match self.directory.head(page) {
                Some(Head::Backed { pages, links }) => (Kind::Backed(*pages), *links),
                Some(Head::Unbacked { pages, links }) => (Kind::Unbacked(*pages), *links),
                Some(Head::Subpage(tree, links)) => {
                    let depth = tree.largest().unwrap_or(0);
                    (Kind::Subpage(Self::PAGE_SHIFT - depth), *links)
                }
                _ => return fail(page, "an element of a list is not free"),
            };
            expect(belongs.list() == id, page, "on the list of another size")?;
            expect(links.prev() == prev, page, "a list's links do not match")?;
            (prev, page) = (page, links.next());
        }
        Ok(())
    }

    fn check_counters(&self, tally: &Tally) -> Result<(), Violation> {
        let (have, seen) = (self.counters(), &tally.counters);
        expect(have.live_blocks == seen.live_blocks, 0, "live_blocks")?;
        expect(have.live_bytes == seen.live_bytes, 0, "live_bytes")?;
        expect(have.pending_bytes == seen.pending_bytes, 0, "pending_bytes")?;
        expect(have.held_bytes == seen.held_bytes, 0, "held_bytes")?;
        expect(have.free_bytes == seen.free_bytes, 0, "free_bytes")?;
        expect(have.metadata.trees == tally.trees, 0, "trees")?;
        expect(self.free_pages == tally.free_pages, 0, "free_pages")?;
        let owed = u64::from(self.owed) << Self::PAGE_SHIFT;
        let claimed = have.live_bytes..=have.live_bytes + tally.reserved_bytes;
        expect(claimed.contains(&(self.claimed + owed)), 0, "claimed")?;
        let reserved = (tally.reserved_bytes >> Self::PAGE_SHIFT) as u32;
        let owed = tally.owed..=tally.owed + reserved;
        expect(owed.contains(&self.owed), 0, "owed")?;
        for (row, shift) in tally.classes.iter().zip(MIN_SHIFT..=Self::MAX_SHIFT) {
            let have = self.class(shift);
            expect(have.live == row.live, shift, "live of this class shift")?;
            expect(have.free == row.free, shift, "free of this class shift")?;
            expect(have.held == row.held, shift, "held of this class shift")?;
        }
        Ok(())
    }
}

/// Returns whether a larger node that contains `node` is free or live.
fn lies_in_used<const KIB: usize>(tree: &Tree<KIB>, node: u32) -> bool {
    let mut above = node / 2;
    while above > 0 {
        if tree.is_used(above) {
            return true;
        }
        above /= 2;
    }
    false
}

fn fail<T>(page: u32, what: &'static str) -> Result<T, Violation> {
    Err(Violation { page, what })
}

fn expect(holds: bool, page: u32, what: &'static str) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        fail(page, what)
    }
}
