// SPDX-License-Identifier: GPL-2.0

//! Many blocks of one size: batches of [`BATCH`] a lock hold, in between others run and a caller
//! that is being killed stops.
//!
//! What was done stays done, so an error is the answer only when nothing was.

use super::{
    free::offset_nospec,
    request::AllocOptions,
    wait::is_shortage,
    Arena, //
};
use crate::{
    engine::{
        Batch,
        Policy,
        Reservation,
        Unfinished,
        BATCH, //
    },
    ffi::{
        race_point::RacePoint,
        task, //
    },
    mm::{
        backend::{
            KernelGarbage,
            KernelPrealloc, //
        },
        metadata::Buffer, //
    }, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// How much of a call was done, and why not more.
struct Progress {
    done: u32,
    count: u32,
    stopped: Option<Error>,
}

impl Progress {
    fn new(count: u32) -> Self {
        Self {
            done: 0,
            count,
            stopped: None,
        }
    }

    /// Elements of the next batch; `None` at the end. May sleep.
    fn next(&mut self) -> Option<usize> {
        if self.done > 0 && self.done < self.count && self.stopped.is_none() {
            task::resched();
            if task::fatal_signal() {
                self.stopped = Some(EINTR);
            }
        }
        let left = (self.count - self.done).min(BATCH) as usize;
        (left > 0 && self.stopped.is_none()).then_some(left)
    }

    /// Elements done, if any, else why not.
    fn result(self) -> Result<u32> {
        match self.stopped {
            Some(error) if self.done == 0 => Err(error),
            _ => Ok(self.done),
        }
    }
}

/// An offset that is refused as one beyond the arena is, and in no table out of range, under speculation
/// neither: it is not a multiple of 16.
const NO_OFFSET: u64 = 1;

impl Arena {
    /// Gives at most `count` blocks to a caller, who has those whose offsets `store` has stored,
    /// behind the ones before: it says how many of a batch. The others are undone. Says how many
    /// blocks the caller has, at least one. May sleep.
    ///
    /// The errors are those of [`Arena::alloc`], and `EFAULT` when not even one could be stored.
    pub(crate) fn alloc_bulk(
        &self,
        options: &AllocOptions,
        count: u32,
        mut store: impl FnMut(&[u64]) -> usize,
    ) -> Result<u32> {
        let mut progress = Progress::new(count);
        let mut prealloc = KernelPrealloc::default();
        let mut fast = Batch::default();
        let mut batch = Buffer::new();
        while let Some(most) = progress.next() {
            if self.reserve_batch_fast(options, most, &mut fast) {
                self.give_out_batch(options, &mut fast, &mut progress, &mut store);
                continue;
            }
            let room = self.memcg.charge(|| batch.reserve(most, GFP_KERNEL));
            let result = room.map_err(Error::from);
            let result =
                result.and_then(|()| self.collect(options, most, &mut prealloc, &mut batch));
            progress.stopped = result.err();
            let mut offsets = [0; BATCH as usize];
            let bytes = batch.first().map_or(0, Reservation::block_bytes);
            for (offset, pending) in offsets.iter_mut().zip(&batch) {
                *offset = pending.offset();
            }
            RacePoint::Answer.reach();
            let stored = match offsets.get(..batch.len()) {
                Some(offsets @ [_, ..]) => store(offsets),
                _ => 0,
            };
            if stored < batch.len() {
                progress.stopped = Some(EFAULT);
            }
            progress.done += stored as u32;
            let mut rest = batch.drain_all();
            let mut state = self.lock();
            for pending in rest.by_ref().take(stored) {
                state.engine.commit(pending);
            }
            drop(state);
            for pending in rest {
                self.cancel(pending);
            }
            if options.populate {
                let blocks = offsets.iter().take(stored);
                self.populate(blocks.map(|offset| *offset..offset + bytes));
            }
        }
        progress.result()
    }

    /// Reserves at most `most` blocks that are as they are wanted already, and that nobody waits for.
    /// Says whether there are any.
    fn reserve_batch_fast(&self, options: &AllocOptions, most: usize, batch: &mut Batch) -> bool {
        let found = self.on_fast_path(options, |engine| {
            let found = engine.reserve_batch(options.request.size, most, batch);
            found.then_some(())
        });
        found.is_some()
    }

    /// Tells a caller of blocks that are as they are wanted, and makes them live.
    fn give_out_batch(
        &self,
        options: &AllocOptions,
        batch: &mut Batch,
        progress: &mut Progress,
        store: &mut impl FnMut(&[u64]) -> usize,
    ) {
        RacePoint::Answer.reach();
        let stored = store(batch.offsets());
        while batch.offsets().len() > stored {
            progress.stopped = Some(EFAULT);
            if let Some(pending) = batch.pop() {
                self.cancel(pending);
            }
        }
        progress.done += stored as u32;
        if !options.populate {
            return self.lock().engine.commit_batch(batch);
        }
        let bytes = batch.block_bytes();
        let mut offsets = [0; BATCH as usize];
        for (place, offset) in offsets.iter_mut().zip(batch.offsets()) {
            *place = *offset;
        }
        self.lock().engine.commit_batch(batch);
        let blocks = offsets.iter().take(stored);
        self.populate(blocks.map(|offset| *offset..offset + bytes));
    }

    /// Fills an empty batch with at most `most` blocks that are ready to be given out; at an error
    /// those before it are there. Waits only for the first: what there is is given out before
    /// anybody sleeps.
    fn collect(
        &self,
        options: &AllocOptions,
        most: usize,
        prealloc: &mut KernelPrealloc,
        batch: &mut Buffer<Reservation>,
    ) -> Result {
        while batch.len() < most {
            let first = batch.len();
            self.reserve_some(options, most, prealloc, batch);
            let mut result = self.prepare_from(first, options, prealloc, batch);
            let waits_later = options.wait.is_some() && !batch.is_empty();
            if batch.len() == first {
                // None in one go: one by itself.
                let one = if waits_later {
                    self.attempt(options, None, prealloc)
                } else {
                    self.obtain(options, prealloc)
                };
                result = one.map(|pending| Self::push(batch, pending));
            }
            match result {
                Err(error) if waits_later && is_shortage(error) => return Ok(()),
                result => result?,
            }
        }
        Ok(())
    }

    /// Reserves as many blocks for a batch as can be reserved without an unlock, up to `most` in all
    /// and as long as they do not miss a batch of pages.
    fn reserve_some(
        &self,
        options: &AllocOptions,
        most: usize,
        prealloc: &mut KernelPrealloc,
        batch: &mut Buffer<Reservation>,
    ) {
        let mut missing = 0;
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut state = self.lock();
        let admission = state.admission(options, None);
        while batch.len() < most && missing < BATCH && state.admit(options).is_ok() {
            let result = state
                .engine
                .reserve(&options.request, admission, prealloc, &mut garbage);
            let Ok(pending) = result else {
                break;
            };
            if !pending.is_lazy() {
                missing += pending.missing();
            }
            // One that leaves something of a new page: the next one is to have that.
            let leaves = pending.missing() > 0 && pending.block_bytes() < PAGE_SIZE as u64;
            Self::push(batch, pending);
            if leaves {
                break;
            }
        }
    }

    /// Makes the blocks of a batch from `first` on as they are wanted. One that cannot be, and
    /// those behind it, are undone.
    fn prepare_from(
        &self,
        first: usize,
        options: &AllocOptions,
        prealloc: &mut KernelPrealloc,
        batch: &mut Buffer<Reservation>,
    ) -> Result {
        // Those that have to lie side by side are brought for each block, and lazy ones are not.
        let together = !options.request.lazy && options.request.policy != Policy::Contiguous;
        if options.request.policy.may_grow() && together {
            self.fill_together(batch.get_mut(first..).unwrap_or_default(), prealloc);
        }
        let mut done = first;
        while let Some(pending) = batch.get_mut(done) {
            let result = if options.is_met(pending) {
                Ok(())
            } else {
                self.prepare(pending, options, prealloc)
            };
            if let Err(error) = result {
                while batch.len() > done {
                    if let Some(pending) = batch.pop() {
                        self.cancel(pending);
                    }
                }
                return Err(error);
            }
            done += 1;
        }
        Ok(())
    }

    /// Adds to a batch, which has room.
    fn push(batch: &mut Buffer<Reservation>, pending: Reservation) {
        let result = batch.push_within_capacity(pending);
        debug_assert!(result.is_ok());
    }

    /// Takes at most `count` live blocks back: those whose offsets `load` has loaded, which says
    /// how many of a batch. Ends at the first that is refused. Says how many were taken back, at
    /// least one. May sleep.
    ///
    /// The errors are those of [`Arena::free`], and `EFAULT` when not even one could be loaded. A
    /// header that was overwritten is counted, and ends nothing.
    pub(crate) fn free_bulk(
        &self,
        count: u32,
        mut load: impl FnMut(&mut [u64]) -> usize,
    ) -> Result<u32> {
        let mut progress = Progress::new(count);
        while let Some(most) = progress.next() {
            let mut offsets = [0; BATCH as usize];
            let loaded = offsets.get_mut(..most).map_or(0, &mut load);
            if loaded < most {
                progress.stopped = Some(EFAULT);
            }
            for offset in offsets.iter_mut().take(loaded) {
                *offset = offset_nospec(*offset).unwrap_or(NO_OFFSET);
            }
            let mut rest = offsets.get(..loaded).unwrap_or_default();
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let mut state = self.lock();
            while let [first, others @ ..] = rest {
                let alike = state.engine.free_alike(rest);
                if alike > 0 {
                    progress.done += alike as u32;
                    rest = rest.get(alike..).unwrap_or_default();
                    continue;
                }
                match state.free(*first) {
                    Ok(None) => {}
                    Ok(Some(Unfinished::Loose(loose))) => {
                        state.engine.merge(loose, &mut garbage);
                        if !garbage.has_room() {
                            drop(state);
                            garbage = KernelGarbage::default();
                            state = self.lock();
                        }
                    }
                    Ok(Some(Unfinished::Headed(taken))) => {
                        drop(state);
                        // It is released, whatever its header says.
                        if let Err(error) = self.retire(taken) {
                            self.count_failure(error);
                        }
                        state = self.lock();
                    }
                    Ok(Some(Unfinished::Holed(holed))) => {
                        drop(state);
                        self.release_holed(holed);
                        state = self.lock();
                    }
                    Err(error) => {
                        progress.stopped = Some(error);
                        break;
                    }
                }
                progress.done += 1;
                rest = others;
            }
            self.wake(&mut state);
        }
        progress.result()
    }
}
