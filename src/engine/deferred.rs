// SPDX-License-Identifier: GPL-2.0-only

//! Deferred merges of large blocks (deferred coalescing; Wilson et al., 1995).
//!
//! A block too large for the quick lists that is freed while all runs are as they were right after its
//! allocation would only restore the run that it was taken from. Its merge is deferred: the next
//! allocation of as many pages under the same policy takes it, as a search would find the same place
//! again. So a program that allocates and frees a large buffer again and again costs neither a split
//! nor a merge, and each block lies where it would lie without deferring.
//!
//! There is at most one deferred block in an arena, and its pages count as free pages. It is merged
//! with its free neighbours before anything else looks at the runs: before any other request, resize,
//! reclaim, walk and statistics. While there are waiters no block is deferred.
//!
//! To the directory it is a reserved block, as a block on a quick list is.

use super::class::Class;
use super::request::Policy;
use super::{Backend, Engine};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The block was allocated, and not freed since.
    Live,
    /// The block was freed and not merged: it is the deferred block.
    Deferred,
}

/// The large block that was taken from a backed run last.
#[derive(Clone, Copy)]
pub(super) struct LastLarge {
    page: u32,
    pages: u32,
    /// The policy of the request.
    policy: Policy,
    /// [`Engine::run_changes`] right after its allocation.
    run_changes: u32,
    state: State,
}

impl LastLarge {
    /// Returns it if it is the deferred block.
    fn deferred(self) -> Option<Self> {
        (self.state == State::Deferred).then_some(self)
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Notes that a block too large for the quick lists was taken from a backed run. No block is
    /// deferred at this moment.
    pub(super) fn note_large(&mut self, page: u32, class: Class, policy: Policy) {
        self.last_large = Some(LastLarge {
            page,
            pages: class.pages(),
            policy,
            run_changes: self.run_changes,
            state: State::Live,
        });
    }

    /// Defers the merge of a freed block. Returns `false` for a block whose merge is not to be deferred.
    pub(super) fn defer(&mut self, page: u32, class: Class) -> bool {
        let run_changes = self.run_changes;
        let Some(last) = self.last_large.as_mut().filter(|last| {
            last.page == page && last.pages == class.pages() && last.run_changes == run_changes
        }) else {
            return false;
        };
        last.state = State::Deferred;
        self.directory.changes.free = true;
        true
    }

    /// Takes the deferred block for a request of that policy, if a search would find the same pages.
    /// Returns the first page.
    pub(super) fn take_deferred(&mut self, class: Class, policy: Policy) -> Option<u32> {
        let last = self.last_large.as_mut()?;
        let fits = last.state == State::Deferred
            && last.pages == class.pages()
            && last.policy == policy
            && last.run_changes == self.run_changes
            && class.is_aligned(u64::from(last.page) << Self::PAGE_SHIFT);
        if !fits {
            return None;
        }
        last.state = State::Live;
        self.directory.changes.free = true;
        Some(last.page)
    }

    /// Merges the deferred block with its free neighbours. Needs no metadata and leaves no garbage.
    #[inline]
    pub fn merge_deferred(&mut self) {
        if let Some(block) = self.last_large.and_then(LastLarge::deferred) {
            self.last_large = None;
            self.release_reserved(block.page, block.pages);
        }
    }

    /// Returns where the deferred block begins, in bytes, and its class.
    pub(super) fn deferred_block(&self) -> Option<(u64, Class)> {
        let block = self.last_large.and_then(LastLarge::deferred)?;
        let start = u64::from(block.page) << Self::PAGE_SHIFT;
        Some((start, Class::of_pages(block.pages, Self::PAGE_SHIFT)))
    }

    /// Returns the pages of the deferred block; 0 without one.
    pub(super) fn deferred_pages(&self) -> u32 {
        let block = self.last_large.and_then(LastLarge::deferred);
        block.map_or(0, |block| block.pages)
    }
}
