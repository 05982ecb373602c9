// SPDX-License-Identifier: GPL-2.0

//! Lazy blocks: a touch backs pages, a discard drops them, and none is lost when the block is freed, resized or
//! loses a page in between.

mod model;

use freelist_engine::at_every_page_size;
use freelist_engine::engine::{
    Admission, DiscardError, Discarding, FreeError, Loss, Policy, Request, Resized, Unfinished,
    Untouchable, CHUNK_PAGES,
};
use freelist_engine::host::{request, Arena};

/// Returns a request for a lazy block with `FREELIST_DEFAULT`.
fn lazy(size: u64) -> Request {
    Request {
        lazy: true,
        ..request(size)
    }
}

/// Touches a page and backs it. Returns how many pages were backed.
fn touched<const KIB: usize>(arena: &mut Arena<KIB>, page: u32) -> u32 {
    let touch = arena.touch(page, 10).unwrap();
    let pages = touch.range().len() as u32;
    assert!(touch.range().contains(&page));
    assert!(arena.finish_touch(touch));
    pages
}

/// Discards pages, except for those of which `stays` is `true`.
fn discarded<const KIB: usize>(
    arena: &mut Arena<KIB>,
    range: std::ops::Range<u32>,
    stays: impl Fn(u32) -> bool,
) {
    let mut page = range.start;
    while page < range.end {
        match arena.engine.discard(page, range.end) {
            Discarding::Range(discard) => {
                page = discard.range().end;
                arena.finish_discard(discard, &stays);
            }
            Discarding::Next(next) => page = next,
            Discarding::Busy => panic!("nothing else is in transit"),
        }
    }
}

#[test]
fn records_of_a_growth_are_freed_when_it_joins() {
    at_every_page_size!(records_of_a_growth_are_freed_when_it_joins);
}

#[test]
fn a_lazy_block_holds_only_touched_pages() {
    at_every_page_size!(a_lazy_block_holds_only_touched_pages);
}

#[test]
fn a_block_that_is_touched_in_order_gets_ever_larger_folios() {
    at_every_page_size!(a_block_that_is_touched_in_order_gets_ever_larger_folios);
}

#[test]
fn touches_at_random_back_single_pages() {
    at_every_page_size!(touches_at_random_back_single_pages);
}

#[test]
fn a_lazy_request_takes_free_memory_first() {
    at_every_page_size!(a_lazy_request_takes_free_memory_first);
}

#[test]
fn a_touch_of_a_block_that_is_freed_backs_no_page() {
    at_every_page_size!(a_touch_of_a_block_that_is_freed_backs_no_page);
}

#[test]
fn no_request_gets_a_place_where_memory_is_in_transit() {
    at_every_page_size!(no_request_gets_a_place_where_memory_is_in_transit);
}

#[test]
fn discarded_pages_can_be_touched_again() {
    at_every_page_size!(discarded_pages_can_be_touched_again);
}

#[test]
fn only_whole_live_blocks_of_pages_are_discarded() {
    at_every_page_size!(only_whole_live_blocks_of_pages_are_discarded);
}

#[test]
fn a_lazy_block_that_lost_a_page_gets_no_more() {
    at_every_page_size!(a_lazy_block_that_lost_a_page_gets_no_more);
}

#[test]
fn an_untouched_block_costs_no_memory_but_its_entry() {
    at_every_page_size!(an_untouched_block_costs_no_memory_but_its_entry);
}

#[test]
fn the_beginning_of_a_large_block_takes_fewer_touches() {
    at_every_page_size!(the_beginning_of_a_large_block_takes_fewer_touches);
}

#[test]
fn a_block_with_many_holes_is_freed_in_bounded_steps() {
    at_every_page_size!(a_block_with_many_holes_is_freed_in_bounded_steps);
}

mod generic {
    use super::*;

    pub fn a_lazy_block_holds_only_touched_pages<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (offset, bytes) = arena.alloc(lazy(3000 * page)).unwrap();
        assert_eq!((offset, bytes), (0, 3000 * page));
        let counters = arena.counters();
        assert_eq!((counters.held_bytes, counters.live_bytes), (0, bytes));
        assert_eq!(arena.engine.owed_pages(), 3000);
        for index in [0, 1, 2999, 1024, 1500] {
            assert_eq!(touched(&mut arena, index), 1);
        }
        assert!(matches!(arena.touch(1, 10), Err(Untouchable::Present)));
        let counters = arena.counters();
        assert_eq!(counters.held_bytes, 5 * page);
        assert_eq!(counters.faulted_bytes, 5 * page);
        assert_eq!(arena.engine.owed_pages(), 2995);
        assert!(matches!(arena.touch(3000, 10), Err(Untouchable::Nothing)));
        arena.free(0).unwrap();
        assert_eq!(arena.engine.owed_pages(), 0);
        assert_eq!(arena.counters().free_bytes, 5 * page);
        assert!(matches!(arena.touch(0, 10), Err(Untouchable::Present)));
        assert!(matches!(arena.touch(2, 10), Err(Untouchable::Nothing)));
        assert_eq!(arena.trim(0), 5);
        assert_eq!(arena.counters().metadata.chunks, 0);
        arena.end();
    }

    pub fn a_block_that_is_touched_in_order_gets_ever_larger_folios<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let pages = 4096;
        let early = ((2 << 20) / page / 8) as u32;
        arena.alloc(lazy(pages * page)).unwrap();
        let (mut next, mut touches) = (0, 0);
        while u64::from(next) < pages {
            let came = touched(&mut arena, next);
            // At the beginning of a large block up to half of what lies before, later a third.
            let before = if came <= early { 2 } else { 3 };
            assert!(came == 1 || before * came <= next, "{came} at {next}");
            next += came;
            touches += 1;
        }
        assert_eq!(u64::from(next), pages);
        assert!(touches < 60, "{touches} touches");
        assert_eq!(arena.counters().held_bytes, pages * page);
        arena.check();
        arena.end();
    }

    /// Touches a block in order, to its end. Returns how many touches backed pages.
    fn touches_of<const KIB: usize>(bytes: u64) -> u32 {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        arena.alloc(lazy(bytes)).unwrap();
        let (mut next, mut touches) = (0, 0);
        while u64::from(next) < bytes / page {
            next += touched(&mut arena, next);
            touches += 1;
        }
        arena.check();
        arena.end();
        touches
    }

    pub fn the_beginning_of_a_large_block_takes_fewer_touches<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let max = match page {
            4096 => 19,
            16384 => 15,
            _ => 11,
        };
        let touches = touches_of::<KIB>(2 << 20);
        assert!(touches <= max, "{touches}");
        // A block that is a page shorter is not large.
        let touches = touches_of::<KIB>((2 << 20) - page);
        assert!(touches >= max + 4, "{touches}");
    }

    pub fn touches_at_random_back_single_pages<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        arena.alloc(lazy(4096 * page)).unwrap();
        for index in 0..512 {
            assert_eq!(touched(&mut arena, index * 8 + index % 3), 1);
        }
        arena.check();
        assert_eq!(arena.counters().held_bytes, 512 * page);
        arena.end();
    }

    pub fn a_lazy_request_takes_free_memory_first<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (first, _) = arena.alloc(request(1000 * page)).unwrap();
        arena.alloc(request(page)).unwrap();
        arena.free(first).unwrap();
        let (offset, _) = arena.alloc(lazy(900 * page)).unwrap();
        assert_eq!(offset, first);
        assert_eq!(arena.engine.owed_pages(), 0);
        assert!(matches!(arena.touch(899, 0), Err(Untouchable::Present)));
        arena.end();
    }

    pub fn a_touch_of_a_block_that_is_freed_backs_no_page<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (offset, _) = arena.alloc(lazy(2000 * page)).unwrap();
        for index in 0..4 {
            touched(&mut arena, index);
        }
        let one = arena.touch(5, 10).unwrap();
        let two = arena.touch(1999, 10).unwrap();
        assert!(matches!(arena.touch(5, 10), Err(Untouchable::Busy)));
        arena.free(offset).unwrap();
        assert_eq!(arena.free(offset), Err(FreeError::NotLive));
        assert!(!arena.finish_touch(one));
        arena.cancel_touch(two);
        assert_eq!(arena.counters().held_bytes, 4 * page);
        assert_eq!(arena.counters().pending_bytes, 0);
        arena.trim(0);
        assert_eq!(arena.map().len(), 0);
        arena.end();
    }

    pub fn no_request_gets_a_place_where_memory_is_in_transit<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(100);
        let (offset, _) = arena.alloc(lazy(100 * page)).unwrap();
        let touch = arena.touch(50, 10).unwrap();
        arena.free(offset).unwrap();
        // All address space but the page in between.
        assert!(arena.alloc(lazy(51 * page)).is_err());
        let (first, _) = arena.alloc(lazy(32 * page)).unwrap();
        assert_eq!(first, 0);
        assert!(!arena.finish_touch(touch));
        arena.free(first).unwrap();
        assert_eq!(arena.alloc(lazy(100 * page)).unwrap().0, 0);
        arena.end();
    }

    pub fn discarded_pages_can_be_touched_again<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let pages = 2 * CHUNK_PAGES as u32;
        let (offset, _) = arena.alloc(request(u64::from(pages) * page)).unwrap();
        assert_eq!(arena.engine.check_discard(10, pages), Ok(pages));
        discarded(&mut arena, 10..pages - 10, |page| page % 512 == 0);
        let stayed = 3;
        let counters = arena.counters();
        assert_eq!(counters.held_bytes, (20 + stayed) * page);
        assert_eq!(counters.live_bytes, u64::from(pages) * page);
        assert_eq!(touched(&mut arena, 20), 1);
        discarded(&mut arena, 0..pages, |_| false);
        assert_eq!(arena.counters().held_bytes, 0);
        assert_eq!(arena.engine.owed_pages(), pages);
        assert_eq!(touched(&mut arena, 0), 1);
        arena.free(offset).unwrap();
        assert_eq!(arena.engine.owed_pages(), 0);
        arena.end();
    }

    pub fn only_whole_live_blocks_of_pages_are_discarded<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let plain = arena.alloc(request(3 * page)).unwrap().0 / page;
        let more = arena.alloc(request(3 * page)).unwrap().0 / page;
        let headed = Request {
            headed: true,
            ..request(2 * page)
        };
        let headed = arena.alloc(headed).unwrap().0 / page;
        let contiguous = Request {
            policy: Policy::Contiguous,
            ..request(2 * page)
        };
        let contiguous = arena.alloc(contiguous).unwrap().0 / page;
        let small = arena.alloc(request(32)).unwrap().0 / page;
        let check = |page: u64, end: u64| arena.engine.check_discard(page as u32, end as u32);
        assert_eq!(check(plain, plain + 3), Ok(plain as u32 + 3));
        assert!(check(more + 2, more + 3).is_ok());
        for page in [headed, contiguous, small] {
            assert_eq!(check(page, page + 1), Err(DiscardError::Unsuited));
        }
        assert_eq!(check(900_000, 900_001), Err(DiscardError::NotLive));
        arena.end();
    }

    pub fn a_lazy_block_that_lost_a_page_gets_no_more<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (offset, _) = arena.alloc(lazy(100 * page)).unwrap();
        touched(&mut arena, 0);
        touched(&mut arena, 1);
        arena.backed.remove(&1);
        assert_eq!(arena.engine.lose(1, false), Loss::LazyBlock);
        arena.check();
        for lost in [1, 2] {
            assert!(matches!(arena.touch(lost, 10), Err(Untouchable::Nothing)));
        }
        // The discarded pages stay, as otherwise they would have no memory.
        discarded(&mut arena, 0..100, |_| false);
        assert_eq!(arena.counters().held_bytes, page);
        assert_eq!(arena.engine.owed_pages(), 99);
        arena.free(offset).unwrap();
        assert_eq!(arena.engine.owed_pages(), 0);
        arena.end();
    }

    pub fn records_of_a_growth_are_freed_when_it_joins<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let chunk = CHUNK_PAGES as u64;
        let mut arena = Arena::<KIB>::new(1 << 20);
        let (offset, _) = arena.alloc(lazy(chunk / 2 * page)).unwrap();
        // The second growth begins within a chunk that is inside the block afterwards.
        for pages in [3 * chunk / 2, 4 * chunk] {
            let grown = arena.start_resize_as(offset, pages * page, true, Admission::Full);
            let Ok(Resized::Growing(mut growth)) = grown else {
                panic!("{grown:?}");
            };
            arena.engine.owe(growth.reservation());
            assert!(arena.commit_growth(growth));
            assert_eq!(arena.counters().metadata.chunks, 0, "{pages} pages");
        }
        arena.free(offset).unwrap();
        assert_eq!(arena.counters().metadata.chunks, 0);
        arena.end();
    }

    pub fn an_untouched_block_costs_no_memory_but_its_entry<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 22);
        arena.checked = false;
        let (offset, _) = arena.alloc(lazy((1 << 21) * page)).unwrap();
        assert_eq!(arena.counters().metadata.chunks, 0);
        touched(&mut arena, 77_777);
        assert_eq!(arena.counters().metadata.chunks, 1);
        discarded(&mut arena, 0..1 << 21, |_| false);
        assert_eq!(arena.counters().metadata.chunks, 0);
        arena.check();
        arena.free(offset).unwrap();
        arena.check();
        assert_eq!(arena.counters().metadata.chunks, 0);
        arena.end();
    }

    pub fn a_block_with_many_holes_is_freed_in_bounded_steps<const KIB: usize>() {
        let page = Arena::<KIB>::PAGE;
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let pages = 3 * CHUNK_PAGES as u32;
        let (offset, _) = arena.alloc(lazy(u64::from(pages) * page)).unwrap();
        for index in (0..pages).step_by(2) {
            touched(&mut arena, index);
        }
        arena.checked = true;
        arena.free(offset).unwrap();
        assert_eq!(arena.counters().free_bytes, u64::from(pages / 2) * page);
        assert_eq!(arena.trim(0), pages / 2);
        assert_eq!(arena.map().len(), 0);
        arena.end();
    }
}

#[test]
fn pages_that_change_between_the_steps_of_a_release_are_counted_once() {
    let page = Arena::<4>::PAGE;
    let mut arena = Arena::<4>::new(1 << 20);
    let (offset, _) = arena.alloc(lazy(1000 * page)).unwrap();
    for index in 0..40 {
        let touch = arena.touch(index, 0).unwrap();
        assert!(arena.finish_touch(touch));
    }
    let touch = arena.touch(500, 10).unwrap();
    let Discarding::Range(discard) = arena.engine.discard(10, 20) else {
        panic!("it has memory");
    };
    let Ok(Some(Unfinished::Holed(holed))) = arena.engine.free(offset) else {
        panic!("it has holes");
    };
    arena.check();
    assert!(arena.finish_touch(touch));
    arena.finish_discard(discard, |_| false);
    assert_eq!(arena.release_holed(holed), 1000 - 31);
    assert_eq!(arena.engine.owed_pages(), 0);
    assert_eq!(arena.trim(0), 31);
    arena.end();
}

#[test]
fn a_copy_has_the_same_lazy_blocks() {
    let page = Arena::<4>::PAGE;
    let mut arena = Arena::<4>::new(1 << 20);
    let (first, _) = arena.alloc(lazy(5000 * page)).unwrap();
    let (second, _) = arena.alloc(request(10 * page)).unwrap();
    for index in [0, 1, 7, 1024, 4999] {
        touched(&mut arena, index);
    }
    let second_page = (second / page) as u32;
    discarded(&mut arena, second_page + 2..second_page + 5, |_| false);
    let mut copy = arena.copy(1 << 20);
    copy.check();
    let (there, here) = (copy.counters(), arena.counters());
    assert_eq!(there.held_bytes, here.held_bytes);
    assert_eq!(there.live_bytes, here.live_bytes);
    assert_eq!(copy.engine.owed_pages(), arena.engine.owed_pages());
    copy.checked = true;
    for index in [2, 3000, second_page + 3] {
        touched(&mut copy, index);
    }
    copy.free(first).unwrap();
    copy.free(second).unwrap();
    assert_eq!(copy.engine.owed_pages(), 0);
    copy.trim(0);
    assert_eq!(copy.counters().metadata.chunks, 0);
    copy.end();
}
