// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocates and frees blocks, and returns free memory to the system.

use core::ptr::NonNull;

use super::counters::{are_reported, counters};
use super::message::{say, Answer};
use super::range::{Kind, Range};
use super::{abort, Content, LargeBlocks, Refusal};
use crate::sync::atomic::{AtomicBool, Ordering::*};
use crate::{sys, uapi};

/// Whether live bytes have had a new peak since the last release. Only with a report.
static PEAK_IS_NEW: AtomicBool = AtomicBool::new(false);

impl LargeBlocks {
    /// Allocates a block of at least `size` bytes, at a multiple of `align`, which is a power of 2.
    ///
    /// May sleep in the kernel. A request that the arena refuses is counted; the first that is refused
    /// for a lasting reason is reported on standard error.
    ///
    /// # Errors
    ///
    /// The reason of the refusal. The next allocator serves then, unless [`LargeBlocks::is_strict`].
    pub fn alloc(
        &'static self,
        size: usize,
        align: usize,
        content: Content,
    ) -> Result<NonNull<u8>, Refusal> {
        let result = self
            .try_alloc(size, align, content)
            .or_else(|refusal| match refusal {
                // The program closed the arena's file: another arena serves from now on.
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

    /// Frees a block. Returns `false` if the address lies in none of the arena's ranges, and so is
    /// one of the next allocator.
    ///
    /// Ends the program, with a line that names the address, if no live block begins there.
    ///
    /// # Safety
    ///
    /// If a block begins there, it is not used afterwards.
    pub unsafe fn free(&'static self, block: *mut u8) -> bool {
        let Some(range) = self.range(block) else {
            return false;
        };
        if !self.is_here() {
            // The parent's block, which the parent still uses.
            return true;
        }
        self.note_peak(range);
        let freed = {
            let _together = self.gate.shared();
            range.free(block as usize)
        };
        let Some((entry, result)) = freed else {
            say(format_args!("invalid or double free of {block:p}"));
            abort();
        };
        match result {
            Ok(()) => {}
            Err(errno) if Refusal::of_alloc(errno) == Refusal::FileLost => {
                // Its memory is freed with the last block of this arena.
                self.lose_file();
            }
            Err(errno) => {
                say(format_args!("free of {block:p}: {}", Answer(errno)));
                abort();
            }
        }
        let counters = counters();
        counters.frees.fetch_add(1, Relaxed);
        counters.live_blocks.fetch_sub(1, Relaxed);
        self.note_less(range, entry.bytes);
        true
    }

    /// Returns the bytes of a live block, at least as many as were asked for; `None` if the address
    /// is in none of the arena's ranges, and 0 if no block begins there.
    pub fn usable_size(&self, block: *const u8) -> Option<usize> {
        let range = self.range(block)?;
        Some(range.block(block as usize).map_or(0, |entry| entry.bytes))
    }

    /// Returns the arena's free memory to the system, but for `keep` bytes. Returns the bytes that
    /// were released.
    pub fn trim(&self, keep: usize) -> usize {
        match self.serving_now() {
            Some(range) if self.is_here() => self.trim_range(range, keep),
            _ => 0,
        }
    }

    #[cold]
    fn trim_range(&self, range: &Range, keep: usize) -> usize {
        if are_reported() {
            self.note_held(range);
        }
        let _together = self.gate.shared();
        let freed = sys::trim(range.file(), keep as u64).unwrap_or(0) as usize;
        self.reuse.trimmed(freed);
        let counters = counters();
        counters.trims.fetch_add(1, Relaxed);
        counters.trimmed.fetch_add(freed as u64, Relaxed);
        self.measure(range);
        freed
    }

    /// Notes that `bytes` more are in blocks of a range.
    pub(super) fn note_more(&self, range: &Range, bytes: usize) {
        let counters = counters();
        let live = counters.live_bytes.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        self.reuse.allocated(range.live_bytes());
        if live > counters.peak_live.load(Relaxed) {
            counters.peak_live.fetch_max(live, Relaxed);
            if are_reported() {
                PEAK_IS_NEW.store(true, Relaxed);
                self.measure(range);
            }
        }
    }

    /// Notes that `bytes` fewer are in blocks of a range, and trims free memory that is not worth keeping.
    pub(super) fn note_less(&self, range: &Range, bytes: usize) {
        counters().live_bytes.fetch_sub(bytes as u64, Relaxed);
        if range.kind() == Kind::Arena {
            if let Some(keep) = self.reuse.excess(range.live_bytes()) {
                self.trim_range(range, keep);
            }
        }
    }

    /// Notes in a report what the arena holds at the first release after a new peak of live bytes. When the
    /// peak's block was allocated, the program had not yet touched its pages.
    fn note_peak(&self, range: &Range) {
        if are_reported() && PEAK_IS_NEW.swap(false, Relaxed) {
            self.note_held(range);
        }
    }

    /// Reads the arena's counters, and notes what it holds. Returns `None` if they cannot be read.
    fn note_held(&self, range: &Range) -> Option<uapi::freelist_stat> {
        let stat = sys::stat(range.file()).ok()?;
        counters().note_held(stat.held_bytes);
        Some(stat)
    }

    /// Reads from the arena what it holds.
    fn measure(&self, range: &Range) {
        if let Some(stat) = self.note_held(range) {
            // Pages of live blocks count whether they were touched or not: the system cannot have them.
            self.reuse
                .measured((stat.live_bytes + stat.free_bytes) as usize);
        }
    }
}
