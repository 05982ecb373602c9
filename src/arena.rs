// SPDX-License-Identifier: GPL-2.0

//! One arena: what is behind one open file.
//!
//! # Locks
//!
//! In the order in which they are taken:
//!
//! 1. `mmap_lock` or a VMA's lock, of the kernel, around a page fault;
//! 2. the registry's mutex, around the list of arenas;
//! 3. an arena's `state`, a spin lock: its engine and what goes with it.
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
//! | reserved | `reserve` | `fill`, then `commit`; or `cancel` |
//! | live | `commit`, when the caller has the answer | `free` |
//!
//! Nobody but the call that reserved it can touch a reserved block: a release at its offset finds
//! nothing live there, a page fault no page.

use crate::{
    engine::{
        Counters,
        Engine,
        Entry,
        FreeError,
        Kit,
        Memory,
        Metadata,
        Pending,
        Record,
        Refusal,
        Request,
        Tree,
        Violation,
        BATCH,
        CHUNK_PAGES,
        MAX_SHIFT,
        PART_LEN,
        ROOT_LEN, //
    },
    ffi,
    page::{
        Page,
        Supply, //
    },
    registry::Registry,
    stats::{
        Failures,
        Snapshot, //
    },
};
use kernel::{
    new_spinlock,
    page::{
        page_align,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
};

/// Pages and metadata of the kernel. All of it is charged to the memory cgroup.
pub(crate) struct Kernel;

impl Memory for Kernel {
    type Page = Page;
    type Box<T> = KBox<T>;
    type Slice<T> = VVec<T>;
}

const PAGE_KIB: usize = PAGE_SIZE / 1024;

type KernelEngine = Engine<Kernel, PAGE_KIB>;
type KernelKit = Kit<Kernel, PAGE_KIB>;
type KernelPart = VVec<Entry<Kernel, PAGE_KIB>>;
type KernelChunk = VVec<Record<Kernel, PAGE_KIB>>;

/// Offsets of an arena, in bytes.
pub(crate) const ARENA_BYTES: u64 = 64 << 30;
/// The same in pages.
const ARENA_PAGES: u32 = (ARENA_BYTES >> PAGE_SHIFT) as u32;

/// A table of `len` default values, built in place.
fn table<T: Default>(len: usize) -> Result<VVec<T>> {
    let mut table = VVec::with_capacity(len, GFP_KERNEL_ACCOUNT)?;
    for _ in 0..len {
        table.push(T::default(), GFP_KERNEL_ACCOUNT)?;
    }
    Ok(table)
}

/// Makes what the engine lacks. May sleep.
fn make(metadata: Metadata, kit: &mut KernelKit) -> Result {
    match metadata {
        Metadata::Part => kit.part = Some(table(PART_LEN)?),
        Metadata::Chunk => kit.chunk = Some(table(CHUNK_PAGES)?),
        Metadata::Tree => {
            kit.tree = Some(KBox::new(Tree::<PAGE_KIB>::default(), GFP_KERNEL_ACCOUNT)?)
        }
    }
    Ok(())
}

/// Bytes of a table of `len` values of `T`: whole pages.
const fn table_bytes<T>(len: usize) -> u64 {
    match page_align(len * size_of::<T>()) {
        Some(bytes) => bytes as u64,
        None => 0,
    }
}

/// Bytes of kernel memory behind an arena that has made so much.
fn metadata_bytes(counters: &Counters) -> u64 {
    size_of::<Arena>() as u64
        + table_bytes::<Option<KernelPart>>(ROOT_LEN)
        + counters.parts * table_bytes::<Entry<Kernel, PAGE_KIB>>(PART_LEN)
        + counters.chunks * table_bytes::<Record<Kernel, PAGE_KIB>>(CHUNK_PAGES)
        + counters.trees * size_of::<Tree<PAGE_KIB>>() as u64
}

/// What the arena's lock protects.
struct State {
    engine: KernelEngine,
    /// Bytes of pages that are being brought, beyond those held.
    promised: u64,
    failures: Failures,
}

/// What is behind one open of the device.
#[pin_data]
pub(crate) struct Arena {
    id: u64,
    /// The most bytes of pages that it may hold.
    limit: u64,
    registry: Arc<Registry>,
    #[pin]
    state: SpinLock<State>,
}

impl Arena {
    /// An empty arena.
    pub(crate) fn new(id: u64, registry: Arc<Registry>) -> Result<Arc<Self>> {
        let root = table::<Option<KernelPart>>(ROOT_LEN)?;
        Arc::pin_init(
            pin_init!(Self {
                id,
                limit: registry.limit().bytes(),
                registry,
                state <- new_spinlock!(
                    State {
                        engine: Engine::new(ARENA_PAGES, root),
                        promised: 0,
                        failures: Failures::default(),
                    },
                    "freelist_arena"
                ),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// All arenas, of which it is one.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its number; no two that ever lived have the same.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The most bytes of pages that it may hold.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Gives one block to a caller, who has it when `answer` (its offset, its bytes) has told so.
    /// If that fails nothing has happened. May sleep.
    ///
    /// | error | when |
    /// | --- | --- |
    /// | `EINVAL` | the size is 0 |
    /// | `E2BIG` | the size is over the largest block |
    /// | `ENOMEM` | the request may not do more, or memory is short |
    /// | `EDQUOT` | it would have to grow, and a limit forbids it |
    /// | `ENOSPC` | no address space is left |
    /// | `EINTR` | the caller is being killed |
    pub(crate) fn alloc(
        &self,
        request: &Request,
        answer: impl FnOnce(u64, u64) -> Result,
    ) -> Result {
        if request.grow && request.size > self.limit && request.size <= 1 << MAX_SHIFT {
            return Err(EDQUOT);
        }
        let mut kit = KernelKit::default();
        let mut pending = self.reserve(request, &mut kit)?;
        let result = self
            .fill(&mut pending, &mut kit)
            .and_then(|()| answer(pending.offset(), pending.block_bytes()));
        match result {
            Ok(()) => self.state.lock().engine.commit(pending),
            Err(_) => self.cancel(pending, &mut kit),
        }
        result
    }

    fn reserve(&self, request: &Request, kit: &mut KernelKit) -> Result<Pending> {
        loop {
            // The guard goes at the end of this statement.
            let result = self.state.lock().engine.reserve(request, kit);
            match result {
                Err(Refusal::Need(metadata)) => make(metadata, kit)?,
                result => return Ok(result?),
            }
        }
    }

    /// Brings the pages that a reserved block lacks, in batches, without the lock in between.
    fn fill(&self, pending: &mut Pending, kit: &mut KernelKit) -> Result {
        if pending.missing() == 0 {
            return Ok(());
        }
        let mut promise = self.promise(pending.missing())?;
        let result = self.bring(pending, kit, &mut promise);
        self.forget(promise);
        result
    }

    fn bring(
        &self,
        pending: &mut Pending,
        kit: &mut KernelKit,
        promise: &mut Promise,
    ) -> Result {
        let mut supply = Supply::new();
        while pending.missing() > 0 {
            if supply.is_empty() {
                if ffi::fatal_signal() {
                    return Err(EINTR);
                }
                supply.fill(pending.missing().min(BATCH))?;
                ffi::resched();
            }
            let before = pending.missing();
            let mut state = self.state.lock();
            let result = state.engine.back(pending, &mut supply, kit);
            let came = u64::from(before - pending.missing()) << PAGE_SHIFT;
            state.promised -= came;
            promise.bytes -= came;
            drop(state);
            if let Err(metadata) = result {
                make(metadata, kit)?;
            }
        }
        Ok(())
    }

    /// Reserves room for `pages` pages under both limits.
    fn promise(&self, pages: u32) -> Result<Promise> {
        let bytes = u64::from(pages) << PAGE_SHIFT;
        if !self.registry.limit().take(bytes) {
            return Err(EDQUOT);
        }
        let mut state = self.state.lock();
        let held = state.engine.counters().held_bytes + state.promised;
        let fits = held + bytes <= self.limit;
        if fits {
            state.promised += bytes;
        }
        drop(state);
        if fits {
            return Ok(Promise { bytes });
        }
        self.registry.limit().give(bytes);
        Err(EDQUOT)
    }

    /// Gives back what is left of a promise.
    fn forget(&self, promise: Promise) {
        if promise.bytes > 0 {
            self.state.lock().promised -= promise.bytes;
            self.registry.limit().give(promise.bytes);
        }
    }

    /// Undoes a reservation: the pages that it brought leave, in batches.
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
            rest = self.state.lock().engine.cancel(pending, kit, &mut out);
            let pages = leaving.iter().flatten().count() as u64;
            self.registry.limit().give(pages << PAGE_SHIFT);
        }
    }

    /// Takes the live block at `offset` back.
    ///
    /// `EINVAL` when the offset cannot be one, is beyond the arena or inside a live block,
    /// `ENOENT` when nothing live is there.
    pub(crate) fn free(&self, offset: u64) -> Result {
        // What comes back in the kit is dropped after the unlock.
        let mut kit = KernelKit::default();
        let result = self.state.lock().engine.free(offset, &mut kit);
        Ok(result?)
    }

    /// The page behind page number `index`, with a reference, if a live block lies in it.
    pub(crate) fn live_page(&self, index: u64) -> Option<Page> {
        let index = ffi::index_nospec(index, ARENA_PAGES)?;
        self.state.lock().engine.live_page(index).cloned()
    }

    /// Counts a call that was refused.
    pub(crate) fn count_failure(&self, error: Error) {
        self.state.lock().failures.count(error);
    }

    /// All of its counters, of one moment.
    pub(crate) fn snapshot(&self, snapshot: &mut Snapshot) {
        let state = self.state.lock();
        let counters = state.engine.counters();
        snapshot.add(&counters, metadata_bytes(&counters), &state.failures);
    }

    /// The same by size class, added to what is in `classes`.
    pub(crate) fn add_classes(&self, classes: &mut crate::stats::Classes) {
        let state = self.state.lock();
        classes.add(|shift| state.engine.class(shift));
    }

    /// Proves the engine's invariants. Slow.
    #[cfg_attr(not(CONFIG_KUNIT), expect(dead_code))]
    pub(crate) fn check(&self) -> Result<(), Violation> {
        self.state.lock().engine.check()
    }

    /// Ends the arena: all of its pages leave, but those that somebody else still refers to. No
    /// other call comes after this one. May sleep.
    pub(crate) fn end(&self) {
        let held = self.state.lock().engine.counters().held_bytes;
        self.registry.limit().give(held);
        loop {
            let chunk: Option<KernelChunk> = self.state.lock().engine.dismantle();
            if chunk.is_none() {
                break;
            }
            drop(chunk);
            ffi::resched();
        }
    }
}

/// Room under the limits for pages that are being brought. To be given to [`Arena::forget`].
#[must_use]
struct Promise {
    bytes: u64,
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
