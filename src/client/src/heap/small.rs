// SPDX-License-Identifier: MIT OR Apache-2.0

//! The slow path of small blocks: from a thread's cache to the slabs and back, with the arena as a [`Source`].

use std::ptr::{self, NonNull};

use super::cache::Owned;
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

    /// Makes room in the tables for the state of the first `bytes` bytes.
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
        let mut block = [0];
        self.central.take(source, &self.table, class, &mut block)?;
        Ok(self.at(block[0]))
    }

    /// Allocates a block of a class of which a cache has none, and fills the cache up to half of the class's
    /// bound. The inner error is a block that is not live, found when another class lost some of its bound.
    pub(super) fn refill(
        &self,
        source: &impl Source,
        cache: &Owned<'_>,
        class: Class,
    ) -> std::result::Result<Result<NonNull<u8>>, NotLive> {
        if let Some(block) = cache.pop(class) {
            return Ok(Ok(block));
        }
        cache.widen(class, |class, blocks| self.put(source, class, blocks))?;
        let mut blocks = [0; MAX_CACHED];
        let bound = cache.bound(class).div_ceil(2).max(1);
        let taken = self
            .central
            .take(source, &self.table, class, &mut blocks[..bound]);
        Ok(taken.map(|count| {
            let rest = blocks[1..count].iter();
            cache.fill(class, rest.map(|offset| self.at(*offset)));
            self.at(blocks[0])
        }))
    }

    /// Frees a block of a class of which a cache is full: the oldest blocks of the class make room for it.
    /// The error is a block that is not live; this one, if it is the newest in the cache.
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
        cache.widen(class, |class, blocks| self.put(source, class, blocks))?;
        if cache.push(class, block) {
            return Ok(());
        }
        let half = cache.bound(class).div_ceil(2);
        self.put_oldest(source, cache, class, half)?;
        if cache.push(class, block) {
            return Ok(());
        }
        let offset = self.offset(block.as_ptr());
        self.put_offsets(source, class, &[offset])
    }

    /// Empties a cache into the slabs.
    pub(super) fn empty(
        &self,
        source: &impl Source,
        cache: &Owned<'_>,
    ) -> std::result::Result<(), NotLive> {
        Class::all().try_for_each(|class| self.put_oldest(source, cache, class, MAX_CACHED))
    }

    /// Drains the caches of all threads that are not on their slow path into the slabs.
    pub(super) fn drain(&self, source: &impl Source) -> std::result::Result<(), NotLive> {
        self.caches
            .drain(|class, blocks| self.put(source, class, blocks))
    }

    /// Returns the `count` oldest blocks of a class from a cache to their slabs.
    fn put_oldest(
        &self,
        source: &impl Source,
        cache: &Owned<'_>,
        class: Class,
        count: usize,
    ) -> std::result::Result<(), NotLive> {
        if cache.count(class) == 0 {
            return Ok(());
        }
        let mut blocks = [ptr::null_mut(); MAX_CACHED];
        let count = cache.take_oldest(class, count, &mut blocks);
        self.put(source, class, &blocks[..count])
    }

    fn put(
        &self,
        source: &impl Source,
        class: Class,
        blocks: &[*mut u8],
    ) -> std::result::Result<(), NotLive> {
        let mut offsets = [0; MAX_CACHED];
        for (offset, block) in offsets.iter_mut().zip(blocks) {
            *offset = self.offset(*block);
        }
        self.put_offsets(source, class, &offsets[..blocks.len()])
    }

    /// Returns blocks that are in no cache to their slabs.
    pub(super) fn put_offsets(
        &self,
        source: &impl Source,
        class: Class,
        offsets: &[usize],
    ) -> std::result::Result<(), NotLive> {
        self.central.put(source, &self.table, class, offsets)
    }
}
