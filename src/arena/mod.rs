// SPDX-License-Identifier: GPL-2.0

//! One arena: what is behind one open file.
//!
//! # Locks
//!
//! In the order in which they are taken:
//!
//! 1. `mmap_lock` or a VMA's lock, of the kernel, around a page fault;
//! 2. an arena's `space`: shared by a fault, from its lookup until the page is mapped; exclusively
//!    for a moment, after pages were put out of reach and before they are unmapped;
//! 3. the registry's mutex, around the list of arenas;
//! 4. an arena's `state`, a spin lock: its engine and what goes with it.
//!
//! Under `state` no user memory is touched, nothing is allocated and nothing sleeps: the engine says
//! what it lacks, the lock is dropped, it is made, the engine is called again. Nobody takes two of
//! these locks of one kind at once.
//!
//! # States of a block
//!
//! | state | comes by | goes by |
//! | --- | --- | --- |
//! | free | the beginning; `cancel`; `free` | `reserve` |
//! | reserved | `reserve` | `prepared`, then `commit`; or `cancel` |
//! | live | `commit`, when the caller has the answer | `free` |
//!
//! Nobody but the call that reserved it can touch a reserved block: a release at its offset finds
//! nothing live there, a page fault no page.

#![deny(unsafe_code)]

pub(crate) mod bounds;
mod bulk;
pub(crate) mod counters;
mod grow;
mod header;
pub(crate) mod opener;
mod populate;
mod prepare;
mod reclaim;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod shared_limit;
pub(crate) mod wait;

use reclaim::Patience;

use crate::{
    arena::{
        counters::{
            Classes,
            Events,
            Snapshot, //
        },
        opener::Owner,
        shared_limit::Limit, //
    },
    engine::{
        Engine,
        Extent,
        FreeError,
        Pending,
        Refusal,
        Request,
        Ticket,
        Unfinished,
        BATCH,
        MAX_PAGES,
        MAX_SHIFT,
        QUICK_LISTS,
        ROOT_LEN, //
    },
    ffi::{
        errno::edquot,
        nospec,
        poll_queue::PollQueue,
        race_point::Window,
        random,
        task, //
    },
    mm::{
        address_space::{
            Found,
            Space, //
        },
        backend::{
            make,
            metadata_bytes,
            table,
            KernelChunk,
            KernelEngine,
            KernelKit,
            KernelPart, //
        },
        contiguous::Adjacent,
        memcg::Account, //
    },
};
use core::ops::Range;
use kernel::{
    new_spinlock,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc,
        SpinLock, //
    },
};
use request::Want;

/// Offsets of a new arena, in bytes.
const SPAN_BYTES: u64 = 64 << 30;

/// What the arena's lock protects.
struct State {
    engine: KernelEngine,
    /// The most bytes of pages that it may hold.
    limit: u64,
    /// Bytes of pages that are being brought, beyond those held.
    promised: u64,
    waiters: wait::Line,
    /// The smallest request that was refused, of those since `poll` last said that one could be
    /// served.
    refused: Option<Request>,
    events: Events,
}

/// What is behind one open of the device.
#[pin_data]
pub(crate) struct Arena {
    id: u64,
    /// The limit that everybody may set, in bytes; above it only the administrator.
    default_limit: u64,
    /// That of all arenas together.
    shared_limit: Arc<Limit>,
    owner: Owner,
    /// The owner's.
    account: Account,
    space: Space,
    poll: PollQueue,
    /// Where page number 0 was mapped last, in whatever process.
    base: Atomic<usize>,
    /// What headers are mixed with.
    secret: [u64; 2],
    #[pin]
    state: SpinLock<State>,
}

impl Arena {
    /// An empty arena, on the caller's account, that may hold `limit` bytes of pages, and of those
    /// of all arenas together what is left.
    pub(crate) fn new(id: u64, limit: u64, shared_limit: Arc<Limit>) -> Result<Arc<Self>> {
        let root = table::<Option<KernelPart>>(ROOT_LEN)?;
        let quick = table(QUICK_LISTS)?;
        let space = Space::new()?;
        let poll = PollQueue::new()?;
        Arc::pin_init(
            pin_init!(Self {
                id,
                default_limit: limit,
                shared_limit,
                owner: Owner::of_caller(),
                account: Account::of_caller(),
                space,
                poll,
                base: Atomic::new(0),
                secret: [random::random(), random::random()],
                state <- new_spinlock!(
                    State {
                        engine: Engine::new((SPAN_BYTES >> PAGE_SHIFT) as u32, root, quick),
                        limit,
                        promised: 0,
                        waiters: wait::Line::new(),
                        refused: None,
                        events: Events::default(),
                    },
                    "freelist_arena"
                ),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Its number; no two that ever lived have the same.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Who opened it.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Who polls it, and who polls any arena of the limit that they share: memory that another one
    /// gives up is of use too.
    pub(crate) fn polls(&self) -> [&PollQueue; 2] {
        [&self.poll, self.shared_limit.poll()]
    }

    /// Where it is mapped.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// Gives one block to a caller as it is wanted, who has it when `answer` (its offset, its bytes)
    /// has told so. If that fails nothing has happened. May sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the size is 0 |
    /// | `E2BIG` | the size is over the largest block, or more than pages can lie side by side |
    /// | `ENOMEM` | the request may not do more, or memory is short |
    /// | `EDQUOT` | it would have to grow, and a limit forbids it |
    /// | `ENOSPC` | no address space is left |
    /// | `EINTR` | the caller is being killed |
    /// | `EAGAIN` | it would have to wait, and may not |
    /// | `ETIMEDOUT` | it has waited for nothing |
    /// | `ERESTARTSYS` | a signal came |
    pub(crate) fn alloc(&self, want: &Want, answer: impl FnOnce(u64, u64) -> Result) -> Result {
        if let Some(pending) = self.at_hand(want) {
            return self.give_out(pending, want, answer);
        }
        let pending = self.obtain(want, &mut KernelKit::default())?;
        self.give_out(pending, want, answer)
    }

    /// Tells a caller of a block that is as it is wanted, and makes it live.
    #[inline(always)]
    fn give_out(
        &self,
        pending: Pending,
        want: &Want,
        answer: impl FnOnce(u64, u64) -> Result,
    ) -> Result {
        Window::Answer.open();
        let result = answer(pending.offset(), pending.block_bytes());
        if result.is_err() {
            self.cancel(pending, &mut KernelKit::default());
            return result;
        }
        let extent = pending.extent();
        self.state.lock().engine.commit(pending);
        if want.populate {
            self.populate([extent]);
        }
        Ok(())
    }

    /// Reserves a block that is as it is wanted already, and that nobody waits for.
    #[inline(always)]
    fn at_hand(&self, want: &Want) -> Option<Pending> {
        self.for_at_hand(want, |engine| engine.reserve_at_hand(want.request.size))
    }

    /// Lets `reserve` look for what is at hand, if that will do, and nobody waits for it.
    #[inline(always)]
    fn for_at_hand<T>(
        &self,
        want: &Want,
        reserve: impl FnOnce(&mut KernelEngine) -> Option<T>,
    ) -> Option<T> {
        if !want.takes_as_it_is() {
            return None;
        }
        let mut state = self.state.lock();
        if state.waiters.count() > 0 || state.admit(want).is_err() {
            return None;
        }
        reserve(&mut state.engine)
    }

    /// Reserves a block, for a waiter as far as it is its turn.
    fn reserve(&self, want: &Want, ticket: Option<Ticket>, kit: &mut KernelKit) -> Result<Pending> {
        let mut trimmed = false;
        loop {
            let mut state = self.state.lock();
            state.admit(want)?;
            let request = state.admitted(&want.request, want.wait.is_some(), ticket);
            let result = state.engine.reserve(&request, kit);
            drop(state);
            match result {
                Err(Refusal::Need(metadata)) => {
                    self.account.charge(|| make(metadata, kit))?;
                }
                // Free memory keeps address space apart: without it, all of that merges.
                Err(Refusal::NoSpace) if request.grow && !request.modest && !trimmed => {
                    trimmed = true;
                    if self.give_up(u64::MAX, 0, Patience::Wait) == 0 {
                        return Err(ENOSPC);
                    }
                }
                result => return Ok(result?),
            }
        }
    }

    /// Undoes a reservation: the pages that it brought leave, in batches. May sleep.
    fn cancel(&self, pending: Pending, kit: &mut KernelKit) {
        let mut rest = Some(pending);
        while let Some(pending) = rest {
            let mut leaving = [const { None }; BATCH as usize];
            let mut places = leaving.iter_mut();
            let mut out = |page| {
                if let Some(place) = places.next() {
                    *place = Some(page);
                }
            };
            // A chunk that is given back takes the place of none.
            kit.chunk = None;
            rest = self.state.lock().engine.cancel(pending, kit, &mut out);
            let pages = leaving.iter().flatten().count() as u64;
            drop(leaving);
            self.shared_limit.give(pages << PAGE_SHIFT);
            task::resched();
        }
        self.call_unlocked();
    }

    /// Gives free pages back to the system until at most `keep` bytes of them are held. Gives the
    /// bytes that went. May sleep.
    pub(crate) fn trim(&self, keep: u64) -> u64 {
        let keep = (keep >> PAGE_SHIFT).min(u64::from(u32::MAX)) as u32;
        self.trim_pages(u64::MAX, keep) << PAGE_SHIFT
    }

    /// Gives at most `most` free pages back, down to `keep` of them. Gives how many. May sleep.
    fn trim_pages(&self, most: u64, keep: u32) -> u64 {
        let pages = self.give_up(most, keep, Patience::Wait);
        self.state.lock().events.trims += pages;
        pages
    }

    /// What lies where in it, at one moment. `ENOMEM` when memory is short. May sleep.
    pub(crate) fn map(&self) -> Result<KVVec<Extent>> {
        let mut len = self.map_len();
        loop {
            // In the meantime there may be some more.
            let room = len + len / 8 + 8;
            let mut map = KVVec::with_capacity(room, GFP_KERNEL)?;
            len = 0;
            self.state.lock().engine.map(|extent| {
                len += 1;
                // What has no room is counted only.
                let _ = map.push_within_capacity(extent);
            });
            if len <= room {
                return Ok(map);
            }
        }
    }

    /// How long that would be.
    pub(crate) fn map_len(&self) -> usize {
        let mut len = 0;
        self.state.lock().engine.map(|_| len += 1);
        len
    }

    /// Takes the live block at `offset` back.
    ///
    /// `EINVAL` when the offset cannot be one, is beyond the arena or inside a live block,
    /// `ENOENT` when nothing live is there, `EUCLEAN` when its header was overwritten: then the block
    /// is released all the same.
    pub(crate) fn free(&self, offset: u64) -> Result {
        let mut state = self.state.lock();
        let Some(rest) = state.free(offset)? else {
            self.call(&mut state);
            return Ok(());
        };
        drop(state);
        self.finish_free(rest)
    }

    /// Does what is left of a release.
    #[inline(never)]
    fn finish_free(&self, rest: Unfinished) -> Result {
        // What comes back in the kit is dropped after the unlock.
        let mut kit = KernelKit::default();
        match rest {
            Unfinished::Headed(taken) => self.retire(taken, &mut kit),
            Unfinished::Loose(loose) => {
                let mut state = self.state.lock();
                state.engine.merge(loose, &mut kit);
                self.call(&mut state);
                Ok(())
            }
        }
    }

    /// Finds pages that can be mapped: those of `window` that the live block has in which page
    /// number `index` lies, as many as there is room for in `found`, which is empty. Gives the number
    /// of the first. Whoever maps them holds the space.
    pub(crate) fn live_pages(
        &self,
        index: u64,
        window: Range<u64>,
        found: &mut Found<'_>,
    ) -> Option<u64> {
        let index = nospec::index_nospec(index, MAX_PAGES)?;
        let state = self.state.lock();
        let extent = state.engine.live_extent(index)?;
        let first = window.start.max(extent.start.into()) as u32;
        let end = window.end.min(extent.end.into()) as u32;
        let most = end.saturating_sub(first).min(BATCH);
        let mut count = 0;
        while count < most {
            let before = count;
            for page in state.engine.pages(first + count, most - count) {
                found.push(page);
                count += 1;
            }
            // A live block has all of its pages.
            if count == before {
                return None;
            }
        }
        Some(first.into())
    }

    /// The page behind page number `index`, with a reference, if a live block lies in it.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn live_page(&self, index: u64) -> Option<crate::mm::page::Page> {
        let index = nospec::index_nospec(index, MAX_PAGES)?;
        let state = self.state.lock();
        state.engine.live_extent(index)?;
        state.engine.page(index).cloned()
    }

    /// Counts a call that was refused.
    pub(crate) fn count_failure(&self, error: Error) {
        self.state.lock().events.failures.count(error);
    }

    /// All of its counters, of one moment. Gives how many wait at that.
    pub(crate) fn snapshot(&self, snapshot: &mut Snapshot) -> u32 {
        let state = self.state.lock();
        let counters = state.engine.counters();
        let metadata = size_of::<Self>() as u64 + metadata_bytes(&counters);
        snapshot.add(&counters, metadata, state.limit, &state.events);
        state.waiters.count()
    }

    /// The same by size class, added to what is in `classes`.
    pub(crate) fn add_classes(&self, classes: &mut Classes) {
        let state = self.state.lock();
        classes.add(|shift| state.engine.class(shift));
    }

    /// Proves the engine's invariants. Slow.
    #[cfg_attr(
        not(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y")),
        expect(dead_code)
    )]
    pub(crate) fn check(&self) -> Result<(), crate::engine::Violation> {
        self.state.lock().engine.check()
    }

    /// Ends the arena: all of its pages leave, but those that somebody else still refers to. No
    /// other call comes after this one. May sleep.
    pub(crate) fn end(&self) {
        let held = self.state.lock().engine.held_bytes();
        loop {
            let chunk: Option<KernelChunk> = self.state.lock().engine.dismantle();
            if chunk.is_none() {
                break;
            }
            drop(chunk);
            task::resched();
        }
        self.shared_limit.give(held);
    }
}

impl State {
    /// Refuses what can never be had: `E2BIG` when it is more than pages can lie side by side,
    /// `EDQUOT` when it is more than the arena may hold.
    #[inline]
    fn admit(&self, want: &Want) -> Result {
        let request = &want.request;
        let bytes = request.bytes();
        if request.fresh && bytes > u64::from(Adjacent::most()) << PAGE_SHIFT {
            return Err(E2BIG);
        }
        let more = request.grow || want.wait.is_some();
        if more && bytes > self.limit && bytes <= 1 << MAX_SHIFT {
            return Err(edquot());
        }
        Ok(())
    }

    /// Takes the live block at `offset` back, as far as the engine does at once.
    #[inline(always)]
    fn free(&mut self, offset: u64) -> Result<Option<Unfinished>> {
        Ok(self.engine.free(offset_nospec(offset).ok_or(EINVAL)?)?)
    }
}

/// `offset` where it is below the end of the largest arena, else `None`; so under speculation too.
fn offset_nospec(offset: u64) -> Option<u64> {
    let page = nospec::index_nospec(offset >> PAGE_SHIFT, MAX_PAGES)?;
    Some((u64::from(page) << PAGE_SHIFT) | (offset & (PAGE_SIZE as u64 - 1)))
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Zero => EINVAL,
            Refusal::TooBig => E2BIG,
            Refusal::Empty | Refusal::Need(_) => ENOMEM,
            Refusal::NoSpace => ENOSPC,
        }
    }
}

impl From<FreeError> for Error {
    fn from(error: FreeError) -> Self {
        match error {
            FreeError::Misaligned | FreeError::Beyond | FreeError::Inside => EINVAL,
            FreeError::NotLive => ENOENT,
        }
    }
}
