// SPDX-License-Identifier: GPL-2.0

//! The requests of a thread to the page allocator, by the kernel's tracepoint `kmem:mm_page_alloc`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;

use crate::harness::skip;

/// Instances of the tracer, each with a buffer of its own.
const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// One call of the page allocator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAlloc {
    /// The log2 of its pages.
    pub order: u32,
    /// The names of its flags, joined by `|`.
    pub flags: String,
}

impl PageAlloc {
    /// Returns whether it may reclaim memory by itself, or wake a thread that does. Unknown flags are taken to
    /// allow that.
    pub fn may_reclaim(&self) -> bool {
        const NEITHER: [&str; 14] = [
            "__GFP_HIGHMEM",
            "__GFP_MOVABLE",
            "__GFP_IO",
            "__GFP_FS",
            "__GFP_HARDWALL",
            "__GFP_ACCOUNT",
            "__GFP_ZERO",
            "__GFP_NOWARN",
            "__GFP_NORETRY",
            "__GFP_RETRY_MAYFAIL",
            "__GFP_NOMEMALLOC",
            "__GFP_COMP",
            "__GFP_SKIP_ZERO",
            "GFP_TRANSHUGE_LIGHT",
        ];
        let mut flags = self.flags.split('|');
        !flags.all(|flag| NEITHER.contains(&flag))
    }

    /// Returns whether it is for reclaimable objects of the kernel: nodes of the page cache's tree, in slabs whose
    /// orders and flags the kernel decides.
    pub fn is_of_a_slab(&self) -> bool {
        self.flags.contains("__GFP_RECLAIMABLE")
    }

    /// Returns whether a debug kernel made it to record another allocation: a pool of stacks now and then, which
    /// is charged to no cgroup and may reclaim if that one may (`gfp_nested_mask()`).
    pub fn is_record(&self) -> bool {
        const ITS_OWN: [&str; 3] = ["__GFP_NOWARN", "__GFP_NORETRY", "__GFP_NOMEMALLOC"];
        let has = |flag: &str| self.flags.split('|').any(|known| known == flag);
        ITS_OWN.into_iter().all(has) && !self.flags.contains("ACCOUNT")
    }
}

/// The tracer, switched on for this thread.
///
/// Opening its reader allocates pages of a high order, and may call the OOM killer if there are none: it is
/// opened once, when recording begins.
// An instance with an open file cannot be removed: the fields are dropped in this order.
pub struct PageAllocs {
    reader: File,
    switch: File,
    _instance: Instance,
}

impl PageAllocs {
    /// Records the allocations of this thread, with a buffer of `kib` KiB for each CPU.
    pub fn record(kib: u64) -> Self {
        let instance = Instance::new();
        instance.set("buffer_size_kb", &kib.to_string());
        if !instance.0.join("events/kmem/mm_page_alloc").exists() {
            drop(instance);
            skip("this kernel has no tracepoint mm_page_alloc");
        }
        instance.set("set_event_pid", &nix::unistd::gettid().to_string());
        instance.set("tracing_on", "0");
        instance.set("events/kmem/mm_page_alloc/enable", "1");
        let open = |options: &mut fs::OpenOptions, name| {
            let path = instance.0.join(name);
            options.open(path).expect("root may open it")
        };
        Self {
            reader: open(
                File::options().read(true).custom_flags(O_NONBLOCK),
                "trace_pipe",
            ),
            switch: open(File::options().write(true), "tracing_on"),
            _instance: instance,
        }
    }

    /// Returns the allocations of `work`, and its result. Both switches may allocate single pages too.
    pub fn of<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<PageAlloc>) {
        nix::unistd::write(&self.switch, b"1").expect("on");
        let result = work();
        nix::unistd::write(&self.switch, b"0").expect("off");
        let text = self.read();
        let lost = text.lines().filter(|line| line.contains("LOST"));
        assert_eq!(lost.count(), 0, "the buffer is too small");
        (result, text.lines().filter_map(parse).collect())
    }

    /// Returns the text that was recorded since the last call.
    fn read(&self) -> String {
        let mut text = Vec::new();
        let mut part = [0; 4096];
        loop {
            match (&self.reader).read(&mut part) {
                Ok(length) => text.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("trace_pipe: {error}"),
            }
        }
        String::from_utf8(text).expect("the kernel's text")
    }
}

/// An instance of the tracer, removed when it is dropped.
pub(super) struct Instance(pub(super) PathBuf);

impl Instance {
    /// Makes an instance, or ends the test as skipped if the kernel has no tracer.
    pub(super) fn new() -> Self {
        let path = Path::new(INSTANCES).join(format!("freelist-{}", nix::unistd::gettid()));
        if fs::create_dir(&path).is_err() {
            skip("this kernel has no tracing");
        }
        Self(path)
    }

    /// Writes one of its files.
    #[track_caller]
    pub(super) fn set(&self, name: &str, value: &str) {
        fs::write(self.0.join(name), value).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("events/enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// Parses `... mm_page_alloc: page=... pfn=0x1 order=3 migratetype=0 gfp_flags=A|B`.
fn parse(line: &str) -> Option<PageAlloc> {
    let (_, event) = line.split_once("mm_page_alloc: ")?;
    let value = |name: &str| {
        let word = event.split(' ').find_map(|word| word.strip_prefix(name));
        word.unwrap_or_else(|| panic!("{name} in {line:?}"))
    };
    Some(PageAlloc {
        order: value("order=").parse().expect("an order"),
        flags: value("gfp_flags=").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_flags_are_read() {
        let line = " a-1 [000] ..... 1.5: mm_page_alloc: page=0 pfn=0x4 order=3 migratetype=0 \
                    gfp_flags=__GFP_IO|__GFP_FS";
        let alloc = parse(line).unwrap();
        assert_eq!(alloc.order, 3);
        assert!(!alloc.may_reclaim());
        assert!(parse("# a header").is_none());
    }

    #[test]
    fn flags_that_allow_reclaim_are_known_by_any_name() {
        for flags in [
            "GFP_KERNEL",
            "__GFP_IO|__GFP_KSWAPD_RECLAIM",
            "GFP_HIGHUSER|__GFP_ZERO",
        ] {
            let flags = flags.to_owned();
            assert!(PageAlloc { order: 1, flags }.may_reclaim());
        }
    }
}
