// SPDX-License-Identifier: GPL-2.0

//! What one thread keeps of free small blocks: a stack of offsets a class.
//!
//! The links are not in the blocks, so that what a program writes into a block
//! that it gave back leads nobody astray.

use std::cell::Cell;

use super::class::{Class, CLASSES, MOST_CACHED};

/// Free blocks of one class, by their offsets in the arena. The last one that
/// came is the first that goes: it is the likeliest to be in the CPU's caches.
struct Magazine {
    /// Blocks in it.
    len: Cell<usize>,
    /// Blocks that may be in it; 0 in a forked child.
    most: Cell<usize>,
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
            self.magazine(class).most.set(class.most_cached());
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
        let last = magazine.len.get().checked_sub(1)?;
        let offset = magazine.offsets.get(last)?.get();
        magazine.len.set(last);
        Some(offset)
    }

    /// Keeps a block; `false` when there are as many as there may be.
    #[inline]
    pub(crate) fn push(&self, class: Class, offset: usize) -> bool {
        let magazine = self.magazine(class);
        let len = magazine.len.get();
        if len >= magazine.most.get() {
            return false;
        }
        let Some(slot) = magazine.offsets.get(len) else {
            return false;
        };
        slot.set(offset);
        magazine.len.set(len + 1);
        true
    }

    /// Takes the `count` blocks out that came first, or all that there are, and
    /// says how many they are.
    pub(crate) fn take_oldest(
        &self,
        class: Class,
        count: usize,
        into: &mut [usize; MOST_CACHED],
    ) -> usize {
        let magazine = self.magazine(class);
        let len = magazine.len.get();
        let count = count.min(len);
        for (place, offset) in into.iter_mut().zip(&magazine.offsets[..count]) {
            *place = offset.get();
        }
        for index in count..len {
            magazine.offsets[index - count].set(magazine.offsets[index].get());
        }
        magazine.len.set(len - count);
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
            let taken = (0..1000).filter(|offset| cache.push(class, *offset));
            assert_eq!(taken.count(), class.most_cached());
        }
    }

    #[test]
    fn those_that_came_first_are_taken_out_first() {
        let (cache, class) = (Cache::default(), Class::of(4096).unwrap());
        for offset in 0..7 {
            assert!(cache.push(class, offset));
        }
        let mut out = [0; MOST_CACHED];
        assert_eq!(cache.take_oldest(class, 3, &mut out), 3);
        assert_eq!(out[..3], [0, 1, 2]);
        assert_eq!(cache.pop(class), Some(6));
        assert_eq!(cache.take_oldest(class, 99, &mut out), 3);
        assert_eq!(out[..3], [3, 4, 5]);
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
