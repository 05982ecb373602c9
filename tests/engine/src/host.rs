// SPDX-License-Identifier: GPL-2.0

//! The engine's surroundings on the host: an arena without locks, that has its pages itself and whose every step
//! can be checked.

mod blocks;
mod lazy;
mod memory;
mod resize;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::engine::{
    Backend, Counters, Drained, Engine, Entry, Garbage, Metadata, Policy, Prealloc, Record,
    Request, CHUNK_PAGES, PART_LEN, QUICK_LISTS, ROOT_LEN,
};

/// Metadata of the host.
pub struct Host;

impl Backend for Host {
    type Box<T> = Box<T>;
    type Slice<T> = Box<[T]>;
}

/// A page of memory.
pub struct Page {
    /// The number of the page, which no other page has.
    pub id: u64,
    /// The bytes that were in live blocks, and so may be old.
    used: RefCell<Vec<Range<usize>>>,
}

impl Page {
    /// Puts some of its bytes into a live block. Returns whether any was in one before.
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

/// Makes `len` default values.
pub fn slice<T: Default>(len: usize) -> Box<[T]> {
    (0..len).map(|_| T::default()).collect()
}

/// Returns the policy of a request that reuses memory.
pub fn reuse(split: bool, grow: bool) -> Policy {
    Policy::Reuse { split, grow }
}

/// Returns a request for `size` bytes with `FREELIST_DEFAULT`.
pub fn request(size: u64) -> Request {
    Request {
        size,
        policy: reuse(true, true),
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
    /// Unused metadata of earlier calls.
    pub prealloc: Prealloc<Host, KIB>,
    /// The pages, by their numbers.
    pub backed: BTreeMap<u32, Page>,
    next_id: u64,
    /// The most pages that the engine may hold.
    pub limit: u32,
    /// The number of pages that were moved to other blocks.
    pub moved: u64,
    /// `true` if [`Engine::check`] is called after every step.
    pub checked: bool,
}

impl<const KIB: usize> Arena<KIB> {
    /// The bytes of a page.
    pub const PAGE: u64 = KIB as u64 * 1024;

    /// Makes an empty arena of `span` pages of address space.
    pub fn new(span: u32) -> Self {
        Self {
            engine: Engine::new(span, slice(QUICK_LISTS)),
            prealloc: Prealloc::default(),
            backed: BTreeMap::new(),
            next_id: 0,
            limit: u32::MAX,
            moved: 0,
            checked: true,
        }
    }

    /// Returns the engine's counters.
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// Checks the invariants, with those that only the surroundings can check.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub fn check(&self) {
        if let Err(violation) = self.engine.check() {
            panic!("{violation}");
        }
        let held = self.counters().held_bytes;
        assert_eq!(held, self.engine.held_bytes());
        assert_eq!(
            held,
            self.backed.len() as u64 * Self::PAGE,
            "a page was lost"
        );
        let all = self.backed.keys();
        assert!(all.into_iter().all(|page| self.engine.is_backed(*page)));
    }

    pub(crate) fn step(&self) {
        if self.checked {
            self.check();
        }
    }

    pub(crate) fn make(&mut self, metadata: Metadata) {
        match metadata {
            Metadata::Root => self.prealloc.add_root(slice(ROOT_LEN)),
            Metadata::Part => self.prealloc.add_part(slice::<Entry<Host, KIB>>(PART_LEN)),
            Metadata::Chunk => self
                .prealloc
                .add_chunk(slice::<Record<Host, KIB>>(CHUNK_PAGES)),
            Metadata::Tree => self.prealloc.add_tree(Box::default()),
        }
    }

    /// Returns the page at page number `page`, if a live block lies in it.
    pub fn live_page(&self, page: u32) -> Option<&Page> {
        let extent = self.engine.live_extent(page)?;
        assert!(extent.contains(&page));
        assert!(extent.clone().all(|page| self.engine.is_backed(page)));
        self.backed.get(&page)
    }

    /// Empties the quick lists.
    pub fn drain(&mut self) {
        loop {
            let drained = self.engine.drain(&mut Garbage::default());
            self.step();
            if drained != Drained::Part {
                break;
            }
        }
    }

    /// Closes or opens the quick lists, as the module does while a thread waits.
    pub fn close_quick(&mut self, closed: bool) {
        self.engine.close_quick(closed);
        if closed {
            self.drain();
        }
    }

    /// Returns the whole map.
    pub fn map(&self) -> Vec<crate::engine::Extent> {
        let mut map = Vec::new();
        let mut from = Some(0);
        while let Some(page) = from {
            from = self.engine.map(page, 3, |extent| map.push(extent));
        }
        map
    }

    /// Ends the arena.
    pub fn end(mut self) {
        while let Some(chunk) = self.engine.dismantle() {
            drop(chunk);
        }
    }
}
