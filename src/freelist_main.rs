// SPDX-License-Identifier: GPL-2.0-only

//! freelist: page-backed power-of-2 freelists behind `/dev/freelist`.
//!
//! # Layers
//!
//! ```text
//!  ioctl, mmap, page fault
//!    |
//!  device     fops file clone ioctl mmap fault: the kernel calls it; decodes and checks arguments
//!    |     \
//!    |    debug      files show check: the arenas in debugfs and fdinfo
//!    |     /
//!  arena      one open file: state (the lock and its order), alloc, free, bulk, resize, lazy,
//!    |     \      discard, clone, grow, reclaim, wait, bounds; registry, shared_limit: all of them
//!    |    mm         address_space, folio, removal, copy: an arena's page cache; vma: its mappings;
//!    |     |         memcg, metadata: the charged cgroup; shrinker: returns free pages when memory
//!    |     |         is short; statistics: the kernel's counters
//!    |    ffi        the calling thread, user space, debugfs, polling: knows no pages
//!    |     |
//!    |    c          the kernel's macros and inline functions, for Rust: fs folio mm memcg metadata
//!    |               shrinker sched uaccess debugfs trace
//!  engine     which block a request gets
//! ```
//!
//! Each folder uses only those before it in the order `engine`, `ffi`, `mm`, `arena`, `debug`,
//! `device`; `tests/layers` checks that. `kunit`, the tests in the kernel, uses all
//! of them. `c` has the helpers in C by subject, `uapi` the contract with user space, freelist(4), and
//! [`mod@module`] the loaded module. The files that may be `unsafe` are those that the `mod.rs` of their
//! folder marks with `expect(unsafe_code)`, and `module.rs`.
//!
//! | folder | what it does |
//! | --- | --- |
//! | `engine` | decides which block a request gets: no kernel, no lock, no allocation, no `unsafe` |
//! | `ffi` | wraps the C that the kernel crate lacks: the calling thread, user space, debugfs; knows no pages |
//! | `mm` | allocates, charges, maps and reclaims pages; knows no arenas |
//! | `arena` | one open file: the lock (`arena/state.rs`), allocation, free, growth, waiting, limits; and the registry of all |
//! | `debug` | shows and measures the arenas in debugfs |
//! | `device` | `/dev/freelist`: open files, ioctls, mappings, page faults |
//! | `kunit` | tests that need the kernel |
//!
//! # The path of an ALLOC
//!
//! 1. [`device::fops`] finds the arena of the file, [`device::ioctl`] copies the structure in once and
//!    checks it.
//! 2. [`arena`] takes its lock and calls the [`engine`], which reserves a block, or returns which
//!    metadata it lacks: the lock is dropped, the metadata is allocated, the engine is called again.
//! 3. [`arena`] backs the missing pages without the lock: it adds folios to the arena's page cache, the
//!    largest that fit. Where the limits forbid it, it drops the memory of free runs elsewhere first.
//! 4. [`device::ioctl`] copies the answer to the caller, and [`arena`] makes the block live.
//!
//! A failure before that cancels the reservation: no block is live. If only memory is short and the
//! request waits, the caller sleeps until a wake-up, a signal or its timeout.
//!
//! Memory is dropped in three steps: the engine isolates a range, so that no request gets it; its folios
//! are removed from the page cache; the engine marks their pages unbacked.
//!
//! # Other paths
//!
//! | what | where |
//! | --- | --- |
//! | page fault | `device/fault.rs` looks up the folio of the offset, which the kernel maps; a lazy page without memory gets it in `arena/lazy.rs` |
//! | wake-up | a call that frees memory calls `Arena::wake` (`arena/wait.rs`) under the lock; `engine/wait_queue.rs` decides whose turn it is |
//! | shrink | `c/shrinker.c` finds the arenas of the cgroup; `Shrink` of `mm/shrinker.rs`, which `arena/reclaim.rs` implements; `mm/removal.rs` |
//! | statistic | counted in `engine/stats.rs` (blocks, bytes) or `arena/counters.rs` (waits, trims, refused calls), shown by `debug/show.rs` and STAT; `arena/counters.rs` lists the places of a new one |

mod arena;
mod debug;
mod device;
#[forbid(unsafe_code)]
#[deny(missing_docs)]
#[expect(unreachable_pub, reason = "on the host it is a crate's interface")]
mod engine;
mod ffi;
#[cfg(CONFIG_KUNIT = "y")]
mod kunit;
mod mm;
mod module;

use kernel::prelude::*;
use module::Freelist;

module! {
    type: Freelist,
    name: "freelist",
    authors: ["The freelist authors"],
    description: "Page-backed power-of-2 freelists behind /dev/freelist",
    license: "GPL",
    params: {
        limit_mb: u64 {
            default: 0,
            description: "MiB of pages that all arenas together may hold (default: four fifths of the machine's memory)",
        },
        arena_limit_mb: u64 {
            default: 0,
            description: "MiB of pages that one arena may hold (default: as many as all of them)",
        },
        lazy_limit_mb: u64 {
            default: 0,
            description: "MiB of untouched pages that lazy blocks of one arena may reserve (default: half of arena_limit_mb)",
        },
        slack_permille: u32 {
            default: 50,
            description: "How much more than its blocks ever needed an arena may hold before it reuses scattered free memory, in thousandths, at most 1000; 4294967295 is no bound (default: 50)",
        },
        idle_s: u32 {
            default: 30,
            description: "Seconds without an allocation or a release after which the free memory of an arena is returned to the system, at the latest after twice as many; 0 is never (default: 30)",
        },
    },
}
