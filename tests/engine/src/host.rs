// SPDX-License-Identifier: GPL-2.0

//! What the engine needs around it, on the host: an arena without locks, whose pages are counted
//! and whose every step can be checked.

use crate::engine::{
    Backend, Batch, Counters, Engine, Entry, FreeError, Isolated, Kit, Metadata, Pending, Record,
    Refusal, Request, Unfinished, CHUNK_PAGES, PART_LEN, QUICK_LISTS, ROOT_LEN,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

/// Pages and metadata of the host.
pub struct Host;

impl Backend for Host {
    type Page = Page;
    type Box<T> = Box<T>;
    type Slice<T> = Box<[T]>;
}

/// A page that counts itself: what is never dropped is a leak, and seen as one.
pub struct Page {
    /// Which page it is; no two have the same.
    pub id: u64,
    /// Its bytes that were in live blocks: they may be old.
    used: RefCell<Vec<Range<usize>>>,
    alive: Rc<Cell<u64>>,
}

impl Page {
    /// Some of its bytes are in a live block from now on. Says whether any was before.
    fn take_into_use(&self, bytes: Range<usize>) -> bool {
        let mut all = self.used.borrow_mut();
        let covers = |used: &Range<usize>| used.start <= bytes.start && bytes.end <= used.end;
        let used = all
            .iter()
            .any(|used| used.start < bytes.end && bytes.start < used.end);
        if !all.iter().any(covers) {
            all.push(bytes);
        }
        used
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

/// `len` default values.
pub fn slice<T: Default>(len: usize) -> Box<[T]> {
    (0..len).map(|_| T::default()).collect()
}

/// A request for `size` bytes with `FREELIST_DEFAULT`.
pub fn request(size: u64) -> Request {
    Request {
        size,
        larger: true,
        grow: true,
        ..Request::default()
    }
}

/// Runs a generic test, of the module `generic`, at 4, 16 and 64 KiB pages.
#[macro_export]
macro_rules! at_every_page_size {
    ($name:ident) => {
        generic::$name::<4>();
        generic::$name::<16>();
        generic::$name::<64>();
    };
}

/// An engine with its surroundings.
pub struct Arena<const KIB: usize> {
    /// The engine itself.
    pub engine: Engine<Host, KIB>,
    /// Metadata that is left over from earlier calls.
    pub kit: Kit<Host, KIB>,
    /// The page numbers that have memory, as the surroundings know them.
    pub backed: BTreeSet<u32>,
    alive: Rc<Cell<u64>>,
    next_id: u64,
    /// Pages that the engine may hold.
    pub limit: u32,
    /// Pages that were moved to other blocks.
    pub moved: u64,
    /// Whether [`Engine::check`] is called after every step.
    pub checked: bool,
}

impl<const KIB: usize> Arena<KIB> {
    /// Bytes of a page.
    pub const PAGE: u64 = KIB as u64 * 1024;

    /// An empty arena of `span` pages of address space.
    pub fn new(span: u32) -> Self {
        Self {
            engine: Engine::new(span, slice(ROOT_LEN), slice(QUICK_LISTS)),
            kit: Kit::default(),
            backed: BTreeSet::new(),
            alive: Rc::default(),
            next_id: 0,
            limit: u32::MAX,
            moved: 0,
            checked: true,
        }
    }

    /// Pages that exist at all, in the engine or lost.
    pub fn pages_alive(&self) -> u64 {
        self.alive.get()
    }

    /// The engine's counters.
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// Proves the invariants, with what only the surroundings know.
    ///
    /// # Panics
    ///
    /// When one does not hold.
    pub fn check(&self) {
        if let Err(violation) = self.engine.check() {
            panic!("{violation}");
        }
        let held = self.counters().held_bytes;
        assert_eq!(held, self.engine.held_bytes());
        assert_eq!(held, self.alive.get() * Self::PAGE, "a page was lost");
        assert_eq!(held, self.backed.len() as u64 * Self::PAGE);
    }

    fn step(&self) {
        if self.checked {
            self.check();
        }
    }

    fn make(&mut self, metadata: Metadata) {
        match metadata {
            Metadata::Part => self.kit.part = Some(slice::<Entry<Host, KIB>>(PART_LEN)),
            Metadata::Chunk => self.kit.chunk = Some(slice::<Record<Host, KIB>>(CHUNK_PAGES)),
            Metadata::Tree => self.kit.tree = Some(Box::default()),
        }
    }

    /// Reserves a block, with the metadata that it takes.
    pub fn reserve(&mut self, request: Request) -> Result<Pending, Refusal> {
        // Part, chunk and tree are the most that one call can lack.
        for _ in 0..=3 {
            let result = self.engine.reserve(&request, &mut self.kit);
            self.step();
            match result {
                Err(Refusal::Need(metadata)) => self.make(metadata),
                result => return result,
            }
        }
        panic!("the engine asks for metadata again and again");
    }

    /// Brings at most `most` new pages to a reserved block.
    pub fn back(&mut self, pending: &mut Pending, most: u32) {
        let want = pending.missing().min(most);
        let pages = (0..want).map(|_| {
            self.alive.set(self.alive.get() + 1);
            self.next_id += 1;
            Page {
                id: self.next_id,
                used: RefCell::default(),
                alive: self.alive.clone(),
            }
        });
        let pages: Vec<_> = pages.collect();
        self.put(pending, pages);
    }

    /// Puts pages behind a reserved block that misses them.
    fn put(&mut self, pending: &mut Pending, pages: Vec<Page>) {
        let end =
            (pending.offset() / Self::PAGE + pending.block_bytes().div_ceil(Self::PAGE)) as u32;
        let mut pages = pages.into_iter();
        while pages.len() > 0 {
            let before = pending.missing();
            let result = self.engine.back(pending, &mut pages, &mut self.kit);
            assert!(
                before - pending.missing() <= 64,
                "too many pages under one lock"
            );
            for missing in pending.missing()..before {
                let new = self.backed.insert(end - missing - 1);
                assert!(new, "a page was put where there was one");
            }
            if let Err(metadata) = result {
                self.make(metadata);
            }
        }
        self.step();
    }

    /// Takes free pages out of reach, at most `most`.
    pub fn isolate(&mut self, most: u32) -> Option<Isolated> {
        let isolated = self.engine.isolate(most)?;
        self.step();
        assert!((1..=most.min(64)).contains(&isolated.pages()));
        Some(isolated)
    }

    /// Takes pages that are out of reach out of the engine.
    pub fn remove_isolated(&mut self, isolated: Isolated) -> Vec<Page> {
        let range = isolated.page()..isolated.page() + isolated.pages();
        // What a call gives back has room.
        self.kit.chunk = None;
        let mut pages = Vec::new();
        self.engine
            .remove_isolated(isolated, &mut self.kit, &mut |page| pages.push(page));
        assert_eq!(pages.len(), range.len());
        for page in range {
            assert!(
                self.backed.remove(&page),
                "a page came from where there was none"
            );
        }
        pages
    }

    /// Makes pages that are out of reach free again.
    pub fn putback(&mut self, isolated: Isolated) {
        self.engine.putback(isolated);
        self.step();
    }

    /// Moves free pages to a reserved block, at most `most`. Gives how many.
    pub fn steal(&mut self, pending: &mut Pending, most: u32) -> u32 {
        let before = pending.missing();
        let goal = before.saturating_sub(most);
        while pending.missing() > goal {
            let Some(isolated) = self.isolate(pending.missing() - goal) else {
                break;
            };
            let pages = self.remove_isolated(isolated);
            self.put(pending, pages);
            pending.mark_stale();
        }
        self.moved += u64::from(before - pending.missing());
        before - pending.missing()
    }

    /// Brings what a reserved block misses: from free blocks as far as the engine wants it so or
    /// nothing else is left, else new ones. `false`: that is not enough.
    pub fn fill(&mut self, pending: &mut Pending, grow: bool) -> bool {
        let held = (self.counters().held_bytes / Self::PAGE) as u32;
        let room = if grow {
            self.limit.saturating_sub(held)
        } else {
            0
        };
        let reuse_target = self.engine.reuse_target(pending.missing(), 0);
        if pending.is_movable() {
            self.steal(
                pending,
                reuse_target.max(pending.missing().saturating_sub(room)),
            );
        }
        self.back(pending, room);
        pending.missing() == 0
    }

    /// Gives free pages up until at most `keep` are left. Gives how many.
    pub fn trim(&mut self, keep: u32) -> u32 {
        self.drain();
        let mut freed = 0;
        while let Some(isolated) = self.isolate(self.engine.run_pages().saturating_sub(keep)) {
            freed += self.remove_isolated(isolated).len() as u32;
            self.step();
        }
        freed
    }

    /// Makes a reserved block with all its pages live.
    ///
    /// # Panics
    ///
    /// When what may have old bytes passes for fresh.
    pub fn commit(&mut self, pending: Pending) {
        let pages = pending.block_bytes().div_ceil(Self::PAGE) as u32;
        for index in 0..pages {
            let page = self.engine.pending_page(&pending, index).unwrap();
            let used = page.take_into_use(pending.within());
            assert!(!used || index < pending.stale(), "old bytes as fresh ones");
        }
        self.engine.commit(pending);
        self.step();
    }

    /// Undoes a reservation.
    pub fn cancel(&mut self, pending: Pending) {
        let mut pending = Some(pending);
        while let Some(rest) = pending {
            let first = (rest.offset() / Self::PAGE) as u32;
            let pages = rest.block_bytes().div_ceil(Self::PAGE) as u32;
            let mut end = first + pages - rest.missing();
            let (kit, backed) = (&mut self.kit, &mut self.backed);
            kit.chunk = None;
            let mut out = Vec::new();
            pending = self.engine.cancel(rest, kit, &mut |page| {
                end -= 1;
                assert!(backed.remove(&end), "a page came from where there was none");
                out.push(page);
            });
            assert!(out.len() <= 64, "too many pages under one lock");
            drop(out);
            self.step();
        }
    }

    /// A whole allocation: the offset and the bytes of the block.
    pub fn alloc(&mut self, request: Request) -> Result<(u64, u64), Refusal> {
        let mut pending = self.reserve(request)?;
        if !self.fill(&mut pending, request.grow) {
            self.cancel(pending);
            return Err(Refusal::Empty);
        }
        let block = (pending.offset(), pending.block_bytes());
        self.commit(pending);
        Ok(block)
    }

    /// Gives a block back, with its header if it has one.
    pub fn free(&mut self, offset: u64) -> Result<(), FreeError> {
        if let Some(taken) = self.take(offset)? {
            self.give_back(taken);
        }
        Ok(())
    }

    /// Gives a block without a header back, takes one with a header.
    pub fn take(&mut self, offset: u64) -> Result<Option<Pending>, FreeError> {
        let taken = match self.engine.free(offset)? {
            Some(Unfinished::Headed(taken)) => Some(taken),
            Some(Unfinished::Loose(loose)) => {
                self.step();
                self.engine.merge(loose, &mut self.kit);
                None
            }
            None => None,
        };
        self.step();
        Ok(taken)
    }

    /// Allocates at most `most` blocks that are at hand, of which a caller hears of `told`; the
    /// others are undone. Gives their offsets.
    pub fn alloc_batch(&mut self, size: u64, most: usize, told: usize) -> Vec<u64> {
        let mut batch = Batch::default();
        self.engine.reserve_batch(size, most, &mut batch);
        self.step();
        while batch.offsets().len() > told {
            let pending = batch.pop().expect("it has more than were told");
            self.cancel(pending);
        }
        let offsets = batch.offsets().to_vec();
        self.engine.commit_batch(&mut batch);
        self.step();
        offsets
    }

    /// Gives blocks back that are alike. Gives how many.
    pub fn free_alike(&mut self, offsets: &[u64]) -> usize {
        let count = self.engine.free_alike(offsets);
        self.step();
        count
    }

    /// Gives a block back that was taken.
    pub fn give_back(&mut self, taken: Pending) {
        self.engine.give_back(taken, &mut self.kit);
        self.step();
    }

    /// The page behind page number `page`, if a live block lies in it.
    pub fn live_page(&self, page: u32) -> Option<&Page> {
        let extent = self.engine.live_extent(page)?;
        assert!(extent.clone().all(|page| self.engine.page(page).is_some()));
        self.engine.page(page)
    }

    /// Empties the quick lists.
    pub fn drain(&mut self) {
        self.engine.drain(&mut self.kit);
        self.step();
    }

    /// Ends the arena.
    ///
    /// # Panics
    ///
    /// When a page is lost.
    pub fn end(mut self) {
        while let Some(chunk) = self.engine.dismantle() {
            drop(chunk);
        }
        assert_eq!(self.alive.get(), 0, "a page was lost");
    }
}
