// SPDX-License-Identifier: GPL-2.0-only

//! Changes of folios by the kernel itself: it removes bad ones, moves folios to another node, and asks before
//! it divides one.

use super::Arena;
use crate::{
    engine::Loss,
    mm::{
        address_space::Owner,
        statistics::Node, //
    },
};
use core::ops::Range;
use kernel::page::PAGE_SIZE;

impl Owner for Arena {
    fn lose(&self, pages: Range<u32>) {
        for page in pages {
            let mut loss = self.lock().engine.lose(page, false);
            if loss == Loss::Quick {
                self.drain();
                loss = self.lock().engine.lose(page, true);
            }
            if matches!(loss, Loss::Free | Loss::Block) {
                self.shared_limit.uncharge(PAGE_SIZE as u64);
            }
        }
    }

    fn migrated(&self, from: Node, to: Node, pages: i64) {
        self.address_space.count_migrated(from, to, pages);
    }

    fn is_indivisible(&self, page: u32) -> bool {
        self.lock().engine.is_contiguous(page)
    }
}
