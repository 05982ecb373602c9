// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks of `freelistctl doctor`: verdicts on the facts, and the commands that mend faults.

use std::path::Path;

use freelist::Features;
use nix::errno::Errno;
use serde::Serialize;

use super::facts::{Debugfs, Facts, Membership, Module, Node, GROUP, KEY};
use crate::show::{mib, unit};
use Verdict::{Warning, Wrong};

/// The kernel series that the module supports and is tested on, as in `qemu/versions`.
const SERIES: [(u32, u32); 2] = [(7, 2), (7, 3)];
/// The version of the contract that this program supports.
const ABI: u32 = 2;
/// The limit in bytes below which few programs run.
const MIN_LIMIT: u64 = 64 << 20;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// It works, but not completely or not as well as it could.
    Warning,
    /// It does not work.
    Wrong,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// A check: its subject, its verdict, a description of the state, and the command that mends a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
    pub(crate) mend: Option<String>,
}

fn ok(name: &'static str, text: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Ok,
        text: text.into(),
        mend: None,
    }
}

impl Check {
    /// Turns the check into one of a fault with this verdict, which `command` mends.
    fn mended_by(self, verdict: Verdict, command: impl Into<String>) -> Self {
        let mend = Some(command.into());
        Self {
            verdict,
            mend,
            ..self
        }
    }
}

/// Returns the checks that apply, in the order in which faults are to be mended. Without a loaded module its
/// checks are left out.
pub(crate) fn all(facts: &Facts) -> Vec<Check> {
    let is_loaded = matches!(facts.module, Module::Loaded(_));
    let mut checks = vec![kernel(facts), module(facts)];
    if is_loaded {
        checks.extend([device(facts), permission(facts), debugfs(facts)]);
        checks.extend([tracepoints(facts), limits(facts)]);
    } else {
        checks.push(signature(facts));
    }
    // A kernel that has to be replaced needs no further checks.
    if checks[0].verdict == Verdict::Ok {
        checks.push(huge_pages(facts));
    }
    checks.push(library(facts));
    checks
}

/// Returns the series of a release: (7, 3) for `7.3.4+deb13-amd64`.
fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Check {
    let name = "kernel";
    let release = &facts.release;
    let known = SERIES
        .map(|(major, minor)| format!("{major}.{minor}"))
        .join(" and ");
    let series = series(release);
    if !series.is_some_and(|series| SERIES.contains(&series)) {
        let why = match series {
            Some(series) if series < SERIES[0] => {
                ": older ones lack the Rust interfaces that the module uses"
            }
            _ => "",
        };
        let text = format!("Linux {release} is not supported, {known} are{why}");
        return ok(name, text).mended_by(Wrong, kernel_command(facts));
    }
    if facts.has_rust == Some(false) {
        let text = format!("Linux {release} was built without CONFIG_RUST");
        return ok(name, text).mended_by(Wrong, kernel_command(facts));
    }
    ok(name, format!("Linux {release}"))
}

/// Returns the command that installs Debian's kernel from backports.
fn kernel_command(facts: &Facts) -> String {
    let cloud = if facts.release.contains("-cloud-") {
        "cloud-"
    } else {
        ""
    };
    let arch = match facts.arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let suite = "trixie-backports";
    let install = format!("sudo apt install -t {suite} linux-image-{cloud}{arch} && sudo reboot");
    match facts.apt.has_backports {
        true => install,
        false => format!(
            "echo 'deb {} {suite} main' | sudo tee /etc/apt/sources.list.d/backports.list && \
             sudo apt update && {install}",
            facts.apt.archive
        ),
    }
}

fn module(facts: &Facts) -> Check {
    let name = "module";
    match &facts.module {
        Module::Loaded(text) => ok(name, text),
        Module::Installed { path, .. } => {
            let text = format!("is not loaded, though {} is installed", path.display());
            ok(name, text).mended_by(Wrong, "sudo modprobe freelist")
        }
        Module::Absent => {
            let text = format!("is not installed for Linux {}", facts.release);
            ok(name, text).mended_by(Wrong, "sudo make install && sudo modprobe freelist")
        }
    }
}

/// Checks whether the kernel would load the module with its signature.
fn signature(facts: &Facts) -> Check {
    let name = "signature";
    let locked = facts.lockdown.as_deref().is_some_and(|mode| mode != "none");
    if !(locked || facts.secure_boot || facts.signatures_enforced) {
        return ok(name, "the kernel takes modules without one");
    }
    let why = match (facts.secure_boot, locked) {
        (true, _) => "Secure Boot is on",
        (false, true) => "the kernel is locked down",
        (false, false) => "module.sig_enforce is set",
    };
    // mokutil asks for a password, and the firmware asks for it again at the next boot.
    let make = match facts.has_key {
        true => "",
        false => "sudo apt install dkms mokutil && sudo dkms generate_mok && ",
    };
    let enroll = format!("sudo mokutil --import {KEY} && sudo reboot");
    match facts.module {
        Module::Installed {
            signed: Some(false),
            ..
        } => {
            let text = format!("{why}, and the module has no signature");
            ok(name, text).mended_by(Wrong, format!("{make}sudo make install && {enroll}"))
        }
        _ => {
            let text = format!("{why}: the key that signs the module has to be enrolled");
            ok(name, text).mended_by(Warning, enroll)
        }
    }
}

fn device(facts: &Facts) -> Check {
    let name = "device";
    let path = facts.device.display();
    let make = |(major, minor)| {
        format!("sudo rm -f {path} && sudo mknod -m 0660 {path} c {major} {minor}")
    };
    match (&facts.node, facts.number) {
        (Node::Device { number, .. }, Some(real)) if *number != real => {
            ok(name, format!("{path} is another device than the module's"))
                .mended_by(Wrong, make(real))
        }
        (Node::Device { mode, .. }, _) if mode & 0o006 != 0 => {
            let text = format!(
                "{path} is open to all users (mode {mode:04o}), who may take memory that cannot be swapped"
            );
            ok(name, text).mended_by(Warning, format!("sudo chmod 0660 {path}"))
        }
        (Node::Device { mode, .. }, _) => ok(name, format!("{path}, mode {mode:04o}")),
        (node, number) => {
            let text = match node {
                Node::Other => format!("{path} is not a device"),
                _ => format!("there is no {path}"),
            };
            let reload = || "sudo modprobe -r freelist && sudo modprobe freelist".to_owned();
            ok(name, text).mended_by(Wrong, number.map_or_else(reload, make))
        }
    }
}

fn permission(facts: &Facts) -> Check {
    let name = "permission";
    let path = facts.device.display();
    match &facts.opened {
        Ok(info) if info.abi != ABI => {
            let text = format!("the module's abi is {}, this program's {ABI}", info.abi);
            let mend = "sudo make install && sudo modprobe -r freelist && sudo modprobe freelist";
            ok(name, text).mended_by(Wrong, mend)
        }
        Ok(info) => {
            let unknown = info.features & !Features::all().bits();
            let newer = if unknown == 0 {
                ""
            } else {
                ", newer than this program"
            };
            ok(name, format!("{path} opens, abi {}{newer}", info.abi))
        }
        Err(Errno::EACCES) => refused(facts),
        Err(errno) => {
            let text = format!("{path} cannot be opened: {errno}");
            ok(name, text).mended_by(Wrong, "sudo dmesg --level=err,warn | grep -i freelist")
        }
    }
}

/// Checks a device that the caller may not open: its group may.
fn refused(facts: &Facts) -> Check {
    let (name, path) = ("permission", facts.device.display());
    let is_groups = match facts.node {
        Node::Device { mode, gid, .. } => Some(gid) == facts.gid && mode & 0o060 == 0o060,
        _ => false,
    };
    if facts.membership == Membership::NoGroup {
        let text = format!("{path} is for root alone, and there is no group {GROUP}");
        let make = format!("sudo groupadd --system {GROUP} && sudo chgrp {GROUP} {path}");
        let join = format!("sudo chmod 0660 {path} && sudo usermod -aG {GROUP} \"$USER\"");
        return ok(name, text).mended_by(Wrong, format!("{make} && {join} && exec newgrp {GROUP}"));
    }
    if !is_groups {
        let text = format!("{path} does not belong to the group {GROUP}");
        return ok(name, text).mended_by(
            Wrong,
            format!("sudo chgrp {GROUP} {path} && sudo chmod 0660 {path}"),
        );
    }
    match facts.membership {
        Membership::AtNextLogin => {
            let text = format!("you are in the group {GROUP}, but not yet in this session");
            ok(name, text).mended_by(Wrong, format!("exec newgrp {GROUP}"))
        }
        Membership::Outside => {
            let text = format!("{path} is for the group {GROUP}, which you are not in");
            let mend = format!("sudo usermod -aG {GROUP} \"$USER\" && exec newgrp {GROUP}");
            ok(name, text).mended_by(Wrong, mend)
        }
        _ => {
            let text =
                format!("members of its group cannot open {path}: a container or a security module refuses it");
            ok(name, text).mended_by(Wrong, "sudo dmesg | grep -i -e apparmor -e avc -e freelist")
        }
    }
}

fn debugfs(facts: &Facts) -> Check {
    let name = "debugfs";
    match facts.debugfs {
        Debugfs::Readable => ok(name, "stat, top, map and trim see all arenas"),
        Debugfs::NotMounted => {
            let text = "is not mounted: map and trim need it, stat and top see less";
            ok(name, text).mended_by(Warning, "sudo mount -t debugfs debugfs /sys/kernel/debug")
        }
        Debugfs::Unreadable(Errno::EACCES) => {
            let text =
                "is for root alone: map and trim need it, stat and top see your own processes";
            ok(name, text).mended_by(Warning, "sudo freelistctl stat")
        }
        Debugfs::Unreadable(Errno::EPERM) => {
            let text = "the kernel is locked down, and keeps it closed: stat and top see your own processes";
            ok(name, text).mended_by(Warning, "freelistctl stat")
        }
        Debugfs::Unreadable(errno) => {
            let text = format!("freelist/stats cannot be opened: {errno}");
            ok(name, text).mended_by(Wrong, "sudo ls -l /sys/kernel/debug/freelist")
        }
    }
}

fn tracepoints(facts: &Facts) -> Check {
    let name = "tracepoints";
    match facts.tracepoints {
        Some(0) => ok(
            name,
            "this module has none: record samples the statistics alone",
        ),
        Some(count) => ok(name, format!("{count} events freelist:*")),
        None if facts.is_root => {
            let text = "tracefs is not mounted: record has no events";
            ok(name, text).mended_by(Warning, "sudo mount -t tracefs tracefs /sys/kernel/tracing")
        }
        None => ok(name, "are for root alone: record has no events"),
    }
}

fn limits(facts: &Facts) -> Check {
    let name = "limits";
    let arena = facts.opened.as_ref().ok().map(|info| info.limit_bytes);
    let mut parts = Vec::new();
    parts.extend(
        facts
            .limit_bytes
            .map(|bytes| format!("all arenas {}", mib(bytes))),
    );
    parts.extend(arena.map(|bytes| format!("one arena {}", mib(bytes))));
    let least = facts.limit_bytes.into_iter().chain(arena).min();
    if let Some(cgroup) = facts.cgroup_bytes {
        parts.push(format!("this cgroup {}", mib(cgroup)));
    }
    parts.push(format!("of {} of memory", mib(facts.memory_bytes)));
    if !facts.options.is_empty() {
        parts.push(format!("set by modprobe.d: {}", facts.options.join(" ")));
    }
    let text = parts.join(", ");
    // The module's own default: four fifths of memory.
    let mend = format!(
        "echo 'options freelist limit_mb={}' | sudo tee /etc/modprobe.d/freelist.conf && \
         sudo modprobe -r freelist && sudo modprobe freelist",
        (facts.memory_bytes / 5 * 4) >> 20
    );
    match (least, facts.limit_bytes.or(arena)) {
        (Some(least), _) if least < MIN_LIMIT => {
            ok(name, format!("too little for most programs: {text}")).mended_by(Warning, mend)
        }
        (_, Some(all)) if all > facts.memory_bytes => {
            ok(name, format!("more than the machine has: {text}")).mended_by(Warning, mend)
        }
        _ => ok(name, text),
    }
}

/// Checks huge pages. The policy in `/sys/kernel/mm/transparent_hugepage` does not apply to an arena: its memory
/// is page cache of a file of its own, which gets huge pages under every policy.
fn huge_pages(facts: &Facts) -> Check {
    let name = "huge pages";
    let Some(bytes) = facts.huge_bytes else {
        let text =
            "this kernel has none: memory is allocated in single pages, at more than four times the cost";
        return ok(name, text).mended_by(Warning, kernel_command(facts));
    };
    let size = unit(bytes);
    if facts.huge_disabled {
        let text =
            format!("{size}, but off for this process and its children (PR_SET_THP_DISABLE)");
        return ok(name, text).mended_by(Warning, "grep THP_enabled /proc/[0-9]*/status");
    }
    match facts.huge_free {
        Some(0) => {
            let text =
                format!("{size}, but memory is in smaller pieces now: arenas grow at more cost");
            ok(name, text).mended_by(Warning, "echo 1 | sudo tee /proc/sys/vm/compact_memory")
        }
        Some(free) => ok(name, format!("{size}, {free} pieces of at least that free")),
        None => ok(name, size),
    }
}

fn library(facts: &Facts) -> Check {
    let name = "library";
    match &facts.library {
        Some(path) => ok(name, path.display().to_string()),
        None => {
            let mend = match Path::new("src/client/c/Makefile").exists() {
                true => "sudo make -C src/client/c install",
                false => "sudo make install",
            };
            let text = "libfreelist_malloc.so is not found: freelistctl run needs it";
            ok(name, text).mended_by(Warning, mend)
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
