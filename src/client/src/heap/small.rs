// SPDX-License-Identifier: MIT OR Apache-2.0

//! Small blocks but for the fast path: a cache's way to the slabs and back, with the arena as a
//! [`Source`].

use std::ptr::{self, NonNull};

use super::cache::Owned;
use super::central::{Central, NotLive, Source};
use super::class::{Class, MOST_CACHED};
use super::registry::Registry;
use super::table::Table;
use crate::error::Result;
use crate::sys::Errno;

/// Small blocks of a heap.
pub(super) struct Small {
    pub(super) central: Central,
    pub(super) table: Table,
    pub(super) caches: Registry,
    /// Where the arena begins; blocks are aligned to it.
    base: NonNull<u8>,
}

// SAFETY: The address is one of memory for all threads, and is not looked behind.
unsafe impl Send for Small {}
// SAFETY: As above.
unsafe impl Sync for Small {}

impl Small {
    /// Makes those of an arena of `bytes` bytes at `base`.
    pub(super) fn new(base: NonNull<u8>, bytes: usize) -> std::result::Result<Self, Errno> {
        Ok(Self {
            central: Central::new(bytes)?,
            table: Table::new(bytes)?,
            caches: Registry::new(),
            base,
        })
    }

    /// Makes room in the tables for what lies in the first `bytes` bytes.
    pub(super) fn open_tables(&self, bytes: usize) -> std::result::Result<(), Errno> {
        self.table.open(bytes)?;
        self.central.open(bytes)
    }

    /// Returns the address of an offset in the arena.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        // No offset reaches the end of the address space.
        self.base.map_addr(|base| base.saturating_add(offset))
    }

    /// Returns the offset of an address: beyond the arena for one that is not in it.
    #[inline]
    pub(super) fn offset(&self, address: *mut u8) -> usize {
        address.addr().wrapping_sub(self.base.addr().get())
    }

    /// Takes a block for a thread that has no cache.
    pub(super) fn take_one(&self, source: &impl Source, class: Class) -> Result<NonNull<u8>> {
        let mut block = [0];
        self.central.take(source, &self.table, class, &mut block)?;
        Ok(self.at(block[0]))
    }

    /// Takes a block of a class of which a cache keeps none, and fills it up to half of what it may keep. A
    /// block that is not live, which is found when another class gives way, is the inner error.
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
        let mut blocks = [0; MOST_CACHED];
        let most = cache.most(class).div_ceil(2).max(1);
        let taken = self
            .central
            .take(source, &self.table, class, &mut blocks[..most]);
        Ok(taken.map(|count| {
            let rest = blocks[1..count].iter();
            cache.fill(class, rest.map(|offset| self.at(*offset)));
            self.at(blocks[0])
        }))
    }

    /// Keeps a block of a class of which a cache has as many as it may, in the place of others. A block that
    /// is not live is the error: this one, if it came last before.
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
        let half = cache.most(class).div_ceil(2);
        self.put_oldest(source, cache, class, half)?;
        if cache.push(class, block) {
            return Ok(());
        }
        let offset = self.offset(block.as_ptr());
        self.put_offsets(source, class, &[offset])
    }

    /// Takes all out of a cache.
    pub(super) fn empty(
        &self,
        source: &impl Source,
        cache: &Owned<'_>,
    ) -> std::result::Result<(), NotLive> {
        Class::all().try_for_each(|class| self.put_oldest(source, cache, class, MOST_CACHED))
    }

    /// Takes all out of the caches of threads that are not allocating or freeing.
    pub(super) fn drain(&self, source: &impl Source) -> std::result::Result<(), NotLive> {
        self.caches
            .drain(|class, blocks| self.put(source, class, blocks))
    }

    /// Takes the `count` blocks of a class out of a cache that came first.
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
        let mut blocks = [ptr::null_mut(); MOST_CACHED];
        let count = cache.take_oldest(class, count, &mut blocks);
        self.put(source, class, &blocks[..count])
    }

    fn put(
        &self,
        source: &impl Source,
        class: Class,
        blocks: &[*mut u8],
    ) -> std::result::Result<(), NotLive> {
        let mut offsets = [0; MOST_CACHED];
        for (offset, block) in offsets.iter_mut().zip(blocks) {
            *offset = self.offset(*block);
        }
        self.put_offsets(source, class, &offsets[..blocks.len()])
    }

    /// Takes blocks back that no cache keeps.
    pub(super) fn put_offsets(
        &self,
        source: &impl Source,
        class: Class,
        offsets: &[usize],
    ) -> std::result::Result<(), NotLive> {
        self.central.put(source, &self.table, class, offsets)
    }
}
