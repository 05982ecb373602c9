// SPDX-License-Identifier: GPL-2.0

//! Lazy blocks of the arena: touched, discarded, and released with their holes.

use crate::engine::{Discard, Garbage, Holed, Touch, Untouchable};

use super::memory::stayed;
use super::Arena;

impl<const KIB: usize> Arena<KIB> {
    /// Releases pages with holes step by step. Returns how many pages return to the limit.
    pub fn release_holed(&mut self, holed: Holed) -> u32 {
        let mut headroom = 0;
        let mut rest = Some(holed);
        while let Some(holed) = rest {
            let (some, more) = self.engine.release_holed(holed, &mut Garbage::default());
            self.step();
            headroom += some;
            rest = more;
        }
        headroom
    }

    /// Begins to back a page of a lazy block.
    pub fn touch(&mut self, page: u32, max_order: u32) -> Result<Touch, Untouchable> {
        loop {
            let result = self.engine.touch(page, max_order, &mut self.prealloc);
            self.step();
            match result {
                Err(Untouchable::Need(metadata)) => self.make(metadata),
                result => return result,
            }
        }
    }

    /// Completes a touch whose memory is allocated. Returns `false` if its block was freed since; the memory is
    /// freed then.
    pub fn finish_touch(&mut self, touch: Touch) -> bool {
        let range = touch.range();
        match self.engine.finish_touch(touch) {
            Ok(()) => self.add_pages(range),
            Err(touch) => {
                self.cancel_touch(touch);
                return false;
            }
        }
        self.step();
        true
    }

    /// Cancels a touch.
    pub fn cancel_touch(&mut self, touch: Touch) {
        self.engine.cancel_touch(touch, &mut Garbage::default());
        self.step();
    }

    /// Removes the memory of a discarded range, except for pages that stay.
    pub fn finish_discard(&mut self, discard: Discard, stays: impl Fn(u32) -> bool) {
        let range = discard.range();
        let keeps = discard.keeps_memory();
        let stays = |page| keeps || stays(page);
        let mut stayed = stayed(range.end, &stays);
        let isolated = self
            .engine
            .finish_discard(discard, &mut Garbage::default(), &mut stayed);
        if let Some(isolated) = isolated {
            self.remove_but(isolated, stays);
        } else {
            for page in range.clone().filter(|page| !stays(*page)) {
                let old = self.backed.remove(&page);
                assert!(old.is_some(), "a page came from where there was none");
            }
        }
        self.step();
    }
}
