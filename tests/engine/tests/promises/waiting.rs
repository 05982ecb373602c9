// SPDX-License-Identifier: GPL-2.0

//! Memory that is reserved for waiters, and blocks that could serve them.

use freelist_engine::engine::{max_shift, Admission, MIN_SHIFT};
use freelist_engine::host::Arena;

use super::{comb, request, DEFAULT, GROW, LARGER, NONE};

at_every_page_size! {
    memory_that_is_reserved_for_a_waiter_stays_whole;
    could_serve_agrees_with_reserve;
    could_serve_counts_unmerged_blocks;
    waiters_are_counted_by_class;
    a_freed_block_is_kept_for_a_waiter_that_takes_no_other;
}

mod generic {
    use super::*;

    pub fn memory_that_is_reserved_for_a_waiter_stays_whole<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        let (whole, _) = arena.alloc(request(4 * page, GROW)).unwrap();
        let (subpage, _) = arena.alloc(request(64, GROW)).unwrap();
        arena.free(whole).unwrap();
        arena.drain();
        for size in [page, 2 * page, 4 * page] {
            let admission = Admission::SubpageOrGrow;
            assert!(arena.reserve_as(request(size, LARGER), admission).is_err());
            let pending = arena.reserve_as(request(size, DEFAULT), admission).unwrap();
            assert_eq!(u64::from(pending.missing()), size / page);
            arena.cancel(pending);
        }
        // The free subpages of a divided page can be allocated.
        let pending = arena
            .reserve_as(request(page / 2, LARGER), Admission::SubpageOnly)
            .unwrap();
        assert_eq!(pending.offset() / page, subpage / page);
        arena.cancel(pending);
        assert_eq!(arena.alloc(request(4 * page, NONE)).unwrap().0, whole);
    }

    pub fn could_serve_agrees_with_reserve<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let sizes = [1, 32, 64, page / 2, page, 3 * page, 20 * page, 21 * page];
        for flags in [NONE, LARGER, GROW, DEFAULT] {
            for size in sizes {
                for admission in [
                    Admission::Full,
                    Admission::SubpageOrGrow,
                    Admission::SubpageOnly,
                ] {
                    let mut arena = Arena::<KIB>::new(1 << 20);
                    comb(&mut arena, 40);
                    let (small, _) = arena.alloc(request(64, LARGER)).unwrap();
                    arena.alloc(request(64, LARGER)).unwrap();
                    arena.free(small).unwrap();
                    arena.drain();
                    let waiter = request(size, flags);
                    let headroom = page;
                    arena.limit = 41;
                    let could = arena.could_serve(&waiter, admission, headroom);
                    let result = arena.alloc_as(waiter, admission);
                    assert_eq!(could, result.is_ok(), "{waiter:?} {admission:?}");
                }
            }
        }
    }

    pub fn could_serve_counts_unmerged_blocks<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        for flags in [LARGER, GROW, DEFAULT] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let halves = [(); 2].map(|()| arena.alloc(request(page / 2, DEFAULT)).unwrap().0);
            let waiter = request(page, flags);
            for (half, whole) in halves.into_iter().zip([false, true]) {
                arena.free(half).unwrap();
                let could = arena.could_serve(&waiter, Admission::Full, 0);
                assert_eq!(could, whole, "{flags:?}");
            }
        }
    }

    pub fn waiters_are_counted_by_class<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [100, 128, 1 << 20] {
            arena.engine.count_wait(&request(size, DEFAULT));
        }
        // A request without a class.
        arena.engine.count_wait(&request(0, DEFAULT));
        let waits = |shift| arena.engine.class(shift).waits;
        assert_eq!((MIN_SHIFT..=max_shift(KIB)).map(waits).sum::<u64>(), 3);
        assert_eq!([7, 20].map(waits), [2, 1]);
    }

    pub fn a_freed_block_is_kept_for_a_waiter_that_takes_no_other<const KIB: usize>() {
        use freelist_engine::engine::Garbage;
        let page = Arena::<KIB>::PAGE;
        for size in [64, page / 2, page, 3 * page, 1 << 16, 8 << 16] {
            let mut arena = Arena::<KIB>::new(1 << 20);
            let all = [(); 4].map(|()| arena.alloc(request(size, DEFAULT)).unwrap().0);
            let waiter = request(size, NONE);
            let waiters = [None, Some(&waiter)];
            arena.close_quick(true);
            arena.engine.keep_for(waiters, &mut Garbage::default());
            arena.check();
            // The block merges with none of its neighbours; a second one may.
            for offset in [all[0], all[1], all[2]] {
                arena.free(offset).unwrap();
            }
            assert_eq!(arena.counters().live_blocks, 1);
            let free = arena.counters().free_bytes;
            assert!(free >= 3 * size, "{free} of {size}");
            // No other request gets it or moves it.
            let held = arena.counters().held_bytes;
            arena.limit = (held / page) as u32;
            while let Ok((offset, _)) = arena.alloc(request(size, DEFAULT)) {
                assert_ne!(offset, all[0]);
            }
            assert!(arena.could_serve(&waiter, Admission::SubpageOnly, 0));
            assert_eq!(arena.alloc(waiter), Ok((all[0], size)));
            // The waiter leaves, and any request may have the block that was reserved for it.
            arena.free(all[0]).unwrap();
            assert!(arena.alloc(request(size, DEFAULT)).is_err());
            arena.engine.keep_for([None, None], &mut Garbage::default());
            arena.check();
            arena.close_quick(false);
            assert_eq!(arena.alloc(request(size, DEFAULT)).unwrap().0, all[0]);
        }
        // A longer block of its class serves too, and its rest is free.
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (long, _) = arena.alloc(request(8 * page, DEFAULT)).unwrap();
        arena.alloc(request(page, DEFAULT)).unwrap();
        let waiter = request(5 * page, NONE);
        arena.close_quick(true);
        arena
            .engine
            .keep_for([Some(&waiter), None], &mut Garbage::default());
        arena.free(long).unwrap();
        assert_eq!(arena.alloc(waiter), Ok((long, 5 * page)));
        assert_eq!(arena.engine.free_pages(), 3);
        // A block that is too short is not reserved.
        let waiter = request(8 * page, NONE);
        arena
            .engine
            .keep_for([Some(&waiter), None], &mut Garbage::default());
        arena.free(long).unwrap();
        assert_eq!(arena.engine.free_pages(), 8);
        arena.end();
    }
}
