// SPDX-License-Identifier: GPL-2.0

//! Quick lists: blocks that were freed a moment ago, as they were, newest first.
//!
//! The same size again costs neither a split nor a merge. They are bounded in number and bytes, and
//! no block on them is above [`MAX_BYTES`]; what overflows goes to its buddies, the oldest first.
//! All of them do so when a request finds nothing else. (Magazines: Bonwick and Adams, 2001.)
//!
//! A block on a quick list is neither free nor live in its page's record or tree, like one that is
//! pending: nobody else can take it, nobody can free it.

use super::class::{Class, Shape, MIN_SHIFT};
use super::directory::{Head, Kit, Memory};
use super::{Engine, Pending, Request};

/// The largest block on a quick list, in bytes.
const MAX_BYTES: u64 = 1 << 16;
/// The most bytes on one list.
const LIST_BYTES: u64 = 1 << 18;
/// The most blocks on one list.
const LEN: usize = 8;
/// Size classes with a list.
const LISTS: usize = (MAX_BYTES.ilog2() - MIN_SHIFT + 1) as usize;

/// The quick list of one size class: offsets, oldest first.
#[derive(Clone, Copy)]
struct Stack {
    len: usize,
    offsets: [u64; LEN],
}

pub(super) struct Quick {
    stacks: [Stack; LISTS],
    /// Nothing is put on them.
    closed: bool,
}

impl Quick {
    pub(super) fn new() -> Self {
        const NEW: Stack = Stack {
            len: 0,
            offsets: [0; LEN],
        };
        Self {
            stacks: [NEW; LISTS],
            closed: false,
        }
    }

    fn stack(&mut self, class: Class) -> Option<&mut Stack> {
        self.stacks.get_mut(class.index())
    }

    /// The newest block of a class.
    pub(super) fn newest(&self, class: Class) -> Option<u64> {
        let stack = self.stacks.get(class.index())?;
        stack.offsets.get(stack.len.checked_sub(1)?).copied()
    }

    /// Takes the newest block of a class away.
    pub(super) fn pop(&mut self, class: Class) {
        if let Some(stack) = self.stack(class) {
            stack.len = stack.len.saturating_sub(1);
        }
    }

    /// Adds a block. Gives one that is to be freed in its place: itself when it is too large, the
    /// oldest when the list is full.
    pub(super) fn push(&mut self, class: Class, offset: u64) -> Option<u64> {
        let closed = self.closed;
        let most = (LIST_BYTES >> (class.index() as u32 + MIN_SHIFT)).min(LEN as u64) as usize;
        let Some(stack) = self.stack(class).filter(|_| !closed) else {
            return Some(offset);
        };
        let oldest = (stack.len == most).then_some(stack.offsets[0]);
        if oldest.is_some() {
            stack.offsets.copy_within(1..most, 0);
            stack.len -= 1;
        }
        if let Some(place) = stack.offsets.get_mut(stack.len) {
            *place = offset;
            stack.len += 1;
        }
        oldest
    }

    /// Takes any block away, as long as there is one: the index of its size class, its offset.
    pub(super) fn pop_any(&mut self) -> Option<(usize, u64)> {
        let mut stacks = self.stacks.iter_mut().enumerate();
        let (index, stack) = stacks.find(|(_, stack)| stack.len > 0)?;
        stack.len -= 1;
        Some((index, *stack.offsets.get(stack.len)?))
    }

    /// All blocks in the order of their offsets, with the shift of their size classes, and how many
    /// they are.
    pub(super) fn all(&self) -> ([(u64, u8); LISTS * LEN], usize) {
        let mut all = [(0, 0); LISTS * LEN];
        let mut len = 0;
        for (shift, stack) in (MIN_SHIFT as u8..).zip(&self.stacks) {
            for offset in stack.offsets.iter().take(stack.len) {
                let mut at = len;
                len += 1;
                while at > 0 && all[at - 1].0 > *offset {
                    all[at] = all[at - 1];
                    at -= 1;
                }
                all[at] = (*offset, shift);
            }
        }
        (all, len)
    }

    /// The blocks of a list, by the index of its size class.
    pub(super) fn list(&self, index: usize) -> &[u64] {
        self.stacks
            .get(index)
            .and_then(|stack| stack.offsets.get(..stack.len))
            .unwrap_or_default()
    }
}

impl<M: Memory, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// The block of a class that was freed last, where a request may have it.
    pub(super) fn quick_fit(&self, request: &Request, class: Class) -> Option<u64> {
        let offset = self.quick.newest(class)?;
        if let Shape::Pages { pages, .. } = class.shape() {
            if request.modest {
                return None;
            }
            // The blocks of such a class differ in length.
            let page = (offset >> Self::PAGE_SHIFT) as u32;
            match self.directory.head(page)? {
                Head::Reserved { pages: has, .. } if *has == pages => {}
                _ => return None,
            }
        }
        Some(offset)
    }

    /// Reserves the block of a class that was freed last, as it is.
    pub(super) fn reserve_quick(&mut self, request: &Request, class: Class) -> Option<Pending> {
        let offset = self.quick_fit(request, class)?;
        let pages = class.pages();
        self.quick.pop(class);
        self.counters.pending_bytes += class.block_bytes();
        let counters = &mut self.classes[class.index()];
        counters.free -= 1;
        counters.held -= class.block_bytes();
        Some(Pending {
            start: offset,
            class,
            headed: request.headed,
            requested: request.size,
            had: pages,
            stale: pages,
            missing: 0,
            movable: false,
        })
    }

    /// From now on freed blocks join what is free around them `at_once`, or again after a while.
    pub fn merge_at_once(&mut self, at_once: bool, kit: &mut Kit<M, PAGE_KIB>) {
        self.quick.closed = at_once;
        if at_once {
            self.drain(kit);
        }
    }

    /// Empties the quick lists: their blocks join what is free around them. Says whether there
    /// were any.
    pub fn drain(&mut self, kit: &mut Kit<M, PAGE_KIB>) -> bool {
        let mut any = false;
        while let Some((index, offset)) = self.quick.pop_any() {
            self.merge_quick(index, offset, kit);
            any = true;
        }
        any
    }

    /// A block that was on a quick list, or should be, is free for all; `index` is that of its
    /// size class.
    pub(super) fn merge_quick(&mut self, index: usize, offset: u64, kit: &mut Kit<M, PAGE_KIB>) {
        let shift = MIN_SHIFT + index as u32;
        let page = (offset >> Self::PAGE_SHIFT) as u32;
        let counters = &mut self.classes[index];
        counters.free -= 1;
        if shift < Self::PAGE_SHIFT {
            counters.held -= 1 << shift;
            self.give_node(page, self.node_at(offset, shift), kit);
        } else if let Some(Head::Reserved {
            order,
            whole,
            pages,
            ..
        }) = self
            .directory
            .take_head(page, (shift - Self::PAGE_SHIFT) as u8)
        {
            counters.held -= u64::from(pages) << Self::PAGE_SHIFT;
            self.release_block(page, order, whole, pages);
        } else {
            debug_assert!(false, "a block on a quick list is reserved");
        }
    }

    /// Pages of the newest block on the quick list of a class of whole pages.
    pub(super) fn newest_pages(&self, shift: u32) -> u32 {
        let list = self.quick.list((shift - MIN_SHIFT) as usize);
        let head = list
            .last()
            .and_then(|offset| self.directory.head((offset >> Self::PAGE_SHIFT) as u32));
        match head {
            Some(Head::Reserved { pages, .. }) => *pages,
            _ => 0,
        }
    }
}
