// SPDX-License-Identifier: GPL-2.0

//! What a thread asks the page allocator for, by the kernel's tracepoint
//! `kmem:mm_page_alloc`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::skip;

/// Instances of the tracer, each with a buffer of its own.
const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// One call of the page allocator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAlloc {
    /// It is of `1 << order` pages.
    pub order: u32,
    /// Names of the flags, joined by `|`.
    pub flags: String,
}

impl PageAlloc {
    /// Whether it may reclaim memory by itself, or wake who does. Flags that
    /// are not known to say neither are taken for ones that do.
    pub fn may_reclaim(&self) -> bool {
        const NEITHER: [&str; 13] = [
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
        ];
        let mut flags = self.flags.split('|');
        !flags.all(|flag| NEITHER.contains(&flag))
    }
}

/// The tracer, switched on for this thread.
pub struct PageAllocs(PathBuf);

impl PageAllocs {
    /// Records what this thread does, with room for `kib` KiB a CPU.
    pub fn record(kib: u64) -> Self {
        let path = Path::new(INSTANCES).join(format!("freelist-{}", nix::unistd::gettid()));
        if fs::create_dir(&path).is_err() {
            skip("this kernel has no tracing");
        }
        let this = Self(path);
        this.set("buffer_size_kb", &kib.to_string());
        if !this.0.join("events/kmem/mm_page_alloc").exists() {
            drop(this);
            skip("this kernel has no tracepoint mm_page_alloc");
        }
        this.set("set_event_pid", &nix::unistd::gettid().to_string());
        this.set("tracing_on", "0");
        this.set("events/kmem/mm_page_alloc/enable", "1");
        this
    }

    fn set(&self, name: &str, value: &str) {
        fs::write(self.0.join(name), value).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// What `work` asks for, and its result. Both switches may ask for single
    /// pages too.
    pub fn of<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<PageAlloc>) {
        self.set("trace", "");
        let switch = fs::File::options()
            .write(true)
            .open(self.0.join("tracing_on"))
            .expect("root may write it");
        nix::unistd::write(&switch, b"1").expect("on");
        let result = work();
        nix::unistd::write(&switch, b"0").expect("off");
        let text = fs::read_to_string(self.0.join("trace")).expect("root may read it");
        let lost = text.lines().filter(|line| line.contains("LOST"));
        assert_eq!(lost.count(), 0, "the buffer is too small");
        (result, text.lines().filter_map(parse).collect())
    }
}

impl Drop for PageAllocs {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("events/kmem/mm_page_alloc/enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// `... mm_page_alloc: page=... pfn=0x1 order=3 migratetype=0 gfp_flags=A|B`
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
