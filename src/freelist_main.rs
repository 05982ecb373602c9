// SPDX-License-Identifier: GPL-2.0-only

//! freelist: page-backed power-of-2 freelists behind `/dev/freelist`.
//!
//! Each folder uses only those above it (`tests/layers` checks that); tests may use all of them.
//!
//! | folder | what it does |
//! | --- | --- |
//! | `engine` | decides which block a request gets: no kernel, no lock, no allocation, no `unsafe` |
//! | `ffi` | wraps the C that the kernel crate lacks: the calling thread, user space, debugfs; knows no pages |
//! | `mm` | allocates, charges, maps and reclaims pages; knows no arenas |
//! | `arena` | one open file: the lock, allocation, free, growth, waiting, limits; and the registry of all |
//! | `debug` | shows and measures the arenas in debugfs |
//! | `device` | `/dev/freelist`: open files, ioctls, mappings, page faults |
//! | `kunit` | tests that need the kernel |
//!
//! `c` has the helpers in C by subject, and `uapi` the contract with user space. An ioctl goes from
//! `device::fops` through `device::ioctl` to `arena`, a page fault from `device::fault` to `arena`. Each
//! `mod.rs` names the files that may be `unsafe`.

mod arena;
mod debug;
mod device;
#[forbid(unsafe_code)]
#[deny(missing_docs)]
#[expect(unreachable_pub, reason = "on the host it is a crate's interface")]
mod engine;
mod ffi;
#[cfg(CONFIG_KUNIT = "y")]
mod kunit;
mod mm;
mod module;

use kernel::prelude::*;
use module::Freelist;

module! {
    type: Freelist,
    name: "freelist",
    authors: ["The freelist authors"],
    description: "Page-backed power-of-2 freelists behind /dev/freelist",
    license: "GPL",
    params: {
        limit_mb: u64 {
            default: 0,
            description: "MiB of pages that all arenas together may hold (default: four fifths of the machine's memory)",
        },
        arena_limit_mb: u64 {
            default: 0,
            description: "MiB of pages that one arena may hold (default: as many as all of them)",
        },
        lazy_limit_mb: u64 {
            default: 0,
            description: "MiB of untouched pages that lazy blocks of one arena may reserve (default: half of arena_limit_mb)",
        },
        slack_permille: u32 {
            default: 50,
            description: "How much more than its blocks ever needed an arena may hold before it reuses scattered free memory, in thousandths, at most 1000; 4294967295 is no bound (default: 50)",
        },
    },
}
