// SPDX-License-Identifier: GPL-2.0

//! Divided pages: dividing one, taking and giving its nodes, making it whole again.

use super::backend::{Backend, Kit, Metadata};
use super::class::{Class, ClassStats};
use super::directory::Head;
use super::lists::Kind;
use super::runs::{Reserved, Slot};
use super::tree;
use super::{Engine, Pending, Refusal, Request, MIN_SHIFT};

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Makes sure that a page can be divided.
    pub(super) fn ensure_tree(kit: &Kit<M, PAGE_KIB>) -> Result<(), Metadata> {
        kit.tree.as_ref().map(|_| ()).ok_or(Metadata::Tree)
    }

    /// Divides a page that was reserved, for a block of `1 << shift` bytes.
    pub(super) fn divide_page(
        &mut self,
        reserved: Reserved,
        request: &Request,
        class: Class,
        shift: u32,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Pending, Refusal> {
        let mut tree = kit.tree.take().ok_or(Metadata::Tree)?;
        let node = tree.reset(Self::PAGE_SHIFT - shift);
        self.directory.put(reserved.page, 0, Head::Subpage(tree));
        if reserved.backed == 1 {
            self.open_subpage(reserved.page, shift);
        }
        let mut pending = self.pending(reserved, request, class);
        pending.start += tree::start::<PAGE_KIB>(node);
        Ok(pending)
    }

    /// Where the node of a divided page lies in the arena, in bytes.
    pub(super) fn node_offset(&self, page: u32, node: u32) -> u64 {
        (u64::from(page) << Self::PAGE_SHIFT) + tree::start::<PAGE_KIB>(node)
    }

    /// The node of size class `shift` that begins at `offset`.
    pub(super) fn node(offset: u64, shift: u32) -> u32 {
        let within = offset & (Self::PAGE_BYTES - 1);
        ((Self::PAGE_BYTES + within) >> shift) as u32
    }

    /// Takes a node of `depth` out of a divided page that has one, or a larger one.
    pub(super) fn take_node(&mut self, page: u32, depth: u32) -> Option<u32> {
        let Some(Head::Subpage(tree)) = self.directory.head_mut(page) else {
            debug_assert!(false, "a page on a list of divided pages is divided");
            return None;
        };
        let before = tree.largest();
        let taken = tree.take(depth)?;
        let after = tree.largest();
        let (node, from) = taken;
        self.count_split(from, depth);
        self.relist_subpage(page, before, after);
        Some(node)
    }

    /// A node of a divided page is free: joins it with its free buddies, and the page with its own
    /// when it is whole again.
    pub(super) fn give_node(&mut self, page: u32, node: u32, kit: &mut Kit<M, PAGE_KIB>) {
        let Some(Head::Subpage(tree)) = self.directory.head_mut(page) else {
            debug_assert!(false, "the node lies in a divided page");
            return;
        };
        let before = tree.largest();
        let joined = tree.give(node);
        let after = tree.largest();
        self.count_joins(tree::depth(node), joined);
        if joined == 0 {
            self.relist_subpage(page, before, None);
            kit.tree = self.directory.take_tree(page).or(kit.tree.take());
            self.release(Slot::new(page, 0, 1));
        } else {
            self.relist_subpage(page, before, after);
        }
    }

    /// A page was divided for one block of `shift` and has its memory now: its free parts can be
    /// had, the block itself is pending.
    pub(super) fn open_subpage(&mut self, page: u32, shift: u32) {
        let Some(Head::Subpage(tree)) = self.directory.head_mut(page) else {
            debug_assert!(false, "the page was just divided");
            return;
        };
        let largest = tree.largest();
        self.count_split(0, Self::PAGE_SHIFT - shift);
        self.relist_subpage(page, None, largest);
    }

    /// Moves a divided page between the lists of its largest free node, given as depths.
    fn relist_subpage(&mut self, page: u32, before: Option<u32>, after: Option<u32>) {
        if before == after {
            return;
        }
        if let Some(depth) = before {
            self.lists.remove(
                &mut self.directory,
                Kind::Subpage(Self::PAGE_SHIFT - depth),
                page,
            );
        }
        if let Some(depth) = after {
            self.lists.push(
                &mut self.directory,
                Kind::Subpage(Self::PAGE_SHIFT - depth),
                page,
            );
        }
    }

    /// A free node of depth `from` (0: the page itself, which is on no list any more) was halved
    /// down to `to`, and the node of that depth taken.
    fn count_split(&mut self, from: u32, to: u32) {
        if from > 0 {
            self.count_free(from, false);
        }
        for depth in from..to {
            self.class_at(depth).splits += 1;
            self.count_free(depth + 1, true);
        }
    }

    /// A node of depth `from` became free and joined its buddies up to depth `to`.
    fn count_joins(&mut self, from: u32, to: u32) {
        for depth in (to..from).rev() {
            self.class_at(depth).merges += 1;
            self.count_free(depth + 1, false);
        }
        if to > 0 {
            self.count_free(to, true);
        }
    }

    fn count_free(&mut self, depth: u32, came: bool) {
        let listed = &mut self.class_at(depth).listed;
        if came {
            *listed += 1;
        } else {
            *listed -= 1;
        }
    }

    /// What is kept of the class of nodes of `depth` in a divided page.
    fn class_at(&mut self, depth: u32) -> &mut ClassStats {
        &mut self.class_stats[(Self::PAGE_SHIFT - MIN_SHIFT - depth) as usize]
    }
}
