// SPDX-License-Identifier: GPL-2.0

//! INFO and STAT of an arena that was not used yet.

use freelist::uapi::{
    freelist_info, freelist_stat, FREELIST_ABI, FREELIST_FEATURE_ALIGN, FREELIST_FEATURE_CLONE,
    FREELIST_FEATURE_DISCARD, FREELIST_FEATURE_HUGE, FREELIST_FEATURE_MOVED,
    FREELIST_FEATURE_RESIZE, FREELIST_FEATURE_SLACK, FREELIST_IOC_INFO, FREELIST_IOC_STAT,
};
use freelist::Flags;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::view::View;
use crate::kit::{arena, info, largest_block, meminfo, stat, system_page, SMALLEST};

suite!("freelist_info":
    info_names_the_contract_and_the_size_classes,
    info_returns_the_span_and_the_limit,
    features_are_exactly_the_flags_that_are_served,
    info_writes_every_byte_of_its_answer,
    stat_writes_every_byte_of_its_answer,
    an_empty_arena_holds_nothing,
);

fn info_names_the_contract_and_the_size_classes() {
    let info = info();
    assert_eq!(info.abi, FREELIST_ABI);
    assert_eq!(info.page_size as usize, system_page());
    assert_eq!(1u64 << info.min_shift, SMALLEST);
    assert_eq!(1u64 << info.max_shift, largest_block());
}

fn info_returns_the_span_and_the_limit() {
    let info = info();
    assert_eq!(info.arena_bytes, 64 << 30);
    // Four fifths of the memory, which the kernel counts differently in places.
    let memory = meminfo("MemTotal");
    assert!(
        (memory / 10 * 7..memory / 10 * 9).contains(&info.limit_bytes),
        "limit of {} with {memory} bytes of memory",
        info.limit_bytes
    );
    assert_eq!(
        stat(&arena()).limit_bytes,
        info.limit_bytes,
        "STAT and INFO"
    );
}

fn features_are_exactly_the_flags_that_are_served() {
    let arena = arena();
    let features = arena.info().unwrap().features;
    for flag in Flags::all().iter() {
        let answer = arena.alloc(64, flag | Flags::DEFAULT);
        let bit = u64::from(flag.bits());
        let served = features & bit == bit;
        assert_eq!(answer.is_ok(), served, "{flag}: {answer:?}");
    }
    let more = FREELIST_FEATURE_ALIGN
        | FREELIST_FEATURE_RESIZE
        | FREELIST_FEATURE_SLACK
        | FREELIST_FEATURE_MOVED
        | FREELIST_FEATURE_HUGE
        | FREELIST_FEATURE_DISCARD
        | FREELIST_FEATURE_CLONE;
    assert_eq!(features & !u64::from(Flags::all().bits()), more);
    assert_eq!(features & 3, u64::from(Flags::DEFAULT.bits()));
}

/// Returns the answer to a call over memory of all `fill`.
fn answer<T: Plain>(request: u32, fill: u8) -> Vec<u8> {
    let arena = arena();
    let view = View::anonymous(size_of::<T>());
    let at = view.len() - size_of::<T>();
    view.set_bytes(0, &vec![fill; view.len()]);
    ioctl_at(&arena, request, view.address(at)).unwrap();
    assert!(
        view.bytes(0, at).iter().all(|byte| *byte == fill),
        "nothing before the answer is written"
    );
    view.bytes(at, size_of::<T>())
}

/// Prior art: vulnerabilities CVE-2018-11508.
fn info_writes_every_byte_of_its_answer() {
    let over = |fill| answer::<freelist_info>(FREELIST_IOC_INFO, fill);
    assert_eq!(over(0), over(0xff));
}

/// Prior art: vulnerabilities CVE-2018-11508.
fn stat_writes_every_byte_of_its_answer() {
    let over = |fill| answer::<freelist_stat>(FREELIST_IOC_STAT, fill);
    assert_eq!(over(0), over(0xff));
}

/// Prior art: binder_alloc binder_alloc_test_init_freelist.
fn an_empty_arena_holds_nothing() {
    let stat = stat(&arena());
    assert!(stat.metadata_bytes <= 16 << 10, "{stat:?}");
    let expected = freelist_stat {
        metadata_bytes: stat.metadata_bytes,
        limit_bytes: stat.limit_bytes,
        ..Default::default()
    };
    assert_eq!(stat, expected);
}
