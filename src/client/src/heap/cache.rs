// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thread's cache of free small blocks: a stack of addresses for each class, each with its own bound.
//!
//! A request on the slow path doubles the bound of its class. Once all bounds together are 48 KiB, the bounds of
//! other classes are halved first (as thread caches of TCMalloc share theirs, Ghemawat and Menage 2007): of
//! classes without such a request for a whole round (the second chance of Corbato 1968), and of classes whose
//! share would save more requests on the slow path in this class. (Of classes that are used alike, a byte saves
//! most where the number of blocks squared times their size is least.) So a thread that sleeps keeps no more
//! than one that works.

use std::ptr::{self, NonNull};

use super::class::{Class, Place, CLASSES, MAX_CACHED, PLACES};
use super::magazine::{Filling, Magazine};
use super::registry::Link;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::heavy_barrier;

/// The most bytes that a thread's cache keeps, all classes together.
pub(super) const MAX_KEPT_BYTES: usize = 48 << 10;

/// The most other classes that are examined to widen a bound, once all bounds together reach the maximum.
const LOOKS: u32 = 16;
/// The least and the greatest [`Cache::pause`].
const MIN_PAUSE: u32 = 4;
const MAX_PAUSE: u32 = 64;

/// Words of a bitmap with a bit for each class.
const USED_WORDS: usize = CLASSES.div_ceil(64);

/// The states of a cache: which thread is on its slow path.
mod slow {
    /// No thread.
    pub(super) const FREE: u32 = 0;
    /// The owner.
    pub(super) const OWNER: u32 = 1;
    /// Another thread, which drains it.
    pub(super) const DRAIN: u32 = 2;
}

/// The receiver of blocks that are taken out of a cache.
pub(super) trait Sink {
    /// The reason why it does not take a block.
    type Error;
    /// Takes blocks of a class. Uses no cache of the calling thread.
    fn put(&self, class: Class, blocks: impl Iterator<Item = *mut u8>) -> Result<(), Self::Error>;
}

/// A thread's free blocks, by class; the place without a class keeps none. A cache of zeros is empty, and
/// accepts no blocks.
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
    /// A bit for each class, set if a request of it took the slow path since `next` passed it.
    used: [AtomicU64; USED_WORDS],
    /// The requests to widen a bound that are still to be skipped.
    wait: AtomicU32,
    /// One of so many requests to widen a bound is a try, once all bounds together reach the maximum. A try in
    /// vain doubles it, another one halves it.
    pause: AtomicU32,
    /// The link in the list of its heap's caches.
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

    /// Takes the newest block.
    #[inline]
    pub(super) fn pop(&self, place: Place) -> Option<NonNull<u8>> {
        self.magazine(place).pop()
    }

    /// Keeps a block. Returns `false` if the class has reached its bound, if no block of the class begins at
    /// that address, or if the block is the newest one.
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

    /// Takes all blocks out, in another thread than its owner, and passes them to `sink` by class. Does
    /// nothing while the owner is on its slow path.
    pub(super) fn drain<S: Sink>(&self, sink: &S) -> Result<(), S::Error> {
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
        // An error does not end the loop: the owner can use a magazine only after its drain has ended.
        for (class, closed) in closed.into_iter().flatten() {
            let mut blocks = [ptr::null_mut(); MAX_CACHED];
            let count = closed.take(is_passed, &mut blocks);
            result = result.and(sink.put(class, blocks[..count].iter().copied()));
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
    /// Returns whether a block is the newest one, and so is free.
    pub(super) fn is_last(&self, class: Class, block: NonNull<u8>) -> bool {
        self.0.magazine(class.place()).is_last(block)
    }

    /// Takes the newest block of the class.
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

    /// Begins to fill it with blocks of a class of which it has none.
    pub(super) fn fill(&self, class: Class) -> Filling<'_> {
        self.0.magazine(class.place()).fill()
    }

    /// Takes out the `count` oldest blocks, or all if there are fewer, and passes them to `sink`.
    pub(super) fn put_oldest<S: Sink>(
        &self,
        class: Class,
        count: usize,
        sink: &S,
    ) -> Result<(), S::Error> {
        let magazine = self.0.magazine(class.place());
        magazine.take_oldest(count, |blocks| sink.put(class, blocks))
    }

    /// Doubles the bound of a class whose request took the slow path, if the bounds of others can be halved for
    /// it; `sink` takes their blocks. While the tries are in vain, more and more requests are skipped, so that a
    /// thread that uses many sizes does not spend its time on them.
    #[inline]
    pub(super) fn widen<S: Sink>(&self, class: Class, sink: &S) -> Result<(), S::Error> {
        self.note_use(class);
        match self.0.wait.load(Ordering::Relaxed) {
            0 => self.try_to_widen(class, sink),
            wait => {
                self.0.wait.store(wait - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn try_to_widen<S: Sink>(&self, class: Class, sink: &S) -> Result<(), S::Error> {
        let has = self.bound(class);
        let bound = (has * 2).clamp(1, class.max_cached());
        if bound <= has || self.0.is_open.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let more = (bound - has) * class.bytes();
        let fits = |more| self.bytes() + more <= MAX_KEPT_BYTES;
        let mut is_in_vain = !fits(more);
        for _ in 0..LOOKS {
            if fits(more) {
                break;
            }
            let Some(other) = self.next_to_look_at() else {
                continue;
            };
            let (others, is_used) = (self.bound(other), self.was_used(other));
            let saves_less = others * others * other.bytes() > bound * bound * class.bytes();
            if others > 0 && (!is_used || saves_less) {
                self.narrow(other, sink)?;
                is_in_vain = false;
            }
        }
        let pause = self.0.pause.load(Ordering::Relaxed);
        let pause = if is_in_vain { pause * 2 } else { pause / 2 };
        let pause = pause.clamp(MIN_PAUSE, MAX_PAUSE);
        self.0.pause.store(pause, Ordering::Relaxed);
        if fits(more) {
            self.set_bound(class, bound);
        }
        // Another try would have to narrow other classes.
        if !fits(more) {
            self.0.wait.store(pause - 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns the next class in turn.
    fn next_to_look_at(&self) -> Option<Class> {
        let next = self.0.next.load(Ordering::Relaxed);
        let after = (next + 1) % CLASSES as u32;
        self.0.next.store(after, Ordering::Relaxed);
        Class::numbered(next)
    }

    /// Returns the word and the bit that say whether a request of a class took the slow path.
    #[inline]
    fn used_bit(&self, class: Class) -> (&AtomicU64, u64) {
        let number = class.number();
        (&self.0.used[number / 64 % USED_WORDS], 1 << (number % 64))
    }

    #[inline]
    fn note_use(&self, class: Class) {
        let (used, bit) = self.used_bit(class);
        used.store(used.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
    }

    /// Returns whether a request of a class took the slow path since the last call, and clears that.
    fn was_used(&self, class: Class) -> bool {
        let (used, bit) = self.used_bit(class);
        let classes = used.load(Ordering::Relaxed);
        used.store(classes & !bit, Ordering::Relaxed);
        classes & bit != 0
    }

    /// Halves the bound of a class.
    fn narrow<S: Sink>(&self, class: Class, sink: &S) -> Result<(), S::Error> {
        let less = self.bound(class) / 2;
        let excess = self.count(class).saturating_sub(less);
        if excess > 0 {
            self.put_oldest(class, excess, sink)?;
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
            used: [const { AtomicU64::new(0) }; USED_WORDS],
            wait: AtomicU32::new(0),
            pause: AtomicU32::new(0),
            link: Link::default(),
        };
        cache.open();
        cache
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
