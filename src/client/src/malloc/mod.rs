// SPDX-License-Identifier: MIT OR Apache-2.0

//! The large blocks of a whole process, from an arena of its own.
//!
//! An allocator that serves a process unchanged puts this above another one: blocks below a
//! threshold (64 KiB) are the next allocator's, larger ones are the arena's, which has exactly
//! their pages, strands none of them, and gives the kernel what is free. Where the arena cannot
//! serve (no device, a limit, no memory) the next allocator does. `libfreelist_malloc.so` is this
//! above the C library's `malloc()`; [`Global`] is this above Rust's system allocator.
//!
//! ```text
//!   address space   | arena: block . . block block . block . . . |   (nothing mapped yet) ...
//!                   base              offsets of the arena        mapped                  end
//! ```
//!
//! | module | is |
//! | --- | --- |
//! | `serving` | the arena that serves: opened, lost, or refused |
//! | `blocks`, `realloc` | what is done with blocks |
//! | `range` | addresses of an arena: its mapping, its blocks; and what a fork or a lost file leaves of one |
//! | `table` | how large the block is that begins at an offset |
//! | `reuse` | how much free memory is worth keeping |
//! | `fork` | what a forked child gets |
//! | `gate` | the lock between releases and what must not meet one |
//! | `descriptor`, `os` | the open device, out of the program's reach; address space |
//! | `settings` | the environment |
//! | `once` | a value that is computed once |
//! | `refusal`, `counters`, `message` | why not, how often, and a line that says so |
//! | `report` | the counters of all processes of a program, read (feature `std`) |
//! | `global` | the allocator of a Rust program (feature `std`) |
//!
//! # Rules
//!
//! Nothing here allocates from the process's allocator, or takes a lock while it calls something
//! that may: it is called from there. Nothing panics. `errno` stays as it is: system calls are made
//! without the C library.
//!
//! Every program that is started with the library loads and prepares it, and most have no large
//! block. So the modules need the core library alone, and what is written at that time lies in few
//! pages: [`LARGE`] is all zeros at first, and what is large in it is mapped when it is needed.

#![expect(unsafe_code, reason = "memory that is handed out by its address")]

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

/// Ranges of addresses: one serves, the others are what forks and lost files left.
const RANGES: usize = 16;

/// The contents of a new block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Anything: zeros, or what earlier blocks of this process left.
    Any,
    /// Zeros.
    Zeros,
}

/// The large blocks of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of live blocks.
    pub live_blocks: usize,
    /// Bytes of live blocks.
    pub live_bytes: usize,
    /// Bytes of free memory that the arena holds, and the kernel may take.
    pub free_bytes: usize,
    /// The most bytes that were in live blocks.
    pub peak_live: usize,
}

/// The large blocks of this process: see [`LARGE`].
pub struct LargeBlocks {
    ranges: [Range; RANGES],
    /// The range that serves, as its number plus 1; 0 for none yet.
    serving: AtomicUsize,
    /// Addresses outside of these are certainly none of ours: the lowest one, all its bits inverted,
    /// and the one after the highest. Zeros are no address.
    lowest_inverted: AtomicUsize,
    highest: AtomicUsize,
    /// Bytes from which blocks are the arena's, above [`MIN_THRESHOLD`].
    threshold_above: AtomicUsize,
    gate: Gate,
    reuse: Reuse,
    /// Why no arena serves, for as long as this process lives, as a [`Refusal`]'s number plus 1.
    refused: AtomicUsize,
    reopened: AtomicUsize,
    said: AtomicBool,
    /// A number that is 1 in this process, and 0 in a child that was made without the C library's
    /// knowledge.
    here: Lazy<AtomicU32, 1>,
}

/// The large blocks of this process. There is one of them, as there is one heap below it. All of it
/// is zeros at first.
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
    here: Lazy::new(),
};

/// Ends the program after a wrong release or corruption was found.
fn abort() -> ! {
    // SAFETY: It takes nothing and does not return.
    unsafe { libc::abort() }
}

impl LargeBlocks {
    /// Reads the settings and prepares for forks: to be called once, before threads are made.
    /// Without it the first large block does so.
    pub fn prepare(&'static self) {
        if let Some(settings) = Settings::get() {
            let above = settings.threshold - MIN_THRESHOLD;
            self.threshold_above.store(above, Relaxed);
            if !settings.privileged {
                fork::register();
            }
        }
    }

    /// Returns whether a block of `size` bytes is the arena's to serve.
    #[inline]
    pub fn serves(&self, size: usize) -> bool {
        size >= MIN_THRESHOLD + self.threshold_above.load(Relaxed)
    }

    /// Returns whether an address may be a large block's; `false` means that it is none.
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

    /// Returns whether this process is the one that opened the arena, or a child that the C library
    /// made.
    fn is_here(&self) -> bool {
        let here = self.here.get();
        here.is_none_or(|[here]| here.load(Relaxed) != 0)
    }

    /// Notes that this process has the arena, or a copy of it.
    fn set_here(&self) {
        if let Some([here]) = self.here.get() {
            here.store(1, Relaxed);
        }
    }

    /// Returns whether a request that the arena refuses fails, with `ENOMEM`, instead of being the
    /// next allocator's (`FREELIST_STRICT=1`).
    pub fn is_strict(&self) -> bool {
        Settings::get().is_some_and(|settings| settings.strict && !settings.privileged)
    }

    /// Returns what this process has in large blocks.
    pub fn usage(&self) -> Usage {
        let stat = self
            .serving_now()
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
