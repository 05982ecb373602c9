// SPDX-License-Identifier: GPL-2.0

//! Resizes blocks of the arena.

use crate::engine::{Admission, Garbage, Growth, ResizeError, Resized};

use super::Arena;

impl<const KIB: usize> Arena<KIB> {
    /// Begins to grow a block, or shrinks it.
    pub fn start_resize(&mut self, offset: u64, size: u64) -> Result<Resized, ResizeError> {
        self.start_resize_as(offset, size, false, Admission::Full)
    }

    /// Begins as [`Arena::start_resize`], for a caller with this admission.
    pub fn start_resize_as(
        &mut self,
        offset: u64,
        size: u64,
        lazy: bool,
        admission: Admission,
    ) -> Result<Resized, ResizeError> {
        loop {
            let result = self
                .engine
                .resize(offset, size, lazy, admission, &mut self.prealloc);
            self.step();
            match result {
                Err(ResizeError::Need(metadata)) => self.make(metadata),
                Ok(Resized::InTheWay(isolated)) => {
                    self.remove(isolated);
                    self.step();
                }
                result => return result,
            }
        }
    }

    /// Backs the pages of a growth. Returns `false` if the limit forbids it.
    pub fn fill_growth(&mut self, growth: &mut Growth) -> bool {
        let mut headroom = self.limit - (self.counters().held_bytes / Self::PAGE) as u32;
        headroom = headroom.min(growth.reservation().missing());
        self.back(growth.reservation(), headroom);
        growth.reservation().missing() == 0
    }

    /// Joins the pages of a growth to its block. Returns `false`, and cancels it, if the block was freed since.
    pub fn commit_growth(&mut self, mut growth: Growth) -> bool {
        let reservation = growth.reservation();
        let pages = reservation.block_bytes() / Self::PAGE;
        let (extent, stale) = (reservation.extent(), reservation.stale());
        let is_lazy = reservation.is_lazy();
        let result = self.engine.commit_growth(growth, &mut Garbage::default());
        self.step();
        match result {
            Ok(_) => {
                for index in 0..pages {
                    let page = (extent.start / Self::PAGE + index) as u32;
                    let Some(page) = self.backed.get(&page) else {
                        assert!(is_lazy, "a page is missing");
                        continue;
                    };
                    let used = page.take_into_use(0..Self::PAGE as usize);
                    assert!(!used || index < stale.into(), "old bytes as zero");
                }
                true
            }
            Err(growth) => {
                self.cancel(growth.into_reservation());
                false
            }
        }
    }

    /// Resizes a block. Returns its bytes.
    pub fn resize(&mut self, offset: u64, size: u64) -> Result<u64, ResizeError> {
        match self.start_resize(offset, size)? {
            Resized::Done => Ok(size.next_multiple_of(Self::PAGE)),
            Resized::Shrunk(holed) => {
                self.release_holed(holed);
                Ok(size.next_multiple_of(Self::PAGE))
            }
            Resized::InTheWay(_) => unreachable!("it was removed"),
            Resized::Growing(mut growth) => {
                let more = growth.reservation().block_bytes();
                if !self.fill_growth(&mut growth) {
                    self.cancel(growth.into_reservation());
                    return Err(ResizeError::InUse);
                }
                let begin = growth.reservation().extent().start;
                assert!(self.commit_growth(growth));
                Ok(begin + more - offset)
            }
        }
    }
}
