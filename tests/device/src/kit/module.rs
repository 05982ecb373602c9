// SPDX-License-Identifier: GPL-2.0

//! Loads and unloads the module.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

/// The module's file, where `scripts/vm` puts it.
pub const MODULE: &str = "/freelist/module.ko";

/// Loads the module from its file.
pub fn load(file: &File) -> Result<(), Errno> {
    finit_module(file, c"", ModuleInitFlags::empty())
}

/// Unloads the module, once it has no user.
#[track_caller]
pub fn unload() {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = delete_module(c"freelist", DeleteModuleFlags::O_NONBLOCK) {
        // A file may be closed shortly after its process has ended.
        assert!(Instant::now() < deadline, "the module stays: {error}");
        thread::sleep(Duration::from_millis(5));
    }
}
