// SPDX-License-Identifier: GPL-2.0-only

//! The bounds of an arena: its address space, and its slack.

use super::{Backend, Engine, MAX_PAGES};

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Sets the address space to `pages` pages. Returns whether it did: not for 0 or more than
    /// [`MAX_PAGES`] pages, nor after a page was used.
    pub fn set_span(&mut self, pages: u32) -> bool {
        let may = !self.is_used && (1..=MAX_PAGES).contains(&pages);
        if may {
            self.span = pages;
        }
        may
    }

    /// Returns the bytes of address space.
    pub fn span_bytes(&self) -> u64 {
        u64::from(self.span) << Self::PAGE_SHIFT
    }

    /// Returns the slack in thousandths: how much more than its blocks ever needed the arena may hold
    /// before it reuses scattered free memory instead of growing. `None` is no bound.
    pub fn slack_permille(&self) -> Option<u32> {
        self.slack_permille
    }

    /// Sets the slack, in thousandths; `None` is no bound.
    pub fn set_slack_permille(&mut self, slack: Option<u32>) {
        self.slack_permille = slack;
    }
}
