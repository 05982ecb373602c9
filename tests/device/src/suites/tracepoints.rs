// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of the system `freelist`: what happens is reported, once, in order, with fields
//! that are true, and in a form that tools can read.

use std::collections::HashMap;
use std::time::Duration;

use freelist::{Arena, Block, Flags};
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::events::{number, Event, Events};
use crate::kit::waiter::{waiting, Waiter, WHILE};
use crate::kit::{
    alloc, arena, free, largest_folio, page, raw, refused, shrinker, stat, thread, touch_all, View,
    DEFAULT, GROW, KIB, LARGER, MIB,
};

suite!("freelist_tracepoints":
    every_event_has_a_format_that_tools_can_read,
    an_event_that_is_off_is_not_reported,
    a_block_and_its_release_are_reported,
    a_refused_request_is_traced_with_its_errno,
    the_flags_of_a_request_are_reported_by_name,
    each_block_of_a_batch_is_reported,
    an_overwritten_header_is_reported,
    the_held_bytes_are_the_sum_of_an_arenas_events,
    moved_memory_is_reported_as_moved,
    faults_are_reported_with_their_outcome,
    a_wait_is_reported_with_its_time,
    the_shrinker_is_reported,
    events_of_one_offset_alternate,
);

/// The events, sorted, and their fields in the order in which they are printed.
const EVENTS: [(&str, &[&str]); 7] = [
    (
        "alloc",
        &[
            "arena",
            "offset",
            "bytes",
            "size",
            "align_shift",
            "flags",
            "result",
        ],
    ),
    ("fault", &["arena", "offset", "bytes", "write", "outcome"]),
    ("free", &["arena", "offset", "bytes", "result"]),
    ("grow", &["arena", "offset", "bytes", "order", "result"]),
    ("reclaim", &["arena", "offset", "bytes", "freed", "reason"]),
    ("shrink", &["arena", "node", "bytes", "freed", "reason"]),
    ("wait", &["arena", "size", "flags", "waited_ns", "result"]),
];

/// Returns sizes of blocks below a page, of one, of several and of huge pages.
fn sizes() -> [u64; 7] {
    [1, 100, 2 * KIB, page(), 3 * page(), 300 * KIB, 5 * MIB]
}

/// Parses `field:TYPE NAME; offset:N; size:N; signed:N;` into name, offset and size.
fn field(line: &str) -> Option<(String, usize, usize)> {
    let mut parts = line.trim().strip_prefix("field:")?.split(';');
    let (_, name) = parts.next()?.rsplit_once(' ')?;
    let mut value = |name| parts.next()?.trim().strip_prefix(name)?.parse().ok();
    Some((name.to_owned(), value("offset:")?, value("size:")?))
}

/// perf, trace-cmd and bpftrace find the fields by these texts: in their places, none over another,
/// and a line of print whose names are the fields' and whose numbers are numbers.
fn every_event_has_a_format_that_tools_can_read() {
    let events = Events::record(&[]);
    assert_eq!(events.names(), EVENTS.map(|(name, _)| name));
    for (name, fields) in EVENTS {
        let format = events.format(name);
        let (places, print) = format.split_once("print fmt: ").expect("a line of print");
        let places: Vec<_> = places.lines().filter_map(field).collect();
        let ours: Vec<_> = places
            .iter()
            .filter(|(name, ..)| !name.starts_with("common_"))
            .collect();
        let mut names: Vec<&str> = ours.iter().map(|(name, ..)| &**name).collect();
        names.sort_unstable();
        let mut sorted = fields.to_vec();
        sorted.sort_unstable();
        assert_eq!(names, sorted, "{name}");
        let mut end = 0;
        for (field, offset, size) in &places {
            assert!(*offset >= end && *size <= 8, "{field} in {format}");
            end = offset + size;
        }
        let printed: Vec<String> = fields.iter().map(|name| format!("{name}=")).collect();
        let mut rest = print;
        for (field, name) in printed.iter().zip(fields) {
            let found = rest.split_once(field.as_str());
            rest = found.unwrap_or_else(|| panic!("{field} in {print}")).1;
            assert!(print.contains(&format!("REC->{name}")), "{name} in {print}");
        }
        // Neither a name that tools do not know, nor an address.
        assert!(
            !print.contains("FREELIST_") && !print.contains("%p"),
            "{print}"
        );
    }
}

fn an_event_that_is_off_is_not_reported() {
    let events = Events::record(&["free"]);
    let arena = arena();
    free(&arena, alloc(&arena, 64));
    events.stop();
    free(&arena, alloc(&arena, 64));
    let names: Vec<String> = events
        .of(&arena)
        .into_iter()
        .map(|event| event.name)
        .collect();
    assert_eq!(names, ["free"]);
}

#[track_caller]
fn is_of(event: &Event, name: &str, block: Block, result: i64) {
    let is = (
        &*event.name,
        event.number("offset") as u64,
        event.number("bytes") as u64,
        event.number("result"),
    );
    assert_eq!(is, (name, block.offset, block.bytes, result), "{event:?}");
}

fn a_block_and_its_release_are_reported() {
    let events = Events::record(&["alloc", "free"]);
    let arena = arena();
    let mut done = Vec::new();
    // Twice: from new memory, and from freed blocks.
    for size in sizes().into_iter().chain(sizes()) {
        let block = arena.alloc_aligned(size, 13, DEFAULT).unwrap();
        arena.free(block.offset).unwrap();
        done.push((size, block));
    }
    let reported = events.of(&arena);
    assert_eq!(reported.len(), 2 * done.len());
    for ((size, block), pair) in done.into_iter().zip(reported.chunks(2)) {
        is_of(&pair[0], "alloc", block, 0);
        assert_eq!(pair[0].number("size") as u64, size);
        assert_eq!(pair[0].number("align_shift"), 13);
        assert_eq!(pair[0].text("flags"), "LARGER|GROW");
        is_of(&pair[1], "free", block, 0);
    }
}

fn a_refused_request_is_traced_with_its_errno() {
    let events = Events::record(&["alloc", "free"]);
    let arena = arena();
    arena.set_limit(8 * page()).unwrap();
    refused(arena.alloc(MIB, LARGER), Errno::ENOMEM);
    refused(arena.alloc(9 * page(), DEFAULT), Errno::EDQUOT);
    refused(arena.alloc(1 << 60, LARGER), Errno::E2BIG);
    let block = alloc(&arena, 64);
    for (offset, errno) in [
        (block.offset + 1, Errno::EINVAL),
        (1 << 63, Errno::EINVAL),
        (block.offset + 64, Errno::ENOENT),
    ] {
        refused(arena.free(offset), errno);
    }
    free(&arena, block);
    refused(arena.free(block.offset), Errno::ENOENT);
    refused(arena.free_bulk(&[block.offset]), Errno::ENOENT);
    let mut offsets = [0; 100];
    let done = arena.alloc_bulk(page(), DEFAULT, &mut offsets).unwrap();
    let reported: Vec<_> = events
        .of(&arena)
        .into_iter()
        .map(|event| {
            (
                event.name.clone(),
                event.number("result"),
                event.number("bytes"),
            )
        })
        .collect();
    let error = |name: &str, errno| (name.to_owned(), -i64::from(errno as i32), 0);
    let mut expected = vec![
        error("alloc", Errno::ENOMEM),
        error("alloc", Errno::EDQUOT),
        error("alloc", Errno::E2BIG),
        ("alloc".to_owned(), 0, 64),
        error("free", Errno::EINVAL),
        error("free", Errno::EINVAL),
        error("free", Errno::ENOENT),
        ("free".to_owned(), 0, 64),
        error("free", Errno::ENOENT),
        error("free", Errno::ENOENT),
    ];
    expected.extend((0..done).map(|_| ("alloc".to_owned(), 0, page() as i64)));
    expected.push(error("alloc", Errno::EDQUOT));
    assert_eq!(reported, expected);
    assert_eq!(done, 8);
}

fn the_flags_of_a_request_are_reported_by_name() {
    let events = Events::record(&["alloc", "free"]);
    let arena = arena();
    let cases = [
        (
            DEFAULT | Flags::HEADER | Flags::ZERO,
            "LARGER|GROW|ZERO|HEADER",
        ),
        (GROW | Flags::CONTIG, "GROW|CONTIG"),
        (GROW | Flags::LAZY, "GROW|LAZY"),
        (GROW | Flags::POPULATE, "GROW|POPULATE"),
        (Flags::empty(), ""),
    ];
    for (flags, names) in cases {
        let given = arena.alloc(largest_folio().min(3 * page()), flags);
        let reported = events.of(&arena);
        let event = reported.last().expect("an event");
        match given {
            Ok(block) => {
                is_of(event, "alloc", block, 0);
                free(&arena, block);
                is_of(events.of(&arena).last().unwrap(), "free", block, 0);
            }
            Err(error) => panic!("{names}: {error}"),
        }
        // CONTIG goes with LARGER or without it, which changes nothing.
        assert_eq!(event.text("flags"), names);
    }
}

fn each_block_of_a_batch_is_reported() {
    let events = Events::record(&["alloc", "free"]);
    let arena = arena();
    let mut expected = Vec::new();
    // From new memory, and from the memory of the batch before.
    for _ in 0..2 {
        let mut offsets = [0; 150];
        assert_eq!(arena.alloc_bulk(64, DEFAULT, &mut offsets).unwrap(), 150);
        assert_eq!(arena.free_bulk(&offsets).unwrap(), 150);
        for name in ["alloc", "free"] {
            expected.extend(offsets.map(|offset| (name, offset)));
        }
    }
    let reported = events.of(&arena);
    assert_eq!(reported.len(), expected.len());
    for (event, (name, offset)) in reported.iter().zip(expected) {
        let block = Block { offset, bytes: 64 };
        is_of(event, name, block, 0);
    }
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn an_overwritten_header_is_reported() {
    let events = Events::record(&["free"]);
    let arena = arena();
    let view = View::shared(&arena, 0, MIB as usize);
    for batch in [false, true] {
        let block = arena.alloc(100, DEFAULT | Flags::HEADER).unwrap();
        view.store((block.offset - 1) as usize, 77);
        if batch {
            assert_eq!(arena.free_bulk(&[block.offset]).unwrap(), 1);
        } else {
            refused(arena.free(block.offset), Errno::EUCLEAN);
        }
        let reported = events.of(&arena);
        let errno = -i64::from(Errno::EUCLEAN as i32);
        is_of(reported.last().unwrap(), "free", block, errno);
    }
    assert_eq!(stat(&arena).live_blocks, 0);
    assert_eq!(events.of(&arena).len(), 2);
}

/// Returns the bytes that are held according to events.
fn held(events: &[Event]) -> i64 {
    let bytes = |event: &Event| match &*event.name {
        "grow" if event.number("result") == 0 => event.number("bytes"),
        "fault" => event.number("bytes"),
        "reclaim" => -event.number("freed"),
        _ => 0,
    };
    events.iter().map(bytes).sum()
}

fn the_held_bytes_are_the_sum_of_an_arenas_events() {
    let events = Events::record(&["grow", "fault", "reclaim"]);
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let holds = |arena: &Arena| {
        let stat = arena.stat().unwrap();
        assert_eq!(held(&events.of(arena)), stat.held_bytes as i64, "{stat:?}");
    };
    let blocks: Vec<Block> = sizes().map(|size| alloc(&arena, size)).to_vec();
    holds(&arena);
    let pages = largest_folio().min(3 * page());
    let contiguous = arena.alloc(pages, GROW | Flags::CONTIG).unwrap();
    holds(&arena);
    let lazy = arena.alloc(4 * MIB, DEFAULT | Flags::LAZY).unwrap();
    touch_all(&view, lazy.offset, MIB);
    holds(&arena);
    arena.discard(lazy.offset, MIB / 2).unwrap();
    holds(&arena);
    for block in blocks {
        free(&arena, block);
    }
    arena.trim(MIB).unwrap();
    holds(&arena);
    arena.set_limit(5 * MIB).unwrap();
    holds(&arena);
    let copy = arena.copy().unwrap();
    holds(&copy);
    let all = [number(&arena), number(&copy)];
    drop((copy, contiguous, view));
    drop(arena);
    for number in all {
        let events = events.of_number(number);
        assert_eq!(held(&events), 0);
        let last = events.last().unwrap();
        assert_eq!((&*last.name, last.text("reason")), ("reclaim", "close"));
    }
}

fn moved_memory_is_reported_as_moved() {
    let events = Events::record(&["reclaim"]);
    let arena = arena();
    arena.set_limit(2 * MIB).unwrap();
    let blocks: Vec<Block> = (0..32).map(|_| alloc(&arena, 64 * KIB)).collect();
    for block in blocks.iter().step_by(2) {
        free(&arena, *block);
    }
    alloc(&arena, MIB);
    let moved: i64 = events
        .of(&arena)
        .iter()
        .filter(|event| event.text("reason") == "move")
        .map(|event| event.number("freed"))
        .sum();
    assert_eq!(moved as u64, stat(&arena).moved_bytes);
    assert_eq!(moved as u64, MIB);
}

fn faults_are_reported_with_their_outcome() {
    let events = Events::record(&["fault"]);
    let arena = arena();
    let view = View::shared(&arena, 0, 4 * MIB as usize);
    let present = alloc(&arena, page());
    view.store(present.offset as usize, 1);
    let lazy = arena.alloc(MIB, DEFAULT | Flags::LAZY).unwrap();
    view.store(lazy.offset as usize, 1);
    let at = lazy.offset as usize + 8 * page() as usize;
    assert_eq!(view.load(at), 0);
    // Beyond all memory.
    assert_eq!(view.probe(3 * MIB as usize), Err(Errno::EFAULT));
    let reported = events.of(&arena);
    let find = |offset: u64| {
        let found = reported
            .iter()
            .filter(|event| event.number("offset") as u64 == offset);
        let found: Vec<_> = found
            .map(|event| (event.text("outcome"), event.number("write")))
            .collect();
        found
    };
    let [(outcome, 1)] = find(present.offset)[..] else {
        panic!("{reported:?}");
    };
    assert!(["around", "present"].contains(&outcome), "{outcome}");
    assert_eq!(find(lazy.offset), [("new", 1)]);
    assert_eq!(find(at as u64), [("new", 0)]);
    assert_eq!(find(3 * MIB).first(), Some(&("sigbus", 0)));
    let new: i64 = reported.iter().map(|event| event.number("bytes")).sum();
    assert_eq!(new as u64, arena.stat().unwrap().faulted_bytes);
}

fn a_wait_is_reported_with_its_time() {
    let events = Events::record(&["wait"]);
    let arena = arena();
    arena.set_limit(8 * page()).unwrap();
    let block = alloc(&arena, 8 * page());
    thread::scope(|scope| {
        let waiter = Waiter::asleep(scope, &arena, waiting(5 * page(), DEFAULT, None));
        std::thread::sleep(WHILE);
        free(&arena, block);
        let ended = waiter.end();
        assert_eq!(ended.result, Ok(()));
        let reported = events.of(&arena);
        let [event] = &reported[..] else {
            panic!("{reported:?}");
        };
        assert_eq!(event.number("size") as u64, 5 * page());
        assert_eq!(event.text("flags"), "LARGER|GROW|WAIT");
        assert_eq!(event.number("result"), 0);
        let waited = Duration::from_nanos(event.number("waited_ns") as u64);
        assert!(
            waited >= WHILE && waited <= ended.took,
            "{waited:?} of {ended:?}"
        );
    });
    let mut request = waiting(8 * page(), DEFAULT, Some(Duration::from_millis(200)));
    assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::ETIMEDOUT));
    // Not a wait.
    let mut request = waiting(8 * page(), DEFAULT, Some(Duration::ZERO));
    assert_eq!(raw::alloc_in(&arena, &mut request), Err(Errno::EAGAIN));
    let reported = events.of(&arena);
    assert_eq!(reported.len(), 2, "{reported:?}");
    let result = -i64::from(Errno::ETIMEDOUT as i32);
    assert_eq!(reported[1].number("result"), result);
    // The call begins to wait when a part of its timeout has passed.
    let waited = reported[1].number("waited_ns");
    assert!(waited >= 100_000_000, "{waited} ns");
}

fn the_shrinker_is_reported() {
    let events = Events::record(&["shrink", "reclaim"]);
    let arena = arena();
    free(&arena, alloc(&arena, 8 * MIB));
    let before = stat(&arena);
    for _ in 0..20 {
        shrinker::force(shrinker::of_module().as_deref());
        if stat(&arena).held_bytes == 0 {
            break;
        }
    }
    let after = stat(&arena);
    assert!(after.held_bytes < before.held_bytes, "{after:?}");
    let reported = events.of(&arena);
    let freed = |name: &str| -> u64 {
        let named = reported.iter().filter(|event| event.name == name);
        named.map(|event| event.number("freed") as u64).sum()
    };
    assert_eq!(freed("shrink"), after.shrinks * page());
    assert_eq!(freed("reclaim"), before.held_bytes - after.held_bytes);
    for event in reported.iter().filter(|event| event.name == "shrink") {
        assert_eq!(event.text("reason"), "reclaim");
        assert!(
            event.number("node") >= 0 && event.number("bytes") > 0,
            "{event:?}"
        );
    }
}

/// Threads take turns at one offset: its events alternate, whichever thread they are of.
fn events_of_one_offset_alternate() {
    let events = Events::record(&["alloc", "free"]);
    let arena = arena();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for i in 0..400 {
                    free(&arena, alloc(&arena, 64 << (i % 2)));
                }
            });
        }
    });
    let mut live: HashMap<i64, i64> = HashMap::new();
    let reported = events.of(&arena);
    assert_eq!(reported.len(), 3 * 2 * 400);
    for event in &reported {
        let (offset, bytes) = (event.number("offset"), event.number("bytes"));
        let before = match &*event.name {
            "alloc" => live.insert(offset, bytes).map_or(0, |_| -1),
            _ => live.remove(&offset).map_or(-1, |was| was - bytes),
        };
        assert_eq!(before, 0, "{event:?}");
    }
    assert!(live.is_empty());
}
