// SPDX-License-Identifier: GPL-2.0

//! The first process of a VM: mounts what a program expects, loads the module,
//! runs the command, unloads, looks for leaks, reports, powers off.
//!
//! `scripts/vm` puts into the initramfs, in `/freelist`:
//!
//! | file | content |
//! | --- | --- |
//! | `command` | the command and its arguments, each ended by a NUL; none: a shell |
//! | `environment` | `NAME=VALUE`, each ended by a NUL |
//! | `module.ko` | the module; none: nothing is loaded |
//! | `module-args` | its parameters |
//! | `settle` | seconds to wait before the command |
//! | `root` | exists where the command runs in the file system on the disk |
//!
//! and gives it ports named `stdout`, `stderr` and `verdict`.

mod command;
mod leaks;
mod module;
mod mounts;
mod ports;
mod verdict;

use anyhow::Result;
use nix::sys::reboot;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use module::Module;
use verdict::Verdict;

/// Where `scripts/vm` puts what this VM is to do.
const TASK: &str = "/freelist";

/// The directory of the files that were added: the command runs there.
const WORK: &str = "/work";

fn main() -> Result<Infallible> {
    let verdict = match session() {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Error(format!("{error:#}")),
    };
    if let Err(error) = verdict.report() {
        eprintln!("freelist-init: no verdict: {error:#}");
    }
    // QEMU runs with -no-reboot: this ends it, on every kernel.
    Ok(reboot::reboot(reboot::RebootMode::RB_AUTOBOOT)?)
}

/// All that happens between boot and power-off.
fn session() -> Result<Verdict> {
    mounts::mount_all()?;
    if Path::new(TASK).join("root").exists() {
        mounts::enter_root()?;
    } else {
        mounts::link_applets()?;
    }
    settle()?;

    leaks::forget_earlier();
    let module = Module::load_if_given()?;
    let ended = command::run()?;
    if let Some(module) = module {
        module.unload()?;
        leaks::look_for_any()?;
    }
    Ok(ended)
}

/// Lets the kernel threads of the boot come to rest, where figures matter.
fn settle() -> Result<()> {
    if let Ok(seconds) = fs::read_to_string(format!("{TASK}/settle")) {
        thread::sleep(Duration::from_secs(seconds.trim().parse()?));
    }
    Ok(())
}
