// SPDX-License-Identifier: GPL-2.0

//! The engine's invariants, as a program that proves them. Slow: for tests and debug builds.
//!
//! 1. From page 0 to the frontier, runs, blocks and divided pages follow one another without a gap
//!    or an overlap, each aligned to its order; no head lies inside another.
//! 2. Exactly the pages that a head says have memory have it.
//!    Chunks that could do without their records have none.
//! 3. A run is canonical, on exactly the list of its shape, and could join nothing.
//! 4. The nodes of a divided page cover each granule at most once; no two free halves lie side by
//!    side; the page is on the list of its largest free node.
//!    No granule but the first of a live block is marked as headed.
//! 5. What is on a quick list is free, and nothing else's.
//! 6. Every counter is what the walk counts; `held == live + free + pending`.

use super::backend::Backend;
use super::class::{self, Class, ClassCounters};
use super::directory::{Head, Links, CHUNK_ORDER};
use super::lists::Kind;
use super::runs::Slot;
use super::tree::{self, Tree};
use super::{Counters, Engine, CHUNK_PAGES, MAX_SHIFT, MIN_SHIFT};
use core::fmt;

/// An invariant that does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The page number at which it was seen.
    pub page: u32,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.page, self.what)
    }
}

/// What a walk over the arena counts.
struct Tally {
    counters: Counters,
    classes: [ClassCounters; class::COUNT],
    /// Runs and divided pages that belong on a list.
    listed: u64,
    trees: u64,
    run_pages: u32,
    /// Bytes of what is neither live nor free, with the pages that it misses.
    reserved_bytes: u64,
}

impl Tally {
    fn block(&mut self, class: Class, live: bool) {
        let bytes = class.block_bytes();
        if let Some(row) = self.classes.get_mut(class.index()) {
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
}

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Proves the invariants of the arena. Takes time in proportion to its pages.
    pub fn check(&self) -> Result<(), Violation> {
        let mut tally = Tally {
            counters: Counters::default(),
            classes: [ClassCounters::default(); class::COUNT],
            listed: 0,
            trees: 0,
            run_pages: 0,
            reserved_bytes: 0,
        };
        let mut page = 0;
        while page < self.frontier {
            page += self.check_extent(page, &mut tally)?;
        }
        expect(page == self.frontier, page, "a run crosses the frontier")?;
        self.check_quick(&mut tally)?;
        self.check_lists(&tally)?;
        self.check_counters(&tally)
    }

    /// Checks what begins at `page`; gives the pages that it spans.
    fn check_extent(&self, page: u32, tally: &mut Tally) -> Result<u32, Violation> {
        let head = self.directory.head(page);
        let (order, span, backed) = match head.ok_or(Violation {
            page,
            what: "the page belongs to nothing",
        })? {
            Head::Interior => return fail(page, "an interior page was found as a head"),
            Head::Free { order, backed, .. } => {
                let run = Slot::new(page, *order, *backed);
                expect(run.is_canonical(), page, "a run is not canonical")?;
                let joined = self.directory.join_all(run, Self::MAX_ORDER);
                expect(joined == run, page, "a run could join its buddy")?;
                tally.listed += 1;
                tally.run_pages += *backed;
                if *backed > 0 {
                    tally.block(Class::of_pages(*backed, Self::PAGE_SHIFT), false);
                }
                if *order >= CHUNK_ORDER {
                    let end = page + (1 << order);
                    let mut chunk = (page + *backed).next_multiple_of(CHUNK_PAGES as u32);
                    while chunk < end {
                        let none = self.directory.record(chunk).is_none();
                        expect(none, chunk, "a chunk has neither memory nor heads")?;
                        chunk += CHUNK_PAGES as u32;
                    }
                }
                (*order, 1 << order, *backed)
            }
            Head::Reserved {
                order,
                whole,
                pages,
                backed,
            } => {
                expect(backed <= pages, page, "a block has pages beyond its end")?;
                tally.counters.pending_bytes += u64::from(*backed) << Self::PAGE_SHIFT;
                tally.reserved_bytes += u64::from(*pages) << Self::PAGE_SHIFT;
                (*order, span_of(*order, *whole, *pages), *backed)
            }
            Head::Live {
                order,
                whole,
                pages,
                ..
            } => {
                let class = Class::of_pages(*pages, Self::PAGE_SHIFT);
                tally.block(class, true);
                let ceil = class::ceil_log2(*pages) as u8;
                expect(ceil == *order, page, "a block is in the wrong class")?;
                (*order, span_of(*order, *whole, *pages), *pages)
            }
            Head::Subpage(tree) => {
                tally.trees += 1;
                let backed = self
                    .directory
                    .record(page)
                    .is_some_and(|record| record.page.is_some());
                self.check_tree(page, tree, backed, tally)?;
                (0, 1, u32::from(backed))
            }
        };
        expect(page % (1 << order) == 0, page, "a head is not aligned")?;
        let mut at = page;
        while at < page + span {
            let record = self.directory.record(at);
            expect(
                record.is_some_and(|record| record.page.is_some()) == (at - page < backed),
                at,
                "memory where there should be none, or none where there should be",
            )?;
            expect(
                at == page || self.directory.head(at).is_none(),
                at,
                "a head inside a run or block",
            )?;
            at = match record {
                Some(_) => at + 1,
                // Nor has any other page of its chunk.
                None => (at / CHUNK_PAGES as u32 + 1) * CHUNK_PAGES as u32,
            };
        }
        tally.counters.held_bytes += u64::from(backed) << Self::PAGE_SHIFT;
        Ok(span)
    }

    fn check_tree(
        &self,
        page: u32,
        tree: &Tree<PAGE_KIB>,
        backed: bool,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let mut used = 0;
        let mut covered_to = [0u64; 32];
        let mut wrong = None;
        let mut free_before = 0;
        let mut headed = 0;
        tree.for_each(|node, live| {
            let depth = tree::depth(node);
            let bytes = Self::PAGE_BYTES >> depth;
            let start = tree::start::<PAGE_KIB>(node);
            if depth == 0 {
                wrong = Some("a divided page is free or live as a whole");
            }
            // Nodes come by depth, and from left to right: a node may not lie in one above it.
            let mut above = node / 2;
            while above > 0 {
                if tree.is_used(above) {
                    wrong = Some("a node lies in a free or live one");
                }
                above /= 2;
            }
            if start < covered_to[depth as usize % 32] {
                wrong = Some("a node is both free and live");
            }
            covered_to[depth as usize % 32] = start + bytes;
            if !live {
                if node % 2 == 1 && free_before == node - 1 {
                    wrong = Some("two free halves side by side");
                }
                free_before = node;
            }
            headed += u32::from(live && tree.is_headed(node));
            used += bytes;
            if backed {
                let class = Class::of_subpage(Self::PAGE_SHIFT - depth, Self::PAGE_SHIFT);
                tally.block(class, live);
            } else if live {
                wrong = Some("a live block without memory");
            }
        });
        if let Some(what) = wrong {
            return fail(page, what);
        }
        expect(used <= Self::PAGE_BYTES, page, "more blocks than page")?;
        expect(headed == tree.marks(), page, "a mark of no live block")?;
        tally.reserved_bytes += Self::PAGE_BYTES - used;
        if backed {
            tally.counters.pending_bytes += Self::PAGE_BYTES - used;
            tally.listed += u64::from(tree.largest().is_some());
        }
        Ok(())
    }

    /// A block on a quick list was walked over as one that is pending: it is free.
    fn check_quick(&self, tally: &mut Tally) -> Result<(), Violation> {
        for (index, row) in tally.classes.iter_mut().enumerate() {
            for (start, class) in self.quick_blocks(index) {
                let page = (start >> Self::PAGE_SHIFT) as u32;
                let shift = MIN_SHIFT + index as u32;
                match self.directory.head(page) {
                    Some(Head::Reserved { pages, backed, .. }) => {
                        let whole = *pages == *backed && *pages == class.pages();
                        expect(whole, page, "a quick block has another length")?;
                    }
                    Some(Head::Subpage(tree)) if shift < Self::PAGE_SHIFT => {
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

    /// Everything on a list belongs there, and as much is on lists as should be.
    fn check_lists(&self, tally: &Tally) -> Result<(), Violation> {
        let mut listed = 0;
        let mut result = Ok(());
        self.lists.for_each(|kind, first, mapped| {
            if result.is_ok() {
                result = self.check_list(kind, first, mapped, tally.listed, &mut listed);
            }
        });
        result?;
        expect(listed == tally.listed, 0, "something free is on no list")
    }

    fn check_list(
        &self,
        kind: Kind,
        first: u32,
        mapped: bool,
        most: u64,
        listed: &mut u64,
    ) -> Result<(), Violation> {
        let mapped_right = mapped == (first != Links::END);
        expect(mapped_right, first, "a list and its bit map differ")?;
        let (mut prev, mut page) = (Links::END, first);
        while page != Links::END {
            *listed += 1;
            expect(
                *listed <= most,
                page,
                "a list has a loop, or too much on it",
            )?;
            let (belongs, links) = match self.directory.head(page) {
                Some(Head::Free {
                    order,
                    backed,
                    links,
                }) => (Kind::of_run(*order, *backed), *links),
                Some(Head::Subpage(tree)) => {
                    let depth = tree.largest().unwrap_or(0);
                    (Kind::Subpage(Self::PAGE_SHIFT - depth), tree.links)
                }
                _ => return fail(page, "something on a list is not free"),
            };
            expect(belongs == kind, page, "on the list of another shape")?;
            expect(links.prev == prev, page, "a list's links do not match")?;
            (prev, page) = (page, links.next);
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
        expect(have.trees == tally.trees, 0, "trees")?;
        expect(self.run_pages == tally.run_pages, 0, "run_pages")?;
        let claimed = have.live_bytes..=have.live_bytes + tally.reserved_bytes;
        expect(claimed.contains(&self.claimed), 0, "claimed")?;
        for (row, shift) in tally.classes.iter().zip(MIN_SHIFT..=MAX_SHIFT) {
            let have = self.class(shift);
            expect(have.live == row.live, shift, "live of this class shift")?;
            expect(have.free == row.free, shift, "free of this class shift")?;
            expect(have.held == row.held, shift, "held of this class shift")?;
        }
        Ok(())
    }
}

fn span_of(order: u8, whole: bool, pages: u32) -> u32 {
    if whole {
        1 << order
    } else {
        pages
    }
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
