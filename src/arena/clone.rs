// SPDX-License-Identifier: GPL-2.0

//! A copy of an arena: the same live blocks at the same offsets, with what is in them.
//!
//! The target is new and its file is not open yet, so nobody else allocates there. The source goes on
//! serving: it is locked for a bounded look at it, and never while anything is allocated or copied.
//! Batch by batch,
//!
//! 1. the source names some live extents, which are reserved in the target;
//! 2. they get new folios with a copy of what the source has there, as large as fit into extents
//!    side by side;
//! 3. the source is looked at again: what is still live there becomes live in the target, what was
//!    freed or resized meanwhile is undone.
//!
//! Pages of a live block that have no memory in the source have none in the target: those of a lazy
//! block get it when they are touched, there as here.

use super::{
    grow::{
        missing,
        span,
        Promise, //
    },
    Arena, //
};
use crate::{
    engine::{
        LiveExtent,
        LiveShape,
        Refusal,
        Reservation,
        Still,
        BATCH, //
    },
    ffi::{
        errno::edquot,
        task, //
    },
    mm::{
        backend::KernelPrealloc,
        metadata::Buffer, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// State of a copy between two steps.
struct Copy<'a> {
    source: &'a Arena,
    target: &'a Arena,
    prealloc: KernelPrealloc,
    /// Extents of the source that this step copies.
    extents: Buffer<LiveExtent>,
    /// Their reservations in the target, in the same order.
    blocks: Buffer<Reservation>,
    /// No folio above this order could be had.
    highest: u32,
    /// The source has memory up to this page number, and none there.
    hole: Option<u32>,
}

impl Arena {
    /// Copies all live blocks of `source`, and its bounds, to this arena, which is empty and known to
    /// the caller alone. May sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `ENOMEM` | memory is short |
    /// | `EDQUOT` | a limit forbids the copy |
    /// | `EINTR` | the caller is being killed |
    ///
    /// Some blocks may have been copied then: the arena is of no use but to be closed.
    pub(crate) fn copy_from(&self, source: &Self) -> Result {
        self.inherit(source);
        let most = BATCH as usize;
        let mut copy = Copy {
            source,
            target: self,
            prealloc: KernelPrealloc::default(),
            extents: self.buffer(most)?,
            blocks: self.buffer(most)?,
            highest: self.address_space.max_order(),
            hole: None,
        };
        let mut from = Some(0);
        while let Some(page) = from {
            from = copy.batch(page)?;
            task::resched();
        }
        Ok(())
    }

    /// Room for so many, charged to this arena's account. `ENOMEM` when memory is short.
    fn buffer<T>(&self, len: usize) -> Result<Buffer<T>> {
        let buffer = || Buffer::with_capacity(len, GFP_KERNEL_ACCOUNT);
        Ok(self.memcg.charge(buffer)?)
    }

    /// Takes over the bounds of another arena, and what its headers are mixed with.
    fn inherit(&self, source: &Self) {
        self.secret.adopt(&source.secret);
        let bounds = source.bounds();
        let mut state = self.lock();
        state.limit = bounds.limit;
        state.engine.set_slack_permille(bounds.slack_permille);
        state.engine.set_span((bounds.span >> PAGE_SHIFT) as u32);
    }

    /// Takes room under both limits for `pages` new pages. `EDQUOT` when there is not so much, of the
    /// limit of all arenas with what others would give up. May sleep.
    fn take_room_for_copy(&self, pages: u32) -> Result<Promise> {
        let bytes = u64::from(pages) << PAGE_SHIFT;
        loop {
            let mut state = self.lock();
            if bytes > state.limit.saturating_sub(state.taken()) {
                return Err(edquot());
            }
            if self.shared_limit.take(bytes) {
                state.promised += bytes;
                return Ok(Promise { bytes });
            }
            drop(state);
            if task::fatal_signal() {
                return Err(EINTR);
            }
            let lacks = bytes.saturating_sub(self.shared_limit.headroom()) >> PAGE_SHIFT;
            if !self.take_from_others(lacks.max(1)) {
                return Err(edquot());
            }
        }
    }
}

impl Copy<'_> {
    /// Copies some extents of the source, of those from page number `from` on. Returns where to go on.
    fn batch(&mut self, from: u32) -> Result<Option<u32>> {
        self.extents.clear();
        let extents = &mut self.extents;
        let next = self.source.lock().engine.live_from(from, BATCH, |extent| {
            // There is room for that many.
            let _ = extents.push_within_capacity(extent);
        });
        let result = self.reserve().and_then(|()| self.fill());
        match result {
            Ok(()) => self.commit()?,
            Err(error) => {
                for block in self.blocks.drain_all() {
                    self.target.cancel(block);
                }
                return Err(error);
            }
        }
        Ok(next)
    }

    /// Reserves what was found.
    fn reserve(&mut self) -> Result {
        let mut index = 0;
        while let Some(extent) = self.extents.get(index) {
            let mut state = self.target.lock();
            let result = state.engine.reserve_at(*extent, &mut self.prealloc);
            drop(state);
            match result {
                Ok(block) => {
                    // There is room for as many as there are extents.
                    let _ = self.blocks.push_within_capacity(block);
                    index += 1;
                }
                Err(Refusal::Need(metadata)) => {
                    let prealloc = &mut self.prealloc;
                    self.target.make(metadata, prealloc)?;
                }
                // The source had no block yet when its span was taken over: this one is new.
                Err(Refusal::NoSpace) => drop(self.extents.remove(index)),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(())
    }

    /// Brings what was reserved its memory, with a copy of the source's.
    fn fill(&mut self) -> Result {
        let mut promise = self.target.take_room_for_copy(missing(&self.blocks))?;
        let mut result = Ok(());
        let mut index = 0;
        while let Some(block) = self.blocks.get(index) {
            if block.missing() == 0 {
                index += 1;
                continue;
            }
            result = match task::fatal_signal() {
                true => Err(EINTR),
                false => self.bring_folio(index, &mut promise),
            };
            if result.is_err() {
                break;
            }
            task::resched();
        }
        // What holes did not take, too.
        self.target.forget(promise);
        result
    }

    /// Brings a folio, or leaves a hole, for the next pages that the block of this index misses, and
    /// for the blocks behind it as far as they follow in the address space.
    fn bring_folio(&mut self, index: usize, promise: &mut Promise) -> Result {
        let blocks = self.blocks.get_mut(index..).unwrap_or_default();
        let Some(first) = blocks.first() else {
            return Ok(());
        };
        let page = first.next_page();
        // What is contiguous is one folio, and no one else's.
        let whole = first.is_contiguous() && self.hole.is_none();
        let others = blocks.iter().skip(1);
        let alone = match whole {
            true => 1,
            false => 1 + others.take_while(|block| !block.is_contiguous()).count(),
        };
        let natural = match whole {
            true => first.missing().ilog2(),
            false => page.trailing_zeros().min(self.highest),
        };
        let blocks = blocks.get_mut(..alone).unwrap_or_default();
        let (count, mut span) = span(blocks, 1 << natural);
        let blocks = blocks.get_mut(..count).unwrap_or_default();
        if let Some(hole) = self.hole {
            span = span.min(hole.saturating_sub(page));
            if span == 0 {
                self.hole = None;
                return self.leave_hole(index, promise);
            }
        }
        let order = span.checked_ilog2().unwrap_or(0).min(natural);
        let pages = 1 << order;
        let target = self.target;
        target.ensure_backing(blocks, pages, &mut self.prealloc)?;
        let from = &self.source.address_space;
        let copied = target
            .memcg
            .charge(|| target.address_space.add_copy(page, order, from));
        match copied {
            Ok(copied) if copied < pages => {
                self.hole = Some(page + copied);
                return Ok(());
            }
            Err(error) if error == ENOMEM && order > 0 && !whole => {
                self.highest = order - 1;
                return Ok(());
            }
            copied => drop(copied?),
        }
        target.lock().back(blocks, pages, promise);
        Ok(())
    }

    /// Leaves the next pages of a block without memory, up to the first that the source has. Pages of a
    /// lazy block keep their part of the promise.
    fn leave_hole(&mut self, index: usize, promise: &mut Promise) -> Result {
        let Some(block) = self.blocks.get_mut(index) else {
            return Ok(());
        };
        let (page, end) = (block.next_page(), block.end_page());
        let next = self.source.address_space.first_in(page..end);
        let next = next.map_or(end, |folio| folio.range().start.clamp(page, end));
        // A page that is there and cannot be read is left out, too.
        let pages = (next - page).max(1);
        let lazy = self.source.lock().engine.is_lazy(page);
        let mut state = self.target.lock();
        state.engine.leave_hole(block, pages, lazy);
        if lazy {
            state.take_up(pages, promise);
        }
        Ok(())
    }

    /// Makes live what is live in the source still, and undoes the rest.
    fn commit(&mut self) -> Result {
        let mut result = Ok(());
        for (extent, block) in self.extents.iter().zip(self.blocks.drain_all()) {
            if result.is_ok() && extent.shape == LiveShape::Divided {
                match self
                    .target
                    .copy_tree(self.source, extent, &mut self.prealloc)
                {
                    Ok(true) => {
                        let mut state = self.target.lock();
                        state.engine.commit_divided(block, &mut self.prealloc);
                        continue;
                    }
                    Ok(false) => {}
                    Err(error) => result = Err(error),
                }
            } else if result.is_ok() {
                let still = self.source.lock().engine.still_has(*extent);
                let mut state = self.target.lock();
                let is_right = match still {
                    Still::Gone => false,
                    Still::Holed => true,
                    // A page of it was touched meanwhile, or it is another block: the one that was
                    // copied had been freed by then.
                    Still::Whole => block.is_lazy() || !state.engine.has_hole(&block),
                };
                if is_right {
                    state.engine.commit(block);
                    continue;
                }
            }
            self.target.cancel(block);
        }
        result
    }
}

impl Arena {
    /// Copies which blocks are live in a divided page of `source`. Returns whether any is.
    fn copy_tree(
        &self,
        source: &Self,
        extent: &LiveExtent,
        prealloc: &mut KernelPrealloc,
    ) -> Result<bool> {
        loop {
            let result = source.lock().engine.copy_tree(extent.page, prealloc);
            match result {
                Ok(live) => return Ok(live),
                Err(metadata) => self.make(metadata, prealloc)?,
            }
        }
    }
}
