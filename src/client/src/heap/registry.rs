// SPDX-License-Identifier: MIT OR Apache-2.0

//! The caches of all threads of a heap, so that a thread that is short of memory gets the blocks that sleeping
//! threads keep.
//!
//! The list is linked through the caches: it allocates nothing.

use std::ptr;
use std::sync::PoisonError;

use super::cache::{Cache, Entered, Owned, Sink};
use crate::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// A cache's place in the list; changed under the list's lock.
pub(super) struct Link {
    next: AtomicPtr<Cache>,
    previous: AtomicPtr<Cache>,
}

impl Default for Link {
    /// Returns what all zeros are: a link in no list.
    fn default() -> Self {
        Self {
            next: AtomicPtr::new(ptr::null_mut()),
            previous: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// The list of a heap's caches.
///
/// # Invariants
///
/// `first` and the links are null, or point to caches that were added by [`Registry::add`] and not removed by
/// [`Registry::remove`].
pub(super) struct Registry {
    first: Mutex<AtomicPtr<Cache>>,
}

impl Registry {
    /// Makes an empty list.
    pub(super) fn new() -> Self {
        Self {
            first: Mutex::new(AtomicPtr::new(ptr::null_mut())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, AtomicPtr<Cache>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a cache.
    ///
    /// # Safety
    ///
    /// The cache is in no list. It stays in place until [`Registry::remove`] has removed it, or the registry
    /// is gone.
    pub(super) unsafe fn add(&self, cache: &Cache) {
        let first = self.lock();
        let (this, next) = (ptr::from_ref(cache).cast_mut(), first.load(Relaxed));
        cache.link.previous.store(ptr::null_mut(), Relaxed);
        cache.link.next.store(next, Relaxed);
        // SAFETY: By the type's invariant it is a cache, or null.
        if let Some(next) = unsafe { next.as_ref() } {
            next.link.previous.store(this, Relaxed);
        }
        // INVARIANT: By the contract it stays a cache.
        first.store(this, Relaxed);
    }

    /// Removes a cache, which [`Registry::add`] has added.
    pub(super) fn remove(&self, cache: &Cache) {
        let first = self.lock();
        let next = cache.link.next.swap(ptr::null_mut(), Relaxed);
        let previous = cache.link.previous.swap(ptr::null_mut(), Relaxed);
        // SAFETY: By the type's invariant each is a cache, or null.
        let (after, before) = unsafe { (next.as_ref(), previous.as_ref()) };
        if let Some(after) = after {
            after.link.previous.store(previous, Relaxed);
        }
        match before {
            Some(before) => before.link.next.store(next, Relaxed),
            None => first.store(next, Relaxed),
        }
    }

    /// Takes all blocks out of the caches of threads that are not on their slow path, and hands them over by
    /// class. Takes a system call for each cache.
    pub(super) fn drain<S: Sink>(&self, sink: &S) -> Result<(), S::Error> {
        let first = self.lock();
        let mut at = first.load(Relaxed);
        // SAFETY: By the type's invariant it is a cache, or null; it is not removed under the lock.
        while let Some(cache) = unsafe { at.as_ref() } {
            cache.drain(sink)?;
            at = cache.link.next.load(Relaxed);
        }
        Ok(())
    }

    /// Enters the slow path of the calling thread's cache, once no drain of it runs. Returns `None` if the
    /// thread is on that path already.
    pub(super) fn enter<'a>(&self, cache: &'a Cache) -> Option<Owned<'a>> {
        loop {
            match cache.enter() {
                Ok(owned) => return Some(owned),
                Err(Entered::Already) => return None,
                // The draining thread holds the lock until the drain ends.
                Err(Entered::ByDrain) => drop(self.lock()),
            }
        }
    }
}
