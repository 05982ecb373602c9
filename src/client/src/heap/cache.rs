// SPDX-License-Identifier: MIT OR Apache-2.0

//! What one thread keeps of free small blocks: a stack of addresses a class.
//!
//! The links are not in the blocks, so that what a program writes into a block
//! that it gave back leads nobody astray.

use std::cell::Cell;
use std::hint;
#[cfg(test)]
use std::ptr;
use std::ptr::NonNull;

use super::class::{Class, Place, MOST_CACHED, PLACES};

/// Free blocks of one class, as a stack: the last one that came is the first that
/// goes, as it is the likeliest to be in the CPU's caches. Its size is a power of 2,
/// which is quick to find.
///
/// # Invariants
///
/// The first `len` of `blocks` are not null.
struct Magazine {
    /// Blocks that are kept.
    len: Cell<usize>,
    /// Blocks that may be kept; 0 in a forked child.
    most: Cell<usize>,
    /// Bits that are 0 in every block's address.
    below: Cell<usize>,
    blocks: [Cell<*mut u8>; MOST_CACHED],
}

/// A thread's free blocks, by class; the place of no class keeps none. All zeros is
/// a cache that is empty, and takes nothing.
pub(crate) struct Cache {
    magazines: [Magazine; PLACES],
}

impl Cache {
    /// Lets it take blocks.
    pub(crate) fn open(&self) {
        for class in Class::all() {
            let magazine = self.magazine(class.place());
            magazine.most.set(class.most_cached());
            magazine.below.set(class.bytes() - 1);
        }
    }

    #[inline]
    fn magazine(&self, place: Place) -> &Magazine {
        &self.magazines[place.number()]
    }

    /// The block that came last.
    #[inline]
    pub(crate) fn pop(&self, place: Place) -> Option<NonNull<u8>> {
        let magazine = self.magazine(place);
        let last = magazine.len.get().wrapping_sub(1);
        let block = magazine.blocks.get(last)?.get();
        magazine.len.set(last);
        // SAFETY: By the invariant. It is said twice, so that no caller looks again.
        Some(unsafe {
            hint::assert_unchecked(!block.is_null());
            NonNull::new_unchecked(block)
        })
    }

    /// Keeps a block; `false` when there are as many as there may be, when no block of the class begins at
    /// such an address, or when it is the one that came last.
    #[inline]
    pub(crate) fn push(&self, place: Place, block: NonNull<u8>) -> bool {
        let magazine = self.magazine(place);
        let len = magazine.len.get();
        if len >= magazine.most.get() || block.addr().get() & magazine.below.get() != 0 {
            return false;
        }
        if self.is_last(place, block) {
            return false;
        }
        let Some(last) = magazine.blocks.get(len) else {
            return false;
        };
        // INVARIANT: The new one is not null.
        last.set(block.as_ptr());
        magazine.len.set(len + 1);
        true
    }

    /// Whether a block is the one that came last: it is free then.
    #[inline]
    pub(crate) fn is_last(&self, place: Place, block: NonNull<u8>) -> bool {
        let magazine = self.magazine(place);
        let last = magazine.blocks.get(magazine.len.get().wrapping_sub(1));
        last.is_some_and(|last| last.get() == block.as_ptr())
    }

    /// Keeps blocks, of which the first will go first, as far as there is room in
    /// a magazine that is empty.
    pub(crate) fn fill(&self, class: Class, blocks: impl DoubleEndedIterator<Item = NonNull<u8>>) {
        let magazine = self.magazine(class.place());
        let mut len = 0;
        for (place, block) in magazine.blocks.iter().zip(blocks.rev()) {
            place.set(block.as_ptr());
            len += 1;
        }
        // INVARIANT: So many were just filled.
        magazine.len.set(len);
    }

    /// Takes the `count` blocks out that came first, or all that there are, and
    /// says how many they are.
    pub(crate) fn take_oldest(
        &self,
        class: Class,
        count: usize,
        into: &mut [*mut u8; MOST_CACHED],
    ) -> usize {
        let Magazine { len, blocks, .. } = self.magazine(class.place());
        let blocks = &blocks[..len.get()];
        let count = count.min(blocks.len());
        for (place, block) in into.iter_mut().zip(&blocks[..count]) {
            *place = block.get();
        }
        for (place, block) in blocks.iter().zip(&blocks[count..]) {
            place.set(block.get());
        }
        // INVARIANT: What is left came from the first ones.
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
                blocks: [const { Cell::new(ptr::null_mut()) }; MOST_CACHED],
            }),
        };
        cache.open();
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    /// A block at this address, which nobody looks into.
    fn block(address: usize) -> NonNull<u8> {
        NonNull::dangling().with_addr(NonZeroUsize::new(address).unwrap())
    }

    fn addresses(blocks: &[*mut u8]) -> Vec<usize> {
        blocks.iter().map(|block| block.addr()).collect()
    }

    fn push(cache: &Cache, class: Class, address: usize) -> bool {
        cache.push(class.place(), block(address))
    }

    fn pop(cache: &Cache, class: Class) -> Option<usize> {
        cache.pop(class.place()).map(|block| block.addr().get())
    }

    #[test]
    fn the_last_block_that_came_goes_first() {
        let (cache, class) = (Cache::default(), Class::of(64).unwrap());
        assert_eq!(pop(&cache, class), None);
        assert!(push(&cache, class, 64) && push(&cache, class, 128));
        assert_eq!(pop(&cache, class), Some(128));
        assert_eq!(pop(&cache, class), Some(64));
        assert_eq!(pop(&cache, class), None);
    }

    #[test]
    fn no_class_takes_more_than_it_may() {
        let cache = Cache::default();
        for class in Class::all() {
            let blocks = (1..1000).map(|number| number * class.bytes());
            let taken = blocks.filter(|address| push(&cache, class, *address));
            assert_eq!(taken.count(), class.most_cached());
        }
    }

    #[test]
    fn those_that_came_first_are_taken_out_first() {
        let (cache, class) = (Cache::default(), Class::of(4096).unwrap());
        for number in 1..8 {
            assert!(push(&cache, class, number << 12));
        }
        let mut out = [ptr::null_mut(); MOST_CACHED];
        assert_eq!(cache.take_oldest(class, 3, &mut out), 3);
        assert_eq!(addresses(&out[..3]), [1 << 12, 2 << 12, 3 << 12]);
        assert_eq!(pop(&cache, class), Some(7 << 12));
        assert_eq!(cache.take_oldest(class, 99, &mut out), 3);
        assert_eq!(addresses(&out[..3]), [4 << 12, 5 << 12, 6 << 12]);
        assert_eq!(pop(&cache, class), None);
    }

    #[test]
    fn an_address_where_no_block_begins_is_not_taken() {
        let cache = Cache::default();
        for class in Class::all() {
            assert!(!push(&cache, class, class.bytes() / 2));
            assert!(!push(&cache, class, class.bytes() + 1));
            assert!(push(&cache, class, 3 * class.bytes()));
        }
    }

    #[test]
    fn the_block_that_came_last_is_not_taken_again() {
        let (cache, class) = (Cache::default(), Class::of(64).unwrap());
        assert!(push(&cache, class, 64));
        assert!(!push(&cache, class, 64) && cache.is_last(class.place(), block(64)));
        assert!(push(&cache, class, 128));
        assert!(!cache.is_last(class.place(), block(64)));
        assert_eq!(
            (pop(&cache, class), pop(&cache, class)),
            (Some(128), Some(64))
        );
        assert!(push(&cache, class, 64));
    }

    #[test]
    fn the_place_of_no_class_takes_nothing() {
        assert!(!Cache::default().push(Place::of_bits(0), block(1 << 20)));
    }

    #[test]
    fn what_it_is_filled_with_goes_in_order() {
        let (cache, class) = (Cache::default(), Class::of(32).unwrap());
        cache.fill(class, [32, 64, 96].map(block).into_iter());
        assert_eq!(pop(&cache, class), Some(32));
        assert!(push(&cache, class, 320));
        let rest = [320, 64, 96].map(Some);
        assert_eq!([(); 3].map(|()| pop(&cache, class)), rest);
        assert_eq!(pop(&cache, class), None);
    }

    #[test]
    fn zeros_are_a_cache_that_takes_nothing() {
        let cache = Cache::default();
        for magazine in &cache.magazines {
            magazine.most.set(0);
        }
        assert!(Class::all().all(|class| !push(&cache, class, 1 << 20)));
    }
}
