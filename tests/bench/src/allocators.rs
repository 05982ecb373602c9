// SPDX-License-Identifier: GPL-2.0

//! Other allocators, and their settings.

/// The directory in which `scripts/bench` puts the libraries.
const LIBRARIES: &str = "lib";

/// An allocator that replaces the C library's in a process.
#[derive(Clone, Copy, Debug)]
pub struct Malloc {
    /// The name in tables.
    pub name: &'static str,
    /// The library; `None` is the C library itself.
    library: Option<&'static str>,
    /// The settings: environment variables and their values.
    settings: &'static [(&'static str, &'static str)],
}

impl Malloc {
    /// Returns the environment of a process that has it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let preload = self.library.map(|name| format!("{LIBRARIES}/{name}"));
        let settings = self.settings.iter();
        preload
            .map(|path| ("LD_PRELOAD", path))
            .into_iter()
            .chain(settings.map(|(name, value)| (*name, (*value).to_owned())))
            .collect()
    }
}

const MIMALLOC: Option<&str> = Some("libmimalloc.so.3");
const JEMALLOC: Option<&str> = Some("libjemalloc.so.2");
const TCMALLOC: Option<&str> = Some("libtcmalloc_minimal.so.4");

/// The allocators with their defaults.
pub const AS_THEY_COME: [Malloc; 4] = [
    Malloc {
        name: "glibc",
        library: None,
        settings: &[],
    },
    Malloc {
        name: "mimalloc",
        library: MIMALLOC,
        settings: &[],
    },
    Malloc {
        name: "jemalloc",
        library: JEMALLOC,
        settings: &[],
    },
    Malloc {
        name: "tcmalloc",
        library: TCMALLOC,
        settings: &[],
    },
];

/// The allocators set to keep freed memory, so that large blocks are used again unchanged.
pub const KEEPING: [Malloc; 4] = [
    Malloc {
        name: "glibc_keeping",
        library: None,
        settings: &[(
            "GLIBC_TUNABLES",
            "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184",
        )],
    },
    Malloc {
        name: "mimalloc_keeping",
        library: MIMALLOC,
        settings: &[("MIMALLOC_PURGE_DELAY", "-1")],
    },
    Malloc {
        name: "jemalloc_keeping",
        library: JEMALLOC,
        settings: &[("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1")],
    },
    Malloc {
        name: "tcmalloc_keeping",
        library: TCMALLOC,
        settings: &[("TCMALLOC_RELEASE_RATE", "0")],
    },
];

/// The allocators set to leave free memory to the kernel, which reclaims it under pressure (MADV_FREE).
pub const LEAVING: [Malloc; 2] = [
    Malloc {
        name: "mimalloc_leaving",
        library: MIMALLOC,
        settings: &[
            ("MIMALLOC_PURGE_DELAY", "0"),
            ("MIMALLOC_PURGE_DECOMMITS", "0"),
        ],
    },
    Malloc {
        name: "jemalloc_leaving",
        library: JEMALLOC,
        settings: &[("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:-1")],
    },
];

/// Returns the allocator with that name, with its defaults.
pub fn named(name: &str) -> Malloc {
    let other = AS_THEY_COME.iter().find(|other| other.name == name);
    *other.expect("one of the allocators")
}
