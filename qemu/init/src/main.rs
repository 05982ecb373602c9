// SPDX-License-Identifier: GPL-2.0

//! The first process of a VM: mounts the file systems, loads the module, runs the
//! command, unloads the module, looks for leaks, reports the verdict, powers off.
//!
//! `scripts/vm` puts these files into the initramfs, in `/freelist`:
//!
//! | file | content |
//! | --- | --- |
//! | `command` | the command and its arguments, each ended by a NUL; without it a shell runs |
//! | `environment` | `NAME=VALUE`, each ended by a NUL |
//! | `module.ko` | the module; without it none is loaded |
//! | `module-args` | the module's parameters |
//! | `settle` | seconds to wait before the command |
//! | `gdb` | exists if the command waits for a debugger |
//! | `root` | exists if the command runs in the file system on the disk |
//! | `disk` | exists if that file system's own init is the first process, and the disk is written |
//!
//! The VM has virtio ports named `stdout`, `stderr`, `verdict` and, for a debugger, `symbols`.

mod command;
mod debugger;
mod leaks;
mod module;
mod mounts;
mod own_init;
mod ports;
mod verdict;

use anyhow::Result;
use nix::sys::reboot;
use std::convert::Infallible;
use std::env;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use module::Module;
use verdict::Verdict;

/// The directory with the files of `scripts/vm`.
const TASK: &str = "/freelist";

/// The directory of the added files, in which the command runs.
const WORK: &str = "/work";

fn main() -> Result<Infallible> {
    let service = env::args().nth(1).as_deref() == Some(own_init::SERVICE);
    report(if service { command::run() } else { session() });
    // QEMU runs with -no-reboot: this ends it, on every kernel.
    if service {
        return own_init::reboot();
    }
    Ok(reboot::reboot(reboot::RebootMode::RB_AUTOBOOT)?)
}

/// Reports a session's verdict to the host.
fn report(ended: Result<Verdict>) {
    let verdict = ended.unwrap_or_else(|error| Verdict::Error(format!("{error:#}")));
    if let Err(error) = verdict.report() {
        eprintln!("freelist-init: no verdict: {error:#}");
    }
}

/// Runs everything between boot and power-off.
fn session() -> Result<Verdict> {
    mounts::mount_all()?;
    if Path::new(TASK).join("disk").exists() {
        match own_init::become_init()? {}
    } else if Path::new(TASK).join("root").exists() {
        mounts::enter_root()?;
    } else {
        mounts::link_applets()?;
    }
    settle()?;

    leaks::forget_earlier();
    let module = Module::load_if_given()?;
    if Path::new(TASK).join("gdb").exists() {
        debugger::wait_for_one()?;
    }
    let ended = command::run()?;
    if let Some(module) = module {
        module.unload()?;
        leaks::look_for_any()?;
    }
    Ok(ended)
}

/// Waits until the kernel threads of the boot are idle, if `scripts/vm` asks for it.
fn settle() -> Result<()> {
    if let Ok(seconds) = fs::read_to_string(format!("{TASK}/settle")) {
        thread::sleep(Duration::from_secs(seconds.trim().parse()?));
    }
    Ok(())
}
