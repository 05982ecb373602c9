// SPDX-License-Identifier: GPL-2.0-only

//! Allocates and frees many blocks in one call, at most [`BATCH`] under one hold of the lock.
//!
//! Between batches the thread may be rescheduled, and a caller that is being killed stops. Finished
//! elements stay finished: a call returns an error only if it has finished none.

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
        errno::euclean,
        race_point::RacePoint,
        task,
        trace, //
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

/// The progress of a call.
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

    /// Returns the number of elements of the next batch; `None` at the end. May sleep.
    fn next(&mut self) -> Option<usize> {
        if self.done > 0 && self.done < self.count && self.stopped.is_none() {
            task::resched();
            self.stopped = task::fail_if_killed().err();
        }
        let left = (self.count - self.done).min(BATCH) as usize;
        (left > 0 && self.stopped.is_none()).then_some(left)
    }

    /// Returns the number of finished elements, or, if that is 0, the error that stopped the call.
    fn result(self) -> Result<u32> {
        match self.stopped {
            Some(error) if self.done == 0 => Err(error),
            _ => Ok(self.done),
        }
    }
}

/// The most elements of a short call, which needs little memory on the stack: clearing that takes time.
const FEW: usize = 8;
const MANY: usize = BATCH as usize;

/// An offset that replaces those beyond the largest arena. It is refused like these, as it is no multiple
/// of 16, and is within every table, also under speculation.
const NO_OFFSET: u64 = 1;

/// Returns whether releases are reported. Out of line, as the branch would keep the compiler from
/// making the loop around it fast.
#[inline(never)]
fn traces_frees() -> bool {
    trace::Free::is_enabled()
}

impl Arena {
    /// Allocates at most `count` blocks and reports them to the caller. Returns their number, at least
    /// 1. May sleep.
    ///
    /// `store` stores the offsets of a batch after those of earlier batches, and returns how many it
    /// has stored: these blocks become live, the others are cancelled.
    ///
    /// Errors are those of [`Arena::alloc`], and `EFAULT` when no offset could be stored.
    pub(crate) fn alloc_bulk(
        &self,
        options: &AllocOptions,
        count: u32,
        store: impl FnMut(&[u64]) -> usize,
    ) -> Result<u32> {
        match count as usize {
            ..=FEW => self.alloc_batches(options, count, &mut [0; FEW], store),
            _ => self.alloc_batches(options, count, &mut [0; MANY], store),
        }
    }

    /// Serves [`Arena::alloc_bulk`]. There are as many `offsets` as a batch may have blocks: `count`, or
    /// [`BATCH`].
    #[inline(never)]
    fn alloc_batches(
        &self,
        options: &AllocOptions,
        count: u32,
        offsets: &mut [u64],
        mut store: impl FnMut(&[u64]) -> usize,
    ) -> Result<u32> {
        let mut progress = Progress::new(count);
        let mut prealloc = KernelPrealloc::default();
        let mut batch = Buffer::new();
        while let Some(max_blocks) = progress.next() {
            let mut fast = Batch::new(offsets);
            if self.reserve_batch_fast(options, max_blocks, &mut fast) {
                self.report_batch(options, &mut fast, &mut progress, &mut store);
                continue;
            }
            let reserved = self.memcg.charge(|| batch.reserve(max_blocks, GFP_KERNEL));
            let result = reserved.map_err(Error::from);
            let result =
                result.and_then(|()| self.collect(options, max_blocks, &mut prealloc, &mut batch));
            progress.stopped = result.err();
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
            self.trace_batch(options, offsets.get(..stored), bytes);
            if options.populate {
                let blocks = offsets.iter().take(stored);
                self.populate(blocks.map(|offset| *offset..offset + bytes));
            }
        }
        self.trace_refusal(options, &progress.stopped.map_or(Ok(()), Err));
        progress.result()
    }

    /// Reserves at most `max_blocks` free blocks of a quick list, unless a waiter comes first. Returns whether
    /// it has reserved any.
    /// Out of line as [`traces_frees`] is.
    #[inline(never)]
    fn reserve_batch_fast(
        &self,
        options: &AllocOptions,
        max_blocks: usize,
        batch: &mut Batch<'_>,
    ) -> bool {
        let found = self.on_fast_path(options, |engine| {
            let found = engine.reserve_batch(options.request.size, max_blocks, batch);
            found.then_some(())
        });
        found.is_some()
    }

    /// Reports blocks that need no further work and commits those whose offsets were stored.
    fn report_batch(
        &self,
        options: &AllocOptions,
        batch: &mut Batch<'_>,
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
        let mut offsets = [0; MANY];
        for (place, offset) in offsets.iter_mut().zip(batch.offsets()) {
            *place = *offset;
        }
        self.lock().engine.commit_batch(batch);
        let blocks = offsets.iter().take(stored);
        self.populate(blocks.map(|offset| *offset..offset + bytes));
    }

    /// Fills an empty batch with at most `max_blocks` prepared blocks; after an error it has those prepared
    /// before. Waits for the first block only: blocks that are ready are reported before the caller
    /// sleeps. May sleep.
    fn collect(
        &self,
        options: &AllocOptions,
        max_blocks: usize,
        prealloc: &mut KernelPrealloc,
        batch: &mut Buffer<Reservation>,
    ) -> Result {
        while batch.len() < max_blocks {
            let first = batch.len();
            self.reserve_some(options, max_blocks, prealloc, batch);
            let mut result = self.prepare_from(first, options, prealloc, batch);
            let waits_later = options.wait.is_some() && !batch.is_empty();
            if batch.len() == first {
                // None could be reserved under one hold of the lock: the slow path reserves one.
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

    /// Reserves blocks for a batch under one hold of the lock, until it has `max_blocks`, or these miss
    /// [`BATCH`] pages, or the engine needs metadata.
    fn reserve_some(
        &self,
        options: &AllocOptions,
        max_blocks: usize,
        prealloc: &mut KernelPrealloc,
        batch: &mut Buffer<Reservation>,
    ) {
        let mut missing = 0;
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut state = self.lock();
        let admission = state.admission(options, None);
        while batch.len() < max_blocks && missing < BATCH && state.admit(options).is_ok() {
            let result = state
                .engine
                .reserve(&options.request, admission, prealloc, &mut garbage);
            let Ok(pending) = result else {
                break;
            };
            if !pending.is_lazy() {
                missing += pending.missing();
            }
            // The rest of its new page becomes free blocks once it has memory: the next one takes these.
            let leaves = pending.missing() > 0 && pending.block_bytes() < PAGE_SIZE as u64;
            Self::push(batch, pending);
            if leaves {
                break;
            }
        }
    }

    /// Prepares the blocks of a batch from index `first` on. After an error the block that caused it and
    /// all after it are cancelled. May sleep.
    fn prepare_from(
        &self,
        first: usize,
        options: &AllocOptions,
        prealloc: &mut KernelPrealloc,
        batch: &mut Buffer<Reservation>,
    ) -> Result {
        // A contiguous block has a folio of its own, and lazy ones get no memory now.
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

    /// Adds a block to a batch, which must not be full.
    fn push(batch: &mut Buffer<Reservation>, pending: Reservation) {
        let result = batch.push_within_capacity(pending);
        debug_assert!(result.is_ok());
    }

    /// Frees at most `count` live blocks, and stops at the first offset that is refused. Returns the
    /// number of freed blocks, at least 1. May sleep.
    ///
    /// `load` loads the offsets of a batch after those of earlier batches, and returns how many it has
    /// loaded.
    ///
    /// Errors are those of [`Arena::free`], and `EFAULT` when no offset could be loaded. An overwritten
    /// header is counted as a refused call and does not stop the loop.
    pub(crate) fn free_bulk(
        &self,
        count: u32,
        load: impl FnMut(&mut [u64]) -> usize,
    ) -> Result<u32> {
        match count as usize {
            ..=FEW => self.free_batches(count, &mut [0; FEW], load),
            _ => self.free_batches(count, &mut [0; MANY], load),
        }
    }

    /// Serves [`Arena::free_bulk`]. There are as many `offsets` as a batch may have blocks: `count`, or
    /// [`BATCH`].
    #[inline(never)]
    fn free_batches(
        &self,
        count: u32,
        offsets: &mut [u64],
        mut load: impl FnMut(&mut [u64]) -> usize,
    ) -> Result<u32> {
        let mut progress = Progress::new(count);
        while let Some(max_blocks) = progress.next() {
            let loaded = offsets.get_mut(..max_blocks).map_or(0, &mut load);
            if loaded < max_blocks {
                progress.stopped = Some(EFAULT);
            }
            if traces_frees() {
                self.free_batch_traced(offsets.get(..loaded), &mut progress);
                continue;
            }
            for offset in offsets.iter_mut().take(loaded) {
                *offset = offset_nospec(*offset).unwrap_or(NO_OFFSET);
            }
            self.free_batch(offsets.get(..loaded).unwrap_or_default(), &mut progress);
        }
        progress.result()
    }

    /// Frees the blocks of a batch, whose offsets are within every table, up to the first that is refused.
    #[inline(always)]
    fn free_batch(&self, mut rest: &[u64], progress: &mut Progress) {
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
                    // The block is free even if its header was overwritten.
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

    /// Frees live blocks one by one, as a batch does, and reports each.
    #[cold]
    fn free_batch_traced(&self, offsets: Option<&[u64]>, progress: &mut Progress) {
        for offset in offsets.unwrap_or_default() {
            match self.free_traced(*offset) {
                Ok(()) => {}
                // It is released, whatever its header says.
                Err(error) if error == euclean() => self.count_failure(error),
                Err(error) => {
                    progress.stopped = Some(error);
                    return;
                }
            }
            progress.done += 1;
        }
    }
}
