// SPDX-License-Identifier: GPL-2.0

//! The allocators that are compared, and how each is set.

/// An allocator of an unchanged program: a library that is preloaded, and variables.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    /// The name in records, tables and on the command line.
    pub name: &'static str,
    /// A description for a reader of the table.
    pub what: &'static str,
    /// The library to preload; `None` is the C library itself.
    pub library: Option<&'static str>,
    /// Variables of the environment.
    pub settings: &'static [(&'static str, &'static str)],
    /// `true` if `make demo` measures it when no allocator is named.
    pub is_default: bool,
}

const JEMALLOC: Option<&str> = Some("libjemalloc.so.2");
const MIMALLOC: Option<&str> = Some("libmimalloc.so.3");
const TCMALLOC: Option<&str> = Some("libtcmalloc_minimal.so.4");

/// The baseline for memory: it maps each large block, and unmaps it when it is freed, so it holds no
/// free memory.
pub const TIGHTEST: &str = "glibc-mmap";
/// This project's allocator.
pub const FREELIST: &str = "freelist";

/// All settings that can be measured, by name.
///
/// By default each allocator is measured with its defaults, and with every setting that its documentation
/// offers to hold less memory.
pub const ALLOCATORS: &[Allocator] = &[
    Allocator {
        name: "glibc",
        what: "glibc's malloc",
        library: None,
        settings: &[],
        is_default: true,
    },
    Allocator {
        name: TIGHTEST,
        what: "glibc, each block of 64 KiB and more mapped by itself",
        library: None,
        settings: &[("MALLOC_MMAP_THRESHOLD_", "65536")],
        is_default: true,
    },
    Allocator {
        name: "jemalloc",
        what: "jemalloc",
        library: JEMALLOC,
        settings: &[],
        is_default: true,
    },
    Allocator {
        name: "jemalloc-decay0",
        what: "jemalloc, free pages released at once",
        library: JEMALLOC,
        settings: &[("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")],
        is_default: false,
    },
    Allocator {
        name: "jemalloc-nothp",
        what: "jemalloc, without huge pages",
        library: JEMALLOC,
        settings: &[("MALLOC_CONF", "thp:never")],
        is_default: false,
    },
    Allocator {
        name: "jemalloc-tight",
        what: "jemalloc, without huge pages, free pages released at once",
        library: JEMALLOC,
        settings: &[("MALLOC_CONF", "thp:never,dirty_decay_ms:0,muzzy_decay_ms:0")],
        is_default: true,
    },
    Allocator {
        name: "mimalloc",
        what: "mimalloc",
        library: MIMALLOC,
        settings: &[],
        is_default: true,
    },
    Allocator {
        name: "mimalloc-purge0",
        what: "mimalloc, free pages released at once",
        library: MIMALLOC,
        settings: &[("MIMALLOC_PURGE_DELAY", "0")],
        is_default: false,
    },
    Allocator {
        name: "mimalloc-nothp",
        what: "mimalloc, without huge pages",
        library: MIMALLOC,
        settings: &[("MIMALLOC_ALLOW_THP", "0")],
        is_default: false,
    },
    Allocator {
        name: "mimalloc-tight",
        what: "mimalloc, without huge pages, free pages released at once",
        library: MIMALLOC,
        settings: &[("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "0")],
        is_default: true,
    },
    Allocator {
        name: "tcmalloc",
        what: "tcmalloc",
        library: TCMALLOC,
        settings: &[],
        is_default: true,
    },
    Allocator {
        name: "tcmalloc-tight",
        what: "tcmalloc, free pages released at once",
        library: TCMALLOC,
        settings: &[("TCMALLOC_AGGRESSIVE_DECOMMIT", "true")],
        is_default: true,
    },
    Allocator {
        name: FREELIST,
        what: "freelist under glibc: blocks of 64 KiB and more",
        library: Some("/work/libfreelist_malloc.so"),
        settings: &[],
        is_default: true,
    },
    Allocator {
        name: "freelist-mimalloc",
        what: "freelist under mimalloc, without huge pages: blocks of 64 KiB and more",
        library: Some("/work/libfreelist_malloc.so:libmimalloc.so.3"),
        settings: &[("MIMALLOC_ALLOW_THP", "0")],
        is_default: false,
    },
    Allocator {
        name: "freelist-share",
        what: "freelist under glibc, forked children read their parent's blocks",
        library: Some("/work/libfreelist_malloc.so"),
        settings: &[("FREELIST_FORK", "share")],
        is_default: false,
    },
];

/// Returns the allocator with that name.
pub fn named(name: &str) -> Option<Allocator> {
    ALLOCATORS
        .iter()
        .find(|allocator| allocator.name == name)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_of_one_setting() {
        for allocator in ALLOCATORS {
            let same = ALLOCATORS
                .iter()
                .filter(|other| other.name == allocator.name);
            assert_eq!(same.count(), 1, "{}", allocator.name);
        }
        assert!(named(TIGHTEST).is_some() && named(FREELIST).is_some());
    }
}
