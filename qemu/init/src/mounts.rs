// SPDX-License-Identifier: GPL-2.0

//! What a program expects to be mounted, and the names of busybox.

use anyhow::{Context, Result};
use nix::mount::{mount, MsFlags};
use nix::sys::stat::{umask, Mode};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

/// Type and place of each file system, in the order of mounting.
const FILE_SYSTEMS: [(&str, &str); 9] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"),
];

/// What udev would link.
const STANDARD_LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Mounts everything; debugfs and tracefs may be missing from a kernel.
pub fn mount_all() -> Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    for (kind, place) in FILE_SYSTEMS {
        let optional = matches!(kind, "debugfs" | "tracefs");
        let mounted = fs::create_dir_all(place)
            .map_err(anyhow::Error::from)
            .and_then(|()| {
                Ok(mount(
                    Some(kind),
                    place,
                    Some(kind),
                    MsFlags::empty(),
                    None::<&str>,
                )?)
            });
        if !optional {
            mounted.with_context(|| format!("mounting {kind} on {place}"))?;
        }
    }
    for (name, target) in STANDARD_LINKS {
        let _ = symlink(target, name);
    }
    Ok(())
}

/// Gives every busybox applet its name, where no program of that name is.
pub fn link_applets() -> Result<()> {
    let list = Command::new("/bin/busybox")
        .arg("--list")
        .stderr(Stdio::null())
        .output()?;
    for applet in String::from_utf8(list.stdout)?.lines() {
        let _ = symlink("busybox", format!("/bin/{applet}"));
    }
    Ok(())
}
