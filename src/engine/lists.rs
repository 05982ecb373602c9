// SPDX-License-Identifier: GPL-2.0-only

//! The freelists: doubly linked through the heads of their elements, last in first out, with bitmaps of
//! the lists that are not empty.
//!
//! | list | elements |
//! | --- | --- |
//! | `subpage[shift]` | divided pages whose largest free block is `1 << shift` bytes |
//! | `backed[order][bin]` | backed runs, by order and by the leading bits of their length |
//! | `unbacked[order][bin]` | unbacked runs, by the same keys |
//!
//! The two levels are those of TLSF (Masmano et al., 2004). The order of a run of `pages` pages is the
//! smallest with `pages <= 1 << order`: the size class of a block of that length. The last bin of an
//! order has the runs of exactly `1 << order` pages. Each other bin has a sixteenth of the lengths of
//! the order.

use super::class::{ceil_log2, page_shift, MIN_SHIFT};
use super::directory::Directory;
use super::head::{Head, Links};
use super::{Backend, MAX_PAGES};

/// Orders of runs: the longest run spans an arena.
const ORDERS: usize = MAX_PAGES.ilog2() as usize + 1;
/// Sub-lists of an order, beside that of the full runs.
const SUB_LISTS: u32 = 16;
/// The bin of runs of exactly `1 << order` pages.
const FULL: u32 = SUB_LISTS;
/// Size classes below a page of 64 KiB.
const SUBPAGE_LISTS: usize = (page_shift(64) - MIN_SHIFT) as usize;
/// How many runs of a list one search visits.
const VISITED_RUNS: u32 = 8;
/// The memory for a block comes from the smallest run that has about one part in `1 << VACATED_SHIFT` of
/// the pages that the block misses, or else from the longest run. Where short runs lose their memory, later
/// blocks find holes in their way, and memory is moved again; a much longer run serves other blocks.
///
/// Chosen by replaying traces and random releases (`tests/engine/tests/traces.rs`, `adversarial.rs`). Where
/// only the blocks above 32 KiB of a training run are in an arena, ten runs of resnet18 move 8 to 33 % of
/// the peak in each but the first if the shortest runs are taken, and 4 % in one of them with this. Where
/// blocks of random sizes are replaced, a quarter less is moved; if the longest runs are taken, five times
/// as much.
const VACATED_SHIFT: u32 = 2;

/// Returns the order and the bin of runs of `pages` pages.
fn bin_of(pages: u32) -> (u32, u32) {
    let order = ceil_log2(pages.into());
    if pages == 1 << order {
        return (order, FULL);
    }
    // The leading 1 is common to the order: the next four bits are the bin.
    let rest = u64::from(pages - (1 << (order - 1)));
    (order, ((rest * u64::from(SUB_LISTS)) >> (order - 1)) as u32)
}

/// One list: the page number of its first element.
#[derive(Clone, Copy)]
struct List(u32);

impl List {
    const NEW: Self = Self(Links::END);

    fn is_empty(self) -> bool {
        self.0 == Links::END
    }

    fn push<B: Backend, const K: usize>(&mut self, pages: &mut Directory<B, K>, page: u32) {
        let next = core::mem::replace(&mut self.0, page);
        if let Some(links) = pages.links_mut(page) {
            *links = Links::new(Links::END, next);
        }
        if next != Links::END {
            if let Some(links) = pages.links_mut(next) {
                links.set_prev(page);
            }
        }
    }

    fn relocate<B: Backend, const K: usize>(&mut self, pages: &mut Directory<B, K>, page: u32) {
        let Some(&mut links) = pages.links_mut(page) else {
            debug_assert!(false, "only an element of a list is relocated");
            return;
        };
        let (prev, next) = (links.prev(), links.next());
        if prev == Links::END {
            self.0 = page;
        } else if let Some(links) = pages.links_mut(prev) {
            links.set_next(page);
        }
        if next != Links::END {
            if let Some(links) = pages.links_mut(next) {
                links.set_prev(page);
            }
        }
    }

    fn remove<B: Backend, const K: usize>(&mut self, pages: &mut Directory<B, K>, page: u32) {
        let Some(links) = pages.links_mut(page) else {
            debug_assert!(false, "only an element of a list is removed");
            return;
        };
        let links = core::mem::replace(links, Links::NONE);
        let (prev, next) = (links.prev(), links.next());
        if prev == Links::END {
            debug_assert_eq!(self.0, page, "removed from another list");
            self.0 = next;
        } else if let Some(links) = pages.links_mut(prev) {
            links.set_next(next);
        }
        if next != Links::END {
            if let Some(links) = pages.links_mut(next) {
                links.set_prev(prev);
            }
        }
    }
}

/// The lists of the backed runs, or of the unbacked ones.
struct RunLists {
    lists: [[List; FULL as usize + 1]; ORDERS],
    /// A bit for each bin of an order that is not empty.
    bins: [u32; ORDERS],
    /// A bit for each order with such a bin.
    orders: u32,
}

/// Returns the index of the lowest set bit of `map` at or above `from`.
fn lowest(map: u32, from: u32) -> Option<u32> {
    let map = map & u32::MAX.checked_shl(from)?;
    (map != 0).then(|| map.trailing_zeros())
}

impl RunLists {
    const NEW: Self = Self {
        lists: [[List::NEW; FULL as usize + 1]; ORDERS],
        bins: [0; ORDERS],
        orders: 0,
    };

    /// Returns the order and bin of the first list, from `order` and `bin` on, that is not empty.
    fn next(&self, (order, bin): (u32, u32)) -> Option<(u32, u32)> {
        let bins = *self.bins.get(order as usize)?;
        if let Some(bin) = lowest(bins, bin) {
            return Some((order, bin));
        }
        let order = lowest(self.orders, order + 1)?;
        Some((order, self.bins[order as usize].trailing_zeros()))
    }

    /// Returns the first run of a list.
    fn first(&self, (order, bin): (u32, u32)) -> u32 {
        let lists = self.lists.get(order as usize);
        let list = lists.and_then(|lists| lists.get(bin as usize));
        list.map_or(Links::END, |list| list.0)
    }
}

/// Which pages of which run a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    /// How many pages it takes.
    pub(super) pages: u32,
    /// Their alignment in pages, a power of 2.
    pub(super) align: u32,
    /// The run may be of a larger class.
    pub(super) split: bool,
    /// They are taken from the end of the run.
    pub(super) at_end: bool,
}

impl Fit {
    /// Returns where the pages begin in a run; `None` if the run does not fit.
    pub(super) fn in_run(&self, start: u32, pages: u32) -> Option<u32> {
        let first = if self.at_end {
            let last = (start + pages).checked_sub(self.pages)?;
            last & !(self.align - 1)
        } else {
            self.aligned(start)?
        };
        let end = first.checked_add(self.pages)?;
        (first >= start && end <= start + pages).then_some(first)
    }

    /// Returns the first page number at or after `page` that is aligned.
    pub(super) fn aligned(&self, page: u32) -> Option<u32> {
        Some(page.checked_add(self.align - 1)? & !(self.align - 1))
    }
}

pub(super) struct Lists {
    subpage: [List; SUBPAGE_LISTS],
    subpage_map: u32,
    backed: RunLists,
    unbacked: RunLists,
}

impl Lists {
    pub(super) fn new() -> Self {
        Self {
            subpage: [List::NEW; SUBPAGE_LISTS],
            subpage_map: 0,
            backed: RunLists::NEW,
            unbacked: RunLists::NEW,
        }
    }

    fn runs(&self, is_backed: bool) -> &RunLists {
        if is_backed {
            &self.backed
        } else {
            &self.unbacked
        }
    }

    /// Adds a run or a divided page, whose head is in place, to its list.
    pub(super) fn push<B: Backend, const K: usize>(
        &mut self,
        pages: &mut Directory<B, K>,
        kind: Kind,
        page: u32,
    ) {
        let (runs, len) = match kind {
            Kind::Subpage(shift) => {
                let index = (shift - MIN_SHIFT) as usize;
                if let Some(list) = self.subpage.get_mut(index) {
                    list.push(pages, page);
                    self.subpage_map |= 1 << index;
                }
                return;
            }
            Kind::Backed(len) => (&mut self.backed, len),
            Kind::Unbacked(len) => (&mut self.unbacked, len),
        };
        let (order, bin) = bin_of(len);
        runs.lists[order as usize][bin as usize].push(pages, page);
        runs.bins[order as usize] |= 1 << bin;
        runs.orders |= 1 << order;
    }

    /// Removes a run or a divided page, whose head is still in place, from its list.
    pub(super) fn remove<B: Backend, const K: usize>(
        &mut self,
        pages: &mut Directory<B, K>,
        kind: Kind,
        page: u32,
    ) {
        let (runs, len) = match kind {
            Kind::Subpage(shift) => {
                let index = (shift - MIN_SHIFT) as usize;
                if let Some(list) = self.subpage.get_mut(index) {
                    list.remove(pages, page);
                    if list.is_empty() {
                        self.subpage_map &= !(1 << index);
                    }
                }
                return;
            }
            Kind::Backed(len) => (&mut self.backed, len),
            Kind::Unbacked(len) => (&mut self.unbacked, len),
        };
        let (order, bin) = bin_of(len);
        let list = &mut runs.lists[order as usize][bin as usize];
        list.remove(pages, page);
        if list.is_empty() {
            runs.bins[order as usize] &= !(1 << bin);
            if runs.bins[order as usize] == 0 {
                runs.orders &= !(1 << order);
            }
        }
    }

    /// Updates the links to a run that begins at `page` now. Its head, with its links, was moved there,
    /// and it stays on its list.
    pub(super) fn relocate<B: Backend, const K: usize>(
        &mut self,
        pages: &mut Directory<B, K>,
        kind: Kind,
        page: u32,
    ) {
        let (runs, len) = match kind {
            Kind::Subpage(_) => return,
            Kind::Backed(len) => (&mut self.backed, len),
            Kind::Unbacked(len) => (&mut self.unbacked, len),
        };
        let (order, bin) = bin_of(len);
        runs.lists[order as usize][bin as usize].relocate(pages, page);
    }

    /// Returns a divided page whose largest free block is `1 << shift` bytes; with `split`, at least
    /// `1 << shift` bytes.
    pub(super) fn find_subpage(&self, shift: u32, split: bool) -> Option<u32> {
        let index = lowest(self.subpage_map, shift - MIN_SHIFT)?;
        let found = self.subpage.get(index as usize)?.0;
        (split || index == shift - MIN_SHIFT).then_some(found)
    }

    /// Returns a run that fits: the lowest among the first [`VISITED_RUNS`] of the first list with one
    /// that fits.
    pub(super) fn find_fit<B: Backend, const K: usize>(
        &self,
        directory: &Directory<B, K>,
        is_backed: bool,
        fit: Fit,
    ) -> Option<u32> {
        let runs = self.runs(is_backed);
        let (order, bin) = bin_of(fit.pages);
        let mut at = (order, bin);
        loop {
            at = runs.next(at)?;
            if !fit.split && at.0 > order {
                return None;
            }
            let mut lowest = None;
            let mut next = runs.first(at);
            for _ in 0..VISITED_RUNS {
                let (pages, links) = match directory.head(next) {
                    Some(Head::Backed { pages, links } | Head::Unbacked { pages, links }) => {
                        (*pages, *links)
                    }
                    _ => break,
                };
                let is_lower = lowest.is_none_or(|lowest| next < lowest);
                if is_lower && fit.in_run(next, pages).is_some() {
                    lowest = Some(next);
                }
                next = links.next();
            }
            if lowest.is_some() {
                return lowest;
            }
            at.1 += 1;
        }
    }

    /// Returns the backed run whose memory is dropped first for a block that misses `missing` pages: see
    /// [`VACATED_SHIFT`].
    pub(super) fn find_vacated(&self, missing: u32) -> Option<u32> {
        let runs = &self.backed;
        let order = ceil_log2(missing.into()).saturating_sub(VACATED_SHIFT);
        let run = runs.next((order, 0)).map(|at| runs.first(at));
        run.or_else(|| self.largest_of(runs.orders.checked_ilog2()?))
    }

    /// Calls `see` with the first page of the longest backed runs of at most about `pages` pages, at
    /// most [`VISITED_RUNS`] runs. A run of the same bin may be longer than `pages`.
    pub(super) fn for_longest<B: Backend, const K: usize>(
        &self,
        directory: &Directory<B, K>,
        pages: u32,
        mut see: impl FnMut(u32),
    ) {
        let mut left = VISITED_RUNS;
        let (mut order, bin) = bin_of(pages);
        let mut bins = self.backed.bins[order as usize] & ((2 << bin) - 1);
        loop {
            while let Some(bin) = bins.checked_ilog2() {
                let mut next = self.backed.first((order, bin));
                while let Some(Head::Backed { links, .. }) = directory.head(next) {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                    see(next);
                    next = links.next();
                }
                bins &= !(1 << bin);
            }
            let orders = self.backed.orders & ((1 << order) - 1);
            let Some(lower) = orders.checked_ilog2() else {
                return;
            };
            order = lower;
            bins = self.backed.bins[order as usize];
        }
    }

    /// Returns a backed run of an order, from the list of the longest.
    pub(super) fn largest_of(&self, order: u32) -> Option<u32> {
        let bins = self.backed.bins.get(order as usize)?;
        Some(self.backed.first((order, bins.checked_ilog2()?)))
    }

    /// Calls `see` with each list: its identity, its first element, and whether the bitmaps say that it
    /// is not empty. For `check`.
    pub(super) fn for_each(&self, mut see: impl FnMut(ListId, u32, bool)) {
        for (index, list) in self.subpage.iter().enumerate() {
            let mapped = self.subpage_map & (1 << index) != 0;
            see(ListId::Subpage(index as u32 + MIN_SHIFT), list.0, mapped);
        }
        for is_backed in [true, false] {
            let runs = self.runs(is_backed);
            for (order, lists) in runs.lists.iter().enumerate() {
                for (bin, list) in lists.iter().enumerate() {
                    let mapped =
                        runs.bins[order] & (1 << bin) != 0 && runs.orders & (1 << order) != 0;
                    let id = ListId::Runs(is_backed, order as u32, bin as u32);
                    see(id, list.0, mapped);
                }
            }
        }
    }
}

/// An element of a list: a divided page, by the shift of its largest free block, or a run, by its
/// pages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Subpage(u32),
    Backed(u32),
    Unbacked(u32),
}

impl Kind {
    pub(super) fn of_run(pages: u32, is_backed: bool) -> Self {
        if is_backed {
            Self::Backed(pages)
        } else {
            Self::Unbacked(pages)
        }
    }

    /// Returns the list that it belongs on.
    pub(super) fn list(self) -> ListId {
        match self {
            Self::Subpage(shift) => ListId::Subpage(shift),
            Self::Backed(pages) => ListId::Runs(true, bin_of(pages).0, bin_of(pages).1),
            Self::Unbacked(pages) => ListId::Runs(false, bin_of(pages).0, bin_of(pages).1),
        }
    }
}

/// The identity of a list: the shift of divided pages, or whether the runs are backed, their order and
/// their bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListId {
    Subpage(u32),
    Runs(bool, u32, u32),
}
