// SPDX-License-Identifier: MIT OR Apache-2.0

//! The size of the block that begins at an offset, as blocks have no header.

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sys::{Fork, Lazy};

/// The unit of blocks' offsets in bytes: a block above 32 KiB is aligned to 64 KiB at least.
pub(super) const UNIT: usize = 1 << UNIT_SHIFT;
const UNIT_SHIFT: u32 = 16;
/// The log2 of the unit of blocks' sizes in bytes: no page is smaller.
const GRAIN_SHIFT: u32 = 12;
/// The entries of a part of the table: for 4 GiB of offsets, in 256 KiB.
const PART: usize = 1 << 16;
/// The parts of the table: 256 GiB of offsets.
const PARTS: usize = 64;
/// The bit in the entry of a block that `realloc()` has grown.
const GROWN: u32 = 1 << 31;

/// A live block, as in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The bytes of the block.
    pub(super) bytes: usize,
    /// `true` if `realloc()` has grown it.
    pub(super) grown: bool,
}

impl Entry {
    fn of(word: u32) -> Option<Self> {
        (word != 0).then_some(Self {
            bytes: ((word & !GROWN) as usize) << GRAIN_SHIFT,
            grown: word & GROWN != 0,
        })
    }

    /// Returns the entry as a word; `None` if its size does not fit.
    fn word(self) -> Option<u32> {
        let grains = u32::try_from(self.bytes >> GRAIN_SHIFT).ok()?;
        let fits = grains != 0 && grains & GROWN == 0 && self.bytes % (1 << GRAIN_SHIFT) == 0;
        fits.then_some(grains | if self.grown { GROWN } else { 0 })
    }
}

/// A table with an entry for each unit of the arena, in parts that are mapped when they are needed.
///
/// Reads and writes are relaxed: a thread that has a block's address got it, by some synchronisation,
/// from the thread that allocated the block, and the entry was written before. A forked child has a copy.
pub(super) struct Table(Lazy<Lazy<AtomicU32, PART>, PARTS>);

impl Table {
    pub(super) const fn new() -> Self {
        Self(Lazy::new())
    }

    fn entry(&self, offset: usize) -> Option<&AtomicU32> {
        let unit = offset >> UNIT_SHIFT;
        self.0.get()?.get(unit / PART)?.get()?.get(unit % PART)
    }

    /// Returns a part, which is mapped if it was not; `None` beyond the last, or if there is no memory.
    fn part(&self, number: usize) -> Option<&[AtomicU32; PART]> {
        let parts = self.0.get_or_map(Fork::Keep).ok()?;
        parts.get(number)?.get_or_map(Fork::Keep).ok()
    }

    /// Returns the block that begins at `offset`; `None` if none begins there.
    pub(super) fn get(&self, offset: usize) -> Option<Entry> {
        if offset % UNIT != 0 {
            return None;
        }
        Entry::of(self.entry(offset)?.load(Relaxed))
    }

    /// Notes that a block begins at `offset`. Returns `false` if the table cannot hold it: there is no
    /// memory for that part, the offset is above 256 GiB, or no block has such an offset or size.
    pub(super) fn set(&self, offset: usize, entry: Entry) -> bool {
        let unit = offset >> UNIT_SHIFT;
        let Some(word) = entry.word().filter(|_| offset % UNIT == 0) else {
            return false;
        };
        let Some(part) = self.part(unit / PART) else {
            return false;
        };
        part[unit % PART].store(word, Relaxed);
        true
    }

    /// Removes the block at `offset` and returns it. Of several threads that try, one succeeds.
    pub(super) fn take(&self, offset: usize) -> Option<Entry> {
        if offset % UNIT != 0 {
            return None;
        }
        Entry::of(self.entry(offset)?.swap(0, Relaxed))
    }

    /// Calls `visit` with all blocks that begin below `end`, in the order of their offsets.
    pub(super) fn for_each(&self, end: usize, mut visit: impl FnMut(usize, Entry)) {
        let units = end.div_ceil(UNIT);
        for (number, part) in self.0.get().into_iter().flatten().enumerate() {
            let first = number * PART;
            let Some(part) = part.get().filter(|_| first < units) else {
                continue;
            };
            for (at, word) in part.iter().enumerate().take(units - first) {
                if let Some(entry) = Entry::of(word.load(Relaxed)) {
                    visit((first + at) << UNIT_SHIFT, entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: usize, grown: bool) -> Entry {
        Entry { bytes, grown }
    }

    #[test]
    fn an_entry_is_found_and_taken_once() {
        let table = Table::new();
        for (offset, block) in [
            (0, entry(68 << 10, false)),
            (5 << 30, entry(1 << 30, true)),
            ((256 << 30) - UNIT, entry(64 << 10, false)),
        ] {
            assert_eq!(table.get(offset), None);
            assert!(table.set(offset, block));
            assert_eq!(table.get(offset), Some(block));
            assert_eq!(table.take(offset), Some(block));
            assert_eq!(table.take(offset), None);
        }
    }

    #[test]
    fn an_offset_or_a_size_that_no_block_has_is_refused() {
        let table = Table::new();
        assert!(!table.set(256 << 30, entry(64 << 10, false)), "beyond it");
        assert!(!table.set(4096, entry(64 << 10, false)), "inside a unit");
        assert!(!table.set(0, entry(100, false)), "no whole pages");
        assert!(!table.set(0, entry(0, false)), "nothing");
        assert!(!table.set(0, entry(1 << 43, false)), "too large");
        assert!(table.set(0, entry(64 << 10, false)));
        assert_eq!((table.get(4096), table.take(1)), (None, None));
    }

    #[test]
    fn all_below_an_end_are_visited_in_order() {
        let table = Table::new();
        let offsets = [0, UNIT, 3 * UNIT, 6 << 30];
        for offset in offsets {
            assert!(table.set(offset, entry(offset / 2 + 4096, false)));
        }
        let mut seen = Vec::new();
        table.for_each(usize::MAX >> 8, |offset, block| {
            seen.push((offset, block.bytes))
        });
        assert_eq!(seen, offsets.map(|offset| (offset, offset / 2 + 4096)));
        seen.clear();
        table.for_each(UNIT + 1, |offset, _| seen.push((offset, 0)));
        assert_eq!(seen, [(0, 0), (UNIT, 0)]);
    }
}
