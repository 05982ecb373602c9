// SPDX-License-Identifier: GPL-2.0

//! The file systems of the VM, the root in which the command runs, and the applets of busybox.

use anyhow::{bail, Context, Result};
use nix::mount::{mount, MsFlags};
use nix::sys::stat::{umask, Mode};
use nix::unistd::{chdir, chroot};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{TASK, WORK};

/// The type and the mount point of each file system, in the order of mounting.
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

/// The links of udev.
const STANDARD_LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// The disk with the root that `scripts/vm --root` names, and where it is mounted first.
pub const DISK: &str = "/dev/nvme0n1";
const IMAGE: &str = "/image";

/// The longest wait for the disk to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// Mount points that move into the root.
const MOVED: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];

/// Directories in memory, as the root is read-only.
const WRITABLE: [&str; 3] = ["/run", "/root", "/var/tmp"];

/// Mounts all file systems. A kernel may lack debugfs and tracefs.
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

/// Makes the file system on the disk the root, read-only. Moves the mounted file systems into
/// it, and binds the directories of `scripts/vm` there.
pub fn enter_root() -> Result<()> {
    mount_disk(MsFlags::MS_RDONLY)?;
    for place in WRITABLE {
        mount_one(None, &inside(place), Some("tmpfs"), MsFlags::empty())?;
    }
    chroot(IMAGE)?;
    Ok(chdir("/")?)
}

/// Makes it the root as an init of its own expects it: writable, and not below another one. That init leaves
/// file systems alone that are mounted there already.
pub fn switch_root() -> Result<()> {
    mount_disk(MsFlags::empty())?;
    mount_one(None, &inside("/run"), Some("tmpfs"), MsFlags::empty())?;
    chdir(IMAGE)?;
    mount_one(Some("."), "/", None, MsFlags::MS_MOVE)?;
    chroot(".")?;
    Ok(chdir("/")?)
}

/// Mounts the disk on [`IMAGE`], with what is mounted and the directories of `scripts/vm` in it.
fn mount_disk(flags: MsFlags) -> Result<()> {
    let start = Instant::now();
    while !Path::new(DISK).exists() {
        if start.elapsed() > PATIENCE {
            bail!("the disk {DISK} does not appear");
        }
        thread::sleep(Duration::from_millis(10));
    }
    fs::create_dir_all(IMAGE)?;
    mount_one(Some(DISK), IMAGE, Some("ext4"), flags)?;
    for place in MOVED {
        mount_one(Some(place), &inside(place), None, MsFlags::MS_MOVE)?;
    }
    for place in [TASK, WORK] {
        mount_one(Some(place), &inside(place), None, MsFlags::MS_BIND)?;
    }
    Ok(())
}

fn inside(place: &str) -> String {
    format!("{IMAGE}{place}")
}

fn mount_one(source: Option<&str>, place: &str, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(source, place, kind, flags, None::<&str>).with_context(|| format!("mounting {place}"))
}

/// Links each applet of busybox to its name, unless a program has that name.
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
