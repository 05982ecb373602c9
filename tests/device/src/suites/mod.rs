// SPDX-License-Identifier: GPL-2.0

//! The suites, a file for each area. A new test is a function that the `suite!` of its file names; a new suite is
//! a `mod` here and a row of [`ALL`], too.

mod advice;
mod alloc;
mod arenas;
mod bad_pages;
mod bulk;
mod bulk_array;
mod bulk_wait;
mod cgroup;
mod clone;
mod clone_file;
mod closing;
mod concurrency;
mod contended;
mod contig;
mod cost;
mod ctl;
mod ctl_live;
mod ctl_record;
mod debugfs;
mod debugfs_files;
mod descriptors;
mod discard;
mod dump;
mod errors;
mod examples;
mod exhaustive;
mod extension;
mod fail_nth;
mod fail_nth_arena;
mod fail_nth_fault;
mod fail_nth_load;
mod free;
mod freed;
mod global;
mod growing;
mod header;
mod heap_blocks;
mod heap_bounds;
mod heap_lifetime;
mod heap_misuse;
mod heap_threads;
mod heaps;
mod hostile;
mod idle;
mod info;
mod lazy;
mod lazy_races;
mod limits;
mod mapping;
mod memory;
mod metadata;
mod mmap;
mod model;
mod nodes;
mod pairs;
mod pins;
mod pointers;
mod poll;
mod populate;
mod pressure;
mod races;
mod random;
mod remapping;
mod resize;
mod selftest;
mod shared_limit;
mod shown;
mod signals;
mod slabs;
mod span;
mod split_merge;
mod storm;
mod stranded;
mod stress;
mod tracepoints;
mod trim;
mod unload;
mod waiting;
mod wake_ups;
mod zero;

use crate::harness::Suite;

/// Every suite, in the order in which they run: those that show most come first, and those that may unload the
/// module last.
pub const ALL: &[Suite] = &[
    info::SUITE,
    alloc::SUITE,
    free::SUITE,
    split_merge::SUITE,
    exhaustive::SUITE,
    stranded::SUITE,
    bulk::SUITE,
    bulk_array::SUITE,
    bulk_wait::SUITE,
    zero::SUITE,
    header::SUITE,
    contig::SUITE,
    populate::SUITE,
    limits::SUITE,
    shared_limit::SUITE,
    span::SUITE,
    waiting::SUITE,
    wake_ups::SUITE,
    signals::SUITE,
    poll::SUITE,
    resize::SUITE,
    clone::SUITE,
    clone_file::SUITE,
    trim::SUITE,
    pressure::SUITE,
    growing::SUITE,
    nodes::SUITE,
    errors::SUITE,
    extension::SUITE,
    pointers::SUITE,
    mmap::SUITE,
    mapping::SUITE,
    advice::SUITE,
    remapping::SUITE,
    dump::SUITE,
    memory::SUITE,
    bad_pages::SUITE,
    pins::SUITE,
    lazy::SUITE,
    pairs::SUITE,
    lazy_races::SUITE,
    discard::SUITE,
    freed::SUITE,
    arenas::SUITE,
    descriptors::SUITE,
    debugfs::SUITE,
    debugfs_files::SUITE,
    shown::SUITE,
    tracepoints::SUITE,
    metadata::SUITE,
    concurrency::SUITE,
    hostile::SUITE,
    closing::SUITE,
    contended::SUITE,
    heap_blocks::SUITE,
    heap_threads::SUITE,
    heap_bounds::SUITE,
    heap_lifetime::SUITE,
    heap_misuse::SUITE,
    global::SUITE,
    examples::SUITE,
    ctl::SUITE,
    ctl_live::SUITE,
    ctl_record::SUITE,
    heaps::SUITE,
    slabs::SUITE,
    cost::SUITE,
    races::SUITE,
    random::SUITE,
    model::SUITE,
    storm::SUITE,
    stress::SUITE,
    cgroup::SUITE,
    fail_nth::SUITE,
    fail_nth_arena::SUITE,
    fail_nth_fault::SUITE,
    fail_nth_load::SUITE,
    idle::SUITE,
    unload::SUITE,
    selftest::SUITE,
];
