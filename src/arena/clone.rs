// SPDX-License-Identifier: GPL-2.0-only

//! `FREELIST_IOC_CLONE`: copies an arena, the same live blocks at the same offsets with their contents.
//!
//! The target is new and its file is not installed yet, so that no other thread allocates there. The
//! source keeps serving requests: it is locked in bounded steps, and never while memory is allocated or
//! copied. For each batch,
//!
//! 1. the live extents of the source are listed, and reserved in the target;
//! 2. they get new folios, as large as fit into extents side by side, with a copy of the source's
//!    contents;
//! 3. an extent that is still live in the source is committed in the target; one that was freed or
//!    resized meanwhile is cancelled.
//!
//! Pages of a live block without memory in the source have none in the target: those of a lazy block get
//! it when they are touched.

use super::{
    grow::{
        missing,
        span, //
    },
    promise::Promise,
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

/// The state of a copy between two steps.
struct Copy<'a> {
    source: &'a Arena,
    target: &'a Arena,
    prealloc: KernelPrealloc,
    /// Extents of the source that this step copies.
    extents: Buffer<LiveExtent>,
    /// Their reservations in the target, in the same order.
    blocks: Buffer<Reservation>,
    /// The largest order that the last allocations of folios left possible.
    max_order: u32,
    /// The first page number without memory in the source, while the copy is before it.
    hole: Option<u32>,
}

impl Arena {
    /// Copies all live blocks and the bounds of `source` to this arena, which must be empty and unknown
    /// to other threads. After an error it may have a part of the blocks, and can only be closed. May
    /// sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `ENOMEM` | memory is short |
    /// | `EDQUOT` | a limit has no headroom for the copy |
    /// | `EINTR` | the caller is being killed |
    pub(crate) fn copy_from(&self, source: &Self) -> Result {
        self.inherit(source);
        let capacity = BATCH as usize;
        let mut copy = Copy {
            source,
            target: self,
            prealloc: KernelPrealloc::default(),
            extents: self.buffer(capacity)?,
            blocks: self.buffer(capacity)?,
            max_order: self.address_space.max_order(),
            hole: None,
        };
        let mut from = Some(0);
        while let Some(page) = from {
            from = copy.batch(page)?;
            task::resched();
        }
        Ok(())
    }

    /// Returns a buffer for `len` elements, charged to the arena's cgroup. `ENOMEM` when memory is short.
    fn buffer<T>(&self, len: usize) -> Result<Buffer<T>> {
        let buffer = || Buffer::with_capacity(len, GFP_KERNEL_ACCOUNT);
        Ok(self.memcg.charge(buffer)?)
    }

    /// Takes over the bounds of another arena, and the secret of its headers.
    fn inherit(&self, source: &Self) {
        self.secret.adopt(&source.secret);
        let bounds = source.bounds();
        let mut state = self.lock();
        state.limit = bounds.limit;
        state.engine.set_slack_permille(bounds.slack_permille);
        state.engine.set_span((bounds.span >> PAGE_SHIFT) as u32);
    }

    /// Takes headroom under both limits for `pages` new pages. Other arenas release free memory if the shared
    /// limit has too little; `EDQUOT` when that is not enough either. May sleep.
    fn take_headroom_for_copy(&self, pages: u32) -> Result<Promise> {
        let bytes = u64::from(pages) << PAGE_SHIFT;
        loop {
            let mut state = self.lock();
            if bytes > state.limit.saturating_sub(state.taken()) {
                return Err(edquot());
            }
            if self.shared_limit.try_charge(bytes) {
                state.promised += bytes;
                return Ok(Promise { bytes });
            }
            drop(state);
            task::fail_if_killed()?;
            let lacks = bytes.saturating_sub(self.shared_limit.headroom()) >> PAGE_SHIFT;
            if !self.take_from_others(lacks.max(1)) {
                return Err(edquot());
            }
        }
    }
}

impl Copy<'_> {
    /// Copies one batch of the source's extents, from page number `from` on. Returns the page number of
    /// the next batch; `None` at the end. May sleep.
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

    /// Reserves the listed extents in the target.
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
                // The source's span was raised since it was taken over, before its first block.
                Err(Refusal::NoSpace) => drop(self.extents.remove(index)),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(())
    }

    /// Backs the reserved extents with copies of the source's pages. May sleep.
    fn fill(&mut self) -> Result {
        let mut promise = self.target.take_headroom_for_copy(missing(&self.blocks))?;
        let mut result = Ok(());
        let mut index = 0;
        while let Some(block) = self.blocks.get(index) {
            if block.missing() == 0 {
                index += 1;
                continue;
            }
            result = task::fail_if_killed().and_then(|()| self.back_folio(index, &mut promise));
            if result.is_err() {
                break;
            }
            task::resched();
        }
        // The headroom of holes is returned as well.
        self.target.return_unused(promise);
        result
    }

    /// Backs the next missing pages of the block of this index and of the blocks that follow it in the
    /// address space with one folio, or skips these pages if the source has no memory there.
    fn back_folio(&mut self, index: usize, promise: &mut Promise) -> Result {
        let blocks = self.blocks.get_mut(index..).unwrap_or_default();
        let Some(first) = blocks.first() else {
            return Ok(());
        };
        let page = first.next_page();
        // A contiguous block is one folio of its own.
        let whole = first.is_contiguous() && self.hole.is_none();
        let others = blocks.iter().skip(1);
        let alone = match whole {
            true => 1,
            false => 1 + others.take_while(|block| !block.is_contiguous()).count(),
        };
        let natural = match whole {
            true => first.missing().ilog2(),
            false => page.trailing_zeros().min(self.max_order),
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
        if !matches!(copied, Ok(copied) if copied < pages) {
            target.trace_grow(page, order, &copied);
        }
        match copied {
            Ok(copied) if copied < pages => {
                self.hole = Some(page + copied);
                return Ok(());
            }
            Err(error) if error == ENOMEM && order > 0 && !whole => {
                self.max_order = order - 1;
                return Ok(());
            }
            copied => drop(copied?),
        }
        target.lock().back(blocks, pages, promise);
        Ok(())
    }

    /// Leaves the next pages of a block without memory, up to the first page that the source has. Pages
    /// of a lazy block keep their part of the promise.
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

    /// Makes live the blocks that are still live in the source, and cancels the others.
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
                    // A page was touched meanwhile, or the copied block was freed and another one is
                    // live there.
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
    /// Copies the buddy tree of a divided page of `source`. Returns whether a block is live in it. May
    /// sleep.
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
