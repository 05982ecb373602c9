// SPDX-License-Identifier: GPL-2.0-only

//! Memory failure: the memory of one page is lost.
//!
//! A free page whose memory is lost becomes unbacked. A block keeps the page as a hole until the block
//! is freed.

use super::head::{Head, Memory};
use super::{Backend, Engine};

/// Where the lost page was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nowhere: the page had no memory.
    Nothing,
    /// In a free run. The page is unbacked now.
    Free,
    /// In a block, a divided page or an isolated range.
    Block,
    /// In a lazy block. The page still counts against the limits.
    LazyBlock,
    /// In a block on a quick list: call [`Engine::drain`], then call again.
    Quick,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Notes that the memory of a page is lost. Needs no metadata.
    ///
    /// `drained`: the caller has drained the quick lists. A block that is free all the same is kept for
    /// a waiter, and keeps the hole.
    pub fn lose(&mut self, page: u32, drained: bool) -> Loss {
        self.merge_deferred();
        if !self.directory.is_backed(page) {
            return Loss::Nothing;
        }
        let Some((start, head)) = self.directory.extent_of(page) else {
            return Loss::Nothing;
        };
        match head {
            Head::Backed { .. } => {
                if let Some(run) = self.run_at(start) {
                    self.remove(run);
                    self.insert_parts(run, page);
                }
                self.directory.set_backed(page..page + 1, false);
                self.held_bytes -= Self::PAGE_BYTES;
                self.release_pages(page, 1, false);
                return Loss::Free;
            }
            Head::Reserved { pages, .. } if !drained && self.is_quick(start, *pages) => {
                return Loss::Quick;
            }
            Head::Subpage(..) if !drained && self.quick_bytes_in(page) > 0 => return Loss::Quick,
            Head::Subpage(..) => self.close_divided(page),
            Head::Live {
                memory: Memory::Lazy | Memory::Damaged,
                ..
            } => return self.lose_owed(start, page),
            _ => {}
        }
        self.directory.set_backed(page..page + 1, false);
        self.held_bytes -= Self::PAGE_BYTES;
        self.holes += 1;
        Loss::Block
    }

    /// Notes the loss of a page of a lazy block, whose other holes stay holes from now on.
    fn lose_owed(&mut self, start: u32, page: u32) -> Loss {
        if let Some(Head::Live { memory, .. }) = self.directory.head_mut(start) {
            *memory = Memory::Damaged;
        }
        self.directory.set_backed(page..page + 1, false);
        self.held_bytes -= Self::PAGE_BYTES;
        self.claimed -= Self::PAGE_BYTES;
        self.holes += 1;
        self.owed += 1;
        Loss::LazyBlock
    }
}
