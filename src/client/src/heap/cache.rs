// SPDX-License-Identifier: GPL-2.0

//! What one thread keeps of free small blocks: a stack of offsets a class.
//!
//! The links are not in the blocks, so that what a program writes into a block
//! that it gave back leads nobody astray.

use std::cell::Cell;

use super::class::{Class, CLASSES, MOST_CACHED};

/// Free blocks of one class, as a stack of offsets in the arena: the last one that
/// came is the first that goes, as it is the likeliest to be in the CPU's caches.
/// Its size is a power of 2, which is quick to find.
struct Magazine {
    /// Blocks that are kept.
    len: Cell<usize>,
    /// Blocks that may be kept; 0 in a forked child.
    most: Cell<usize>,
    /// Bits that are 0 in every block's offset.
    below: Cell<usize>,
    offsets: [Cell<usize>; MOST_CACHED],
}

/// A thread's free blocks, by class. All zeros is a cache that is empty, and
/// takes nothing.
pub(crate) struct Cache {
    magazines: [Magazine; CLASSES],
}

impl Cache {
    /// Lets it take blocks.
    pub(crate) fn open(&self) {
        for class in Class::all() {
            let magazine = self.magazine(class);
            magazine.most.set(class.most_cached());
            magazine.below.set(class.bytes() - 1);
        }
    }

    #[inline]
    fn magazine(&self, class: Class) -> &Magazine {
        &self.magazines[class.number()]
    }

    /// The block that came last.
    #[inline]
    pub(crate) fn pop(&self, class: Class) -> Option<usize> {
        let magazine = self.magazine(class);
        let last = magazine.len.get().wrapping_sub(1);
        let offset = magazine.offsets.get(last)?.get();
        magazine.len.set(last);
        Some(offset)
    }

    /// Keeps a block; `false` when there are as many as there may be, or when no
    /// block of the class begins at such an offset.
    #[inline]
    pub(crate) fn push(&self, class: Class, offset: usize) -> bool {
        let magazine = self.magazine(class);
        let len = magazine.len.get();
        if len >= magazine.most.get() || offset & magazine.below.get() != 0 {
            return false;
        }
        let Some(place) = magazine.offsets.get(len) else {
            return false;
        };
        place.set(offset);
        magazine.len.set(len + 1);
        true
    }

    /// Keeps blocks, of which the first will go first, as far as there is room in
    /// a magazine that is empty.
    pub(crate) fn fill(&self, class: Class, blocks: &[usize]) {
        let magazine = self.magazine(class);
        for (place, offset) in magazine.offsets.iter().zip(blocks.iter().rev()) {
            place.set(*offset);
        }
        magazine.len.set(blocks.len().min(MOST_CACHED));
    }

    /// Takes the `count` blocks out that came first, or all that there are, and
    /// says how many they are.
    pub(crate) fn take_oldest(
        &self,
        class: Class,
        count: usize,
        into: &mut [usize; MOST_CACHED],
    ) -> usize {
        let Magazine { len, offsets, .. } = self.magazine(class);
        let blocks = &offsets[..len.get()];
        let count = count.min(blocks.len());
        for (place, offset) in into.iter_mut().zip(&blocks[..count]) {
            *place = offset.get();
        }
        for (place, offset) in blocks.iter().zip(&blocks[count..]) {
            place.set(offset.get());
        }
        len.set(blocks.len() - count);
        count
    }
}

#[cfg(test)]
impl Default for Cache {
    fn default() -> Self {
        let cache = Self {
            magazines: std::array::from_fn(|_| Magazine {
                len: Cell::new(0),
                most: Cell::new(0),
                below: Cell::new(0),
                offsets: [const { Cell::new(0) }; MOST_CACHED],
            }),
        };
        cache.open();
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_that_came_goes_first() {
        let (cache, class) = (Cache::default(), Class::of(64).unwrap());
        assert_eq!(cache.pop(class), None);
        assert!(cache.push(class, 64) && cache.push(class, 128));
        assert_eq!(cache.pop(class), Some(128));
        assert_eq!(cache.pop(class), Some(64));
        assert_eq!(cache.pop(class), None);
    }

    #[test]
    fn no_class_takes_more_than_it_may() {
        let cache = Cache::default();
        for class in Class::all() {
            let blocks = (0..1000).map(|number| number * class.bytes());
            let taken = blocks.filter(|offset| cache.push(class, *offset));
            assert_eq!(taken.count(), class.most_cached());
        }
    }

    #[test]
    fn those_that_came_first_are_taken_out_first() {
        let (cache, class) = (Cache::default(), Class::of(4096).unwrap());
        for number in 0..7 {
            assert!(cache.push(class, number << 12));
        }
        let mut out = [0; MOST_CACHED];
        assert_eq!(cache.take_oldest(class, 3, &mut out), 3);
        assert_eq!(out[..3], [0, 1 << 12, 2 << 12]);
        assert_eq!(cache.pop(class), Some(6 << 12));
        assert_eq!(cache.take_oldest(class, 99, &mut out), 3);
        assert_eq!(out[..3], [3 << 12, 4 << 12, 5 << 12]);
        assert_eq!(cache.pop(class), None);
    }

    #[test]
    fn an_offset_where_no_block_begins_is_not_taken() {
        let cache = Cache::default();
        for class in Class::all() {
            assert!(!cache.push(class, class.bytes() / 2));
            assert!(!cache.push(class, class.bytes() + 1));
            assert!(cache.push(class, 3 * class.bytes()));
        }
    }

    #[test]
    fn what_it_is_filled_with_goes_in_order() {
        let (cache, class) = (Cache::default(), Class::of(32).unwrap());
        cache.fill(class, &[32, 64, 96]);
        assert_eq!(cache.pop(class), Some(32));
        assert!(cache.push(class, 320));
        let rest = [320, 64, 96].map(Some);
        assert_eq!([(); 3].map(|()| cache.pop(class)), rest);
        assert_eq!(cache.pop(class), None);
    }

    #[test]
    fn zeros_are_a_cache_that_takes_nothing() {
        let cache = Cache::default();
        for magazine in &cache.magazines {
            magazine.most.set(0);
        }
        assert!(Class::all().all(|class| !cache.push(class, 0)));
    }
}
