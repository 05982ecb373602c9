// SPDX-License-Identifier: GPL-2.0-only

//! Maps blocks for the caller before it touches them.
//!
//! Never fails: if the arena is not mapped, it does nothing; if memory for page tables is short, the
//! rest is left to page faults.

use super::Arena;
use crate::{
    ffi::task,
    mm::vma::{
        MmapReadGuard,
        Vma, //
    },
};
use core::ops::Range;
use kernel::{
    page::PAGE_SHIFT,
    sync::atomic::Relaxed, //
};

impl Arena {
    /// Notes that the arena is mapped, with page number 0 at address `base`.
    pub(crate) fn mapped_at(&self, base: usize) {
        self.base.store(base, Relaxed);
    }

    /// Maps live blocks, given by their ranges of bytes in the arena, into the caller's address space.
    /// May sleep.
    pub(super) fn populate(&self, blocks: impl IntoIterator<Item = Range<u64>>) {
        let Some(mmap) = MmapReadGuard::lock() else {
            return;
        };
        for block in blocks {
            let pages = block.start >> PAGE_SHIFT..block.end.div_ceil(1 << PAGE_SHIFT);
            self.populate_block(&mmap, pages);
        }
    }

    fn populate_block(&self, mmap: &MmapReadGuard, pages: Range<u64>) {
        // Most programs map an arena once, as a whole.
        let base = self.base.load(Relaxed);
        let address = base.wrapping_add((pages.start as usize) << PAGE_SHIFT);
        let vma = mmap.vma_at(&self.address_space, address);
        if let Some(vma) = vma.filter(|vma| vma.base() == base) {
            if pages.end <= vma.pages().end {
                return self.populate_part(&vma, pages);
            }
        }
        // Otherwise every VMA that has a part of the block is populated.
        let mut address = 0;
        while let Some(vma) = mmap.vma_from(&self.address_space, address) {
            let has = vma.pages();
            let part = pages.start.max(has.start)..pages.end.min(has.end);
            if !part.is_empty() {
                self.mapped_at(vma.base());
                self.populate_part(&vma, part);
            }
            address = vma.end();
        }
    }

    /// Maps some pages of a VMA by faults, each of which maps the whole folio of its page if that lies in
    /// the VMA.
    fn populate_part(&self, vma: &Vma<'_>, part: Range<u64>) {
        let here = vma.pages();
        let mut next = part.start;
        while next < part.end && !task::fatal_signal() {
            next += vma.mapped(next, part.end - next);
            if next >= part.end || vma.fault(next).is_err() {
                break;
            }
            let folio = self.address_space.folio(next as u32);
            let of = folio.map_or(0..0, |folio| folio.range());
            let (start, end) = (u64::from(of.start), u64::from(of.end));
            next = match here.start <= start && end <= here.end {
                true => end.max(next + 1),
                false => next + 1,
            };
            task::resched();
        }
    }
}
