// SPDX-License-Identifier: GPL-2.0

//! The tests, a file an area.

mod abi;
mod alloc;
mod arenas;
mod bulk;
mod cgroup;
mod client;
mod clone;
mod concurrency;
mod contended;
mod contig;
mod cost;
mod ctl;
mod ctl_live;
mod ctl_record;
mod debugfs;
mod descriptors;
mod errors;
mod examples;
mod exhaustive;
mod extension;
mod fail_nth;
mod free;
mod freed;
mod growing;
mod header;
mod heaps;
mod hostile;
mod info;
mod lazy;
mod limits;
mod mapping;
mod memory;
mod metadata;
mod mmap;
mod model;
mod pointers;
mod populate;
mod pressure;
mod races;
mod random;
mod resize;
mod scaling;
mod selftest;
mod shown;
mod split_merge;
mod storm;
mod stranded;
mod stress;
mod tracepoints;
mod trim;
mod unload;
mod waiting;
mod zero;

use crate::harness::Suite;

/// Every suite, in the order in which they run: what shows most first, and
/// what could take the module away last.
pub const ALL: &[Suite] = &[
    info::SUITE,
    alloc::SUITE,
    free::SUITE,
    split_merge::SUITE,
    exhaustive::SUITE,
    stranded::SUITE,
    bulk::SUITE,
    zero::SUITE,
    header::SUITE,
    contig::SUITE,
    populate::SUITE,
    limits::SUITE,
    waiting::SUITE,
    resize::SUITE,
    clone::SUITE,
    trim::SUITE,
    pressure::SUITE,
    growing::SUITE,
    errors::SUITE,
    extension::SUITE,
    pointers::SUITE,
    mmap::SUITE,
    mapping::SUITE,
    memory::SUITE,
    lazy::SUITE,
    freed::SUITE,
    arenas::SUITE,
    descriptors::SUITE,
    debugfs::SUITE,
    abi::SUITE,
    shown::SUITE,
    tracepoints::SUITE,
    metadata::SUITE,
    concurrency::SUITE,
    hostile::SUITE,
    contended::SUITE,
    scaling::SUITE,
    client::SUITE,
    examples::SUITE,
    ctl::SUITE,
    ctl_live::SUITE,
    ctl_record::SUITE,
    heaps::SUITE,
    cost::SUITE,
    races::SUITE,
    random::SUITE,
    model::SUITE,
    storm::SUITE,
    stress::SUITE,
    cgroup::SUITE,
    fail_nth::SUITE,
    unload::SUITE,
    selftest::SUITE,
];
