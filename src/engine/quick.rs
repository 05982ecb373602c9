// SPDX-License-Identifier: GPL-2.0

//! Quick lists: blocks that were freed a moment ago, as they were, newest first.
//!
//! The same size again costs neither a split nor a merge. They are bounded in number and bytes, and
//! no block on them is above [`MAX_BYTES`]; what overflows goes to its buddies, the oldest first.
//! All of them do so when a request finds nothing else. (Magazines: Bonwick and Adams, 2001.)
//!
//! A block on a quick list is neither free nor live in its page's record or tree, like one that is
//! pending: nobody else can take it, nobody can free it.

use super::class::{Class, MIN_SHIFT};

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
}

impl Quick {
    pub(super) fn new() -> Self {
        const NEW: Stack = Stack {
            len: 0,
            offsets: [0; LEN],
        };
        Self {
            stacks: [NEW; LISTS],
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
        let most = (LIST_BYTES >> (class.index() as u32 + MIN_SHIFT)).min(LEN as u64) as usize;
        let Some(stack) = self.stack(class) else {
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

    /// The blocks of a list, by the index of its size class.
    pub(super) fn list(&self, index: usize) -> &[u64] {
        self.stacks
            .get(index)
            .and_then(|stack| stack.offsets.get(..stack.len))
            .unwrap_or_default()
    }
}
