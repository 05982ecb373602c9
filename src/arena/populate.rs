// SPDX-License-Identifier: GPL-2.0

//! Blocks that are mapped for their caller before it touches them: a page costs a tenth of a fault.
//!
//! Where the arena is not mapped there is nothing to do, and where there is no memory for page tables
//! the rest is left to faults: the caller has its block in any case.

use super::Arena;
use crate::{
    ffi::{
        race_point::RacePoint,
        task, //
    },
    mm::vma::{
        MmapReadGuard,
        Vma, //
    },
};
use core::ops::Range;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Of fewer pages it is asked first whether they are mapped already: small blocks often are.
const FEW: usize = 8;

impl Arena {
    /// The arena was mapped, with page number 0 at `base`.
    pub(crate) fn mapped_at(&self, base: usize) {
        self.base.store(base, Relaxed);
    }

    /// Maps live blocks, given by where they begin and end, into the caller's address space. May
    /// sleep.
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
        // As a rule an arena is mapped once, and as a whole.
        let base = self.base.load(Relaxed);
        let address = base.wrapping_add((pages.start as usize) << PAGE_SHIFT);
        let vma = mmap.vma_at(&self.address_space, address);
        if let Some(vma) = vma.filter(|vma| vma.base() == base) {
            if pages.end <= vma.pages().end {
                return self.populate_part(&vma, pages);
            }
        }
        // Else in every area that has some of it.
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

    /// Maps what is live of some pages of an area.
    fn populate_part(&self, vma: &Vma<'_>, part: Range<u64>) {
        let mut next = part.start;
        while next < part.end && !task::fatal_signal() {
            // Until the pages are mapped: what is found stays.
            let guard = self.address_space.invalidate_lock_shared();
            let mut found = guard.find();
            if self.live_pages(next, next..part.end, &mut found).is_none() {
                break;
            }
            RacePoint::Fault.reach();
            let count = found.pages().len();
            // To ask costs something for each page, to insert in vain does not.
            let mut at = if count < FEW {
                vma.mapped(next, count)
            } else {
                0
            };
            while at < count {
                match vma.insert(&found, next, at..count) {
                    (_, Ok(())) => break,
                    // One is mapped already: as a rule some that follow are, too.
                    (mapped, Err(error)) if error == EBUSY => {
                        at += mapped;
                        at += vma.mapped(next + at as u64, count - at);
                    }
                    _ => return,
                }
            }
            next += count as u64;
        }
    }
}
