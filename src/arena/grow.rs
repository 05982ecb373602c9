// SPDX-License-Identifier: GPL-2.0

//! Where the memory of a reserved block comes from: new folios within the limits. Where these forbid
//! them, as much free memory elsewhere in the arena leaves before.
//!
//! To move memory is dearer than new memory, so it is done when the arena holds more than the slack
//! allows beyond what its blocks ever needed, at the limits, and when the system has no more.

use super::{
    reclaim::Room,
    state::State,
    Arena, //
};
use crate::{
    engine::{
        Metadata,
        Policy,
        Request,
        Reservation,
        Surplus, //
    },
    ffi::{
        errno::edquot,
        task, //
    },
    mm::{
        backend::{
            KernelGarbage,
            KernelPrealloc, //
        },
        shrinker, //
    },
};
use core::slice::from_mut;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Room under the limits for pages that are being brought. To be given to [`Arena::forget`].
#[must_use]
pub(super) struct Promise {
    pub(super) bytes: u64,
}

impl Promise {
    pub(super) fn pages(&self) -> u32 {
        (self.bytes >> PAGE_SHIFT) as u32
    }
}

/// What stops a block from getting its pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Short {
    /// The request may not grow, and less is free than it seemed.
    Memory,
    /// The arena's own limit.
    Own,
    /// The limit of all arenas, beyond which the block would take so many pages.
    Shared(u64),
}

impl From<Short> for Error {
    fn from(short: Short) -> Self {
        match short {
            Short::Memory => ENOMEM,
            Short::Own | Short::Shared(_) => edquot(),
        }
    }
}

/// Ranges from which nothing leaves, at most, until moving gives up.
const STUCK: usize = 8;
/// How often free memory of the arena leaves for a block when the system has no more.
const TRIES: u32 = 4;
/// Of a limit so much is left for blocks: no surplus is taken beyond that.
const LIMIT_PART: u64 = 8;

/// Pages that reserved blocks miss.
pub(super) fn missing(blocks: &[Reservation]) -> u32 {
    blocks.iter().map(Reservation::missing).sum()
}

impl Arena {
    /// Brings the pages that a reserved block lacks; where it may not `grow`, as many as leave
    /// elsewhere. What was brought before an error stays with the block: `cancel` takes it back. May
    /// sleep.
    ///
    /// `EDQUOT` when a limit forbids it, `ENOMEM` when memory is short or all that was free is in
    /// use by now, `EINTR` when the caller is being killed.
    pub(super) fn fill(
        &self,
        pending: &mut Reservation,
        prealloc: &mut KernelPrealloc,
        request: &Request,
    ) -> Result {
        let grow = request.policy.may_grow();
        if pending.is_lazy() {
            return self.take_room(pending, request);
        }
        let mut tries = 0;
        let mut reuse = true;
        while pending.missing() > 0 {
            let mut promise = match self.promise(pending, grow, reuse) {
                Err(short) if self.make_room(short, pending, request) => continue,
                promise => promise?,
            };
            if request.policy == Policy::Contiguous {
                return self.bring_contiguous(pending, prealloc, promise);
            }
            let lacks = pending.missing().saturating_sub(promise.pages());
            if lacks > 0 {
                let moved = self.vacate(lacks, &mut promise);
                if moved != Ok(lacks) {
                    self.forget(promise);
                    // Less was free than it seemed, or could leave: another look, if that may help.
                    match moved? {
                        0 if grow && reuse => reuse = false,
                        0 if grow => return Err(edquot()),
                        0 => return Err(ENOMEM),
                        _ => {}
                    }
                    continue;
                }
            }
            match self.bring(from_mut(pending), prealloc, promise) {
                // The system has no more, but perhaps the arena has.
                Err(error) if error == ENOMEM && pending.is_movable() && tries < TRIES => {
                    tries += 1;
                    let mut promise = Promise { bytes: 0 };
                    let moved = self.vacate(pending.missing(), &mut promise);
                    self.forget(promise);
                    if moved? == 0 {
                        return Err(ENOMEM);
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Takes the room of the pages that a lazy block misses from both limits; where these have too
    /// little, free memory elsewhere in the arena leaves for it. May sleep.
    ///
    /// `EDQUOT` when a limit forbids it, or lazy blocks would be owed too much; `EINTR` when the caller is
    /// being killed.
    fn take_room(&self, pending: &mut Reservation, request: &Request) -> Result {
        while pending.missing() > pending.owed() {
            if !self.may_owe(&self.lock(), pending) {
                return Err(edquot());
            }
            let mut promise = match self.promise(pending, true, false) {
                Err(short) if self.make_room(short, pending, request) => continue,
                promise => promise?,
            };
            let lacks = pending.missing().saturating_sub(promise.pages());
            let left = if lacks > 0 {
                self.vacate(lacks, &mut promise)
            } else {
                Ok(0)
            };
            if left == Ok(lacks) {
                let mut state = self.lock();
                // Another thread may have been owed more meanwhile.
                if self.may_owe(&state, pending) {
                    state.promised -= promise.bytes;
                    state.engine.owe(pending);
                    continue;
                }
            }
            self.forget(promise);
            if left? == 0 {
                return Err(edquot());
            }
        }
        Ok(())
    }

    /// Returns whether lazy blocks may be owed what a reserved one misses, too.
    fn may_owe(&self, state: &State, pending: &Reservation) -> bool {
        let pages = u64::from(state.engine.owed_pages()) + u64::from(pending.missing());
        pages << PAGE_SHIFT <= self.lazy_limit
    }

    /// Makes free memory elsewhere leave before `pages` come by a touch, as far as the slack wants it
    /// so. May sleep.
    pub(super) fn reuse_for_touch(&self, pages: u32) {
        let state = self.lock();
        let target = state.engine.reuse_target(pages, state.promised);
        drop(state);
        if target > 0 {
            let mut promise = Promise { bytes: 0 };
            // A caller that is being killed takes what there is.
            let _ = self.vacate(target, &mut promise);
            self.forget(promise);
        }
    }

    /// Brings new pages for several reserved blocks at once, if nothing speaks against it: no
    /// limit, and no free memory that would better be used. What is missing afterwards is left to
    /// [`Arena::fill`]. May sleep.
    pub(super) fn fill_together(&self, blocks: &mut [Reservation], prealloc: &mut KernelPrealloc) {
        let missing = missing(blocks);
        if missing < 2 {
            return;
        }
        let bytes = u64::from(missing) << PAGE_SHIFT;
        let mut state = self.lock();
        if state.taken() + bytes > state.limit
            || state.engine.reuse_target(missing, state.promised) > 0
            || !self.shared_limit.take(bytes)
        {
            return;
        }
        state.promised += bytes;
        drop(state);
        // Why it failed shows where the rest is brought.
        let _ = self.bring(blocks, prealloc, Promise { bytes });
    }

    /// Makes at most `most` free pages elsewhere leave, and adds their room to a promise. Returns how
    /// many left. May sleep.
    fn vacate(&self, most: u32, promise: &mut Promise) -> Result<u32> {
        let mut aside = [const { None }; STUCK];
        let mut stuck = 0;
        let mut done = 0;
        let mut last = None;
        let mut result = Ok(());
        while done < most {
            if task::fatal_signal() {
                result = Err(EINTR);
                break;
            }
            let Some(isolated) = self.lock().engine.isolate(most - done) else {
                break;
            };
            let range = Some(isolated.range());
            if range == last {
                // Nothing left of it the last time.
                let Some(place) = aside.get_mut(stuck) else {
                    self.lock().engine.putback(isolated);
                    break;
                };
                *place = Some(isolated);
                stuck += 1;
                continue;
            }
            let left = self.drop_isolated(isolated, Room::Promised);
            promise.bytes += u64::from(left) << PAGE_SHIFT;
            done += left;
            last = range.filter(|_| left == 0);
            task::resched();
        }
        for isolated in aside.into_iter().flatten() {
            self.lock().engine.putback(isolated);
        }
        result.map(|()| done)
    }

    /// Brings new pages, for as much as was promised, in the largest folios that can be had.
    fn bring(
        &self,
        blocks: &mut [Reservation],
        prealloc: &mut KernelPrealloc,
        mut promise: Promise,
    ) -> Result {
        let mut result = Ok(());
        // None above the last one that could be had.
        let mut highest = self.address_space.max_order();
        let mut done = 0;
        while let Some(first) = blocks.get(done) {
            if first.missing() == 0 {
                done += 1;
                continue;
            }
            let rest = blocks.get_mut(done..).unwrap_or_default();
            result = match task::fatal_signal() {
                true => Err(EINTR),
                false => self.bring_folio(rest, prealloc, &mut promise, &mut highest),
            };
            if result.is_err() {
                break;
            }
            task::resched();
        }
        self.forget(promise);
        result
    }

    /// Brings a folio for the first of some blocks, which misses pages, and for those that follow in
    /// the address space. Lowers `highest` instead where there is none of that order.
    fn bring_folio(
        &self,
        blocks: &mut [Reservation],
        prealloc: &mut KernelPrealloc,
        promise: &mut Promise,
        highest: &mut u32,
    ) -> Result {
        let Some(page) = blocks.first().map(Reservation::next_page) else {
            return Ok(());
        };
        let natural = page.trailing_zeros().min(*highest);
        let (count, span) = span(blocks, 1 << natural);
        let blocks = blocks.get_mut(..count).unwrap_or_default();
        let span = span.min(promise.pages());
        let mut surplus = None;
        let mut order = natural;
        if span < 1 << natural {
            surplus = self.surplus(blocks, (1 << natural) - span, natural, prealloc)?;
            if surplus.is_none() {
                order = span.checked_ilog2().ok_or(ENOMEM)?;
            }
        }
        let pages = (1 << order) - surplus.as_ref().map_or(0, Surplus::pages);
        let mut result = self.ensure_backing(blocks, pages, prealloc);
        if result.is_ok() {
            result = self.memcg.charge(|| self.address_space.add(page, order));
        }
        if let Err(error) = result {
            self.release_surplus(surplus);
            if error != ENOMEM || order == 0 {
                return Err(error);
            }
            *highest = order - 1;
            return Ok(());
        }
        let mut state = self.lock();
        state.back(blocks, pages, promise);
        if let Some(surplus) = surplus {
            state.promised -= u64::from(surplus.pages()) << PAGE_SHIFT;
            state.engine.back_surplus(surplus);
        }
        Ok(())
    }

    /// Makes sure that the engine has room for what is known of the next pages of blocks.
    pub(super) fn ensure_backing(
        &self,
        blocks: &[Reservation],
        pages: u32,
        prealloc: &mut KernelPrealloc,
    ) -> Result {
        loop {
            let mut state = self.lock();
            let mut left = pages;
            let result = blocks.iter().try_for_each(|block| -> Result<(), Metadata> {
                let some = left.min(block.missing());
                left -= some;
                state.engine.ensure_backing(block, some, prealloc)
            });
            drop(state);
            match result {
                Ok(()) => return Ok(()),
                Err(metadata) => self.make(metadata, prealloc)?,
            }
        }
    }

    /// Claims `pages` pages behind blocks that get their memory with that of these, so that they are a
    /// huge page's; `None` where that would be more than the slack allows, near a limit, while a
    /// request waits for memory, or where something lies there. Their room is promised.
    fn surplus(
        &self,
        blocks: &[Reservation],
        pages: u32,
        order: u32,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Option<Surplus>> {
        let Some(last) = blocks.last() else {
            return Ok(None);
        };
        if order == 0 || order < self.address_space.max_order() {
            return Ok(None);
        }
        let bytes = u64::from(pages) << PAGE_SHIFT;
        loop {
            let mut state = self.lock();
            let after = state.taken() + bytes;
            let shared = self.shared_limit.bytes() / LIMIT_PART;
            if state.waiters.count() > 0
                || !state.engine.admits_surplus(pages, state.promised)
                || after > state.limit - state.limit / LIMIT_PART
                || self.shared_limit.headroom() < bytes.saturating_add(shared)
            {
                return Ok(None);
            }
            match state.engine.claim_surplus(last, pages, prealloc) {
                Ok(Some(surplus)) if self.shared_limit.take(bytes) => {
                    state.promised += bytes;
                    return Ok(Some(surplus));
                }
                Ok(surplus) => {
                    let mut garbage = KernelGarbage::default();
                    if let Some(surplus) = surplus {
                        state.engine.release_surplus(surplus, &mut garbage);
                    }
                    drop(state);
                    drop(garbage);
                    return Ok(None);
                }
                Err(metadata) => {
                    drop(state);
                    self.make(metadata, prealloc)?;
                }
            }
        }
    }

    /// A surplus gets no memory.
    fn release_surplus(&self, surplus: Option<Surplus>) {
        let Some(surplus) = surplus else {
            return;
        };
        let bytes = u64::from(surplus.pages()) << PAGE_SHIFT;
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut state = self.lock();
        state.promised -= bytes;
        state.engine.release_surplus(surplus, &mut garbage);
        drop(state);
        self.shared_limit.give(bytes);
    }

    /// Brings a block that is one folio.
    fn bring_contiguous(
        &self,
        pending: &mut Reservation,
        prealloc: &mut KernelPrealloc,
        mut promise: Promise,
    ) -> Result {
        let pages = pending.missing();
        let order = pages.checked_ilog2().unwrap_or(0);
        let mut result = self.ensure_backing(from_mut(pending), pages, prealloc);
        if result.is_ok() {
            let page = pending.next_page();
            result = self.memcg.charge(|| self.address_space.add(page, order));
        }
        if result.is_ok() {
            let mut state = self.lock();
            state.engine.back(pending, pages);
            state.promised -= promise.bytes;
            promise.bytes = 0;
        }
        self.forget(promise);
        result
    }

    /// Makes room under the limits where there is free memory that stands in the way: the arena's own,
    /// for a request that has no use for it, or that of others. Returns whether there is some more. May
    /// sleep.
    fn make_room(&self, short: Short, pending: &Reservation, request: &Request) -> bool {
        if short == Short::Memory || task::fatal_signal() {
            return false;
        }
        // What somebody waits for is not to be given up.
        if request.policy == Policy::Contiguous && self.waiters() == 0 {
            let missing = pending.missing().into();
            if self.give_up(missing, 0) > 0 {
                return true;
            }
        }
        let Short::Shared(pages) = short else {
            return false;
        };
        self.take_from_others(pages)
    }

    /// Makes other arenas give up `pages` free pages, if they have so many. Returns whether some went.
    /// May sleep.
    pub(super) fn take_from_others(&self, pages: u64) -> bool {
        // Before the look, so that nothing is missed after it.
        self.shared_limit.refuse(self.id);
        // Nothing is taken in vain.
        shrinker::reclaimable_of_others(self) >= pages
            && shrinker::reclaim_from_others(self, pages) > 0
    }

    /// Decides how many of the pages that a block misses are to be new, and reserves room for them
    /// under both limits: all, as far as they allow it, unless it is to `reuse` free memory.
    fn promise(&self, pending: &Reservation, grow: bool, reuse: bool) -> Result<Promise, Short> {
        let missing = pending.missing();
        let mut state = self.lock();
        let free = if pending.is_movable() {
            state.engine.free_pages()
        } else {
            0
        };
        let least = missing.saturating_sub(free);
        if !grow {
            return if least == 0 {
                Ok(Promise { bytes: 0 })
            } else {
                Err(Short::Memory)
            };
        }
        let headroom = state.limit.saturating_sub(state.taken()) >> PAGE_SHIFT;
        let headroom = headroom.min(u64::from(missing)) as u32;
        if least > headroom {
            return Err(Short::Own);
        }
        let wanted = match reuse {
            true => missing - state.engine.reuse_target(missing, state.promised),
            false => missing,
        };
        // Nothing is taken in vain, not even for a moment: somebody else might be refused for it.
        for pages in [wanted.clamp(least, headroom), least] {
            let bytes = u64::from(pages) << PAGE_SHIFT;
            if self.shared_limit.take(bytes) {
                state.promised += bytes;
                return Ok(Promise { bytes });
            }
        }
        let beyond = u64::from(least).saturating_sub(self.shared_limit.headroom() >> PAGE_SHIFT);
        Err(Short::Shared(beyond.max(1)))
    }

    /// Gives back what is left of a promise.
    pub(super) fn forget(&self, promise: Promise) {
        if promise.bytes > 0 {
            let mut state = self.lock();
            state.promised -= promise.bytes;
            self.wake(&mut state);
            drop(state);
            self.shared_limit.give(promise.bytes);
        }
    }
}

impl State {
    /// Notes that the next `pages` that some blocks miss, side by side, have their memory: they take up
    /// their part of the promise.
    pub(super) fn back(&mut self, blocks: &mut [Reservation], pages: u32, promise: &mut Promise) {
        let mut left = pages;
        for block in blocks {
            let some = left.min(block.missing());
            self.engine.back(block, some);
            left -= some;
        }
        self.take_up(pages, promise);
    }

    /// Takes up the part of a promise that is for so many pages.
    pub(super) fn take_up(&mut self, pages: u32, promise: &mut Promise) {
        let bytes = u64::from(pages) << PAGE_SHIFT;
        self.promised -= bytes;
        promise.bytes -= bytes;
    }
}

/// How many of some blocks lie side by side with nothing but missing pages from the next one of the
/// first on, until `most` pages are missing, and how many pages are.
pub(super) fn span(blocks: &[Reservation], most: u32) -> (usize, u32) {
    let mut count = 0;
    let mut pages = 0;
    let mut next = None;
    for block in blocks {
        let follows = next.is_none_or(|next| block.next_page() == next);
        if !follows || pages >= most || block.missing() == 0 {
            break;
        }
        count += 1;
        pages += block.missing();
        next = Some(block.end_page());
    }
    (count, pages)
}
