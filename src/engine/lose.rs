// SPDX-License-Identifier: GPL-2.0-only

//! Memory that is lost where it lies: a page that has turned out to be bad.
//!
//! A free page that is lost becomes address space. A block keeps the hole until it is freed.

use super::head::{Head, Memory};
use super::{Backend, Engine};

/// What came of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// There was no memory.
    Nothing,
    /// The page was free: it is address space now.
    Free,
    /// The page is a block's, or of a range that is isolated.
    Block,
    /// The page is a lazy block's, which keeps its room under the limits.
    LazyBlock,
    /// It is that of a block on a quick list: [`Engine::drain`] them, and call again.
    Quick,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// The memory of a page is lost. Needs no metadata. `drained`: the quick lists were, and what is
    /// taken for a block of theirs is kept for a waiter.
    pub fn lose(&mut self, page: u32, drained: bool) -> Loss {
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
            Head::Subpage(_) if !drained && self.quick_bytes_in(page) > 0 => return Loss::Quick,
            Head::Subpage(_) => self.close_divided(page),
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

    /// A lazy block loses a page: its other holes stay holes.
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
