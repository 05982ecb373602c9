// SPDX-License-Identifier: GPL-2.0

//! Runs of pages: finding one, halving it, joining halves.

use super::backend::{Backend, Kit};
use super::class::{ceil_log2, ClassStats};
use super::directory::{Directory, Head, Links};
use super::lists::{Kind, PIECE_ORDER};
use super::{Engine, Refusal, Request, MIN_SHIFT};

/// Blocks of fewer pages may divide any run: what they leave of it serves as well.
const SPARING_PAGES: u32 = 8;
/// Orders by which a run has to exceed a block's slot to be spared.
const SPARED_ORDERS: u8 = 2;

/// A slot: its first page, its order, and how many of its leading pages have memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) page: u32,
    pub(super) order: u8,
    pub(super) backed: u32,
}

impl Slot {
    pub(super) fn new(page: u32, order: u8, backed: u32) -> Self {
        debug_assert!(page % (1 << order) == 0 && backed <= 1 << order);
        Self {
            page,
            order,
            backed,
        }
    }

    /// Whether a run may have this shape: no smaller order would hold its memory.
    pub(super) fn is_canonical(&self) -> bool {
        self.backed == 0 || ceil_log2(self.backed) as u8 == self.order
    }

    fn is_left(&self) -> bool {
        self.page & (1 << self.order) == 0
    }

    /// The first page of the other half of the slot that this is a half of.
    fn buddy(&self) -> u32 {
        self.page ^ (1 << self.order)
    }
}

/// How many leading pages of a slot have memory, given that of its halves of `order`; `None` where
/// there would be a gap.
fn joined(left: u32, right: u32, order: u8) -> Option<u32> {
    (left == 1 << order || right == 0).then(|| left + right)
}

/// Pages that a request has got: the first, and how many of them have memory.
pub(super) struct Reserved {
    pub(super) page: u32,
    pub(super) backed: u32,
}

impl<M: Backend, const PAGE_KIB: usize> Directory<M, PAGE_KIB> {
    /// The run that begins at `page`.
    pub(super) fn run_at(&self, page: u32) -> Option<Slot> {
        match *self.head(page)? {
            Head::Free { order, backed, .. } => Some(Slot::new(page, order, backed)),
            _ => None,
        }
    }

    /// How many leading pages of a slot have memory, if all of it is free and none after a gap.
    fn view(&self, page: u32, order: u8) -> Option<u32> {
        let run = self.run_at(page)?;
        if run.order == order {
            return Some(run.backed);
        }
        // A canonical run, with empty ones beside it up to the end of the slot.
        if run.order > order || run.backed == 0 {
            return None;
        }
        (run.order..order)
            .all(|beside| {
                self.run_at(page + (1 << beside))
                    .is_some_and(|run| run.order == beside && run.backed == 0)
            })
            .then_some(run.backed)
    }

    /// The slot that `slot` and its buddy make, when they can be joined.
    fn join(&self, slot: Slot, max_order: u8) -> Option<Slot> {
        if slot.order >= max_order {
            return None;
        }
        let beside = self.view(slot.buddy(), slot.order)?;
        let backed = if slot.is_left() {
            joined(slot.backed, beside, slot.order)
        } else {
            joined(beside, slot.backed, slot.order)
        }?;
        Some(Slot::new(
            slot.page & !(1 << slot.order),
            slot.order + 1,
            backed,
        ))
    }

    /// The largest run that a free slot can become part of. On the way up there may be slots that
    /// are not canonical: memory in the left half only, which is worth joining only when it
    /// continues what lies to the left of it.
    pub(super) fn join_all(&self, slot: Slot, max_order: u8) -> Slot {
        let (mut best, mut next) = (slot, slot);
        while let Some(joined) = self.join(next, max_order) {
            next = joined;
            if next.is_canonical() {
                best = next;
            }
        }
        best
    }
}

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Reserves `pages` pages in a slot of `order` from what has memory.
    pub(super) fn reserve_run(
        &mut self,
        request: &Request,
        pages: u32,
        order: u8,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Reserved, Refusal> {
        let found = self
            .find_run(request, pages, order)
            .filter(|&run| !self.is_spared(run, request, pages, order));
        self.claim(found.ok_or(Refusal::Empty)?, pages, order, kit)
    }

    /// Whether a block of `pages` pages in a slot of `order` is better made of the memory of smaller
    /// runs than of a part of `run`: that is much larger, and a request as large as it would
    /// otherwise have its memory moved together soon.
    fn is_spared(&self, run: u32, request: &Request, pages: u32, order: u8) -> bool {
        if !request.grow || pages < SPARING_PAGES {
            return false;
        }
        let of_run = self.directory.run_at(run).map_or(0, |run| run.order);
        if of_run <= order + SPARED_ORDERS {
            return false;
        }
        let in_pieces: u64 = (PIECE_ORDER..=order)
            .map(|order| self.class_stats_of(order).listed_pages)
            .sum();
        in_pieces >= pages.into()
    }

    /// A run with memory that a request may take `pages` pages in a slot of `order` from.
    pub(super) fn find_run(&self, request: &Request, pages: u32, order: u8) -> Option<u32> {
        if request.modest {
            return None;
        }
        self.lists
            .find_fit(&self.directory, order, pages)
            .or_else(|| self.lists.find_larger(order).filter(|_| request.larger))
    }

    /// Reserves pages in a slot where some have no memory yet: one that has most of them, or empty
    /// address space; where there is none left, a part of a run that was spared.
    pub(super) fn reserve_unbacked(
        &mut self,
        request: &Request,
        pages: u32,
        order: u8,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Reserved, Refusal> {
        let partial = !request.contiguous && !request.modest && pages > 1;
        let page = loop {
            if let Some(page) = self
                .lists
                .find_partial(order, pages)
                .filter(|_| partial)
                .or_else(|| self.lists.find_empty(order))
            {
                break page;
            }
            match self.advance_frontier(order, kit) {
                Err(Refusal::NoSpace) => {
                    break self
                        .find_run(request, pages, order)
                        .filter(|_| !request.contiguous)
                        .ok_or(Refusal::NoSpace)?;
                }
                result => result?,
            }
        };
        self.claim(page, pages, order, kit)
    }

    /// Adds never used address space as an empty run of at least `order`.
    fn advance_frontier(&mut self, order: u8, kit: &mut Kit<M, PAGE_KIB>) -> Result<(), Refusal> {
        let left = (self.span - self.frontier)
            .checked_ilog2()
            .ok_or(Refusal::NoSpace)? as u8;
        let slot = Slot::new(self.frontier, left.min(Self::MAX_ORDER), 0);
        if slot.order < order {
            return Err(Refusal::NoSpace);
        }
        self.directory.ensure_part(slot.page, kit)?;
        self.directory.ensure_place(slot.page, slot.order, kit)?;
        self.frontier += 1 << slot.order;
        self.insert(slot);
        Ok(())
    }

    /// Takes a run off its list for a block of `pages` pages in a slot of `order`, and gives back
    /// what is more than that.
    fn claim(
        &mut self,
        page: u32,
        pages: u32,
        order: u8,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Reserved, Refusal> {
        let Some(mut slot) = self.directory.run_at(page) else {
            debug_assert!(false, "what is on a list of runs is a run");
            return Err(Refusal::Empty);
        };
        self.directory.ensure_place(page, order, kit)?;
        self.remove(slot);
        while slot.order > order {
            slot.order -= 1;
            let half = 1 << slot.order;
            let right = slot.backed.saturating_sub(half);
            slot.backed -= right;
            if right > 0 {
                self.class_stats_of_mut(slot.order + 1).splits += 1;
            }
            self.insert_slot(Slot::new(page + half, slot.order, right));
        }
        let whole = slot.backed <= pages;
        if !whole {
            self.insert_tail(page, pages, slot);
        }
        let backed = slot.backed.min(pages);
        self.directory.put(
            page,
            order,
            Head::Reserved {
                order,
                whole,
                pages,
                backed,
            },
        );
        Ok(Reserved { page, backed })
    }

    /// A block takes the first `pages` pages of a slot that has memory beyond them: the rest of
    /// the slot becomes free runs, each the right half of what it was part of.
    fn insert_tail(&mut self, page: u32, pages: u32, slot: Slot) {
        let mut at = pages;
        while at < 1 << slot.order {
            let order = at.trailing_zeros() as u8;
            let backed = slot.backed.saturating_sub(at).min(1 << order);
            self.insert_slot(Slot::new(page + at, order, backed));
            at += 1 << order;
        }
    }

    /// Frees what a block of `pages` pages, all with memory, had of its slot.
    pub(super) fn release_block(&mut self, page: u32, order: u8, whole: bool, pages: u32) {
        if whole {
            self.release(Slot::new(page, order, pages));
            return;
        }
        // Its tail is not its own. From the end, so that each piece joins what lies behind it.
        let mut at = pages;
        while at > 0 {
            let piece = at.trailing_zeros() as u8;
            at -= 1 << piece;
            self.release(Slot::new(page + at, piece, 1 << piece));
        }
    }

    /// Frees a slot that is on no list: joins it with what is free around it. Gives what comes of
    /// it.
    pub(super) fn release(&mut self, slot: Slot) -> Slot {
        let best = self.directory.join_all(slot, Self::MAX_ORDER);
        let mut joined = slot;
        while joined.order < best.order {
            let buddy = joined.buddy();
            let beside = self.remove_view(buddy, joined.order);
            if beside > 0 && joined.backed > 0 {
                self.class_stats_of_mut(joined.order + 1).merges += 1;
            }
            joined = Slot::new(
                joined.page.min(buddy),
                joined.order + 1,
                joined.backed + beside,
            );
        }
        self.insert_slot(joined);
        joined
    }

    /// Takes all runs of a wholly free slot off their lists. Gives its pages with memory.
    fn remove_view(&mut self, page: u32, order: u8) -> u32 {
        let Some(run) = self.directory.run_at(page) else {
            debug_assert!(false, "a slot that is joined is free");
            return 0;
        };
        self.remove(run);
        for beside in run.order..order {
            self.remove(Slot::new(page + (1 << beside), beside, 0));
        }
        run.backed
    }

    /// Puts a free slot on the lists: a canonical run, and empty ones beside it.
    pub(super) fn insert_slot(&mut self, slot: Slot) {
        let mut run = slot;
        if slot.backed > 0 {
            run.order = ceil_log2(slot.backed) as u8;
        }
        self.insert(run);
        for beside in run.order..slot.order {
            self.insert(Slot::new(slot.page + (1 << beside), beside, 0));
        }
    }

    fn insert(&mut self, run: Slot) {
        let head = Head::Free {
            order: run.order,
            backed: run.backed,
            links: Links::NONE,
        };
        self.directory.put(run.page, run.order, head);
        let kind = Kind::of_run(run.order, run.backed);
        self.lists.push(&mut self.directory, kind, run.page);
        if run.backed > 0 {
            self.run_pages += run.backed;
            let class = self.class_stats_of_mut(run.order);
            class.listed += 1;
            class.listed_pages += u64::from(run.backed);
        }
    }

    pub(super) fn remove(&mut self, run: Slot) {
        let kind = Kind::of_run(run.order, run.backed);
        self.lists.remove(&mut self.directory, kind, run.page);
        self.directory.take_head(run.page, run.order);
        if run.backed > 0 {
            self.run_pages -= run.backed;
            let class = self.class_stats_of_mut(run.order);
            class.listed -= 1;
            class.listed_pages -= u64::from(run.backed);
        }
    }

    /// Pages of the largest request that the freelist of `order` can serve as it is.
    pub(super) fn largest_run(&self, order: u8) -> u32 {
        self.lists
            .best(order)
            .and_then(|page| self.directory.run_at(page))
            .map_or(0, |run| run.backed)
    }

    /// Where what is kept is of the class of blocks in slots of `order`.
    fn class_stats_index(order: u8) -> usize {
        (Self::PAGE_SHIFT - MIN_SHIFT) as usize + usize::from(order)
    }

    /// What is kept of the class of blocks in slots of `order`.
    fn class_stats_of(&self, order: u8) -> &ClassStats {
        &self.class_stats[Self::class_stats_index(order)]
    }

    /// As [`Engine::class_stats_of`], to be changed.
    fn class_stats_of_mut(&mut self, order: u8) -> &mut ClassStats {
        &mut self.class_stats[Self::class_stats_index(order)]
    }
}
