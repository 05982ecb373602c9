// SPDX-License-Identifier: GPL-2.0-only

//! Allocation: reserve, back, commit or cancel.
//!
//! | step | the block is |
//! | --- | --- |
//! | [`Engine::reserve`] | reserved: no other request can get it |
//! | [`Engine::back`] | the same, with more of its memory |
//! | [`Engine::commit`] | live |
//! | [`Engine::cancel`], in place of commit | free again; what was brought for it leaves |

use super::class::{Class, Shape};
use super::head::{Head, Memory};
use super::quick::Drained;
use super::request::{Admission, Policy, Refusal, Request, Reservation};
use super::runs::Reserved;
use super::{Backend, Engine, Garbage, Isolated, Metadata, Prealloc, CHUNK_PAGES, SLACK_PERMILLE};
use core::ops::Range;

/// What a block is from the moment on in which it becomes live.
pub(super) struct Live {
    pub(super) memory: Memory,
    pub(super) headed: bool,
    pub(super) contiguous: bool,
}

impl Live {
    /// A block that has all its memory, and nothing else to say.
    pub(super) const PLAIN: Self = Self {
        memory: Memory::Whole,
        headed: false,
        contiguous: false,
    };
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Reserves a block: of the quick list of its class, of a run with memory that fits, behind a run
    /// that borders on address space, in address space; the latter two only as far as memory may be
    /// brought or moved.
    ///
    /// While [`Reservation::missing`] is not 0 the block has too few pages: they get new memory, which
    /// is told by [`Engine::back`], within the limits; where these forbid it, that of free runs
    /// elsewhere leaves first ([`Engine::isolate`]). Of a request that may not grow, as many are free
    /// there.
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
            return self.reserve_listed(request, admission, class, prealloc);
        }
        // What small blocks keep apart is what a large one needs: it looks after the drain alone.
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

    /// Whether a block can be made of free memory that lies elsewhere.
    fn could_move(&self, request: &Request, admission: Admission, class: Class) -> bool {
        request.may_move(admission) && class.pages() <= self.free_pages
    }

    /// Reserves a block from what has memory: of the request's own list, or a larger run.
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
        // A whole page is a larger block, even the smallest.
        Self::ensure_tree(prealloc)?;
        let reserved = self.reserve_backed(Self::fit_of(Self::one_page(), true))?;
        self.divide_page(reserved, request, admission, class, prealloc)
    }

    /// Reserves a block in address space, or behind memory that borders on it.
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

    /// The class of the page that is divided for a subpage block.
    fn one_page() -> Class {
        Class::of_pages(1, Self::PAGE_SHIFT)
    }

    /// A reservation that has its memory.
    fn ready(start: u64, class: Class, request: &Request) -> Reservation {
        Reservation {
            headed: request.headed,
            ..Reservation::ready(start, class, request.size)
        }
    }

    /// A reservation of whole pages, or of the page that a subpage block will lie in.
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

    /// Whether a request could be served now, if it were allowed `room` bytes of new pages and the
    /// system had them. Where quick lists hold more than one hold of the lock can sort out the answer
    /// is yes, and a later one may be no.
    pub fn could_serve(
        &mut self,
        request: &Request,
        admission: Admission,
        room: u64,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> bool {
        let Ok(class) = Class::of(request, Self::PAGE_SHIFT) else {
            return false;
        };
        let reuses = request.policy != Policy::Contiguous;
        let may_use_larger = reuses && !request.policy.is_exact();
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
        let moved = if request.may_move(admission) {
            self.free_pages.into()
        } else {
            0
        };
        let room = if request.may_grow(admission) {
            room >> Self::PAGE_SHIFT
        } else {
            0
        };
        (may_use_larger || request.may_grow(admission)) && u64::from(class.pages()) <= moved + room
    }

    /// Whether [`Engine::reserve_listed`] would find something.
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

    /// Whether a request is for a block below a page.
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

    /// Counts pages that were moved from free runs to a reserved block.
    pub fn count_moved(&mut self, pages: u32) {
        let bytes = u64::from(pages) << Self::PAGE_SHIFT;
        self.moved_bytes = self.moved_bytes.wrapping_add(bytes);
    }

    /// Of the `missing` pages of reserved blocks, returns how many should come from free runs
    /// elsewhere so that the arena does not hold more than the slack allows: growing would take what
    /// it holds, with `promised` bytes that are on their way, above so much more than the most that
    /// its blocks ever needed.
    pub fn reuse_target(&self, missing: u32, promised: u64) -> u32 {
        let Some(slack) = self.slack_permille else {
            return 0;
        };
        let over = self.beyond(slack, missing, promised);
        self.free_pages.min(over.min(missing.into()) as u32)
    }

    /// Returns whether the arena may hold `pages` more pages than its blocks ask for, with `promised`
    /// bytes that are on their way: at most half of the slack, so that growing has the other half.
    pub fn admits_surplus(&self, pages: u32, promised: u64) -> bool {
        let slack = self.slack_permille.unwrap_or(SLACK_PERMILLE) / 2;
        self.beyond(slack, pages, promised) == 0
    }

    /// By how many pages the arena would be beyond a slack, in thousandths, with so many more.
    fn beyond(&self, slack: u32, pages: u32, promised: u64) -> u64 {
        let peak = self.peak_bytes.max(self.claimed);
        let most = peak + peak / 1000 * u64::from(slack) + peak % 1000 * u64::from(slack) / 1000;
        let more = u64::from(pages) << Self::PAGE_SHIFT;
        let after = self.held_bytes + promised + more;
        after.saturating_sub(most).div_ceil(Self::PAGE_BYTES)
    }

    /// Makes sure that there are records for the next `pages` that a reserved block misses. Changes
    /// nothing where it cannot: the call is to be made again with more in `prealloc`.
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

    /// Makes sure that the pages of `range` have records.
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

    /// The next `pages` that a reserved block misses have their memory. [`Engine::ensure_backing`] has
    /// made room for what is known of them.
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

    /// The answer is out: the block is live.
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
            Some(Head::Subpage(tree)) => tree.set_live(Self::node(start, class.shift()), headed),
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

    /// Undoes a reservation. What was brought for it is to leave: it is isolated.
    pub fn cancel(
        &mut self,
        reservation: Reservation,
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) -> Option<Isolated> {
        let page = (reservation.start >> Self::PAGE_SHIFT) as u32;
        let mut brought = None;
        match reservation.class.shape() {
            Shape::Subpage { .. } if reservation.missing > 0 => {
                // The page never came, so nobody else has seen the tree.
                if let Some(Head::Subpage(tree)) = self.directory.take_head(page) {
                    garbage.add_tree(tree);
                }
                self.release_pages(page, 1, false);
                self.directory.give_chunk(page, garbage);
            }
            Shape::Subpage { shift } => {
                self.give_node(page, Self::node(reservation.start, shift), garbage);
            }
            Shape::Pages { pages } => {
                self.owed -= reservation.owed();
                let had = reservation.had;
                let backed = pages - reservation.missing;
                self.directory.take_head(page);
                if backed > had {
                    self.put_reserved(page + had, backed - had, backed - had);
                    brought = Some(Isolated::new(page + had, backed - had));
                }
                if pages > backed {
                    self.release_pages(page + backed, pages - backed, false);
                }
                if had > 0 {
                    self.release_block(page, had);
                }
                // Those that were made for pages that did not come.
                for end in [page, page + had, page + backed, page + pages] {
                    self.directory.give_chunk(end, garbage);
                }
            }
        }
        let owed = u64::from(reservation.owed()) << Self::PAGE_SHIFT;
        self.claimed -= reservation.class.block_bytes() - owed;
        brought
    }
}
