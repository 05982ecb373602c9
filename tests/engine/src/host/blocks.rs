// SPDX-License-Identifier: GPL-2.0

//! Blocks of the arena: allocated, freed, in batches, and undone.

use crate::engine::{
    Admission, Batch, FreeError, Garbage, Refusal, Releasing, Request, Reservation, Unfinished,
};

use super::Arena;

impl<const KIB: usize> Arena<KIB> {
    /// Reserves a block, with the metadata that it takes.
    pub fn reserve(&mut self, request: Request) -> Result<Reservation, Refusal> {
        self.reserve_as(request, Admission::Full)
    }

    /// Reserves a block for a request with this admission.
    ///
    /// # Panics
    ///
    /// If the engine asks for metadata, or has more to do, too often.
    pub fn reserve_as(
        &mut self,
        request: Request,
        admission: Admission,
    ) -> Result<Reservation, Refusal> {
        let mut lacked = 0;
        let mut rounds = 0;
        loop {
            let mut garbage = Garbage::default();
            let result = self
                .engine
                .reserve(&request, admission, &mut self.prealloc, &mut garbage);
            self.step();
            match result {
                Err(Refusal::Need(metadata)) => {
                    // A root, two parts, two chunks and a tree are the most that one call can lack.
                    lacked += 1;
                    assert!(lacked <= 6, "the engine asks for metadata again and again");
                    self.make(metadata);
                }
                Err(Refusal::Again) => {
                    rounds += 1;
                    assert!(rounds < 100, "the engine never comes to an end");
                }
                result => return result,
            }
        }
    }

    /// Makes a reserved block with all its pages live.
    ///
    /// # Panics
    ///
    /// If a page that may have old bytes is not stale.
    pub fn commit(&mut self, reservation: Reservation) {
        self.take_into_use(&reservation);
        self.engine.commit(reservation);
        self.step();
    }

    pub(crate) fn take_into_use(&self, reservation: &Reservation) {
        let pages = reservation.block_bytes().div_ceil(Self::PAGE) as u32;
        let first = (reservation.extent().start / Self::PAGE) as u32;
        for index in 0..pages {
            // A page of a lazy block is backed later, and is zero.
            let Some(page) = self.backed.get(&(first + index)) else {
                assert!(reservation.is_lazy(), "a page is missing");
                continue;
            };
            let used = page.take_into_use(reservation.within());
            assert!(!used || index < reservation.stale(), "old bytes as zero");
        }
    }

    /// Undoes a reservation.
    pub fn cancel(&mut self, reservation: Reservation) {
        let backed = self.engine.cancel(reservation, &mut Garbage::default());
        self.step();
        if let Some(isolated) = backed {
            self.remove(isolated);
            self.step();
        }
    }

    /// Allocates a block. Returns its offset and its bytes.
    pub fn alloc(&mut self, request: Request) -> Result<(u64, u64), Refusal> {
        self.alloc_as(request, Admission::Full)
    }

    /// Allocates a block for a request with this admission.
    pub fn alloc_as(
        &mut self,
        request: Request,
        admission: Admission,
    ) -> Result<(u64, u64), Refusal> {
        let mut reservation = self.reserve_as(request, admission)?;
        let grow = request.policy.may_grow() && admission != Admission::SubpageOnly;
        if reservation.is_lazy() && reservation.missing() > 0 {
            self.engine.owe(&mut reservation);
            self.step();
        } else if !self.fill(&mut reservation, grow) {
            self.cancel(reservation);
            return Err(Refusal::Empty);
        }
        let block = (reservation.offset(), reservation.block_bytes());
        self.commit(reservation);
        Ok(block)
    }

    /// Returns whether a request could be served now.
    pub fn could_serve(&mut self, request: &Request, admission: Admission, headroom: u64) -> bool {
        self.drain_if_larger(request);
        let mut garbage = Garbage::default();
        self.engine
            .could_serve(request, admission, headroom, &mut garbage)
    }

    /// Drains quick lists if the request is larger, as the module does before it asks.
    pub(super) fn drain_if_larger(&mut self, request: &Request) {
        if !request.policy.is_exact() {
            self.drain();
        }
    }

    /// Frees a block, with its header if it has one.
    pub fn free(&mut self, offset: u64) -> Result<(), FreeError> {
        if let Some(releasing) = self.take(offset)? {
            self.release(releasing);
        }
        Ok(())
    }

    /// Frees a block without a header, takes one with a header.
    pub fn take(&mut self, offset: u64) -> Result<Option<Releasing>, FreeError> {
        let taken = match self.engine.free(offset)? {
            Some(Unfinished::Headed(releasing)) => Some(releasing),
            Some(Unfinished::Loose(loose)) => {
                self.step();
                self.engine.merge(loose, &mut Garbage::default());
                None
            }
            Some(Unfinished::Holed(holed)) => {
                self.step();
                self.release_holed(holed);
                None
            }
            None => None,
        };
        self.step();
        Ok(taken)
    }

    /// Allocates at most `max` blocks on the fast path, of which `reported` are reported to a caller and the others
    /// cancelled. Returns their offsets.
    pub fn alloc_batch(&mut self, size: u64, max: usize, reported: usize) -> Vec<u64> {
        let mut starts = vec![0; max];
        let mut batch = Batch::new(&mut starts);
        self.engine.reserve_batch(size, max, &mut batch);
        self.step();
        while batch.offsets().len() > reported {
            let reservation = batch.pop().expect("it has more than are reported");
            self.cancel(reservation);
        }
        let offsets = batch.offsets().to_vec();
        self.engine.commit_batch(&mut batch);
        self.step();
        offsets
    }

    /// Frees blocks that are alike. Returns how many.
    pub fn free_alike(&mut self, offsets: &[u64]) -> usize {
        let count = self.engine.free_alike(offsets);
        self.step();
        count
    }

    /// Ends the release of a block that was taken.
    pub fn release(&mut self, releasing: Releasing) {
        self.engine.release(releasing, &mut Garbage::default());
        self.step();
    }
}
