// SPDX-License-Identifier: GPL-2.0

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
//! | `range` | addresses of an arena: its mapping, its blocks; and what a fork or a lost file leaves of one |
//! | `table` | how large the block is that begins at an offset |
//! | `reuse` | how much free memory is worth keeping |
//! | `fork` | what a forked child gets |
//! | `gate` | the lock between releases and what must not meet one |
//! | `descriptor`, `os` | the open device, out of the program's reach; address space |
//! | `settings` | the environment |
//! | `refusal`, `counters`, `message` | why not, how often, and a line that says so |
//! | `global` | the allocator of a Rust program |
//!
//! # Rules
//!
//! Nothing here allocates from the process's allocator, or takes a lock while it calls something
//! that may: it is called from there. Nothing panics. `errno` is as it was before wherever a
//! function succeeds.

#![expect(unsafe_code, reason = "memory that is handed out by its address")]

mod counters;
mod descriptor;
mod fork;
mod gate;
mod global;
mod message;
mod os;
mod range;
mod refusal;
mod reuse;
mod settings;
mod table;

use std::ffi::CStr;
use std::process;
use std::ptr::{self, NonNull};

use nix::errno::Errno;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use crate::sys::{self, Anonymous, Fork};
use crate::uapi;

use counters::{are_reported, counters};
pub use counters::{empty_report, read_report, report_len, ProcessReport};
use gate::Gate;
pub use global::Global;
use message::say;
use range::{Kind, Range};
pub use refusal::Refusal;
use reuse::Reuse;
use settings::Settings;
pub use settings::MIN_THRESHOLD;
use table::Entry;

/// The device, for a system call.
const DEVICE: &CStr = c"/dev/freelist";
/// Ranges of addresses: one serves, the others are what forks and lost files left.
const RANGES: usize = 16;
/// How often the device is opened again after the program closed it.
const MAX_REOPENED: usize = 8;
/// How much more than its blocks ever needed the arena may hold, in thousandths: less than the
/// module's default, as what a whole process holds is what counts.
const SLACK_PERMILLE: u32 = 10;
/// `realloc()` of a block that grows in small steps leaves a quarter more room ahead.
const ROOM_SHIFT: u32 = 2;

/// What is in a new block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Anything: zeros, or what earlier blocks of this process left.
    Any,
    /// Zeros.
    Zeros,
}

/// What `realloc()` has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// Nothing: the block stays where it is, and holds what is asked for.
    Keep,
    /// Allocate `ask` bytes elsewhere, copy, and free the block.
    Move { ask: usize },
}

/// What `realloc()` of a block to `size` bytes has to do. `large` is whether so many are still the
/// arena's.
///
/// One that grows in small steps again and again is given a quarter more than it asks for, which it
/// keeps until it is asked to be half of that.
fn resize(entry: Entry, size: usize, large: bool) -> Resize {
    let has = entry.bytes;
    if size <= has {
        let least = if entry.grown { has / 2 } else { has - has / 8 };
        let shrinks = !large || size < least;
        return match shrinks {
            true => Resize::Move { ask: size },
            false => Resize::Keep,
        };
    }
    let small_step = entry.grown && size - has < has / 8;
    let room = if small_step { size >> ROOM_SHIFT } else { 0 };
    Resize::Move {
        ask: size.saturating_add(room),
    }
}

/// What a process has in large blocks, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live blocks.
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
    /// Addresses outside of these are certainly none of ours.
    lowest: AtomicUsize,
    highest: AtomicUsize,
    /// Bytes from which blocks are the arena's.
    threshold: AtomicUsize,
    gate: Gate,
    reuse: Reuse,
    /// Why no arena serves, for as long as this process lives, as a [`Refusal`]'s number plus 1.
    refused: AtomicUsize,
    reopened: AtomicUsize,
    said: AtomicBool,
    /// A number that is 1 in this process, and 0 in a child that was made without the C library's
    /// knowledge.
    here: std::sync::OnceLock<Anonymous<crate::sync::atomic::AtomicU32>>,
}

/// The large blocks of this process. There is one of them, as there is one heap below it.
pub static LARGE: LargeBlocks = LargeBlocks {
    ranges: [const { Range::new() }; RANGES],
    serving: AtomicUsize::new(0),
    lowest: AtomicUsize::new(usize::MAX),
    highest: AtomicUsize::new(0),
    threshold: AtomicUsize::new(MIN_THRESHOLD),
    gate: Gate::new(),
    reuse: Reuse::new(),
    refused: AtomicUsize::new(0),
    reopened: AtomicUsize::new(0),
    said: AtomicBool::new(false),
    here: std::sync::OnceLock::new(),
};

/// Keeps `errno` as it is while a function runs that is to succeed.
struct KeepErrno(Errno);

impl KeepErrno {
    fn new() -> Self {
        Self(Errno::last())
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl LargeBlocks {
    /// Reads the settings and prepares for forks: to be called once, before threads are made.
    /// Without it the first large block does so.
    pub fn prepare(&'static self) {
        if let Some(settings) = Settings::get() {
            self.threshold.store(settings.threshold, Relaxed);
            if !settings.privileged {
                fork::register();
            }
        }
    }

    /// Whether a block of `size` bytes is the arena's to serve.
    #[inline]
    pub fn serves(&self, size: usize) -> bool {
        size >= self.threshold.load(Relaxed)
    }

    /// Whether an address may be a large block's. Where this is false it is none.
    #[inline]
    pub fn may_have(&self, address: *const u8) -> bool {
        let address = address as usize;
        // Whoever has a block's address got it after these were stored.
        address >= self.lowest.load(Relaxed) && address < self.highest.load(Relaxed)
    }

    /// The range that an address lies in.
    fn range(&self, address: *const u8) -> Option<&Range> {
        let address = address as usize;
        self.ranges.iter().find(|range| range.has(address))
    }

    /// Allocates a block of at least `size` bytes, at a multiple of `align`, which is a power of 2.
    ///
    /// May sleep in the kernel. A request that the arena refuses is counted, and the first one that
    /// is refused for a lasting reason is told on standard error.
    ///
    /// # Errors
    ///
    /// Why the arena does not serve it: it is the next allocator's, unless [`LargeBlocks::is_strict`].
    pub fn alloc(
        &'static self,
        size: usize,
        align: usize,
        content: Content,
    ) -> Result<NonNull<u8>, Refusal> {
        let _errno = KeepErrno::new();
        let result = self
            .try_alloc(size, align, content)
            .or_else(|refusal| match refusal {
                // The program closed our file: another arena serves from now on.
                Refusal::FileLost if self.lose_file() => self.try_alloc(size, align, content),
                refusal => Err(refusal),
            });
        if let Err(refusal) = result {
            self.note_refusal(refusal, size);
        }
        result
    }

    fn try_alloc(
        &'static self,
        size: usize,
        align: usize,
        content: Content,
    ) -> Result<NonNull<u8>, Refusal> {
        let range = self.serving()?;
        let flags = match content {
            Content::Any => 0,
            Content::Zeros => uapi::FREELIST_ZERO,
        };
        let (block, entry) = range.alloc(size, align, flags, |extend| {
            let _alone = self.gate.exclusive();
            extend()
        })?;
        let counters = counters();
        counters.allocs.fetch_add(1, Relaxed);
        counters.live_blocks.fetch_add(1, Relaxed);
        self.note_more(range, entry.bytes);
        Ok(block)
    }

    /// Notes that blocks have `bytes` more than before.
    fn note_more(&self, range: &Range, bytes: usize) {
        let counters = counters();
        let live = counters.live_bytes.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        self.reuse.allocated(range.live_bytes());
        if live > counters.peak_live.load(Relaxed) {
            counters.peak_live.fetch_max(live, Relaxed);
            if are_reported() {
                self.measure(range);
            }
        }
    }

    /// Notes that blocks have `bytes` less than before, and gives back what is not worth keeping.
    fn note_less(&self, range: &Range, bytes: usize) {
        counters().live_bytes.fetch_sub(bytes as u64, Relaxed);
        if range.kind() == Kind::Arena {
            if let Some(keep) = self.reuse.excess(range.live_bytes()) {
                self.trim_range(range, keep);
            }
        }
    }

    /// Has the arena say what it holds.
    fn measure(&self, range: &Range) {
        if let Ok(stat) = sys::stat(range.file()) {
            counters().note_held(stat.held_bytes);
            self.reuse.measured(stat.held_bytes as usize);
        }
    }

    /// The range that serves, opened if it is not.
    #[inline]
    fn serving(&'static self) -> Result<&'static Range, Refusal> {
        match self.serving.load(Acquire) {
            0 => self.open(),
            number => {
                // A child made by a bare system call has its parent's arena: it must not hand out
                // or take back what its parent knows nothing of.
                let here = self.here.get().and_then(|here| here.first());
                if here.is_none_or(|here| here.load(Relaxed) == 0) {
                    return Err(Refusal::Forked);
                }
                Ok(&self.ranges[number - 1])
            }
        }
    }

    #[cold]
    fn open(&'static self) -> Result<&'static Range, Refusal> {
        if let Some(refusal) = self.refused.load(Relaxed).checked_sub(1) {
            return Err(Refusal::all().nth(refusal).unwrap_or(Refusal::Other));
        }
        // Too early: the next allocator has it, and the next large block comes here again.
        let settings = Settings::get().ok_or(Refusal::Other)?;
        if settings.privileged {
            return Err(Refusal::Privileged);
        }
        // It takes locks of the C library's, so that it comes before ours.
        self.prepare();
        let _alone = self.gate.exclusive();
        match self.serving.load(Acquire) {
            0 => {}
            number => return Ok(&self.ranges[number - 1]),
        }
        let result = self.open_alone(settings);
        if let Err(refusal) = result {
            // Another try at each block would cost as much as it; memory may be there later.
            if !matches!(refusal, Refusal::NoMemory | Refusal::NoRoom) {
                self.refused.store(refusal as usize + 1, Relaxed);
            }
        }
        result
    }

    fn open_alone(&'static self, settings: &Settings) -> Result<&'static Range, Refusal> {
        if let (Some(report), false) = (settings.report, are_reported()) {
            counters::attach(report.as_c_str());
        }
        let unused = |(_, range): &(usize, &Range)| range.kind() == Kind::Unused;
        let mut ranges = self.ranges.iter().enumerate();
        let (number, range) = ranges.find(unused).ok_or(Refusal::FileLost)?;
        let fd = descriptor::open(DEVICE).map_err(Refusal::of_open)?;
        let mut opened = range.open(fd);
        if opened.is_ok() && self.here.get().is_none() {
            match Anonymous::new(1, Fork::Wipe) {
                Ok(here) => drop(self.here.set(here)),
                Err(_) => opened = Err(Refusal::NoMemory),
            }
        }
        if let Err(refusal) = opened {
            descriptor::close(fd);
            return Err(refusal);
        }
        if let Some([here, ..]) = self.here.get().map(|here| &here[..]) {
            here.store(1, Relaxed);
        }
        range.set_slack(SLACK_PERMILLE);
        if let Err(errno) = range.set_limit(settings.limit) {
            say(format_args!(
                "FREELIST_LIMIT={}: {}; the module's own limit holds",
                settings.limit,
                errno.desc()
            ));
        }
        self.reuse.reset();
        self.lowest.fetch_min(range.base(), Relaxed);
        self.highest.fetch_max(range.end(), Relaxed);
        self.serving.store(number + 1, Release);
        Ok(range)
    }

    /// Gives up an arena whose file the program closed. Whether another one may serve.
    #[cold]
    fn lose_file(&self) -> bool {
        let _alone = self.gate.exclusive();
        let Some(range) = self.serving_now() else {
            return true;
        };
        // Another thread may have seen to it.
        if sys::info(range.file()).is_ok() {
            return true;
        }
        self.serving.store(0, Release);
        range.orphan();
        if self.reopened.fetch_add(1, Relaxed) >= MAX_REOPENED {
            self.refused.store(Refusal::FileLost as usize + 1, Relaxed);
            return false;
        }
        true
    }

    /// The range that serves, if one does.
    fn serving_now(&self) -> Option<&Range> {
        let number = self.serving.load(Acquire).checked_sub(1)?;
        self.ranges.get(number)
    }

    #[cold]
    fn note_refusal(&self, refusal: Refusal, size: usize) {
        let counters = counters();
        counters.refused[refusal as usize].fetch_add(1, Relaxed);
        counters.refused_bytes.fetch_max(size as u64, Relaxed);
        let Some(settings) = Settings::get() else {
            return;
        };
        if refusal.is_lasting() && !settings.quiet && !self.said.swap(true, Relaxed) {
            let then = if settings.strict {
                "large blocks are refused (FREELIST_STRICT=1)"
            } else {
                "the C library serves large blocks"
            };
            say(format_args!("{}: {then}", refusal.reason()));
        }
    }

    /// Whether a request that the arena refuses fails, with `ENOMEM`, instead of being the next
    /// allocator's (`FREELIST_STRICT=1`).
    pub fn is_strict(&self) -> bool {
        Settings::get().is_some_and(|settings| settings.strict && !settings.privileged)
    }

    /// Gives a block back, if the address lies in a range of ours; else returns `false`, and it is
    /// the next allocator's.
    ///
    /// Ends the program, with a line that names the address, where no live block begins there.
    ///
    /// # Safety
    ///
    /// If a block begins there it is not used afterwards.
    pub unsafe fn free(&'static self, block: *mut u8) -> bool {
        let Some(range) = self.range(block) else {
            return false;
        };
        let _errno = KeepErrno::new();
        if !self.is_here() {
            // The parent's: it goes on using it.
            return true;
        }
        let freed = {
            let _together = self.gate.shared();
            range.free(block as usize)
        };
        let Some((entry, result)) = freed else {
            say(format_args!("invalid or double free of {block:p}"));
            process::abort();
        };
        match result {
            Ok(()) => {}
            Err(errno) if Refusal::of_alloc(errno) == Refusal::FileLost => {
                // Its memory goes with the last block of this arena.
                self.lose_file();
            }
            Err(errno) => {
                say(format_args!("free of {block:p}: {}", errno.desc()));
                process::abort();
            }
        }
        let counters = counters();
        counters.frees.fetch_add(1, Relaxed);
        counters.live_blocks.fetch_sub(1, Relaxed);
        self.note_less(range, entry.bytes);
        true
    }

    /// Whether this process is the one that opened the arena, or a child that the C library made.
    fn is_here(&self) -> bool {
        let here = self.here.get().and_then(|here| here.first());
        here.is_none_or(|here| here.load(Relaxed) != 0)
    }

    /// In a forked child whose blocks are as they will be: from now on it is a process like any,
    /// whose next large block opens an arena.
    fn become_child(&self) {
        self.serving.store(0, Release);
        self.reuse.reset();
        if let Some(here) = self.here.get().and_then(|here| here.first()) {
            here.store(1, Relaxed);
        }
        let usage = self.live();
        counters::new_row(usage.live_blocks as u64, usage.live_bytes as u64);
    }

    #[cold]
    fn trim_range(&self, range: &Range, keep: usize) -> usize {
        let _together = self.gate.shared();
        let freed = sys::trim(range.file(), keep as u64).unwrap_or(0) as usize;
        self.reuse.trimmed(freed);
        let counters = counters();
        counters.trims.fetch_add(1, Relaxed);
        counters.trimmed.fetch_add(freed as u64, Relaxed);
        self.measure(range);
        freed
    }

    /// Has the arena give its free memory back to the system, down to `keep` bytes of it. Returns
    /// the bytes that went.
    pub fn trim(&self, keep: usize) -> usize {
        let _errno = KeepErrno::new();
        match self.serving_now() {
            Some(range) if self.is_here() => self.trim_range(range, keep),
            _ => 0,
        }
    }

    /// Returns the bytes of a live block, at least as many as were asked for; `None` where the
    /// address is in no range of ours, and 0 where no block of ours begins there.
    pub fn usable_size(&self, block: *const u8) -> Option<usize> {
        let range = self.range(block)?;
        Some(range.block(block as usize).map_or(0, |entry| entry.bytes))
    }

    /// Makes a block of ours one of `size` bytes, at least 1, at a multiple of `align`; returns
    /// null where there is no memory, and the block is as it was then. `None` where the address is
    /// in no range of ours: it is the next allocator's.
    ///
    /// A block stays where it is while it holds `size` bytes and would not shrink by an eighth, or
    /// by half if it grew before; else it is made longer or shorter where it is, if the module can do
    /// that and the pages behind it are free, and moved where not.
    /// `next` allocates as many bytes where the arena does not.
    ///
    /// Ends the program where no live block begins there.
    ///
    /// # Safety
    ///
    /// The block is live, used by nobody meanwhile, and not afterwards if another address is
    /// returned. What `next` returns is null or a new block of as many bytes as it is given.
    pub unsafe fn realloc(
        &'static self,
        block: *mut u8,
        size: usize,
        align: usize,
        next: impl FnOnce(usize) -> *mut u8,
    ) -> Option<*mut u8> {
        let range = self.range(block)?;
        let Some(entry) = range.block(block as usize) else {
            say(format_args!("realloc of {block:p}, where no block begins"));
            process::abort();
        };
        let ask = match resize(entry, size, self.serves(size)) {
            Resize::Keep => return Some(block),
            Resize::Move { ask } => ask,
        };
        if self.serves(size) && self.is_here() && self.resize_in_place(range, block, entry, size) {
            return Some(block);
        }
        let mut new = self.alloc_for_realloc(ask, size, align);
        if new.is_null() && !(self.serves(size) && self.is_strict()) {
            new = next(size);
        }
        if new.is_null() {
            // It was only to be smaller.
            return Some(if size <= entry.bytes { block } else { new });
        }
        // SAFETY: Two blocks, of which each has as many bytes.
        unsafe { ptr::copy_nonoverlapping(block, new, entry.bytes.min(size)) };
        if size > entry.bytes {
            if let Some(range) = self.range(new) {
                range.mark_grown(new as usize);
            }
        }
        // SAFETY: The caller gives the old block up.
        unsafe { self.free(block) };
        Some(new)
    }

    /// Makes a block longer or shorter where it is. Returns whether it did.
    fn resize_in_place(&self, range: &Range, block: *mut u8, old: Entry, size: usize) -> bool {
        let _errno = KeepErrno::new();
        let resized = range.resize(
            block as usize,
            size,
            |resize| {
                let _together = self.gate.shared();
                resize()
            },
            |extend| {
                let _alone = self.gate.exclusive();
                extend()
            },
        );
        let Some(new) = resized else {
            return false;
        };
        match new.bytes.checked_sub(old.bytes) {
            Some(more) => self.note_more(range, more),
            None => self.note_less(range, old.bytes - new.bytes),
        }
        true
    }

    /// Allocates `ask` bytes, or at least `size` of them if that is less; null if that is the next
    /// allocator's.
    fn alloc_for_realloc(&'static self, ask: usize, size: usize, align: usize) -> *mut u8 {
        if !self.serves(size) {
            return ptr::null_mut();
        }
        let mut new = self.alloc(ask, align, Content::Any);
        if new.is_err() && ask > size {
            new = self.alloc(size, align, Content::Any);
        }
        new.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// Returns what this process has in large blocks.
    pub fn usage(&self) -> Usage {
        let _errno = KeepErrno::new();
        let stat = self
            .serving_now()
            .and_then(|range| sys::stat(range.file()).ok());
        Usage {
            free_bytes: stat.map_or(0, |stat| stat.free_bytes as usize),
            peak_live: counters().peak_live.load(Relaxed) as usize,
            ..self.live()
        }
    }

    /// What is live, in all ranges.
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn block(bytes: usize, grown: bool) -> Entry {
        Entry { bytes, grown }
    }

    #[test]
    fn a_block_stays_while_it_fits_and_moves_when_an_eighth_would_be_freed() {
        let keep = |size| resize(block(8 * MIB, false), size, true) == Resize::Keep;
        assert!(keep(8 * MIB) && keep(7 * MIB));
        assert!(!keep(7 * MIB - 1) && !keep(8 * MIB + 1));
        assert_eq!(
            resize(block(64 << 10, false), 60 << 10, false),
            Resize::Move { ask: 60 << 10 },
            "what is not large any more is the next allocator's"
        );
    }

    #[test]
    fn room_is_left_only_for_what_grows_in_small_steps() {
        let ask = |grown, size| resize(block(8 * MIB, grown), size, true);
        let step = 8 * MIB + 4096;
        assert_eq!(ask(false, step), Resize::Move { ask: step });
        assert_eq!(
            ask(true, step),
            Resize::Move {
                ask: step + step / 4
            }
        );
        assert_eq!(ask(true, 5 * MIB), Resize::Keep, "that room stays");
        assert_eq!(ask(true, 4 * MIB - 1), Resize::Move { ask: 4 * MIB - 1 });
        assert_eq!(ask(true, 16 * MIB), Resize::Move { ask: 16 * MIB });
        assert_eq!(ask(true, usize::MAX), Resize::Move { ask: usize::MAX });
    }
}
