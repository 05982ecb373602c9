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
//! | `arena` | one open file: the lock, undoing; `arena::grow`: growing |
//! | `limit` | how much memory there may be |
//! | `engine` | which block a request gets; knows nothing of the kernel |
//! | `memory` | pages and metadata as the engine wants them |
//! | `page`, `account` | where they come from, and who is charged |
//! | `ffi` | the C that Rust cannot reach, and the contract's structures |
//! | `registry`, `counts` | all arenas, and what they have counted |
//! | `stats` | what debugfs shows of it |
//! | `kunit` | tests that need the kernel |
//!
//! `unsafe` is in `fops`, `file`, `vma`, `page`, `account` and `ffi` only.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    prelude::*,
    sync::Arc, //
};

#[forbid(unsafe_code)]
#[deny(missing_docs)]
#[expect(unreachable_pub, reason = "on the host it is a crate's interface")]
mod engine;

mod account;
#[deny(unsafe_code)]
mod arena;
#[deny(unsafe_code)]
mod counts;
#[deny(unsafe_code)]
mod device;
mod ffi;
mod file;
mod fops;
#[cfg(CONFIG_KUNIT = "y")]
#[deny(unsafe_code)]
mod kunit;
#[deny(unsafe_code)]
mod limit;
#[deny(unsafe_code)]
mod memory;
mod page;
#[deny(unsafe_code)]
mod registry;
#[deny(unsafe_code)]
mod stats;
mod vma;

use fops::Device;
use registry::Registry;

module! {
    type: Freelist,
    name: "freelist",
    authors: ["The freelist authors"],
    description: "Page-backed power-of-2 freelists behind /dev/freelist",
    license: "GPL",
}

/// The loaded module. Fields are dropped in this order: nobody can open the device any more, then
/// nobody can look, then what was looked at goes.
#[pin_data]
struct Freelist {
    #[pin]
    _device: Device,
    #[pin]
    _stats: File<Arc<Registry>>,
    #[pin]
    _classes: File<Arc<Registry>>,
    _directory: Dir,
}

impl kernel::InPlaceModule for Freelist {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let directory = Dir::new(c"freelist");
        pin_init::pin_init_scope(move || {
            let registry = Registry::new()?;
            Ok(try_pin_init!(Self {
                _stats <- directory.read_callback_file(
                    c"stats",
                    registry.clone(),
                    &stats::write_stats,
                ),
                _classes <- directory.read_callback_file(
                    c"classes",
                    registry.clone(),
                    &stats::write_classes,
                ),
                _directory: directory.clone(),
                _device <- Device::register(registry),
            }))
        })
    }
}
