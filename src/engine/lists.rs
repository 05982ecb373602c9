// SPDX-License-Identifier: GPL-2.0

//! The freelists: doubly linked through the heads of what is on them, with bit maps of those that
//! are not empty.
//!
//! | list | has |
//! | --- | --- |
//! | `subpage[shift]` | divided pages whose largest free block is `1 << shift` bytes |
//! | `empty[order]` | runs without memory |
//! | `backed[order][bin]` | runs with memory, by the leading bits of their backed pages |
//!
//! The last bin of an order has the wholly backed runs; the others an eighth of the order each.

use super::class::{COUNT, MAX_SHIFT, MIN_SHIFT};
use super::directory::{Directory, Head, Links};
use super::Backend;

/// The largest order, with the smallest page.
const ORDERS: usize = (MAX_SHIFT - 12 + 1) as usize;
/// The bin of wholly backed runs.
const FULL: usize = 8;
/// How many runs of a request's own bin, some of which fit, are looked at.
const LOOK: usize = 8;
/// Memory leaves from runs of this order and above first: single pages are what small blocks need,
/// and to move one costs a call as to move many does.
pub(super) const PIECE_ORDER: u8 = 1;

/// The bin of runs of `order` with `backed` pages, which are more than half of it.
fn bin(order: u8, backed: u32) -> usize {
    if backed == 1 << order {
        return FULL;
    }
    // The leading one of `backed - 1` is the same for the whole order: the next three bits tell.
    let below = u64::from(backed - 1) << 3;
    ((below >> (order - 1)) & 7) as usize
}

/// The head of one list.
#[derive(Clone, Copy)]
struct List(u32);

impl List {
    const NEW: Self = Self(Links::END);

    fn is_empty(self) -> bool {
        self.0 == Links::END
    }

    fn push<M: Backend, const K: usize>(&mut self, pages: &mut Directory<M, K>, page: u32) {
        let next = core::mem::replace(&mut self.0, page);
        if let Some(links) = pages.links_mut(page) {
            *links = Links {
                prev: Links::END,
                next,
            };
        }
        if next != Links::END {
            if let Some(links) = pages.links_mut(next) {
                links.prev = page;
            }
        }
    }

    fn remove<M: Backend, const K: usize>(&mut self, pages: &mut Directory<M, K>, page: u32) {
        let Some(links) = pages.links_mut(page) else {
            debug_assert!(false, "only what is on a list is removed");
            return;
        };
        let Links { prev, next } = core::mem::replace(links, Links::NONE);
        if prev == Links::END {
            debug_assert_eq!(self.0, page, "removed from another list");
            self.0 = next;
        } else if let Some(links) = pages.links_mut(prev) {
            links.next = next;
        }
        if next != Links::END {
            if let Some(links) = pages.links_mut(next) {
                links.prev = prev;
            }
        }
    }
}

pub(super) struct Lists {
    subpage: [List; COUNT],
    subpage_map: u32,
    empty: [List; ORDERS],
    empty_map: u32,
    backed: [[List; FULL + 1]; ORDERS],
    /// The bins of each order that are not empty, and the orders with such a bin.
    bins: [u16; ORDERS],
    backed_map: u32,
}

/// The lowest set bit of `map` from `from` on.
fn lowest(map: u32, from: u32) -> Option<u32> {
    let map = map & u32::MAX.checked_shl(from)?;
    (map != 0).then(|| map.trailing_zeros())
}

impl Lists {
    pub(super) fn new() -> Self {
        Self {
            subpage: [List::NEW; COUNT],
            subpage_map: 0,
            empty: [List::NEW; ORDERS],
            empty_map: 0,
            backed: [[List::NEW; FULL + 1]; ORDERS],
            bins: [0; ORDERS],
            backed_map: 0,
        }
    }

    fn at(&mut self, kind: Kind) -> &mut List {
        match kind {
            Kind::Subpage(shift) => &mut self.subpage[(shift - MIN_SHIFT) as usize],
            Kind::Empty(order) => &mut self.empty[usize::from(order)],
            Kind::Backed(order, bin) => &mut self.backed[usize::from(order)][bin],
        }
    }

    /// Puts a run or a divided page, whose head is in place, on a list.
    pub(super) fn push<M: Backend, const K: usize>(
        &mut self,
        pages: &mut Directory<M, K>,
        kind: Kind,
        page: u32,
    ) {
        self.at(kind).push(pages, page);
        match kind {
            Kind::Subpage(shift) => self.subpage_map |= 1 << (shift - MIN_SHIFT),
            Kind::Empty(order) => self.empty_map |= 1 << order,
            Kind::Backed(order, bin) => {
                self.bins[usize::from(order)] |= 1 << bin;
                self.backed_map |= 1 << order;
            }
        }
    }

    /// Takes a run or a divided page, whose head is still in place, off its list.
    pub(super) fn remove<M: Backend, const K: usize>(
        &mut self,
        pages: &mut Directory<M, K>,
        kind: Kind,
        page: u32,
    ) {
        let list = self.at(kind);
        list.remove(pages, page);
        if !list.is_empty() {
            return;
        }
        match kind {
            Kind::Subpage(shift) => self.subpage_map &= !(1 << (shift - MIN_SHIFT)),
            Kind::Empty(order) => self.empty_map &= !(1 << order),
            Kind::Backed(order, bin) => {
                let bins = &mut self.bins[usize::from(order)];
                *bins &= !(1 << bin);
                if *bins == 0 {
                    self.backed_map &= !(1 << order);
                }
            }
        }
    }

    /// A divided page with a free block of `1 << shift` bytes as its largest; with `larger`, one
    /// that has at least that.
    pub(super) fn find_subpage(&self, shift: u32, larger: bool) -> Option<u32> {
        let index = lowest(self.subpage_map, shift - MIN_SHIFT)?;
        (larger || index == shift - MIN_SHIFT).then(|| self.subpage[index as usize].0)
    }

    /// A run of `order` with at least `pages` pages of memory.
    pub(super) fn find_fit<M: Backend, const K: usize>(
        &self,
        directory: &Directory<M, K>,
        order: u8,
        pages: u32,
    ) -> Option<u32> {
        let lists = self.backed.get(usize::from(order))?;
        let own = bin(order, pages);
        // What is in the own bin may have a little less, what is in a higher one has enough.
        let mut next = lists[own].0;
        for _ in 0..LOOK {
            let Some(Head::Free { backed, links, .. }) = directory.head(next) else {
                break;
            };
            if *backed >= pages {
                return Some(next);
            }
            next = links.next;
        }
        let higher = lowest(u32::from(self.bins[usize::from(order)]), own as u32 + 1)?;
        Some(lists[higher as usize].0)
    }

    /// A run with memory of an order above `order`: the smallest.
    pub(super) fn find_larger(&self, order: u8) -> Option<u32> {
        let order = lowest(self.backed_map, u32::from(order) + 1)? as usize;
        let bin = self.bins[order].trailing_zeros() as usize;
        Some(self.backed[order].get(bin)?.0)
    }

    /// A run of `order` with memory, but for less than `pages` pages: that with the most.
    pub(super) fn find_partial(&self, order: u8, pages: u32) -> Option<u32> {
        let own = bin(order, pages);
        let bins = self.bins[usize::from(order)] & ((2 << own) - 1);
        let bin = bins.checked_ilog2()?;
        Some(self.backed[usize::from(order)][bin as usize].0)
    }

    /// The run with memory that is missed least when its memory leaves: the smallest of
    /// [`PIECE_ORDER`] and above, else the largest.
    pub(super) fn find_dispensable(&self) -> Option<u32> {
        self.find_larger(PIECE_ORDER - 1)
            .or_else(|| self.best(self.backed_map.checked_ilog2()? as u8))
    }

    /// An empty run of `order` or above: the smallest.
    pub(super) fn find_empty(&self, order: u8) -> Option<u32> {
        let order = lowest(self.empty_map, u32::from(order))?;
        Some(self.empty[order as usize].0)
    }

    /// A run of `order` in its highest bin, the best that the order has.
    pub(super) fn best(&self, order: u8) -> Option<u32> {
        let bin = self.bins.get(usize::from(order))?.checked_ilog2()?;
        Some(self.backed[usize::from(order)][bin as usize].0)
    }

    /// Every list, with what it ought to have, for `check`.
    pub(super) fn for_each(&self, mut see: impl FnMut(Kind, u32, bool)) {
        for (index, list) in self.subpage.iter().enumerate() {
            let mapped = self.subpage_map & (1 << index) != 0;
            see(Kind::Subpage(index as u32 + MIN_SHIFT), list.0, mapped);
        }
        for (order, list) in self.empty.iter().enumerate() {
            let mapped = self.empty_map & (1 << order) != 0;
            see(Kind::Empty(order as u8), list.0, mapped);
        }
        for (order, lists) in self.backed.iter().enumerate() {
            for (bin, list) in lists.iter().enumerate() {
                let mapped =
                    self.bins[order] & (1 << bin) != 0 && self.backed_map & (1 << order) != 0;
                see(Kind::Backed(order as u8, bin), list.0, mapped);
            }
        }
    }
}

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Subpage(u32),
    Empty(u8),
    Backed(u8, usize),
}

impl Kind {
    /// The list that a run belongs to.
    pub(super) fn of_run(order: u8, backed: u32) -> Self {
        if backed == 0 {
            Self::Empty(order)
        } else {
            Self::Backed(order, bin(order, backed))
        }
    }
}
