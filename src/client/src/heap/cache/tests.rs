// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of a thread's cache.

use super::*;
use std::cell::RefCell;
use std::convert::Infallible;
use std::num::NonZeroUsize;

/// Makes a block at this address, which is never read.
fn block(address: usize) -> NonNull<u8> {
    NonNull::dangling().with_addr(NonZeroUsize::new(address).unwrap())
}

fn push(cache: &Cache, class: Class, address: usize) -> bool {
    cache.push(class.place(), block(address))
}

fn pop(cache: &Cache, class: Class) -> Option<usize> {
    cache.pop(class.place()).map(|block| block.addr().get())
}

/// The addresses of blocks that were taken out of a cache.
#[derive(Default)]
struct Left(RefCell<Vec<usize>>);

impl Sink for Left {
    type Error = Infallible;

    fn put(&self, _: Class, blocks: impl Iterator<Item = *mut u8>) -> Result<(), Self::Error> {
        self.0.borrow_mut().extend(blocks.map(|block| block.addr()));
        Ok(())
    }
}

impl Left {
    fn take(&self) -> Vec<usize> {
        self.0.take()
    }
}

/// Widens the bound of a class to its maximum, in a cache without other blocks.
fn widen(cache: &Cache, class: Class) {
    let owned = cache.enter().ok().unwrap();
    for _ in 0..7 {
        let Ok(()) = owned.widen(class, &Left::default());
    }
}

fn cache_of(bytes: usize) -> (Cache, Class) {
    let (cache, class) = (Cache::default(), Class::of(bytes).unwrap());
    widen(&cache, class);
    (cache, class)
}

#[test]
fn the_block_freed_last_is_allocated_first() {
    let (cache, class) = cache_of(64);
    assert_eq!(pop(&cache, class), None);
    assert!(push(&cache, class, 64) && push(&cache, class, 128));
    assert_eq!(pop(&cache, class), Some(128));
    assert_eq!(pop(&cache, class), Some(64));
    assert_eq!(pop(&cache, class), None);
    assert_eq!(pop(&cache, class), None);
}

#[test]
fn no_class_caches_more_than_its_bound() {
    for class in Class::all() {
        let cache = Cache::default();
        assert!(!push(&cache, class, 1 << 20));
        widen(&cache, class);
        let blocks = (1..1000).map(|slab| slab << 20);
        let taken = blocks.filter(|address| push(&cache, class, *address));
        assert_eq!(taken.count(), class.max_cached());
    }
}

#[test]
fn all_classes_together_keep_at_most_48_kib() {
    let cache = Cache::default();
    let left = Left::default();
    for round in 0..2000 * MAX_PAUSE {
        let class = Class::numbered(round * 7 % CLASSES as u32).unwrap();
        let owned = cache.enter().ok().unwrap();
        let Ok(()) = owned.widen(class, &left);
        drop(owned);
        for slab in 1..100 {
            push(&cache, class, (slab + 1000 * round as usize) << 20);
        }
        assert!(
            cache.kept_bytes() <= MAX_KEPT_BYTES,
            "{}",
            cache.kept_bytes()
        );
    }
    let kept = cache.kept_bytes();
    assert!(
        !left.take().is_empty() && kept > MAX_KEPT_BYTES / 4,
        "{kept}"
    );
}

/// In each round, makes a request of each class on the slow path, and fills the class up to its bound. Returns the
/// blocks that left the cache.
fn use_classes(cache: &Cache, classes: std::ops::Range<u32>, rounds: usize) -> Vec<usize> {
    let left = Left::default();
    for round in 0..rounds {
        for class in classes.clone().filter_map(Class::numbered) {
            let Ok(()) = cache.enter().ok().unwrap().widen(class, &left);
            let mut slabs = (1..).map(|slab| (slab + 100 * round) << 20);
            while slabs.next().is_some_and(|slab| push(cache, class, slab)) {}
        }
    }
    left.take()
}

#[test]
fn classes_that_are_used_alike_share_the_cache_and_keep_their_bounds() {
    let cache = Cache::default();
    use_classes(&cache, 0..32, 400);
    let bound = |class: Class| cache.enter().ok().unwrap().bound(class);
    let product = |class| bound(class) * bound(class) * class.bytes();
    let all: Vec<usize> = (0..32).filter_map(Class::numbered).map(product).collect();
    let (least, highest) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    // A step doubles a bound, which multiplies the product by 4. Two classes may be two steps apart.
    assert!(*least > 0 && *highest <= 32 * least, "{all:?}");
    assert!(cache.bytes.load(Ordering::Relaxed) as usize > MAX_KEPT_BYTES / 2);
    let moved = use_classes(&cache, 0..32, 100);
    assert!(moved.len() <= 32, "{} blocks of {all:?}", moved.len());
}

#[test]
fn an_unused_class_yields_its_bound_to_used_ones() {
    let cache = Cache::default();
    use_classes(&cache, 0..32, 400);
    use_classes(&cache, 40..44, 400);
    let bound = |class: Class| cache.enter().ok().unwrap().bound(class);
    for class in (40..44).filter_map(Class::numbered) {
        assert!(2 * bound(class) > class.max_cached(), "{class:?}");
    }
}

#[test]
fn the_oldest_blocks_are_taken_out_first() {
    let (cache, class) = cache_of(1024);
    for number in 1..8 {
        assert!(push(&cache, class, number << 12));
    }
    let owned = cache.enter().ok().unwrap();
    let left = Left::default();
    let Ok(()) = owned.put_oldest(class, 3, &left);
    assert_eq!(left.take(), [1 << 12, 2 << 12, 3 << 12]);
    assert_eq!(pop(&cache, class), Some(7 << 12));
    let Ok(()) = owned.put_oldest(class, 99, &left);
    assert_eq!(left.take(), [4 << 12, 5 << 12, 6 << 12]);
    assert_eq!(pop(&cache, class), None);
}

#[test]
fn an_address_at_which_no_block_begins_is_not_cached() {
    for class in Class::all() {
        let cache = Cache::default();
        widen(&cache, class);
        assert!(!push(&cache, class, (1 << 20) + class.bytes() / 2));
        assert!(!push(&cache, class, (1 << 20) + 1));
        // The address after the last block of the slab.
        let end = class.blocks() * class.bytes();
        assert_eq!(
            push(&cache, class, (1 << 20) + end),
            end == class.slab_bytes() && end.is_power_of_two()
        );
    }
}

#[test]
fn the_block_freed_last_is_not_cached_again() {
    let (cache, class) = cache_of(64);
    let is_last = |address| cache.enter().ok().unwrap().is_last(class, block(address));
    assert!(push(&cache, class, 64));
    assert!(!push(&cache, class, 64) && is_last(64));
    assert!(push(&cache, class, 128));
    assert!(!is_last(64));
    assert_eq!(
        (pop(&cache, class), pop(&cache, class)),
        (Some(128), Some(64))
    );
    assert!(push(&cache, class, 64));
}

#[test]
fn a_place_without_a_class_caches_no_block() {
    assert!(!Cache::default().push(Place::NONE, block(1 << 20)));
}

#[test]
fn blocks_of_a_refill_are_allocated_in_order() {
    let (cache, class) = cache_of(32);
    let owned = cache.enter().ok().unwrap();
    let mut filling = owned.fill(class);
    for address in [32, 64, 96] {
        filling.add(block(address));
    }
    filling.end();
    assert_eq!(pop(&cache, class), Some(32));
    assert!(push(&cache, class, 320));
    let rest = [320, 64, 96].map(Some);
    assert_eq!([(); 3].map(|()| pop(&cache, class)), rest);
    assert_eq!(pop(&cache, class), None);
}

#[test]
fn a_drain_takes_all_blocks_and_the_owner_continues() {
    assert!(crate::sync::can_heavy_barrier());
    let (cache, class) = cache_of(64);
    let drained = |cache: &Cache| {
        let left = Left::default();
        let Ok(()) = cache.drain(&left);
        left.take()
    };
    for number in 1..=5 {
        assert!(push(&cache, class, number * 64));
    }
    assert_eq!(drained(&cache), [64, 128, 192, 256, 320]);
    assert_eq!((pop(&cache, class), drained(&cache)), (None, vec![]));
    // Another thread has got block 320 meanwhile, and this thread frees it.
    assert!(push(&cache, class, 320) && push(&cache, class, 64));
    assert_eq!((pop(&cache, class), drained(&cache)), (Some(64), vec![320]));
    let owned = cache.enter().ok().unwrap();
    assert!(push(&cache, class, 64));
    assert_eq!(drained(&cache), [] as [usize; 0]);
    assert!(matches!(cache.enter(), Err(Entered::Already)));
    let left = Left::default();
    let Ok(()) = owned.put_oldest(class, 9, &left);
    assert_eq!(left.take(), [64]);
}
