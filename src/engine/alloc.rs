// SPDX-License-Identifier: GPL-2.0-only

//! Allocation: reserve, back, commit or cancel.
//!
//! | step | the block is |
//! | --- | --- |
//! | [`Engine::reserve`] | reserved: no other request can get it |
//! | [`Engine::back`] | reserved, with more pages backed |
//! | [`Engine::commit`] | live |
//! | [`Engine::cancel`], instead of commit | free again; the memory that was allocated for it is isolated |

use super::class::{Class, Shape};
use super::head::{Head, Memory};
use super::quick::Drained;
use super::request::{Admission, Policy, Refusal, Request, Reservation};
use super::runs::Reserved;
use super::{Backend, Engine, Garbage, Isolated, Metadata, Prealloc, CHUNK_PAGES, SLACK_PERMILLE};
use core::ops::Range;

/// The properties of a block that becomes live.
pub(super) struct Live {
    pub(super) memory: Memory,
    pub(super) headed: bool,
    pub(super) contiguous: bool,
}

impl Live {
    /// A block with all its memory, without a header.
    pub(super) const PLAIN: Self = Self {
        memory: Memory::Whole,
        headed: false,
        contiguous: false,
    };
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Reserves a block: from the quick list of its class, from a backed run that fits, from a backed run
    /// and the unbacked pages after it, or from unbacked pages. The last two only where the request may
    /// grow or reuse memory of free runs elsewhere.
    ///
    /// While [`Reservation::missing`] is not 0 the caller backs the missing pages with new memory, within
    /// the limits, and reports that by [`Engine::back`]. Where the limits forbid it, the caller drops
    /// memory of free runs elsewhere first ([`Engine::isolate`]); for a request that may not grow, these
    /// have enough pages.
    pub fn reserve(
        &mut self,
        request: &Request,
        admission: Admission,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> Result<Reservation, Refusal> {
        let class = Class::of(request, Self::PAGE_SHIFT)?;
        let reservation = match request.policy {
            Policy::Contiguous => self.reserve_new(request, admission, class, prealloc)?,
            Policy::Reuse { .. } => match self.reserve_quick(request, admission, class) {
                Some(reservation) => return Ok(reservation),
                None => self.reserve_class(request, admission, class, prealloc, garbage)?,
            },
        };
        self.claimed += class.block_bytes();
        Ok(reservation)
    }

    fn reserve_class(
        &mut self,
        request: &Request,
        admission: Admission,
        class: Class,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> Result<Reservation, Refusal> {
        if request.policy.is_exact() {
            if let Some(start) = self.take_kept(class) {
                return Ok(Self::ready(start, class, request));
            }
            self.merge_deferred();
            return self.reserve_listed(request, admission, class, prealloc);
        }
        if admission == Admission::Full {
            if let Some(page) = self.take_deferred(class, request.policy) {
                let start = u64::from(page) << Self::PAGE_SHIFT;
                return Ok(Self::ready(start, class, request));
            }
        }
        self.merge_deferred();
        // A large block needs the space that small ones keep apart: it searches after the drain only.
        let is_small = Self::has_quick_list(class);
        if is_small {
            match self.reserve_listed(request, admission, class, prealloc) {
                Err(Refusal::Empty) => {}
                result => return result,
            }
        }
        match self.drain(garbage) {
            Drained::Nothing if is_small => {}
            Drained::Part => return Err(Refusal::Again),
            Drained::Nothing | Drained::All => {
                match self.reserve_listed(request, admission, class, prealloc) {
                    Err(Refusal::Empty) => {}
                    result => return result,
                }
            }
        }
        if !request.may_grow(admission) && !self.could_move(request, admission, class) {
            return Err(Refusal::Empty);
        }
        self.reserve_new(request, admission, class, prealloc)
    }

    /// Returns whether free runs have enough pages to back a block elsewhere.
    fn could_move(&self, request: &Request, admission: Admission, class: Class) -> bool {
        request.may_move(admission) && class.pages() <= self.free_pages
    }

    /// Reserves a block from backed free memory: from the request's own list, or a larger run.
    fn reserve_listed(
        &mut self,
        request: &Request,
        admission: Admission,
        class: Class,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Reservation, Refusal> {
        let split = request.policy.may_split();
        let full = admission == Admission::Full;
        let shift = match class.shape() {
            Shape::Pages { .. } if !full => return Err(Refusal::Empty),
            Shape::Pages { .. } => {
                let reserved = self.reserve_backed(Self::fit_of(class, split))?;
                if !Self::has_quick_list(class) {
                    self.note_large(reserved.page, class, request.policy);
                }
                return Ok(self.reservation(reserved, request, admission, class));
            }
            Shape::Subpage { shift } => shift,
        };
        let found = self.lists.find_subpage(shift, split);
        let taken =
            found.and_then(|page| Some((page, self.take_node(page, Self::PAGE_SHIFT - shift)?)));
        if let Some((page, node)) = taken {
            return Ok(Self::ready(self.node_offset(page, node), class, request));
        }
        if !split || !full {
            return Err(Refusal::Empty);
        }
        // To divide a whole page counts as a split.
        Self::ensure_tree(prealloc)?;
        let reserved = self.reserve_backed(Self::fit_of(Self::one_page(), true))?;
        self.divide_page(reserved, request, admission, class, prealloc)
    }

    /// Reserves a block from unbacked pages, and from a backed run before them.
    fn reserve_new(
        &mut self,
        request: &Request,
        admission: Admission,
        class: Class,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Reservation, Refusal> {
        if !request.may_grow(admission) && request.policy == Policy::Contiguous {
            return Err(Refusal::Empty);
        }
        if class.is_subpage() {
            Self::ensure_tree(prealloc)?;
            let fit = Self::fit_of(Self::one_page(), false);
            let reserved = self.reserve_space(fit, false, prealloc)?;
            return self.divide_page(reserved, request, admission, class, prealloc);
        }
        let extend = request.policy != Policy::Contiguous
            && admission == Admission::Full
            && class.pages() > 1;
        let fit = Self::fit_of(class, request.policy.may_split());
        let reserved = self.reserve_space(fit, extend, prealloc)?;
        Ok(self.reservation(reserved, request, admission, class))
    }

    /// Returns the class of the page that is divided for a subpage block.
    fn one_page() -> Class {
        Class::of_pages(1, Self::PAGE_SHIFT)
    }

    /// Makes a reservation of a block that has all its memory.
    fn ready(start: u64, class: Class, request: &Request) -> Reservation {
        Reservation {
            headed: request.headed,
            ..Reservation::ready(start, class, request.size)
        }
    }

    /// Makes a reservation of whole pages, or of the page that is divided for a subpage block.
    pub(super) fn reservation(
        &self,
        reserved: Reserved,
        request: &Request,
        admission: Admission,
        class: Class,
    ) -> Reservation {
        Reservation {
            start: u64::from(reserved.page) << Self::PAGE_SHIFT,
            class,
            headed: request.headed,
            requested: request.size,
            had: reserved.backed,
            stale: reserved.backed,
            missing: class.pages() - reserved.backed,
            lazy: request.lazy && !class.is_subpage(),
            owed: 0,
            movable: request.may_move(admission),
            contiguous: request.policy == Policy::Contiguous,
        }
    }

    /// Returns whether a request could be served now, with `headroom` bytes of new pages.
    ///
    /// It is true also if the quick lists have more blocks than one call drains: a later call may return
    /// false.
    pub fn could_serve(
        &mut self,
        request: &Request,
        admission: Admission,
        headroom: u64,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> bool {
        let Ok(class) = Class::of(request, Self::PAGE_SHIFT) else {
            return false;
        };
        let reuses = request.policy != Policy::Contiguous;
        let may_use_larger = reuses && !request.policy.is_exact();
        self.merge_deferred();
        if reuses {
            if self.has_quick(admission, class)
                || request.policy.is_exact() && self.has_kept(class)
                || self.has_listed(request, admission, class)
            {
                return true;
            }
            if may_use_larger {
                match self.drain(garbage) {
                    Drained::Nothing => {}
                    Drained::Part => return true,
                    Drained::All if self.has_listed(request, admission, class) => return true,
                    Drained::All => {}
                }
            }
        }
        let reusable = if request.may_move(admission) {
            self.free_pages.into()
        } else {
            0
        };
        let new = if request.may_grow(admission) {
            headroom >> Self::PAGE_SHIFT
        } else {
            0
        };
        (may_use_larger || request.may_grow(admission))
            && u64::from(class.pages()) <= reusable + new
    }

    /// Returns whether [`Engine::reserve_listed`] would find a block.
    fn has_listed(&self, request: &Request, admission: Admission, class: Class) -> bool {
        let split = request.policy.may_split();
        let full = admission == Admission::Full;
        let has_run = |class, split| {
            let fit = Self::fit_of(class, split);
            full && self.lists.find_fit(&self.directory, true, fit).is_some()
        };
        match class.shape() {
            Shape::Pages { .. } => has_run(class, split),
            Shape::Subpage { shift } => {
                self.lists.find_subpage(shift, split).is_some()
                    || split && has_run(Self::one_page(), true)
            }
        }
    }

    /// Returns whether a request is for a subpage block.
    pub fn is_subpage(&self, request: &Request) -> bool {
        Class::of(request, Self::PAGE_SHIFT).is_ok_and(|class| class.is_subpage())
    }

    /// Counts a request that slept.
    pub fn count_wait(&mut self, request: &Request) {
        if let Ok(class) = Class::of(request, Self::PAGE_SHIFT) {
            let waits = &mut self.stats[class.index()].waits;
            *waits = waits.wrapping_add(1);
        }
    }

    /// Counts pages of free runs whose memory was dropped to back a reserved block.
    pub fn count_moved(&mut self, pages: u32) {
        let bytes = u64::from(pages) << Self::PAGE_SHIFT;
        self.moved_bytes = self.moved_bytes.wrapping_add(bytes);
    }

    /// Returns how many of the `missing` pages of reserved blocks should reuse the memory of free runs, so
    /// that the arena holds no more than its peak need plus the slack. `promised` bytes are being
    /// allocated, and count as held.
    pub fn reuse_target(&self, missing: u32, promised: u64) -> u32 {
        let Some(slack) = self.slack_permille else {
            return 0;
        };
        let over = self.beyond(slack, missing, promised);
        self.free_pages().min(over.min(missing.into()) as u32)
    }

    /// Returns whether the arena may hold `pages` more pages than its blocks need: within half of the
    /// slack, which leaves the other half for growth. `promised` bytes are being allocated, and count as
    /// held.
    pub fn admits_surplus(&self, pages: u32, promised: u64) -> bool {
        let slack = self.slack_permille.unwrap_or(SLACK_PERMILLE) / 2;
        self.beyond(slack, pages, promised) == 0
    }

    /// Returns by how many pages the arena would exceed its peak need plus a slack, in thousandths, if it
    /// held `pages` more.
    fn beyond(&self, slack: u32, pages: u32, promised: u64) -> u64 {
        let peak = self.peak_bytes.max(self.claimed);
        let allowed = peak + peak / 1000 * u64::from(slack) + peak % 1000 * u64::from(slack) / 1000;
        let more = u64::from(pages) << Self::PAGE_SHIFT;
        let after = self.held_bytes + promised + more;
        after.saturating_sub(allowed).div_ceil(Self::PAGE_BYTES)
    }

    /// Ensures that the next `pages` missing pages of a reserved block have records, so that they can be
    /// backed. Fails with the metadata that is lacked: call again with that in `prealloc`.
    pub fn ensure_backing(
        &mut self,
        reservation: &Reservation,
        pages: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        let next = reservation.next_page();
        self.ensure_records(next..next + pages.min(reservation.missing), prealloc)?;
        let first = (reservation.start >> Self::PAGE_SHIFT) as u32;
        if let Some(Head::Reserved { awaits_memory, .. }) = self.directory.head_mut(first) {
            *awaits_memory = true;
        }
        Ok(())
    }

    /// Ensures that the pages of `range` have records.
    pub(super) fn ensure_records(
        &mut self,
        range: Range<u32>,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        let mut page = range.start;
        while page < range.end {
            self.directory.ensure_chunk(page, prealloc)?;
            page = (page / CHUNK_PAGES as u32 + 1) * CHUNK_PAGES as u32;
        }
        Ok(())
    }

    /// Notes that the caller has backed the next `pages` missing pages of a reserved block, after
    /// [`Engine::ensure_backing`] has made their records.
    pub fn back(&mut self, reservation: &mut Reservation, pages: u32) {
        let pages = pages.min(reservation.missing);
        if pages == 0 {
            return;
        }
        let first = (reservation.start >> Self::PAGE_SHIFT) as u32;
        let next = reservation.next_page();
        let came = self.directory.set_backed(next..next + pages, true);
        debug_assert_eq!(came, pages, "a page gets memory that has some");
        reservation.missing -= pages;
        self.held_bytes += u64::from(pages) << Self::PAGE_SHIFT;
        match reservation.class.shape() {
            Shape::Subpage { shift } => self.open_divided(next, shift),
            Shape::Pages { .. } => {
                if let Some(Head::Reserved { backed, .. }) = self.directory.head_mut(first) {
                    *backed += pages;
                }
            }
        }
    }

    /// Makes a reserved block live, after its offset was copied to the caller. All pages have memory by
    /// now, or are owed.
    #[inline(always)]
    pub fn commit(&mut self, reservation: Reservation) {
        debug_assert!(reservation.missing <= reservation.owed);
        let class = reservation.class;
        let missing = reservation.missing;
        if missing > 0 {
            self.holes += missing;
        }
        self.count_allocs(class, 1, reservation.requested);
        if reservation.had < class.pages() {
            let grows = &mut self.stats[class.index()].grows;
            *grows = grows.wrapping_add(1);
        }
        let live = Live {
            memory: if reservation.lazy {
                Memory::Lazy
            } else {
                Memory::Whole
            },
            headed: reservation.headed,
            contiguous: reservation.contiguous,
        };
        self.enliven(reservation.start, class, live);
    }

    /// Counts blocks that become live.
    #[inline(always)]
    pub(super) fn count_allocs(&mut self, class: Class, count: u64, requested: u64) {
        let stats = &mut self.stats[class.index()];
        stats.allocs = stats.allocs.wrapping_add(count);
        if !class.is_subpage() {
            stats.live_pages += count * u64::from(class.pages());
        }
        self.requested_bytes = self.requested_bytes.wrapping_add(requested);
        self.peak_bytes = self.peak_bytes.max(self.claimed);
    }

    /// Makes a reserved block live.
    #[inline(always)]
    pub(super) fn enliven(&mut self, start: u64, class: Class, live: Live) {
        let Live {
            memory,
            headed,
            contiguous,
        } = live;
        match self.directory.head_mut((start >> Self::PAGE_SHIFT) as u32) {
            Some(Head::Subpage(tree, ..)) => {
                tree.set_live(Self::node(start, class.shift()), headed)
            }
            Some(head) => {
                if let Head::Reserved { pages, .. } = *head {
                    *head = Head::Live {
                        pages,
                        memory,
                        headed,
                        growing: false,
                        contiguous,
                    };
                }
            }
            None => debug_assert!(false, "a reserved block has a head"),
        }
    }

    /// Cancels a reservation. Returns the pages that were backed for it, isolated: the caller drops their
    /// memory ([`Engine::remove_isolated`]).
    pub fn cancel(
        &mut self,
        reservation: Reservation,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> Option<Isolated> {
        let page = (reservation.start >> Self::PAGE_SHIFT) as u32;
        let mut isolated = None;
        match reservation.class.shape() {
            Shape::Subpage { .. } if reservation.missing > 0 => {
                // The page was never backed, so its tree is on no list.
                if let Some(Head::Subpage(tree, ..)) = self.directory.take_head(page) {
                    garbage.add_tree(tree);
                }
                self.release_pages(page, 1, false);
                self.directory.release_chunk(page, garbage);
            }
            Shape::Subpage { shift } => {
                self.free_node(page, Self::node(reservation.start, shift), garbage);
            }
            Shape::Pages { pages } => {
                self.owed -= reservation.owed();
                let had = reservation.had;
                let backed = pages - reservation.missing;
                self.directory.take_head(page);
                if backed > had {
                    self.put_reserved(page + had, backed - had, backed - had);
                    isolated = Some(Isolated::new(page + had, backed - had));
                }
                if pages > backed {
                    self.release_pages(page + backed, pages - backed, false);
                }
                if had > 0 {
                    self.release_block(page, had);
                }
                // Drops records that were made for pages that were not backed.
                for end in [page, page + had, page + backed, page + pages] {
                    self.directory.release_chunk(end, garbage);
                }
            }
        }
        let owed = u64::from(reservation.owed()) << Self::PAGE_SHIFT;
        self.claimed -= reservation.class.block_bytes() - owed;
        isolated
    }
}
