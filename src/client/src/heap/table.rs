// SPDX-License-Identifier: MIT OR Apache-2.0

//! The class or size of the block at an address, as blocks have no header.
//!
//! The entry of each grain (4 KiB) of a slab has the slab's class. A larger block is aligned to 64 KiB, so at
//! most one begins in each 64 KiB; a slab may follow it there.

use super::class::{Class, Place, GRAIN_BYTES, GRAIN_SHIFT, UNIT_BYTES, UNIT_SHIFT};
use crate::sync::atomic::{AtomicU32, AtomicU8, Ordering::Relaxed};
use crate::sys::{Anonymous, Errno, Fork};

/// Reads and writes are relaxed: a thread that has a block's address got it, by some synchronisation, from the
/// thread that allocated it, and its entry was written before that. In a forked child all entries are 0.
pub(crate) struct Table {
    /// A [`Place`] for each grain.
    places: Anonymous<AtomicU8>,
    /// For each 64 KiB, the grains of the large block that begins there; 0 if none.
    large: Anonymous<AtomicU32>,
}

impl Table {
    /// Makes the table of an arena of `bytes` bytes. That takes address space only; [`Table::open`] has to
    /// come before an entry is written.
    pub(crate) fn new(bytes: usize) -> Result<Self, Errno> {
        Ok(Self {
            places: Anonymous::reserve(bytes.div_ceil(GRAIN_BYTES), Fork::Wipe)?,
            large: Anonymous::reserve(bytes.div_ceil(UNIT_BYTES), Fork::Wipe)?,
        })
    }

    /// Extends the table to the first `bytes` bytes of the arena.
    pub(crate) fn open(&self, bytes: usize) -> Result<(), Errno> {
        self.places.open(bytes.div_ceil(GRAIN_BYTES))?;
        self.large.open(bytes.div_ceil(UNIT_BYTES))
    }

    /// Returns the place of the class of the slab that `offset` is in; `None` beyond the arena.
    #[inline]
    pub(crate) fn place(&self, offset: usize) -> Option<Place> {
        let entry = self.places.get(offset >> GRAIN_SHIFT)?;
        Some(Place::of_byte(entry.load(Relaxed)))
    }

    /// Returns the class of the slab that `offset` is in; `None` if it is in no slab.
    pub(crate) fn class(&self, offset: usize) -> Option<Class> {
        self.place(offset)?.class()
    }

    /// Returns the bytes of the large block that begins at `offset`; `None` if none begins there.
    pub(crate) fn large(&self, offset: usize) -> Option<usize> {
        let bytes = (self.entry(offset)?.load(Relaxed) as usize) << GRAIN_SHIFT;
        (bytes > 0).then_some(bytes)
    }

    /// Returns the bytes of the block that begins at `offset`; `None` if none can begin there.
    pub(crate) fn block(&self, offset: usize) -> Option<usize> {
        match self.class(offset) {
            Some(class) => class.block_at(offset).map(|_| class.bytes()),
            None => self.large(offset),
        }
    }

    /// Notes that a slab begins at `offset`.
    pub(crate) fn set_slab(&self, offset: usize, class: Class) {
        self.set_places(offset, class, class.place());
    }

    /// Notes that the slab that began at `offset` is gone.
    pub(crate) fn clear_slab(&self, offset: usize, class: Class) {
        self.set_places(offset, class, Place::NONE);
    }

    fn set_places(&self, offset: usize, class: Class, place: Place) {
        let first = offset >> GRAIN_SHIFT;
        for entry in &self.places[first..first + (class.slab_bytes() >> GRAIN_SHIFT)] {
            entry.store(place.byte(), Relaxed);
        }
    }

    /// Notes that a large block of `bytes` bytes, a multiple of 4 KiB, begins at `offset`.
    pub(crate) fn set_large(&self, offset: usize, bytes: usize) {
        self.large[offset >> UNIT_SHIFT].store((bytes >> GRAIN_SHIFT) as u32, Relaxed);
    }

    /// Notes that the large block that began at `offset` is gone, and returns its bytes; `None` if there was
    /// none. If two threads call it, one of them gets the bytes.
    pub(crate) fn clear_large(&self, offset: usize) -> Option<usize> {
        let bytes = (self.entry(offset)?.swap(0, Relaxed) as usize) << GRAIN_SHIFT;
        (bytes > 0).then_some(bytes)
    }

    fn entry(&self, offset: usize) -> Option<&AtomicU32> {
        match offset % UNIT_BYTES {
            0 => self.large.get(offset >> UNIT_SHIFT),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(units: usize) -> Table {
        let table = Table::new(units << UNIT_SHIFT).unwrap();
        table.open(units << UNIT_SHIFT).unwrap();
        table
    }

    #[test]
    fn a_slab_is_found_in_all_of_its_grains() {
        let table = table(2);
        for class in Class::all() {
            let (slab, end) = (UNIT_BYTES, UNIT_BYTES + class.slab_bytes());
            table.set_slab(slab, class);
            for offset in [slab, slab + GRAIN_BYTES - 1, end - 1] {
                assert_eq!(table.class(offset), Some(class));
                assert_eq!(table.place(offset), Some(class.place()));
            }
            assert_eq!(table.block(slab), Some(class.bytes()));
            assert_eq!(table.block(slab + 1), None);
            for offset in [slab - 1, end] {
                assert_eq!(table.class(offset), None);
            }
            table.clear_slab(slab, class);
            assert_eq!(table.place(end - 1), Some(Place::NONE));
        }
        assert_eq!(table.place(2 << UNIT_SHIFT), None);
    }

    #[test]
    fn a_large_block_is_cleared_once() {
        let table = table(2);
        table.set_large(0, 40 << 10);
        // The entries of what follows it stay.
        let class = Class::of(100).unwrap();
        table.set_slab(40 << 10, class);
        assert_eq!(table.clear_large(4096), None);
        assert_eq!(table.block(4096), None);
        assert_eq!(table.block(0), Some(40 << 10));
        assert_eq!(table.clear_large(0), Some(40 << 10));
        assert_eq!(table.clear_large(0), None);
        assert_eq!(table.block(40 << 10), Some(class.bytes()));
        assert_eq!(table.clear_large(1 << 40), None);
    }
}
