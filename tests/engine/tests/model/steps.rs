// SPDX-License-Identifier: GPL-2.0

//! Applies each operation to the engine and to the model, and checks the engine's result.

use freelist_engine::engine::{
    FreeError, Refusal, Reservation, ResizeError, Resized, HEADER_BYTES,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::ops::{largest, ops, Op, Size};
use super::{Model, SPAN};

impl<const KIB: usize> Model<KIB> {
    /// Checks a reservation.
    fn check_reserved(&self, pending: &Reservation, size: Size, larger: bool, grow: bool) {
        let bytes = Self::block_bytes(size);
        let start = pending.extent().start;
        let header = if size.headed { 16 } else { 0 };
        assert_eq!(pending.extent(), start..start + bytes);
        assert_eq!(pending.offset(), start + header);
        assert_eq!(pending.block_bytes(), bytes - header);
        assert!(pending.block_bytes() >= size.bytes);
        assert_eq!(start % Self::alignment(bytes, size.align_shift), 0);
        assert!(start + bytes <= u64::from(SPAN) * Self::PAGE);
        assert!(!self.is_taken(start, bytes), "two blocks at {start:#x}");
        assert!(larger || grow || pending.missing() == 0, "grows unasked");
        let first = (pending.offset() / Self::PAGE) as u32;
        let pages = bytes.div_ceil(Self::PAGE) as u32;
        let backed = self.arena.backed.range(first..first + pages).count() as u32;
        assert_eq!(pending.missing(), pages - backed);
    }

    fn check_refused(&self, refusal: Refusal, size: Size, larger: bool, grow: bool) {
        let bytes = Self::block_bytes(size);
        let align = Self::alignment(bytes, size.align_shift);
        let (asked, size) = (size.bytes, size.taken());
        match refusal {
            Refusal::Zero => assert_eq!(asked, 0),
            Refusal::TooBig => assert!(size > largest(Self::PAGE)),
            Refusal::Empty => assert!(!grow),
            Refusal::NoSpace => assert!(larger || grow),
            Refusal::Alignment => panic!("no alignment is too large here"),
            Refusal::Need(_) | Refusal::Again => panic!("the host supplies all metadata"),
        }
        if larger && asked > 0 && size <= largest(Self::PAGE) {
            assert!(
                !self.has_free(bytes, align),
                "{size} bytes are free and refused"
            );
            assert!(
                refusal == Refusal::NoSpace || bytes > self.free_pages() * Self::PAGE,
                "{size} bytes are free in pieces and refused"
            );
        }
    }

    /// Finishes a block. Takes no memory from the system while free pages suffice.
    fn commit(&mut self, mut pending: Reservation, size: u64, grow: bool) {
        let extent = pending.extent();
        let claimed = self.claimed() + extent.end - extent.start;
        let before = self.arena.counters();
        let filled = self.arena.fill(&mut pending, grow);
        assert!(filled, "a reservation has no memory");
        let after = self.arena.counters();
        assert!(
            grow || after.held_bytes == before.held_bytes,
            "grows unasked"
        );
        let peak = claimed.max(before.peak_bytes);
        let slack = peak / 20;
        assert!(
            after.held_bytes <= before.held_bytes.max(peak + slack)
                || self.arena.engine.free_pages() == 0,
            "grows while pages are free"
        );
        self.allocs += 1;
        self.requested += size;
        self.live
            .insert(extent.start, (extent.end, pending.offset()));
        self.arena.commit(pending);
    }

    pub fn free(&mut self, offset: u64) {
        let before = self.arena.counters();
        let block = self.live.range(..=offset).next_back();
        let block = block.filter(|(_, (end, _))| *end > offset);
        let block = block.map(|(start, (_, known))| (*start, *known));
        let expected = if offset % 16 != 0 {
            Err(FreeError::Misaligned)
        } else if offset >= u64::from(SPAN) * Self::PAGE {
            Err(FreeError::Beyond)
        } else {
            match block {
                Some((start, known)) if known == offset => Ok(start),
                Some(_) => Err(FreeError::Inside),
                None => Err(FreeError::NotLive),
            }
        };
        let result = self.arena.take(offset);
        assert_eq!(
            result.as_ref().err(),
            expected.as_ref().err(),
            "of {offset:#x}"
        );
        if let (Ok(start), Ok(taken)) = (expected, result) {
            self.live.remove(&start);
            self.grows.remove(&start);
            self.frees += 1;
            assert_eq!(taken.is_some(), start < offset, "of {offset:#x}");
            if let Some(taken) = taken {
                assert_eq!(taken.extent().start + HEADER_BYTES, offset);
                self.taken.push(taken);
            }
            if self.taken.len() > 3 {
                self.arena.release(self.taken.swap_remove(0));
            }
        } else {
            assert_eq!(
                self.arena.counters(),
                before,
                "a refused free changed things"
            );
        }
    }

    fn resize(&mut self, index: usize, bytes: u64) {
        let Some(offset) = self.pick(index) else {
            return;
        };
        let block = self.live.range(..=offset).next_back();
        let (start, (end, known)) = block.map(|(start, block)| (*start, *block)).unwrap();
        let before = self.arena.counters();
        let length = bytes.div_ceil(Self::PAGE) * Self::PAGE;
        self.arena.drain();
        let result = self.arena.start_resize(offset, bytes);
        let refused = result.as_ref().err().copied();
        if bytes == 0 {
            assert_eq!(refused, Some(ResizeError::Zero));
        } else if end - start < Self::PAGE || known > start {
            assert_eq!(refused, Some(ResizeError::Unsuited));
        } else if start + length > end && !self.is_free(end, start + length) {
            assert_eq!(refused, Some(ResizeError::InUse));
        } else {
            assert_eq!(refused, None);
        }
        match result {
            Err(_) => assert_eq!(self.arena.counters().live_bytes, before.live_bytes),
            Ok(Resized::Done) => {
                self.live.insert(start, (start + length, start));
                if start + length < end {
                    self.grows.remove(&start);
                }
            }
            Ok(Resized::InTheWay(_) | Resized::Shrunk(_)) => unreachable!("no block is lazy"),
            Ok(Resized::Growing(growth)) => {
                assert_eq!(growth.extent(), end..start + length);
                self.grows.insert(start, end);
                self.growing.push((start, end, growth));
            }
        }
    }

    pub fn step(&mut self, op: &Op) {
        match *op {
            Op::Alloc { size, larger, grow } => {
                match self.arena.reserve(size.request(larger, grow)) {
                    Ok(pending) => {
                        self.check_reserved(&pending, size, larger, grow);
                        self.commit(pending, size.bytes, grow);
                    }
                    Err(refusal) => self.check_refused(refusal, size, larger, grow),
                }
            }
            Op::Free(index) => {
                if let Some(offset) = self.pick(index) {
                    self.free(offset);
                }
            }
            Op::FreeAt { near, offset } => {
                let base = near.and_then(|index| self.pick(index)).unwrap_or(0);
                self.free(base.saturating_add_signed(offset));
            }
            Op::Reserve { size, pages } => self.reserve(size, pages),
            Op::Commit(index) => {
                if let Some((pending, size)) = nth_of(&mut self.open, index) {
                    self.commit(pending, size, true);
                }
            }
            Op::Cancel(index) => {
                if let Some((pending, _)) = nth_of(&mut self.open, index) {
                    let held = self.arena.counters().held_bytes;
                    self.arena.cancel(pending);
                    assert!(self.arena.counters().held_bytes <= held);
                }
            }
            Op::Release(index) => {
                if let Some(taken) = nth_of(&mut self.taken, index) {
                    self.arena.release(taken);
                }
            }
            Op::Resize { index, bytes } => self.resize(index, bytes),
            Op::Grown(index) => self.grown(index),
            Op::Shrunk(index) => self.shrunk(index),
            Op::FreeHalf => {
                let half: Vec<_> = self.live.values().step_by(2).copied().collect();
                for (_, offset) in half {
                    self.free(offset);
                }
            }
            Op::Isolate(max) => self.isolate(max),
            Op::Remove(index) => self.remove(index),
            Op::RemoveHalf(index) => self.remove_half(index),
            Op::Putback(index) => {
                if let Some(isolated) = nth_of(&mut self.isolated, index) {
                    self.arena.putback(isolated);
                }
            }
            Op::Trim(keep) => self.trim(keep),
        }
        self.compare();
    }

    /// Reserves a block, and backs some of its pages.
    fn reserve(&mut self, size: Size, pages: u32) {
        if self.open.len() >= 4 {
            return;
        }
        if let Ok(mut pending) = self.arena.reserve(size.request(true, true)) {
            self.check_reserved(&pending, size, true, true);
            self.arena.back(&mut pending, pages);
            self.open.push((pending, size.bytes));
        }
    }

    fn trim(&mut self, keep: u32) {
        self.arena.trim(keep);
        let left = self.free_pages();
        assert!(left <= u64::from(keep), "{left} free pages are left");
    }

    /// Ends a growth: the block gets its pages, unless it was freed since.
    fn grown(&mut self, index: usize) {
        let Some((start, end, mut growth)) = nth_of(&mut self.growing, index) else {
            return;
        };
        assert!(self.arena.fill_growth(&mut growth));
        let more = growth.extent().end;
        // Another block of that length may lie there by now.
        let is_same = self.grows.get(&start) == Some(&end);
        let grown = self.arena.commit_growth(growth);
        assert_eq!(grown, is_same, "of {start:#x}");
        if grown {
            let was = self.live.insert(start, (more, start));
            assert_eq!(was, Some((end, start)));
            self.grows.remove(&start);
        }
    }

    /// Cancels a growth.
    fn shrunk(&mut self, index: usize) {
        let Some((start, end, growth)) = nth_of(&mut self.growing, index) else {
            return;
        };
        if self.grows.get(&start) == Some(&end) {
            self.grows.remove(&start);
        }
        self.arena.cancel(growth.into_reservation());
    }

    /// Isolates free pages.
    fn isolate(&mut self, max: u32) {
        let Some(isolated) = self.arena.isolate(max) else {
            return;
        };
        let (first, pages) = (isolated.page(), isolated.pages());
        let taken = self.is_taken(u64::from(first) * Self::PAGE, u64::from(pages) * Self::PAGE);
        assert!(!taken, "pages in use are isolated");
        let range = first..first + pages;
        assert_eq!(self.arena.backed.range(range).count() as u32, pages);
        self.isolated.push(isolated);
    }

    /// Removes the memory of isolated pages.
    fn remove(&mut self, index: usize) {
        if let Some(isolated) = nth_of(&mut self.isolated, index) {
            self.arena.remove(isolated);
            self.arena.check();
        }
    }

    /// Removes the memory of isolated pages but of each third, as of pages that are pinned.
    fn remove_half(&mut self, index: usize) {
        let Some(isolated) = nth_of(&mut self.isolated, index) else {
            return;
        };
        let before = self.arena.backed.len() as u32;
        let left = self.arena.remove_but(isolated, |page| page % 3 == 0);
        assert_eq!(self.arena.backed.len() as u32, before - left);
        self.arena.check();
    }
}

/// Removes and returns the element number `index`, counted around the end; `None` if there is none.
fn nth_of<T>(all: &mut Vec<T>, index: usize) -> Option<T> {
    let index = index.checked_rem(all.len())?;
    Some(all.swap_remove(index))
}

fn run<const KIB: usize>(ops: &[Op]) {
    let mut model = Model::<KIB>::new();
    for op in ops {
        model.step(op);
    }
    model.end();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_engine_is_its_model_with_pages_of_4_kib(ops in ops(4096)) {
        run::<4>(&ops);
    }

    #[test]
    fn the_engine_is_its_model_with_pages_of_16_kib(ops in ops(16384)) {
        run::<16>(&ops);
    }

    #[test]
    fn the_engine_is_its_model_with_pages_of_64_kib(ops in ops(65536)) {
        run::<64>(&ops);
    }
}
