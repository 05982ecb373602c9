// SPDX-License-Identifier: GPL-2.0

//! freelist: page-backed power-of-2 freelists behind `/dev/freelist`.
//!
//! From user space down to the page:
//!
//! | file | what it does |
//! | --- | --- |
//! | `fops` | the device and its file operations: what the kernel calls |
//! | `file` | what an open file has |
//! | `device` | the calls: decodes, checks, answers |
//! | `vma` | mappings and page faults |
//! | `area` | the areas of an address space that map an arena |
//! | `space` | where an arena is mapped, and how that is undone |
//! | `arena` | one open file: the lock, undoing |
//! | `arena::want`, `arena::prepare` | what a caller wants of a block, and what that takes |
//! | `arena::header`, `arena::populate` | its header; mapping it before it is touched |
//! | `arena::grow` | where the pages of a block come from |
//! | `arena::leave` | how free pages leave |
//! | `arena::bounds` | its limits |
//! | `shrinker` | what makes arenas give free pages back when memory is short |
//! | `arena::wait` | sleeping until there is a block |
//! | `poll` | who polls an open file |
//! | `limit` | how much memory there may be, and who waits for more |
//! | `engine` | which block a request gets; knows nothing of the kernel |
//! | `memory` | pages and metadata as the engine wants them |
//! | `page`, `account` | where they come from, and who is charged |
//! | `errno` | errors that the kernel crate has no name for everywhere |
//! | `ffi` | the C that Rust cannot reach, and the contract's structures |
//! | `registry`, `counts`, `owner` | all arenas, what they have counted, whose they are |
//! | `stats` | what is shown of it |
//! | `debugfs` | where it is shown |
//! | `window` | races that tests force |
//! | `bench`, `peers` | what it costs, beside what the kernel has; in the build for benchmarks |
//! | `kunit` | tests that need the kernel |
//!
//! `unsafe` is in `fops`, `file`, `vma`, `area`, `space`, `shrinker`, `poll`, `page`, `account`, `debugfs`,
//! `peers` and `ffi` only.

use kernel::{
    prelude::*, //
};

#[forbid(unsafe_code)]
#[deny(missing_docs)]
#[expect(unreachable_pub, reason = "on the host it is a crate's interface")]
mod engine;

#[deny(unsafe_code)]
mod arena;
mod debug;
mod device;
mod ffi;
#[cfg(CONFIG_KUNIT = "y")]
#[deny(unsafe_code)]
mod kunit;
mod mm;

use arena::{
    registry::Registry,
    shared_limit::Limits, //
};
use core::borrow::Borrow;
use debug::files::Files;
use device::fops::Device;
use mm::{
    backend::KernelTree,
    metadata::TreeCache,
    shrinker::Shrinker, //
};

module! {
    type: Freelist,
    name: "freelist",
    authors: ["The freelist authors"],
    description: "Page-backed power-of-2 freelists behind /dev/freelist",
    license: "GPL",
    params: {
        limit_mb: u64 {
            default: 0,
            description: "MiB of pages that all arenas together may hold (default: half of the machine's memory)",
        },
        arena_limit_mb: u64 {
            default: 0,
            description: "MiB of pages that one arena may hold (default: as many as all of them)",
        },
    },
}

/// The value of a parameter: Linux 7.2 gives a reference to it.
fn value(parameter: impl Borrow<u64>) -> u64 {
    *parameter.borrow()
}

/// The loaded module. Fields are dropped in this order: nobody can open the device any more, then
/// nobody can look.
#[pin_data]
struct Freelist {
    #[pin]
    _device: Device,
    _files: Files,
    _shrinker: Shrinker,
    _trees: TreeCache,
}

impl kernel::InPlaceModule for Freelist {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let limits = Limits::from_mib(
                value(module_parameters::limit_mb.value()),
                value(module_parameters::arena_limit_mb.value()),
            );
            let registry = Registry::with_limits(limits.all, limits.arena)?;
            let files = Files::new(&registry)?;
            let each = files.each().clone();
            Ok(try_pin_init!(Self {
                _files: files,
                // SAFETY: A module is loaded once at a time, and no arena is there before the device.
                _trees: unsafe { TreeCache::create::<KernelTree>() }?,
                // SAFETY: As above.
                _shrinker: unsafe { Shrinker::register() }?,
                _device <- Device::register(registry, each),
            }))
        })
    }
}
