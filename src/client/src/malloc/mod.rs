// SPDX-License-Identifier: MIT OR Apache-2.0

//! The large blocks of a whole process, from an arena of its own.
//!
//! This is the upper one of two allocators of a process. The next allocator has the blocks below a
//! threshold (64 KiB); the arena has the larger ones, in exactly their pages, strands none of these,
//! and leaves free memory to the kernel. If the arena cannot serve a request (no device, a limit, no
//! memory), the next allocator does. In `libfreelist_malloc.so` the next allocator is the C library's
//! `malloc()`; below [`Global`] it is Rust's system allocator.
//!
//! ```text
//!   address space   | arena: block . . block block . block . . . |   (nothing mapped yet) ...
//!                   base              offsets of the arena        mapped                  end
//! ```
//!
//! | module | is |
//! | --- | --- |
//! | `serving` | the arena that serves: opened, lost, or refused |
//! | `blocks`, `realloc` | allocation, release, resizing of blocks |
//! | `range` | the addresses of an arena: its mapping, its blocks; what remains after a fork or a lost file |
//! | `table` | the size of the block that begins at an offset |
//! | `reuse` | how much free memory is worth keeping |
//! | `fork` | the copy of the blocks for a forked child |
//! | `asleep` | an arena without live blocks at a fork |
//! | `gate` | the lock that keeps releases apart from forks and extensions |
//! | `descriptor`, `os` | the open device, out of the program's reach; address space |
//! | `settings` | the environment variables |
//! | `once` | a value that is computed once |
//! | `refusal`, `counters`, `message` | reasons of refusals, their counts, lines on standard error |
//! | `report` | the counters of all processes of a program, read (feature `std`) |
//! | `global` | the allocator of a Rust program (feature `std`) |
//!
//! # Rules
//!
//! Nothing here allocates from the process's allocator, which calls it, or holds a lock while it calls
//! something that may allocate. Nothing panics. `errno` keeps its value: system calls are made without
//! the C library.
//!
//! Every program that is started with the library loads and prepares it, and most have no large
//! block. So the modules need the core library alone, and the start writes to few pages: [`LARGE`]
//! is all zeros at first, and its large parts are mapped when they are needed.

#![expect(unsafe_code, reason = "memory that is handed out by its address")]

mod asleep;
mod blocks;
mod counters;
mod descriptor;
mod fork;
mod gate;
#[cfg(feature = "std")]
mod global;
mod message;
mod once;
mod os;
mod range;
mod realloc;
mod refusal;
#[cfg(feature = "std")]
mod report;
mod reuse;
mod serving;
mod settings;
mod table;

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};
use crate::sys::{self, Lazy};

use counters::counters;
use gate::Gate;
#[cfg(feature = "std")]
pub use global::Global;
pub use message::{say, Text};
use range::{Kind, Range};
#[cfg(feature = "std")]
pub(crate) use realloc::copy_touched;
pub use refusal::Refusal;
#[cfg(feature = "std")]
pub use report::{empty_report, read_report, report_len, ProcessReport};
use reuse::Reuse;
use settings::Settings;
pub use settings::MIN_THRESHOLD;

/// The number of address ranges: one serves, the others remain after forks and lost files.
const RANGES: usize = 16;

/// The contents of a new block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Undefined: zeros, or those of earlier blocks of this process.
    Any,
    /// All zeros.
    Zeros,
}

/// The use of large blocks by a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of live blocks.
    pub live_blocks: usize,
    /// The bytes of live blocks.
    pub live_bytes: usize,
    /// The bytes of free memory that the arena holds, and that the kernel may reclaim.
    pub free_bytes: usize,
    /// The peak of `live_bytes`.
    pub peak_live: usize,
}

/// The large blocks of this process: see [`LARGE`].
pub struct LargeBlocks {
    ranges: [Range; RANGES],
    /// The range that serves, as its index plus 1; 0 if none does yet.
    serving: AtomicUsize,
    /// Bounds outside of which no large block lies: the lowest address, with all bits inverted, and
    /// the one after the highest. Zeros include no address.
    lowest_inverted: AtomicUsize,
    highest: AtomicUsize,
    /// The size in bytes from which the arena has blocks, minus [`MIN_THRESHOLD`].
    threshold_above: AtomicUsize,
    gate: Gate,
    reuse: Reuse,
    /// The reason why no arena serves for the rest of the process, as a [`Refusal`]'s number plus 1.
    refused: AtomicUsize,
    reopened: AtomicUsize,
    said: AtomicBool,
    /// Whether a fork left the arena to be woken: see `asleep`.
    asleep: AtomicU32,
    /// 1 in this process; 0 in a child that was made without the C library's `fork()`.
    here: Lazy<AtomicU32, 1>,
}

/// The large blocks of this process: one instance, as there is one next allocator. It is all zeros
/// at first.
pub static LARGE: LargeBlocks = LargeBlocks {
    ranges: [const { Range::new() }; RANGES],
    serving: AtomicUsize::new(0),
    lowest_inverted: AtomicUsize::new(0),
    highest: AtomicUsize::new(0),
    threshold_above: AtomicUsize::new(0),
    gate: Gate::new(),
    reuse: Reuse::new(),
    refused: AtomicUsize::new(0),
    reopened: AtomicUsize::new(0),
    said: AtomicBool::new(false),
    asleep: AtomicU32::new(0),
    here: Lazy::new(),
};

/// Ends the program after an invalid free or a corruption was found.
fn abort() -> ! {
    // SAFETY: It has no arguments and does not return.
    unsafe { libc::abort() }
}

impl LargeBlocks {
    /// Reads the settings and registers the handlers of forks. To be called once, before threads are
    /// made; otherwise the first large block does it.
    pub fn prepare(&'static self) {
        if let Some(settings) = Settings::get() {
            let above = settings.threshold - MIN_THRESHOLD;
            self.threshold_above.store(above, Relaxed);
            if !settings.privileged {
                fork::register();
            }
        }
    }

    /// Returns whether the arena is to serve blocks of `size` bytes.
    #[inline]
    pub fn serves(&self, size: usize) -> bool {
        size >= MIN_THRESHOLD + self.threshold_above.load(Relaxed)
    }

    /// Returns whether an address may be that of a large block; `false` is certain.
    #[inline]
    pub fn may_have(&self, address: *const u8) -> bool {
        let address = address as usize;
        // A thread that has a block's address got it after these were stored.
        !address <= self.lowest_inverted.load(Relaxed) && address < self.highest.load(Relaxed)
    }

    /// Returns the range that an address lies in.
    fn range(&self, address: *const u8) -> Option<&Range> {
        let address = address as usize;
        self.ranges.iter().find(|range| range.has(address))
    }

    /// Returns whether this process opened the arena, or is a child by the C library's `fork()`.
    /// Wakes the arena if it is asleep.
    #[inline]
    fn is_here(&self) -> bool {
        if !self.is_awake() {
            return self.wake();
        }
        self.has_mark()
    }

    /// Returns whether this process has the mark that forks do not copy.
    fn has_mark(&self) -> bool {
        let here = self.here.get();
        here.is_none_or(|[here]| here.load(Relaxed) != 0)
    }

    /// Notes that this process has the arena, or a copy of it.
    fn set_here(&self) {
        if let Some([here]) = self.here.get() {
            here.store(1, Relaxed);
        }
    }

    /// Returns whether a request that the arena refuses fails with `ENOMEM`, instead of going to the
    /// next allocator (`FREELIST_STRICT=1`).
    pub fn is_strict(&self) -> bool {
        Settings::get().is_some_and(|settings| settings.strict && !settings.privileged)
    }

    /// Returns what this process holds in large blocks.
    pub fn usage(&self) -> Usage {
        let stat = self
            .serving_now()
            .filter(|_| self.is_here())
            .and_then(|range| sys::stat(range.file()).ok());
        Usage {
            free_bytes: stat.map_or(0, |stat| stat.free_bytes as usize),
            peak_live: counters().peak_live.load(Relaxed) as usize,
            ..self.live()
        }
    }

    /// Returns the live blocks and bytes of all ranges.
    fn live(&self) -> Usage {
        let used = self
            .ranges
            .iter()
            .filter(|range| range.kind() != Kind::Unused);
        used.fold(Usage::default(), |usage, range| Usage {
            live_blocks: usage.live_blocks + range.live_blocks(),
            live_bytes: usage.live_bytes + range.live_bytes(),
            ..usage
        })
    }
}
