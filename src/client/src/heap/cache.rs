// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thread's cache of free small blocks: a stack of addresses for each class, each with its own bound.
//!
//! When a class takes the slow path, its bound doubles. Once the bounds of all classes together reach 48 KiB,
//! other classes lose some of theirs (as thread caches of TCMalloc do, Ghemawat and Menage 2007). So a thread
//! that sleeps keeps no more than one that works.

use std::ptr::{self, NonNull};

use super::class::{Class, Place, CLASSES, MAX_CACHED, PLACES};
use super::magazine::Magazine;
use super::registry::Link;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::heavy_barrier;

/// The most bytes that a thread's cache keeps, all classes together.
pub(super) const MAX_KEPT_BYTES: usize = 48 << 10;

/// Once the bounds reach that sum, one in so many requests for a larger bound lowers the bounds of others.
const FULL_PER_TRY: u32 = 4;

/// The states of a cache: which thread is on its slow path.
mod slow {
    /// No thread.
    pub(super) const FREE: u32 = 0;
    /// The owner.
    pub(super) const OWNER: u32 = 1;
    /// Another thread, which drains it.
    pub(super) const DRAIN: u32 = 2;
}

/// A thread's free blocks, by class; the place of no class keeps none. All zeros is a cache that is empty
/// and accepts no block.
pub(crate) struct Cache {
    magazines: [Magazine; PLACES],
    /// One of the states in [`slow`].
    state: AtomicU32,
    /// 1 if the cache accepts blocks.
    is_open: AtomicU32,
    /// The sum of the bounds of its classes, in bytes.
    bytes: AtomicU32,
    /// The next class to lose some of its bound.
    next: AtomicU32,
    /// The number of requests for a larger bound that failed since one lowered the bounds of others.
    full: AtomicU32,
    /// The cache's place among the caches of its heap.
    pub(super) link: Link,
}

/// A cache whose owner is on the slow path, which keeps drains out.
pub(super) struct Owned<'a>(&'a Cache);

/// The reason why an owner cannot enter the slow path of its cache.
pub(super) enum Entered {
    /// The owner is on it: this is a call from inside of the heap.
    Already,
    /// Another thread drains the cache.
    ByDrain,
}

impl Cache {
    /// Makes the cache accept blocks.
    pub(super) fn open(&self) {
        self.is_open.store(1, Ordering::Relaxed);
    }

    #[inline]
    fn magazine(&self, place: Place) -> &Magazine {
        &self.magazines[place.number()]
    }

    /// Takes the block that came last.
    #[inline]
    pub(super) fn pop(&self, place: Place) -> Option<NonNull<u8>> {
        self.magazine(place).pop()
    }

    /// Keeps a block. Returns `false` if the class has reached its bound, if no block of the class begins at
    /// that address, or if the block is the one that came last.
    #[inline]
    pub(super) fn push(&self, place: Place, block: NonNull<u8>) -> bool {
        self.magazine(place).push(block)
    }

    /// Enters the slow path, for the owner.
    pub(super) fn enter(&self) -> Result<Owned<'_>, Entered> {
        match self.enter_as(slow::OWNER) {
            Ok(()) => Ok(Owned(self)),
            Err(slow::OWNER) => Err(Entered::Already),
            Err(_) => Err(Entered::ByDrain),
        }
    }

    fn enter_as(&self, thread: u32) -> Result<(), u32> {
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        self.state
            .compare_exchange(slow::FREE, thread, acquire, relaxed)
            .map(drop)
    }

    /// Takes all blocks out, in a thread that is not the owner, and passes them to `put` by class. Does
    /// nothing while the owner is on its slow path.
    pub(super) fn drain<E>(
        &self,
        mut put: impl FnMut(Class, &[*mut u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_empty = |class: &Class| self.magazine(class.place()).count() == 0;
        if Class::all().all(|class| is_empty(&class)) || self.enter_as(slow::DRAIN).is_err() {
            return Ok(());
        }
        let _leave = Owned(self);
        let mut closed = [const { None }; CLASSES];
        for class in Class::all().filter(|class| !is_empty(class)) {
            closed[class.number()] = Some((class, self.magazine(class.place()).close()));
        }
        let is_passed = heavy_barrier();
        let mut result = Ok(());
        // An error ends none of the drains: the owner has to continue.
        for (class, closed) in closed.into_iter().flatten() {
            let mut blocks = [ptr::null_mut(); MAX_CACHED];
            let count = closed.take(is_passed, &mut blocks);
            result = result.and(put(class, &blocks[..count]));
        }
        result
    }

    /// Returns the bytes of all blocks in the cache.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let bytes = |class: Class| self.magazine(class.place()).count() * class.bytes();
        Class::all().map(bytes).sum()
    }
}

impl Owned<'_> {
    /// Returns whether a block is the one that came last, and so is free.
    pub(super) fn is_last(&self, class: Class, block: NonNull<u8>) -> bool {
        self.0.magazine(class.place()).is_last(block)
    }

    /// Takes the block of the class that came last.
    pub(super) fn pop(&self, class: Class) -> Option<NonNull<u8>> {
        self.0.pop(class.place())
    }

    /// Keeps a block of the class, as [`Cache::push`].
    pub(super) fn push(&self, class: Class, block: NonNull<u8>) -> bool {
        self.0.push(class.place(), block)
    }

    /// Returns the bound of a class in blocks.
    pub(super) fn bound(&self, class: Class) -> usize {
        self.0.magazine(class.place()).bound()
    }

    /// Fills the class, if it is empty, with blocks up to its bound. The first of them will be taken first.
    pub(super) fn fill(&self, class: Class, blocks: impl DoubleEndedIterator<Item = NonNull<u8>>) {
        self.0.magazine(class.place()).fill(blocks);
    }

    /// Takes out the `count` oldest blocks, or all if they are fewer, and returns their number.
    pub(super) fn take_oldest(
        &self,
        class: Class,
        count: usize,
        into: &mut [*mut u8; MAX_CACHED],
    ) -> usize {
        self.0.magazine(class.place()).take_oldest(count, into)
    }

    /// Doubles the bound of a class, if others lose theirs for it: each loses half of its bound, and `put`
    /// takes the blocks beyond that. Most requests do not try that, so that a thread that uses many sizes
    /// does not spend its time on moving bounds between them.
    pub(super) fn widen<E>(
        &self,
        class: Class,
        mut put: impl FnMut(Class, &[*mut u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let has = self.bound(class);
        let bound = (has * 2).clamp(1, class.max_cached());
        if bound <= has || self.0.is_open.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let more = (bound - has) * class.bytes();
        let is_full = self.bytes() + more > MAX_KEPT_BYTES;
        if is_full && self.0.full.fetch_add(1, Ordering::Relaxed) % FULL_PER_TRY != 0 {
            return Ok(());
        }
        for _ in 0..CLASSES {
            if self.bytes() + more <= MAX_KEPT_BYTES {
                break;
            }
            let next = self.0.next.load(Ordering::Relaxed);
            self.0
                .next
                .store((next + 1) % CLASSES as u32, Ordering::Relaxed);
            if let Some(other) = Class::numbered(next).filter(|other| *other != class) {
                self.narrow(other, &mut put)?;
            }
        }
        if self.bytes() + more <= MAX_KEPT_BYTES {
            self.set_bound(class, bound);
        }
        Ok(())
    }

    /// Halves the bound of a class.
    fn narrow<E>(
        &self,
        class: Class,
        put: &mut impl FnMut(Class, &[*mut u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let less = self.bound(class) / 2;
        let excess = self.count(class).saturating_sub(less);
        if excess > 0 {
            let mut blocks = [ptr::null_mut(); MAX_CACHED];
            let count = self.take_oldest(class, excess, &mut blocks);
            put(class, &blocks[..count])?;
        }
        self.set_bound(class, less);
        Ok(())
    }

    /// Returns the number of blocks of a class in the cache.
    pub(super) fn count(&self, class: Class) -> usize {
        self.0.magazine(class.place()).count()
    }

    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed) as usize
    }

    fn set_bound(&self, class: Class, bound: usize) {
        let has = self.bound(class);
        if bound == has {
            return;
        }
        let bytes = self.bytes() - has * class.bytes() + bound * class.bytes();
        self.0.bytes.store(bytes as u32, Ordering::Relaxed);
        self.0
            .magazine(class.place())
            .set_bound(bound, class.start());
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        self.0.state.store(slow::FREE, Ordering::Release);
    }
}

#[cfg(test)]
impl Default for Cache {
    fn default() -> Self {
        let cache = Self {
            magazines: std::array::from_fn(|_| Magazine::default()),
            state: AtomicU32::new(slow::FREE),
            is_open: AtomicU32::new(0),
            bytes: AtomicU32::new(0),
            next: AtomicU32::new(0),
            full: AtomicU32::new(0),
            link: Link::default(),
        };
        cache.open();
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::num::NonZeroUsize;

    /// Makes a block at this address, which is never read.
    fn block(address: usize) -> NonNull<u8> {
        NonNull::dangling().with_addr(NonZeroUsize::new(address).unwrap())
    }

    fn addresses(blocks: &[*mut u8]) -> Vec<usize> {
        blocks.iter().map(|block| block.addr()).collect()
    }

    fn push(cache: &Cache, class: Class, address: usize) -> bool {
        cache.push(class.place(), block(address))
    }

    fn pop(cache: &Cache, class: Class) -> Option<usize> {
        cache.pop(class.place()).map(|block| block.addr().get())
    }

    /// Raises the bound of a class as far as it goes, with all others empty.
    fn widen(cache: &Cache, class: Class) {
        let owned = cache.enter().ok().unwrap();
        for _ in 0..7 {
            let Ok(()) = owned.widen(class, |_, _| Ok::<(), Infallible>(()));
        }
    }

    fn cache_of(bytes: usize) -> (Cache, Class) {
        let (cache, class) = (Cache::default(), Class::of(bytes).unwrap());
        widen(&cache, class);
        (cache, class)
    }

    #[test]
    fn the_last_block_that_came_goes_first() {
        let (cache, class) = cache_of(64);
        assert_eq!(pop(&cache, class), None);
        assert!(push(&cache, class, 64) && push(&cache, class, 128));
        assert_eq!(pop(&cache, class), Some(128));
        assert_eq!(pop(&cache, class), Some(64));
        assert_eq!(pop(&cache, class), None);
        assert_eq!(pop(&cache, class), None);
    }

    #[test]
    fn no_class_takes_more_than_it_may() {
        for class in Class::all() {
            let cache = Cache::default();
            assert!(!push(&cache, class, 1 << 20));
            widen(&cache, class);
            let blocks = (1..1000).map(|slab| slab << 20);
            let taken = blocks.filter(|address| push(&cache, class, *address));
            assert_eq!(taken.count(), class.max_cached());
        }
    }

    #[test]
    fn all_classes_together_keep_at_most_48_kib() {
        let cache = Cache::default();
        let mut put = 0;
        for round in 0..2000 {
            let class = Class::numbered(round * 7 % CLASSES as u32).unwrap();
            let owned = cache.enter().ok().unwrap();
            let Ok(()) = owned.widen(class, |_, blocks| {
                put += blocks.len();
                Ok::<(), Infallible>(())
            });
            drop(owned);
            for slab in 1..100 {
                push(&cache, class, (slab + 1000 * round as usize) << 20);
            }
            assert!(
                cache.kept_bytes() <= MAX_KEPT_BYTES,
                "{}",
                cache.kept_bytes()
            );
        }
        assert!(put > 0 && cache.kept_bytes() > MAX_KEPT_BYTES / 4);
    }

    #[test]
    fn those_that_came_first_are_taken_out_first() {
        let (cache, class) = cache_of(1024);
        for number in 1..8 {
            assert!(push(&cache, class, number << 12));
        }
        let owned = cache.enter().ok().unwrap();
        let mut out = [ptr::null_mut(); MAX_CACHED];
        assert_eq!(owned.take_oldest(class, 3, &mut out), 3);
        assert_eq!(addresses(&out[..3]), [1 << 12, 2 << 12, 3 << 12]);
        assert_eq!(pop(&cache, class), Some(7 << 12));
        assert_eq!(owned.take_oldest(class, 99, &mut out), 3);
        assert_eq!(addresses(&out[..3]), [4 << 12, 5 << 12, 6 << 12]);
        assert_eq!(pop(&cache, class), None);
    }

    #[test]
    fn an_address_where_no_block_begins_is_not_taken() {
        for class in Class::all() {
            let cache = Cache::default();
            widen(&cache, class);
            assert!(!push(&cache, class, (1 << 20) + class.bytes() / 2));
            assert!(!push(&cache, class, (1 << 20) + 1));
            // The address after the last block of the slab.
            let end = class.blocks() * class.bytes();
            assert_eq!(
                push(&cache, class, (1 << 20) + end),
                end == class.slab_bytes() && end.is_power_of_two()
            );
        }
    }

    #[test]
    fn the_block_that_came_last_is_not_taken_again() {
        let (cache, class) = cache_of(64);
        let is_last = |address| cache.enter().ok().unwrap().is_last(class, block(address));
        assert!(push(&cache, class, 64));
        assert!(!push(&cache, class, 64) && is_last(64));
        assert!(push(&cache, class, 128));
        assert!(!is_last(64));
        assert_eq!(
            (pop(&cache, class), pop(&cache, class)),
            (Some(128), Some(64))
        );
        assert!(push(&cache, class, 64));
    }

    #[test]
    fn the_place_of_no_class_takes_nothing() {
        assert!(!Cache::default().push(Place::NONE, block(1 << 20)));
    }

    #[test]
    fn what_it_is_filled_with_goes_in_order() {
        let (cache, class) = cache_of(32);
        let owned = cache.enter().ok().unwrap();
        owned.fill(class, [32, 64, 96].map(block).into_iter());
        assert_eq!(pop(&cache, class), Some(32));
        assert!(push(&cache, class, 320));
        let rest = [320, 64, 96].map(Some);
        assert_eq!([(); 3].map(|()| pop(&cache, class)), rest);
        assert_eq!(pop(&cache, class), None);
    }

    #[test]
    fn a_drain_takes_all_and_the_owner_goes_on() {
        assert!(crate::sync::can_heavy_barrier());
        let (cache, class) = cache_of(64);
        let drained = |cache: &Cache| {
            let mut all = Vec::new();
            let Ok(()) = cache.drain(|_, blocks| {
                all.extend(addresses(blocks));
                Ok::<(), Infallible>(())
            });
            all
        };
        for number in 1..=5 {
            assert!(push(&cache, class, number * 64));
        }
        assert_eq!(drained(&cache), [64, 128, 192, 256, 320]);
        assert_eq!((pop(&cache, class), drained(&cache)), (None, vec![]));
        // Another thread was handed the block meanwhile, and this one frees it.
        assert!(push(&cache, class, 320) && push(&cache, class, 64));
        assert_eq!((pop(&cache, class), drained(&cache)), (Some(64), vec![320]));
        let owned = cache.enter().ok().unwrap();
        assert!(push(&cache, class, 64));
        assert_eq!(drained(&cache), [] as [usize; 0]);
        assert!(matches!(cache.enter(), Err(Entered::Already)));
        let mut out = [ptr::null_mut(); MAX_CACHED];
        assert_eq!(owned.take_oldest(class, 9, &mut out), 1);
    }
}
