// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory pressure: a heap that is short of memory, and the arena as the source of its slabs.

use std::sync::atomic::Ordering;

use super::central::Source;
use super::release::is_of_closed_file;
use super::{local, Shared};
use crate::error::{Call, Error, Result};
use crate::flags::Flags;

impl Shared {
    /// Fails with [`Error::Forked`] in a forked child.
    pub(super) fn must_be_here(&self) -> Result<()> {
        match self.here[0].load(Ordering::Relaxed) {
            0 => Err(Error::Forked),
            _ => Ok(()),
        }
    }

    /// Calls `ask`, and once more on failure if the heap could free memory that it held unused.
    pub(super) fn or_relieved<T>(&self, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
        ask().or_else(|error| if self.relieve() { ask() } else { Err(error) })
    }

    /// Drains the caches of all threads that are not in a call of the heap, and frees all slabs that are
    /// wholly free. Returns whether it freed any.
    pub(super) fn relieve(&self) -> bool {
        let emptied = local::attached(self, |cache| self.small.empty(self, cache));
        self.unless_misused(emptied.unwrap_or(Ok(())));
        if self.drains {
            self.unless_misused(self.small.drain(self));
        }
        self.small.central.trim(self) > 0
    }

    /// Discards the pages of slabs in which no block is in use.
    pub(super) fn discard(&self) {
        self.small.central.discard(self, &self.small.table);
    }
}

impl Source for Shared {
    fn alloc_slabs(&self, bytes: usize, lazy: bool, slabs: &mut [u64]) -> Result<usize> {
        let (size, flags) = match lazy {
            true => (bytes as u64, self.lazy),
            false => (bytes as u64, Flags::DEFAULT),
        };
        let count = self.arena.alloc_bulk(size, flags, slabs)?;
        let slabs = &slabs[..count];
        let last = slabs.iter().max().map_or(0, |last| *last as usize);
        if let Err(errno) = self.small.open_tables(last + bytes) {
            self.free_slabs(slabs);
            return Err(Error::refused(Call::AllocBulk { size, count, flags })(
                errno,
            ));
        }
        Ok(count)
    }

    fn free_slabs(&self, slabs: &[u64]) {
        match self.arena.free_bulk(slabs) {
            Err(error) if is_of_closed_file(&error) => self.say_file_is_closed(),
            given => debug_assert_eq!(given.ok(), Some(slabs.len()), "slabs are live blocks"),
        }
    }

    fn discard(&self, offset: usize, bytes: usize) -> bool {
        self.arena.discard(offset as u64, bytes as u64).is_ok()
    }
}
