// SPDX-License-Identifier: GPL-2.0-only

//! The loaded module: its parameters, its parts, and the order of their teardown. It may be `unsafe`.

use crate::{
    arena::{
        registry::Registry,
        shared_limit::Limits,
        Arena, //
    },
    debug::files::Files,
    device::fops::{
        self,
        Device, //
    },
    mm::{
        address_space::FileSystem,
        backend::KernelTree,
        metadata::TreeCache,
        shrinker::Shrinker, //
    },
    module_parameters, //
};
use core::borrow::Borrow;
use kernel::prelude::*;

/// Returns the value of a parameter. (Linux 7.2 returns a reference to it, later ones the value.)
fn value<T: Copy>(parameter: impl Borrow<T>) -> T {
    *parameter.borrow()
}

/// The loaded module. Fields are dropped in this order: first the device, so that no file can be opened,
/// then the files of debugfs, so that no reader is left.
#[pin_data]
pub(crate) struct Freelist {
    _device: Device,
    _files: Files,
    _shrinker: Shrinker<Arena>,
    _trees: TreeCache,
    _file_system: FileSystem,
}

impl kernel::InPlaceModule for Freelist {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let limits = Limits::from_parameters(
                value(module_parameters::limit_mb.value()),
                value(module_parameters::arena_limit_mb.value()),
                value(module_parameters::lazy_limit_mb.value()),
                value(module_parameters::slack_permille.value()),
            )?;
            let idle_seconds = value(module_parameters::idle_s.value());
            let registry = Registry::new(limits)?;
            let files = Files::new(&registry)?;
            let each = files.each().clone();
            Ok(try_pin_init!(Self {
                _files: files,
                // SAFETY: The module is loaded at most once at a time, and no arena exists before the device.
                _file_system: unsafe { FileSystem::mount() }?,
                // SAFETY: As above.
                _trees: unsafe { TreeCache::create::<KernelTree>() }?,
                // SAFETY: As above.
                _shrinker: unsafe { Shrinker::register(idle_seconds) }?,
                // Last: the device can be opened before this returns.
                _device: fops::register(registry, each)?,
            }))
        })
    }
}
