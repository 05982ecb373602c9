// SPDX-License-Identifier: MIT OR Apache-2.0

//! The slow path of small blocks: from a thread's cache to the slabs and back, with the arena as a [`Source`].

use std::iter;
use std::ptr::NonNull;

use super::cache::{Owned, Sink};
use super::central::{Central, NotLive, Source};
use super::class::{Class, MAX_CACHED};
use super::registry::Registry;
use super::table::Table;
use crate::error::Result;
use crate::sys::Errno;

/// The small blocks of a heap.
pub(super) struct Small {
    pub(super) central: Central,
    pub(super) table: Table,
    pub(super) caches: Registry,
    /// The beginning of the arena, to which blocks are aligned.
    base: NonNull<u8>,
}

// SAFETY: The address is one of memory for all threads, and nothing here reads or writes through it.
unsafe impl Send for Small {}
// SAFETY: As above.
unsafe impl Sync for Small {}

impl Small {
    /// Makes the small blocks of an arena of `bytes` bytes at `base`.
    pub(super) fn new(base: NonNull<u8>, bytes: usize) -> std::result::Result<Self, Errno> {
        Ok(Self {
            central: Central::new(bytes)?,
            table: Table::new(bytes)?,
            caches: Registry::new(),
            base,
        })
    }

    /// Extends the tables to the first `bytes` bytes of the arena.
    pub(super) fn open_tables(&self, bytes: usize) -> std::result::Result<(), Errno> {
        self.table.open(bytes)?;
        self.central.open(bytes)
    }

    /// Returns the address of an offset in the arena.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        // Saturates without effect: no offset reaches the end of the address space.
        self.base.map_addr(|base| base.saturating_add(offset))
    }

    /// Returns the offset of an address: one beyond the arena if the address is not in it.
    #[inline]
    pub(super) fn offset(&self, address: *mut u8) -> usize {
        address.addr().wrapping_sub(self.base.addr().get())
    }

    /// Allocates a block for a thread that has no cache.
    pub(super) fn take_one(&self, source: &impl Source, class: Class) -> Result<NonNull<u8>> {
        let first = self.central.take(source, &self.table, class, 0, |_| ())?;
        Ok(self.at(first))
    }

    /// Takes a block of a class of which a cache has none, and fills the class up to three quarters of its bound:
    /// a quarter is left for the next frees. A block that is not live, which is found when the bound of another
    /// class is halved, is the outer error.
    pub(super) fn refill(
        &self,
        source: &impl Source,
        cache: &Owned<'_>,
        class: Class,
    ) -> std::result::Result<Result<NonNull<u8>>, NotLive> {
        if let Some(block) = cache.pop(class) {
            return Ok(Ok(block));
        }
        cache.widen(class, &self.slabs(source))?;
        let more = cache.bound(class) * 3 / 4;
        let mut filling = cache.fill(class);
        let hand = |offset| filling.add(self.at(offset));
        let first = self.central.take(source, &self.table, class, more, hand);
        filling.end();
        Ok(first.map(|offset| self.at(offset)))
    }

    /// Keeps a block of a class whose bound is reached, and moves all others of the class to their slabs: a
    /// thread that has freed so many is likely to free more. The error is a block that is not live: this one, if
    /// it is the newest one in the cache.
    pub(super) fn spill(
        &self,
        source: &impl Source,
        cache: &Owned<'_>,
        class: Class,
        block: NonNull<u8>,
    ) -> std::result::Result<(), NotLive> {
        if cache.is_last(class, block) {
            let offset = self.offset(block.as_ptr());
            return Err(NotLive { offset });
        }
        if cache.push(class, block) {
            return Ok(());
        }
        let slabs = self.slabs(source);
        cache.widen(class, &slabs)?;
        if cache.push(class, block) {
            return Ok(());
        }
        cache.put_oldest(class, MAX_CACHED, &slabs)?;
        if cache.push(class, block) {
            return Ok(());
        }
        let offset = self.offset(block.as_ptr());
        self.put_one(source, class, offset)
    }

    /// Empties a cache into the slabs.
    pub(super) fn empty(
        &self,
        source: &impl Source,
        cache: &Owned<'_>,
    ) -> std::result::Result<(), NotLive> {
        let slabs = self.slabs(source);
        Class::all()
            .filter(|class| cache.count(*class) > 0)
            .try_for_each(|class| cache.put_oldest(class, MAX_CACHED, &slabs))
    }

    /// Drains the caches of all threads that are not on their slow path into the slabs.
    pub(super) fn drain(&self, source: &impl Source) -> std::result::Result<(), NotLive> {
        self.caches.drain(&self.slabs(source))
    }

    /// Puts a block that no cache keeps into its slab.
    pub(super) fn put_one(
        &self,
        source: &impl Source,
        class: Class,
        offset: usize,
    ) -> std::result::Result<(), NotLive> {
        let offset = iter::once(offset);
        self.central.put(source, &self.table, class, offset)
    }

    fn slabs<'a, S>(&'a self, source: &'a S) -> Slabs<'a, S> {
        Slabs {
            small: self,
            source,
        }
    }
}

/// The slabs, which receive the blocks that are taken out of a cache.
struct Slabs<'a, S> {
    small: &'a Small,
    source: &'a S,
}

impl<S: Source> Sink for Slabs<'_, S> {
    type Error = NotLive;

    fn put(
        &self,
        class: Class,
        blocks: impl Iterator<Item = *mut u8>,
    ) -> std::result::Result<(), NotLive> {
        let Small { central, table, .. } = self.small;
        let offsets = blocks.map(|block| self.small.offset(block));
        central.put(self.source, table, class, offsets)
    }
}
