// SPDX-License-Identifier: MIT OR Apache-2.0

//! The facts about the system that `freelistctl doctor` judges.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use freelist::debugfs::{Stats, DIR};
use freelist::{fdinfo, Arena, Error, Info};
use nix::errno::Errno;
use nix::sys::stat;

use crate::{run, session};

/// The group of the device file, as the udev rule sets it.
pub(crate) const GROUP: &str = "freelist";
/// The public half of the machine's own key, where dkms puts it.
pub(crate) const KEY: &str = "/var/lib/dkms/mok.pub";
/// The trailer of a signed module.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// The releases by which Debian's archive is known.
const RELEASES: [&str; 6] = [
    "bookworm",
    "trixie",
    "oldstable",
    "stable",
    "testing",
    "sid",
];

/// The state of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Module {
    /// Loaded: its version, or its size.
    Loaded(String),
    /// Installed for the running kernel, but not loaded. `signed` is `None` if the file is compressed,
    /// as the signature is not read then.
    Installed { path: PathBuf, signed: Option<bool> },
    /// Not installed.
    Absent,
}

/// The file at the device's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Absent,
    /// A character device: its permission bits, its group's number, its own numbers.
    Device {
        mode: u32,
        gid: u32,
        number: (u64, u64),
    },
    /// A file of another type.
    Other,
}

/// The caller's membership of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// There is no such group.
    NoGroup,
    /// The caller is not in it.
    Outside,
    /// The caller has become a member since this session began.
    AtNextLogin,
    Inside,
}

/// The state of debugfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debugfs {
    NotMounted,
    Unreadable(Errno),
    Readable,
}

/// The package archive of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Apt {
    /// Debian's archive in apt's lists of sources; `MIRROR/debian`, for the reader to fill in, if they
    /// have none.
    pub(crate) archive: String,
    /// `true` if the lists have backports, with newer kernels.
    pub(crate) has_backports: bool,
}

/// All facts.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) release: String,
    pub(crate) arch: &'static str,
    pub(crate) apt: Apt,
    /// `true` if the kernel was built with Rust; `None` if its configuration cannot be read.
    pub(crate) has_rust: Option<bool>,
    pub(crate) module: Module,
    /// `none`, `integrity` or `confidentiality`; `None` if the kernel has no lockdown.
    pub(crate) lockdown: Option<String>,
    pub(crate) secure_boot: bool,
    /// `true` if this machine has a key of its own for its modules.
    pub(crate) has_key: bool,
    /// `true` if the kernel loads signed modules only, by `module.sig_enforce`.
    pub(crate) signatures_enforced: bool,
    pub(crate) device: PathBuf,
    pub(crate) node: Node,
    /// The major and minor number of the loaded module's device.
    pub(crate) number: Option<(u64, u64)>,
    /// The result of opening the device: INFO, or the error.
    pub(crate) opened: Result<Info, Errno>,
    pub(crate) is_root: bool,
    pub(crate) gid: Option<u32>,
    pub(crate) membership: Membership,
    pub(crate) debugfs: Debugfs,
    /// The limit of all arenas together, in bytes.
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) memory_bytes: u64,
    /// The lines of `modprobe.d` that set the module's parameters.
    pub(crate) options: Vec<String>,
    /// The least `memory.max` of the caller's cgroups, in bytes.
    pub(crate) cgroup_bytes: Option<u64>,
    /// The bytes of a huge page; `None` if the kernel has none.
    pub(crate) huge_bytes: Option<u64>,
    /// `true` if huge pages are off for this process (`PR_SET_THP_DISABLE`).
    pub(crate) huge_disabled: bool,
    /// The number of free pieces of memory of at least a huge page.
    pub(crate) huge_free: Option<u64>,
    /// The path of libfreelist_malloc.so.
    pub(crate) library: Option<PathBuf>,
    /// The number of the module's tracepoints; `None` if tracefs cannot be read.
    pub(crate) tracepoints: Option<usize>,
}

impl Facts {
    pub(crate) fn read(device: &Path) -> Self {
        let release = trimmed("/proc/sys/kernel/osrelease").unwrap_or_default();
        let status = text("/proc/self/status");
        let groups = text("/etc/group");
        let gid = group(&groups).map(|(gid, _)| gid);
        let huge_bytes = number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
        Self {
            arch: std::env::consts::ARCH,
            apt: apt(&index_targets()),
            has_rust: has_rust(&release),
            module: module(&release),
            lockdown: lockdown(&text("/sys/kernel/security/lockdown")),
            secure_boot: secure_boot(),
            has_key: Path::new(KEY).exists(),
            signatures_enforced: text("/sys/module/module/parameters/sig_enforce").starts_with('Y'),
            device: device.to_owned(),
            node: node(device),
            number: fdinfo::major(&text("/proc/devices")).map(|major| (major, 0)),
            opened: open(device),
            is_root: rustix::process::geteuid().is_root(),
            gid,
            membership: membership(&groups, &text("/etc/passwd"), &status),
            debugfs: debugfs(&text("/proc/self/mounts")),
            limit_bytes: Stats::read()
                .ok()
                .and_then(|stats| stats.get("limit_bytes")),
            memory_bytes: kib(&text("/proc/meminfo"), "MemTotal:").unwrap_or(0),
            options: options(),
            cgroup_bytes: cgroup_bytes(&text("/proc/self/cgroup")),
            huge_bytes,
            huge_disabled: field(&status, "THP_enabled:") == Some("0"),
            huge_free: huge_bytes.map(|bytes| huge_free(&text("/proc/buddyinfo"), bytes)),
            library: run::library(None).ok(),
            tracepoints: tracepoints(),
            release,
        }
    }
}

/// Returns the text of a file; empty if it cannot be read.
fn text(path: impl AsRef<Path>) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn trimmed(path: &str) -> Option<String> {
    let text = text(path).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn number(path: &str) -> Option<u64> {
    trimmed(path)?.parse().ok()
}

/// Returns the word after `name` in the line that begins with it.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}

/// Returns a value of `/proc/meminfo`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = field(text, name)?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Lists the indexes of packages that apt has, a line each: the archive, the release, the component.
/// Empty where there is no apt.
fn index_targets() -> String {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let apt = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Identifier: Packages"])
        .output();
    let bytes = apt.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Finds Debian's archive, and its backports, among the indexes of packages, as `scripts/lib/mirror` does.
fn apt(targets: &str) -> Apt {
    let main = || {
        targets.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (archive, release) = (words.next()?, words.next()?);
            (words.next() == Some("main")).then_some((archive, release))
        })
    };
    let is_archive = |(archive, release): &(&str, &str)| {
        let scheme = archive.split(':').next().unwrap_or_default();
        ["http", "https", "ftp", "file"].contains(&scheme) && RELEASES.contains(release)
    };
    let archive = main().find(is_archive);
    Apt {
        archive: archive
            .map_or("MIRROR/debian", |(archive, _)| archive)
            .to_owned(),
        has_backports: main()
            .any(|(_, release)| ["trixie-backports", "stable-backports"].contains(&release)),
    }
}

/// Reads from the kernel's configuration, where Debian puts it, whether it has Rust.
fn has_rust(release: &str) -> Option<bool> {
    let config = fs::read_to_string(format!("/boot/config-{release}")).ok()?;
    Some(config.lines().any(|line| line == "CONFIG_RUST=y"))
}

fn module(release: &str) -> Module {
    if Path::new("/sys/module/freelist").exists() {
        return Module::Loaded(session::module());
    }
    let dir = PathBuf::from("/lib/modules").join(release);
    match installed(&text(dir.join("modules.dep"))) {
        Some(file) => {
            let path = dir.join(file);
            let is_plain = path.extension().is_some_and(|extension| extension == "ko");
            let signed = || Some(fs::read(&path).ok()?.ends_with(SIGNED));
            let signed = if is_plain { signed() } else { None };
            Module::Installed { path, signed }
        }
        None => Module::Absent,
    }
}

/// Returns the module's file according to `modules.dep`.
fn installed(dependencies: &str) -> Option<&str> {
    let files = dependencies
        .lines()
        .filter_map(|line| line.split(':').next());
    let is_ours = |file: &&str| {
        let name = file.rsplit('/').next().unwrap_or_default();
        name.strip_prefix("freelist.ko")
            .is_some_and(|end| ["", ".xz", ".zst", ".gz"].contains(&end))
    };
    files.filter(is_ours).last()
}

/// Returns the word in brackets.
fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Returns whether Secure Boot is on: the EFI variable has four bytes of attributes, then its value.
fn secure_boot() -> bool {
    let path = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    fs::read(path).is_ok_and(|bytes| bytes.get(4) == Some(&1))
}

fn node(device: &Path) -> Node {
    match fs::metadata(device) {
        Ok(file) if file.file_type().is_char_device() => Node::Device {
            mode: file.mode() & 0o777,
            gid: file.gid(),
            number: (stat::major(file.rdev()), stat::minor(file.rdev())),
        },
        Ok(_) => Node::Other,
        Err(_) => Node::Absent,
    }
}

/// Opens the device, calls INFO, and closes the arena again.
fn open(device: &Path) -> Result<Info, Errno> {
    let arena = Arena::open_path(device);
    let errno = |error: Error| error.errno().unwrap_or(Errno::EINVAL);
    arena.and_then(|arena| arena.info()).map_err(errno)
}

/// Returns the number and the members of the group in `/etc/group`.
fn group(groups: &str) -> Option<(u32, Vec<&str>)> {
    let line = groups
        .lines()
        .find(|line| line.split(':').next() == Some(GROUP))?;
    let mut fields = line.split(':').skip(2);
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',');
    Some((gid, members.filter(|name| !name.is_empty()).collect()))
}

fn membership(groups: &str, users: &str, status: &str) -> Membership {
    let Some((gid, members)) = group(groups) else {
        return Membership::NoGroup;
    };
    let gid = gid.to_string();
    let now = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let mut numbers = line.unwrap_or_default().split_whitespace();
        numbers.any(|number| number == gid)
    };
    if now("Groups:") || now("Gid:") {
        return Membership::Inside;
    }
    let uid = field(status, "Uid:").unwrap_or_default();
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid)).then_some(name)
    });
    if user.is_some_and(|user| members.contains(&user)) {
        Membership::AtNextLogin
    } else {
        Membership::Outside
    }
}

fn debugfs(mounts: &str) -> Debugfs {
    let is_debugfs = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/sys/kernel/debug") && fields.next() == Some("debugfs")
    };
    if !mounts.lines().any(is_debugfs) {
        return Debugfs::NotMounted;
    }
    match fs::File::open(Path::new(DIR).join("stats")) {
        Ok(_) => Debugfs::Readable,
        Err(error) => Debugfs::Unreadable(errno(&error)),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Returns the lines of `modprobe.d` that set parameters of the module.
fn options() -> Vec<String> {
    let dirs = [
        "/usr/lib/modprobe.d",
        "/lib/modprobe.d",
        "/run/modprobe.d",
        "/etc/modprobe.d",
    ];
    let mut lines = Vec::new();
    for dir in dirs {
        let files = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            let text = text(file);
            let ours = text
                .lines()
                .filter_map(|line| line.strip_prefix("options freelist "));
            lines.extend(ours.map(|line| line.trim().to_owned()));
        }
    }
    // /lib is /usr/lib on most systems.
    lines.dedup();
    lines
}

/// Returns the least limit of the process's cgroup and those above it, in bytes.
fn cgroup_bytes(cgroups: &str) -> Option<u64> {
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let path = root.join(own);
    let levels = path.ancestors().take_while(|level| level.starts_with(root));
    levels
        .filter_map(|level| number(level.join("memory.max").to_str()?))
        .min()
}

/// Returns the number of free pieces of at least `bytes`, from `/proc/buddyinfo`, whose columns are orders.
fn huge_free(buddyinfo: &str, bytes: u64) -> u64 {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten().unwrap_or(4096) as u64;
    let order = (bytes / page).max(1).ilog2() as usize;
    let zone = |line: &str| -> u64 {
        let counts = line.split_whitespace().skip(4 + order);
        counts.filter_map(|count| count.parse::<u64>().ok()).sum()
    };
    buddyinfo.lines().map(zone).sum()
}

fn tracepoints() -> Option<usize> {
    let root = Path::new("/sys/kernel/tracing/events");
    fs::read_dir(root).ok()?;
    let events = fs::read_dir(root.join("freelist"))
        .into_iter()
        .flatten()
        .flatten();
    Some(events.filter(|entry| entry.path().is_dir()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_by_its_name_alone() {
        let text = "kernel/fs/myfreelist.ko.xz:\nkernel/a.ko: updates/freelist.ko\n\
                    updates/dkms/freelist.ko.xz:\nkernel/freelist.kox:\n";
        assert_eq!(installed(text), Some("updates/dkms/freelist.ko.xz"));
        assert_eq!(installed("kernel/a.ko: updates/freelist.ko\n"), None);
    }

    #[test]
    fn a_member_of_the_group_is_one_now_or_at_the_next_login() {
        let users = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let of = |groups, numbers: &str| {
            let status = format!("Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t{numbers} \n");
            membership(groups, users, &status)
        };
        assert_eq!(of("adm:x:4:ann\n", "4"), Membership::NoGroup);
        assert_eq!(of("freelist:x:990:\n", "4"), Membership::Outside);
        assert_eq!(of("freelist:x:990:annette\n", "4"), Membership::Outside);
        assert_eq!(
            of("freelist:x:990:bob,ann\n", "4 99"),
            Membership::AtNextLogin
        );
        assert_eq!(of("freelist:x:990:ann\n", "4 990"), Membership::Inside);
        assert_eq!(of("freelist:x:1000:\n", ""), Membership::Inside);
    }

    #[test]
    fn debians_archive_is_the_one_that_the_machine_has() {
        let expected = |archive: &str, has_backports| Apt {
            archive: archive.to_owned(),
            has_backports,
        };
        let targets = "https://vendor.example/linux/debian/ trixie stable\n\
                       http://security.example/debian-security/ trixie-security main\n\
                       cdrom:[Debian]/ trixie main\n\
                       http://mirror.example/debian/ trixie main\n\
                       http://other.example/debian/ trixie main\n";
        assert_eq!(
            apt(targets),
            expected("http://mirror.example/debian/", false)
        );
        for release in ["trixie-backports", "stable-backports"] {
            let targets = format!("{targets}http://mirror.example/debian/ {release} main\n");
            assert_eq!(
                apt(&targets),
                expected("http://mirror.example/debian/", true)
            );
        }
        let others = "http://vendor.example/debian/ trixie-backports other\n";
        for targets in ["", others] {
            assert_eq!(apt(targets), expected("MIRROR/debian", false));
        }
    }

    #[test]
    fn numbers_are_read_from_the_kernels_tables() {
        assert_eq!(
            lockdown("none [integrity] confidentiality\n"),
            Some("integrity".to_owned())
        );
        assert_eq!(lockdown(""), None);
        assert_eq!(
            kib("MemFree: 1 kB\nMemTotal:  2048 kB\n", "MemTotal:"),
            Some(2 << 20)
        );
        let zones = "Node 0, zone    DMA      1 1 1 1 1 1 1 1 1 2 3\n\
                     Node 0, zone  DMA32      9 9 9 9 9 9 9 9 9 0 4\n";
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        let page = page.unwrap().unwrap() as u64;
        assert_eq!(huge_free(zones, page << 9), 9);
        assert_eq!(huge_free(zones, page << 10), 7);
    }
}
