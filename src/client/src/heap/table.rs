// SPDX-License-Identifier: MIT OR Apache-2.0

//! What begins at which 64 KiB of the arena: blocks have no header, so this
//! tells how large a block is whose address is all that is known.
//!
//! A slab lies in one such unit. A larger block is aligned to a unit too, so
//! that only one block begins in a unit.

use super::class::{Class, Place, PLACES, SLAB_SHIFT};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sys::{Anonymous, Errno, Fork};

/// What begins at a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nothing that the heap handed out.
    Nothing,
    /// A slab, all of it in blocks of this class.
    Slab(Class),
    /// A block of so many bytes, a multiple of 4 KiB.
    Large(usize),
}

/// Set in the entry of a large block; the bits below are its bytes, by
/// [`GRAIN_SHIFT`], and 0 where other entries have a [`Place`].
const LARGE: u32 = 1 << 31;
/// The bits below are those of a place.
const PLACE_BITS: u32 = PLACES.ilog2();
const GRAIN_SHIFT: u32 = 12;
/// The bytes of large blocks are multiples of this: no page is smaller.
pub(crate) const GRAIN_BYTES: usize = 1 << GRAIN_SHIFT;

impl Unit {
    #[inline]
    fn of(entry: u32) -> Self {
        if let Some(class) = Class::numbered(entry.wrapping_sub(1)) {
            Self::Slab(class)
        } else if entry & LARGE != 0 {
            Self::Large(((entry & !LARGE) as usize >> PLACE_BITS) << GRAIN_SHIFT)
        } else {
            Self::Nothing
        }
    }

    fn entry(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Slab(class) => class.place().number() as u32,
            Self::Large(bytes) => LARGE | ((bytes >> GRAIN_SHIFT) << PLACE_BITS) as u32,
        }
    }
}

/// An entry a unit. Reads and writes are relaxed: who has a block's address got
/// it, in whatever way, from the thread that was handed the block, and that
/// one's entry was written before. In a forked child all entries are 0.
pub(crate) struct Table(Anonymous<AtomicU32>);

impl Table {
    /// Of `units` units. Only addresses are used; entries are written that [`Table::open`] has made room
    /// for.
    pub(crate) fn new(units: usize) -> Result<Self, Errno> {
        Anonymous::reserve(units, Fork::Wipe).map(Self)
    }

    /// Has room for the entries of the first `units` units.
    pub(crate) fn open(&self, units: usize) -> Result<(), Errno> {
        self.0.open(units)
    }

    /// What begins at the unit that `offset` is in; `None` beyond the arena.
    #[inline]
    pub(crate) fn unit(&self, offset: usize) -> Option<Unit> {
        let entry = self.0.get(offset >> SLAB_SHIFT)?;
        Some(Unit::of(entry.load(Relaxed)))
    }

    /// The class of the slab that `offset` is in, or that it is in none; `None`
    /// beyond the arena.
    #[inline]
    pub(crate) fn place(&self, offset: usize) -> Option<Place> {
        let entry = self.0.get(offset >> SLAB_SHIFT)?;
        Some(Place::of_bits(entry.load(Relaxed)))
    }

    /// Says what begins there from now on.
    pub(crate) fn set(&self, offset: usize, unit: Unit) {
        self.0[offset >> SLAB_SHIFT].store(unit.entry(), Relaxed);
    }

    /// Nothing begins there from now on; the bytes of the large block that did,
    /// if one did. Of two threads that call it one gets them.
    pub(crate) fn clear_large(&self, offset: usize) -> Option<usize> {
        let entry = self.0.get(offset >> SLAB_SHIFT)?;
        let old = entry.load(Relaxed);
        match Unit::of(old) {
            Unit::Large(bytes) => {
                let swapped = entry.compare_exchange(old, 0, Relaxed, Relaxed);
                swapped.is_ok().then_some(bytes)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_found_in_all_of_its_unit() {
        let table = Table::new(4).unwrap();
        table.open(4).unwrap();
        let units = Class::all().map(Unit::Slab);
        for unit in units.chain([Unit::Large(36 << 10), Unit::Large(1 << 30), Unit::Nothing]) {
            table.set(2 << SLAB_SHIFT, unit);
            assert_eq!(table.unit((3 << SLAB_SHIFT) - 1), Some(unit));
            assert_eq!(table.unit((2 << SLAB_SHIFT) - 1), Some(Unit::Nothing));
            let place = match unit {
                Unit::Slab(class) => class.place(),
                _ => Place::of_bits(0),
            };
            assert_eq!(table.place(2 << SLAB_SHIFT), Some(place));
        }
        assert_eq!(table.unit(4 << SLAB_SHIFT), None);
    }

    #[test]
    fn a_large_block_goes_once() {
        let table = Table::new(2).unwrap();
        table.open(2).unwrap();
        table.set(0, Unit::Large(40 << 10));
        assert_eq!(table.clear_large(0), Some(40 << 10));
        assert_eq!(table.clear_large(0), None);
        table.set(0, Unit::Slab(Class::of(1).unwrap()));
        assert_eq!(table.clear_large(0), None);
        assert_ne!(table.unit(0), Some(Unit::Nothing));
    }
}
