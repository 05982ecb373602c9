// SPDX-License-Identifier: GPL-2.0

//! The requests of a growing arena to the page allocator.

use freelist::uapi::FREELIST_IOC_ALLOC;
use freelist::Arena;
use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;

use crate::harness::{skip, suite};
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::trace::{PageAlloc, PageAllocs};
use crate::kit::{
    arena, largest_folio, meminfo, page, pages, raw, refused, stat, system_page, View, DEFAULT,
    KIB, MIB,
};
use crate::{figure, trust};

suite!("freelist_growing":
    a_request_allocates_exactly_its_missing_pages,
    high_orders_are_allocated_first,
    high_orders_are_asked_for_without_reclaim_and_nothing_kills,
    a_fragmented_machine_grows_to_the_limit,
);

fn a_request_allocates_exactly_its_missing_pages() {
    for size in [1, page(), 3 * page(), 64 * KIB, 3 * MIB + 1] {
        let arena = arena();
        arena.alloc(size, DEFAULT).unwrap();
        assert_eq!(stat(&arena).held_bytes, size.next_multiple_of(page()));
        assert_eq!(stat(&arena).grows, 1);
    }
}

/// Returns the requests to the page allocator for one block of `size` bytes: those for the arena's pages, which are
/// the only zeroed and movable ones, and all others.
fn asked(tracer: &PageAllocs, arena: &Arena, size: u64) -> (Vec<PageAlloc>, Vec<PageAlloc>) {
    let request = raw::request(size).to_bytes();
    let view = View::anonymous(request.len());
    view.set_bytes(0, &request);
    let (result, asked) = tracer.of(|| ioctl_at(arena, FREELIST_IOC_ALLOC, view.address(0)));
    result.expect("there is room for it");
    asked.into_iter().partition(|alloc| {
        let movable = ["MOVABLE", "TRANSHUGE"]
            .iter()
            .any(|name| alloc.flags.contains(name));
        movable && alloc.flags.contains("__GFP_ZERO")
    })
}

fn pages_of(asked: &[PageAlloc]) -> u64 {
    asked.iter().map(|alloc| 1 << alloc.order).sum()
}

fn orders(asked: &[PageAlloc]) -> Vec<u32> {
    asked.iter().map(|alloc| alloc.order).collect()
}

fn high_orders_are_allocated_first() {
    let tracer = PageAllocs::record(256);
    for pages in [1, 7, 64, 127, 300] {
        let arena = arena();
        let (data, _) = asked(&tracer, &arena, pages * page());
        assert_eq!(pages_of(&data), pages, "{data:?}");
        let orders = orders(&data);
        figure!("{pages} pages in {} calls, orders {orders:?}", data.len());
        // An order that failed once is not tried again.
        assert!(orders.is_sorted_by(|one, next| one >= next), "{orders:?}");
        let high = orders.iter().filter(|order| **order > 0).count();
        if largest_folio() == page() {
            assert_eq!(high, 0, "the page cache takes single pages alone");
        } else if pages > 1 {
            assert!(high > 0, "no order but 0 for {pages} pages");
        }
    }
}

/// Checks every call that may allocate pages or metadata of any order.
#[track_caller]
fn no_high_order_reclaims(asked: &[PageAlloc]) {
    for alloc in asked {
        let may = alloc.may_reclaim() && !alloc.is_record() && !alloc.is_of_a_slab();
        assert!(alloc.order == 0 || !may, "{alloc:?}");
    }
}

/// Checks that an allocation that is charged to a cgroup never calls its OOM killer: a single page is worth
/// reclaim, and may fail.
#[track_caller]
fn no_single_page_kills(asked: &[PageAlloc]) {
    for alloc in asked {
        let charged = alloc.flags.contains("ACCOUNT");
        let may_fail = alloc.flags.contains("__GFP_RETRY_MAYFAIL") || !alloc.may_reclaim();
        assert!(!charged || may_fail, "{alloc:?}");
    }
}

fn high_orders_are_asked_for_without_reclaim_and_nothing_kills() {
    let tracer = PageAllocs::record(1024);
    let arena = arena();
    let (mut high, mut single, mut other) = (0, 0, 0);
    for size in [
        32,
        700,
        page(),
        5 * page(),
        64 * KIB,
        MIB,
        8 * MIB + 3 * page(),
    ] {
        // The second one needs less metadata, or none.
        for _ in 0..2 {
            let (data, rest) = asked(&tracer, &arena, size);
            no_high_order_reclaims(&data);
            no_high_order_reclaims(&rest);
            no_single_page_kills(&data);
            no_single_page_kills(&rest);
            let of_high = data.iter().filter(|alloc| alloc.order > 0).count();
            high += of_high;
            single += data.len() - of_high;
            other += rest.len();
        }
    }
    figure!("{high} calls for high orders, {single} for single pages, {other} for other memory");
    if largest_folio() > page() {
        trust!("high_orders_without_reclaim", high, "calls", ">=1");
        assert!(high > 0, "none was seen");
    }
}

/// The bytes of memory above which fragmenting a machine takes too long.
const SMALL_MACHINE: u64 = 400 * MIB;

/// Allocates nearly all memory, and frees every page with an even number, so that no two free pages are
/// adjacent.
fn fragment() -> View {
    // The kernel merges no folios in the background.
    let _ = std::fs::write("/proc/sys/vm/compaction_proactiveness", "0");
    let bytes = meminfo("MemAvailable") / 100 * 85;
    let view = View::anonymous(bytes as usize);
    let _ = view.advise(0..view.len(), MmapAdvise::MADV_NOHUGEPAGE);
    let page = system_page();
    for at in (0..view.len()).step_by(page) {
        view.store(at, 1);
    }
    let frames = pages::frames(&view, 0, view.len() / page);
    for (i, frame) in frames.into_iter().enumerate() {
        if frame.is_some_and(|frame| frame % 2 == 0) {
            let at = i * page;
            view.advise(at..at + page, MmapAdvise::MADV_DONTNEED)
                .unwrap();
        }
    }
    view
}

/// Returns the free pages in pairs or more, and all free pages, from /proc/buddyinfo.
fn in_pairs() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/buddyinfo").unwrap();
    let (mut pairs, mut all) = (0, 0);
    for line in text.lines() {
        let counts = line.split_whitespace().skip(4);
        for (order, count) in counts.enumerate() {
            let pages = count.parse::<u64>().unwrap() << order;
            all += pages;
            pairs += if order > 0 { pages } else { 0 };
        }
    }
    (pairs, all)
}

fn a_fragmented_machine_grows_to_the_limit() {
    if meminfo("MemTotal") > SMALL_MACHINE {
        skip("too much memory to fragment; needs a machine of at most 400 MiB");
    }
    // First: it is made of high orders itself.
    let tracer = PageAllocs::record(4096);
    let _fragments = fragment();
    let (pairs, all) = in_pairs();
    figure!("of {all} free pages {pairs} have a neighbour");
    let arena = arena();
    let limit = meminfo("MemFree") / 4 * 3 / MIB * MIB;
    arena.set_limit(limit).unwrap();
    let (mut high, mut single) = (0, 0);
    for _ in 0..limit / MIB {
        let (data, rest) = asked(&tracer, &arena, MIB);
        no_high_order_reclaims(&data);
        no_high_order_reclaims(&rest);
        let of_high = data.iter().filter(|alloc| alloc.order > 0).count();
        high += of_high;
        single += data.len() - of_high;
    }
    refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
    assert_eq!(stat(&arena).held_bytes, limit);
    figure!(
        "{} MiB in {high} calls for high orders and {single} for single pages",
        limit / MIB
    );
    // Without fragmentation each request needs one call. The kernel may have compacted the memory since: then
    // all above holds, but was no test.
    let unfragmented = limit / MIB;
    if (high + single) as u64 <= 2 * unfragmented {
        drop(tracer);
        skip("the kernel compacted its memory before the arena grew");
    }
}
