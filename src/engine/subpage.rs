// SPDX-License-Identifier: GPL-2.0-only

//! Divided pages: how a page is divided, how its nodes are taken and freed, how it becomes whole again.

use super::class::{page_shift, Class};
use super::head::{Head, Links};
use super::lists::Kind;
use super::request::{header_bytes, Admission, Refusal, Request, Reservation};
use super::runs::Reserved;
use super::stats::ClassStats;
use super::tree;
use super::{Backend, Engine, Garbage, Metadata, Prealloc, Tree, MIN_SHIFT};

/// Depths of the nodes of a page of 64 KiB.
const MAX_DEPTH: usize = (page_shift(64) - MIN_SHIFT + 1) as usize;

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Ensures that `prealloc` has a tree, so that a page can be divided.
    pub(super) fn ensure_tree(prealloc: &Prealloc<B, PAGE_KIB>) -> Result<(), Metadata> {
        prealloc.tree.as_ref().map(|_| ()).ok_or(Metadata::Tree)
    }

    /// Divides a reserved page for a subpage block, and reserves the block.
    pub(super) fn divide_page(
        &mut self,
        reserved: Reserved,
        request: &Request,
        admission: Admission,
        class: Class,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<Reservation, Refusal> {
        let mut tree = prealloc.tree.take().ok_or(Metadata::Tree)?;
        let node = tree.reset(Self::PAGE_SHIFT - class.shift());
        self.directory
            .put_head(reserved.page, Head::Subpage(tree, Links::NONE));
        if reserved.backed == 1 {
            self.open_divided(reserved.page, class.shift());
        }
        let mut reservation = self.reservation(reserved, request, admission, class);
        reservation.start += tree::start::<PAGE_KIB>(node);
        Ok(reservation)
    }

    /// Returns where a node of a divided page begins, in bytes from the beginning of the arena.
    pub(super) fn node_offset(&self, page: u32, node: u32) -> u64 {
        (u64::from(page) << Self::PAGE_SHIFT) + tree::start::<PAGE_KIB>(node)
    }

    /// Returns the node of `1 << shift` bytes that begins at `offset`.
    pub(super) fn node(offset: u64, shift: u32) -> u32 {
        let within = offset & (Self::PAGE_BYTES - 1);
        ((Self::PAGE_BYTES + within) >> shift) as u32
    }

    /// Takes a node of `depth` from a divided page, splitting a larger free one if need be. Returns
    /// `None` where the page has neither.
    pub(super) fn take_node(&mut self, page: u32, depth: u32) -> Option<u32> {
        let Some(Head::Subpage(tree, ..)) = self.directory.head_mut(page) else {
            debug_assert!(false, "a page on a list of divided pages is divided");
            return None;
        };
        let before = tree.largest();
        let taken = tree.take(depth)?;
        let after = tree.largest();
        let (node, from) = taken;
        self.count_split(from, depth);
        self.relist_divided(page, before, after);
        Some(node)
    }

    /// Frees a node of a divided page: merges it with its free buddies, and the page with its
    /// neighbours when the whole page is free.
    pub(super) fn free_node(&mut self, page: u32, node: u32, garbage: &mut Garbage<B, PAGE_KIB>) {
        let Some(Head::Subpage(tree, ..)) = self.directory.head_mut(page) else {
            debug_assert!(false, "the node lies in a divided page");
            return;
        };
        let before = tree.largest();
        let joined = tree.free_node(node);
        let (after, lost) = (tree.largest(), tree.is_lost());
        if lost {
            // It is on no list: its free nodes have no memory.
            if joined == 0 {
                if let Some(Head::Subpage(tree, ..)) = self.directory.take_head(page) {
                    garbage.add_tree(tree);
                }
                self.release_block(page, 1);
            }
            return;
        }
        self.count_joins(tree::depth(node), joined);
        if joined > 0 {
            self.relist_divided(page, before, after);
            return;
        }
        self.relist_divided(page, before, None);
        if let Some(Head::Subpage(tree, ..)) = self.directory.take_head(page) {
            garbage.add_tree(tree);
        }
        self.release_pages(page, 1, true);
    }

    /// Puts a page on its list that was divided for one block of `1 << shift` bytes and has its memory
    /// now. The block itself is still pending.
    pub(super) fn open_divided(&mut self, page: u32, shift: u32) {
        let Some(Head::Subpage(tree, ..)) = self.directory.head_mut(page) else {
            debug_assert!(false, "the page was just divided");
            return;
        };
        let largest = tree.largest();
        self.count_split(0, Self::PAGE_SHIFT - shift);
        self.relist_divided(page, None, largest);
    }

    /// Takes a divided page, whose memory is lost, off its list, so that no request gets its free nodes.
    pub(super) fn close_divided(&mut self, page: u32) {
        let Some(Head::Subpage(tree, ..)) = self.directory.head_mut(page) else {
            return;
        };
        let largest = tree.largest();
        let mut free = [0; MAX_DEPTH];
        tree.for_each(|node, live| {
            let count = free.get_mut(tree::depth(node) as usize);
            if let Some(count) = count.filter(|_| !live) {
                *count += 1;
            }
        });
        tree.set_lost();
        for (depth, count) in (0..).zip(free).filter(|(_, count)| *count > 0) {
            self.stats_at(depth).listed -= count;
        }
        self.relist_divided(page, largest, None);
    }

    /// Begins a divided page with a copied tree, and counts its live blocks. A page without memory is
    /// put on no list, so that no request gets its free nodes.
    pub(super) fn open_copied(&mut self, page: u32, mut tree: B::Box<Tree<PAGE_KIB>>) {
        let lost = !self.directory.is_backed(page);
        let largest = tree.largest().filter(|_| !lost);
        tree.for_each(|node, live| {
            let depth = tree::depth(node);
            let header = header_bytes(live && tree.is_headed(node));
            let stats = self.stats_at(depth);
            match live {
                true => stats.allocs = stats.allocs.wrapping_add(1),
                false => stats.listed += u64::from(!lost),
            }
            if live {
                let bytes = (Self::PAGE_BYTES >> depth) - header;
                self.requested_bytes = self.requested_bytes.wrapping_add(bytes);
            }
        });
        if lost {
            tree.set_lost();
        }
        self.directory
            .put_head(page, Head::Subpage(tree, Links::NONE));
        self.relist_divided(page, None, largest);
    }

    /// Moves a divided page between the lists of its largest free node, given as depths.
    fn relist_divided(&mut self, page: u32, before: Option<u32>, after: Option<u32>) {
        if before == after {
            return;
        }
        let kind = |depth| Kind::Subpage(Self::PAGE_SHIFT - depth);
        if let Some(depth) = before {
            self.lists.remove(&mut self.directory, kind(depth), page);
        }
        if let Some(depth) = after {
            self.lists.push(&mut self.directory, kind(depth), page);
        }
    }

    /// Counts that a free node of depth `from` (0: the page itself, already off its list) was halved
    /// down to depth `to`, and a node of that depth taken.
    fn count_split(&mut self, from: u32, to: u32) {
        if from > 0 {
            self.count_free(from, false);
        }
        for depth in from..to {
            let splits = &mut self.stats_at(depth).splits;
            *splits = splits.wrapping_add(1);
            self.count_free(depth + 1, true);
        }
    }

    /// Counts that a node of depth `from` became free and merged with its buddies up to depth `to`.
    fn count_joins(&mut self, from: u32, to: u32) {
        for depth in (to..from).rev() {
            let merges = &mut self.stats_at(depth).merges;
            *merges = merges.wrapping_add(1);
            self.count_free(depth + 1, false);
        }
        if to > 0 {
            self.count_free(to, true);
        }
    }

    fn count_free(&mut self, depth: u32, came: bool) {
        let listed = &mut self.stats_at(depth).listed;
        if came {
            *listed += 1;
        } else {
            *listed -= 1;
        }
    }

    /// Returns the counters of the class of nodes of `depth`.
    fn stats_at(&mut self, depth: u32) -> &mut ClassStats {
        &mut self.stats[(Self::PAGE_SHIFT - MIN_SHIFT - depth) as usize]
    }
}
