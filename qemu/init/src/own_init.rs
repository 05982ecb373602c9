// SPDX-License-Identifier: GPL-2.0

//! The root's own init as the first process: the command is a service of it, which runs once when
//! the system is up, and has the machine reboot.

use anyhow::{ensure, Context, Result};
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use crate::mounts;

/// The argument with which this program is that service.
pub const SERVICE: &str = "service";

/// The path of this program in the initramfs, besides `/init`.
const PROGRAM: &str = "/freelist/init";

const INIT: &str = "/sbin/init";
/// The program that grows the file system; the root has it, as packing needs it.
const GROW: &str = "/sbin/resize2fs";
const UNITS: &str = "/run/systemd/system";
const UNIT: &str = "freelist-command.service";
/// The target that is reached when the system is up.
const UP: &str = "multi-user.target";

/// Becomes the init of the root on the disk, which finds the command as a unit.
pub fn become_init() -> Result<Infallible> {
    fs::copy("/init", PROGRAM)?;
    mounts::switch_root()?;
    // The copy of the image is longer than the file system that it was made of.
    let grown = Command::new(GROW).arg(mounts::DISK).output();
    let grown = grown.with_context(|| format!("{GROW} of the root"))?;
    ensure!(
        grown.status.success(),
        "{GROW}: {}",
        String::from_utf8_lossy(&grown.stderr)
    );
    let wants = format!("{UNITS}/{UP}.wants");
    fs::create_dir_all(&wants)?;
    // Without the default dependencies it may be ordered after the target that wants it.
    let unit = format!(
        "[Unit]\nDescription=the command of scripts/vm\nDefaultDependencies=no\nAfter={UP}\n\
         [Service]\nType=oneshot\nExecStart={PROGRAM} {SERVICE}\nTimeoutStartSec=infinity\n"
    );
    fs::write(format!("{UNITS}/{UNIT}"), unit)?;
    symlink(format!("../{UNIT}"), format!("{wants}/{UNIT}"))?;
    Err(Command::new(INIT).exec()).with_context(|| format!("{INIT} of the root"))
}

/// Has the init shut the system down, and waits for its end.
pub fn reboot() -> Result<Infallible> {
    let asked = Command::new("systemctl")
        .args(["reboot", "--no-block"])
        .status()?;
    ensure!(asked.success(), "systemctl reboot: {asked}");
    loop {
        thread::park();
    }
}
