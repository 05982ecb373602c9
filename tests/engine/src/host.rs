// SPDX-License-Identifier: GPL-2.0

//! What the engine needs around it, on the host: an arena without locks, that has its pages itself and
//! whose every step can be checked.

use crate::engine::{
    Admission, Backend, Batch, Counters, Discard, Drained, Engine, Entry, FreeError, Garbage,
    Growth, Holed, Isolated, Metadata, Policy, Prealloc, Record, Refusal, Releasing, Request,
    Reservation, ResizeError, Resized, Surplus, Touch, Unfinished, Untouchable, CHUNK_PAGES,
    PART_LEN, QUICK_LISTS, ROOT_LEN,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Metadata of the host.
pub struct Host;

impl Backend for Host {
    type Box<T> = Box<T>;
    type Slice<T> = Box<[T]>;
}

/// A page of memory.
pub struct Page {
    /// Which page it is; no two have the same.
    pub id: u64,
    /// Its bytes that were in live blocks: they may be old.
    used: RefCell<Vec<Range<usize>>>,
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

/// `len` default values.
pub fn slice<T: Default>(len: usize) -> Box<[T]> {
    (0..len).map(|_| T::default()).collect()
}

/// Returns what tells the engine of the pages before `end` that stay: the first that lie side by side
/// at or behind a page number.
fn stayed(end: u32, stays: impl Fn(u32) -> bool) -> impl FnMut(u32) -> Option<Range<u32>> {
    move |page| {
        let mut all = (page..end).skip_while(|page| !stays(*page));
        let first = all.next()?;
        let end = all.find(|page| !stays(*page)).unwrap_or(end);
        Some(first..end)
    }
}

/// Returns the policy of a request that reuses memory.
pub fn reuse(split: bool, grow: bool) -> Policy {
    Policy::Reuse { split, grow }
}

/// A request for `size` bytes with `FREELIST_DEFAULT`.
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
    /// Metadata that is left over from earlier calls.
    pub prealloc: Prealloc<Host, KIB>,
    /// The pages, by their numbers.
    pub backed: BTreeMap<u32, Page>,
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

    /// Reserves a block, with the metadata that it takes.
    pub fn reserve(&mut self, request: Request) -> Result<Reservation, Refusal> {
        self.reserve_as(request, Admission::Full)
    }

    /// Reserves a block for a request that is admitted to so much.
    ///
    /// # Panics
    ///
    /// When the engine asks for metadata again and again, or says so often that it has more to do.
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

    /// Brings at most `most` new pages to a reserved block.
    pub fn back(&mut self, reservation: &mut Reservation, most: u32) {
        self.ensure_backing(reservation, most);
        self.back_ensured(reservation, most);
    }

    /// Makes the records of what [`Arena::back_ensured`] brings.
    pub fn ensure_backing(&mut self, reservation: &Reservation, most: u32) {
        while let Err(metadata) = self
            .engine
            .ensure_backing(reservation, most, &mut self.prealloc)
        {
            self.make(metadata);
        }
    }

    /// Brings new pages that have their records.
    pub fn back_ensured(&mut self, reservation: &mut Reservation, most: u32) {
        let pages = reservation.missing().min(most);
        let end = reservation.extent().end.div_ceil(Self::PAGE) as u32;
        let next = end - reservation.missing();
        self.engine.back(reservation, pages);
        self.add_pages(next..next + pages);
        self.step();
    }

    /// New pages come to where there is none.
    fn add_pages(&mut self, range: Range<u32>) {
        for page in range {
            self.next_id += 1;
            let new = Page {
                id: self.next_id,
                used: RefCell::default(),
            };
            let old = self.backed.insert(page, new);
            assert!(old.is_none(), "a page was put where there was one");
        }
    }

    /// Claims address space behind a reserved block.
    pub fn claim_surplus(&mut self, reservation: &Reservation, pages: u32) -> Option<Surplus> {
        loop {
            let result = self
                .engine
                .claim_surplus(reservation, pages, &mut self.prealloc);
            self.step();
            match result {
                Ok(surplus) => return surplus,
                Err(metadata) => self.make(metadata),
            }
        }
    }

    /// A surplus behind a block that ends at page number `first` gets its memory.
    pub fn back_surplus(&mut self, first: u32, surplus: Surplus) {
        self.add_pages(first..first + surplus.pages());
        self.engine.back_surplus(surplus);
        self.step();
    }

    /// A surplus gets none.
    pub fn release_surplus(&mut self, surplus: Surplus) {
        self.engine
            .release_surplus(surplus, &mut Garbage::default());
        self.step();
    }

    /// Isolates free pages, at most `most`.
    pub fn isolate(&mut self, most: u32) -> Option<Isolated> {
        let isolated = self.engine.isolate(most)?;
        self.step();
        assert!((1..=most).contains(&isolated.pages()));
        Some(isolated)
    }

    /// Removes the memory of an isolated range, except for pages that stay. Returns the number of pages
    /// removed.
    pub fn remove_but(&mut self, isolated: Isolated, stays: impl Fn(u32) -> bool) -> u32 {
        let range = isolated.range();
        for page in range.clone().filter(|page| !stays(*page)) {
            let old = self.backed.remove(&page);
            assert!(old.is_some(), "a page came from where there was none");
        }
        let mut stayed = stayed(range.end, &stays);
        let mut left = 0;
        let mut rest = Some(isolated);
        while let Some(isolated) = rest {
            let mut garbage = Garbage::default();
            let (some, more) = self
                .engine
                .remove_isolated(isolated, &mut garbage, &mut stayed);
            assert!(some <= CHUNK_PAGES as u32, "too many pages under one lock");
            left += some;
            rest = more;
        }
        let stayed = range.clone().filter(|page| stays(*page)).count() as u32;
        assert_eq!(left + stayed, range.len() as u32);
        left
    }

    /// Removes the memory of an isolated range. Returns the number of pages removed.
    pub fn remove(&mut self, isolated: Isolated) -> u32 {
        self.remove_but(isolated, |_| false)
    }

    /// Makes an isolated range free again.
    pub fn putback(&mut self, isolated: Isolated) {
        self.engine.putback(isolated);
        self.step();
    }

    /// Moves free pages to a reserved block, at most `most`: their memory leaves, and as much comes.
    /// Returns how many.
    pub fn steal(&mut self, reservation: &mut Reservation, most: u32) -> u32 {
        let before = reservation.missing();
        let goal = before.saturating_sub(most);
        while reservation.missing() > goal {
            let Some(isolated) = self.isolate(reservation.missing() - goal) else {
                break;
            };
            let left = self.remove(isolated);
            self.back(reservation, left);
        }
        let moved = before - reservation.missing();
        self.engine.count_moved(moved);
        self.moved += u64::from(moved);
        moved
    }

    /// Brings what a reserved block misses: from free runs as far as the engine wants it so or
    /// nothing else is left, else new ones. `false`: that is not enough.
    pub fn fill(&mut self, reservation: &mut Reservation, grow: bool) -> bool {
        let held = (self.counters().held_bytes / Self::PAGE) as u32;
        let room = if grow {
            self.limit.saturating_sub(held)
        } else {
            0
        };
        let reused = self.engine.reuse_target(reservation.missing(), 0);
        if reservation.is_movable() {
            let least = reservation.missing().saturating_sub(room);
            self.steal(reservation, reused.max(least));
        }
        self.back(reservation, room);
        reservation.missing() == 0
    }

    /// Gives free pages up until at most `keep` are left. Returns how many.
    pub fn trim(&mut self, keep: u32) -> u32 {
        self.drain();
        let mut freed = 0;
        while let Some(isolated) = self.isolate(self.engine.free_pages().saturating_sub(keep)) {
            freed += self.remove(isolated);
            self.step();
        }
        freed
    }

    /// Makes a reserved block with all its pages live.
    ///
    /// # Panics
    ///
    /// When what may have old bytes passes for zero.
    pub fn commit(&mut self, reservation: Reservation) {
        self.take_into_use(&reservation);
        self.engine.commit(reservation);
        self.step();
    }

    pub(crate) fn take_into_use(&self, reservation: &Reservation) {
        let pages = reservation.block_bytes().div_ceil(Self::PAGE) as u32;
        let first = (reservation.extent().start / Self::PAGE) as u32;
        for index in 0..pages {
            // One of a lazy block comes later, and is zero.
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
        let brought = self.engine.cancel(reservation, &mut Garbage::default());
        self.step();
        if let Some(isolated) = brought {
            self.remove(isolated);
            self.step();
        }
    }

    /// A whole allocation: the offset and the bytes of the block.
    pub fn alloc(&mut self, request: Request) -> Result<(u64, u64), Refusal> {
        self.alloc_as(request, Admission::Full)
    }

    /// A whole allocation by a request that is admitted to so much.
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
    pub fn could_serve(&mut self, request: &Request, admission: Admission, room: u64) -> bool {
        self.drain_if_larger(request);
        let mut garbage = Garbage::default();
        self.engine
            .could_serve(request, admission, room, &mut garbage)
    }

    /// As the module does before it asks.
    fn drain_if_larger(&mut self, request: &Request) {
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

    /// Releases pages with holes step by step. Returns the pages of room that came back.
    pub fn release_holed(&mut self, holed: Holed) -> u32 {
        let mut room = 0;
        let mut rest = Some(holed);
        while let Some(holed) = rest {
            let (some, more) = self.engine.release_holed(holed, &mut Garbage::default());
            self.step();
            room += some;
            rest = more;
        }
        room
    }

    /// Begins to bring memory to a page of a lazy block.
    pub fn touch(&mut self, page: u32, max_order: u32) -> Result<Touch, Untouchable> {
        loop {
            let result = self.engine.touch(page, max_order, &mut self.prealloc);
            self.step();
            match result {
                Err(Untouchable::Need(metadata)) => self.make(metadata),
                result => return result,
            }
        }
    }

    /// Completes a touch whose memory is allocated. Returns `false` if its block was freed meanwhile:
    /// then the memory is freed too.
    pub fn finish_touch(&mut self, touch: Touch) -> bool {
        let range = touch.range();
        match self.engine.finish_touch(touch) {
            Ok(()) => self.add_pages(range),
            Err(touch) => {
                self.cancel_touch(touch);
                return false;
            }
        }
        self.step();
        true
    }

    /// A touch brings nothing.
    pub fn cancel_touch(&mut self, touch: Touch) {
        self.engine.cancel_touch(touch, &mut Garbage::default());
        self.step();
    }

    /// Removes the memory of a discarded range, except for pages that stay.
    pub fn finish_discard(&mut self, discard: Discard, stays: impl Fn(u32) -> bool) {
        let range = discard.range();
        let keeps = discard.keeps_memory();
        let stays = |page| keeps || stays(page);
        let mut stayed = stayed(range.end, &stays);
        let isolated = self
            .engine
            .finish_discard(discard, &mut Garbage::default(), &mut stayed);
        if let Some(isolated) = isolated {
            self.remove_but(isolated, stays);
        } else {
            for page in range.clone().filter(|page| !stays(*page)) {
                let old = self.backed.remove(&page);
                assert!(old.is_some(), "a page came from where there was none");
            }
        }
        self.step();
    }

    /// Allocates at most `most` blocks on the fast path, of which a caller hears of `told`; the
    /// others are undone. Returns their offsets.
    pub fn alloc_batch(&mut self, size: u64, most: usize, told: usize) -> Vec<u64> {
        let mut batch = Batch::default();
        self.engine.reserve_batch(size, most, &mut batch);
        self.step();
        while batch.offsets().len() > told {
            let reservation = batch.pop().expect("it has more than were told");
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

    /// Begins to make a block longer, or makes it shorter.
    pub fn start_resize(&mut self, offset: u64, size: u64) -> Result<Resized, ResizeError> {
        self.start_resize_as(offset, size, false, Admission::Full)
    }

    /// As [`Arena::start_resize`], for a caller that is admitted to so much.
    pub fn start_resize_as(
        &mut self,
        offset: u64,
        size: u64,
        lazy: bool,
        admission: Admission,
    ) -> Result<Resized, ResizeError> {
        loop {
            let result = self
                .engine
                .resize(offset, size, lazy, admission, &mut self.prealloc);
            self.step();
            match result {
                Err(ResizeError::Need(metadata)) => self.make(metadata),
                Ok(Resized::InTheWay(isolated)) => {
                    self.remove(isolated);
                    self.step();
                }
                result => return result,
            }
        }
    }

    /// Brings a growth its pages. `false`: the limit forbids it.
    pub fn fill_growth(&mut self, growth: &mut Growth) -> bool {
        let mut room = self.limit - (self.counters().held_bytes / Self::PAGE) as u32;
        room = room.min(growth.reservation().missing());
        self.back(growth.reservation(), room);
        growth.reservation().missing() == 0
    }

    /// Joins the pages of a growth to its block. `false`: it went meanwhile, and all is undone.
    pub fn commit_growth(&mut self, mut growth: Growth) -> bool {
        let reservation = growth.reservation();
        let pages = reservation.block_bytes() / Self::PAGE;
        let (extent, stale) = (reservation.extent(), reservation.stale());
        let is_lazy = reservation.is_lazy();
        let result = self.engine.commit_growth(growth, &mut Garbage::default());
        self.step();
        match result {
            Ok(_) => {
                for index in 0..pages {
                    let page = (extent.start / Self::PAGE + index) as u32;
                    let Some(page) = self.backed.get(&page) else {
                        assert!(is_lazy, "a page is missing");
                        continue;
                    };
                    let used = page.take_into_use(0..Self::PAGE as usize);
                    assert!(!used || index < stale.into(), "old bytes as zero");
                }
                true
            }
            Err(growth) => {
                self.cancel(growth.into_reservation());
                false
            }
        }
    }

    /// A whole resize: the bytes of the block.
    pub fn resize(&mut self, offset: u64, size: u64) -> Result<u64, ResizeError> {
        match self.start_resize(offset, size)? {
            Resized::Done => Ok(size.next_multiple_of(Self::PAGE)),
            Resized::Shrunk(holed) => {
                self.release_holed(holed);
                Ok(size.next_multiple_of(Self::PAGE))
            }
            Resized::InTheWay(_) => unreachable!("it was removed"),
            Resized::Growing(mut growth) => {
                let more = growth.reservation().block_bytes();
                if !self.fill_growth(&mut growth) {
                    self.cancel(growth.into_reservation());
                    return Err(ResizeError::InUse);
                }
                let begin = growth.reservation().extent().start;
                assert!(self.commit_growth(growth));
                Ok(begin + more - offset)
            }
        }
    }

    /// Returns the page behind page number `page`, if a live block lies in it.
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
