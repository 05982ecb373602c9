// SPDX-License-Identifier: MIT OR Apache-2.0

//! Resizes blocks, in place or by a move.

use core::ptr::{self, NonNull};

use super::message::say;
use super::os;
use super::range::Range;
use super::table::Entry;
use super::{abort, Content, LargeBlocks};

/// The part of its size by which a block that grows in small steps is made larger: a quarter, as a log2.
const SLACK_SHIFT: u32 = 2;

/// The work of a `realloc()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// Nothing: the block is large enough, and not too large.
    Keep,
    /// Allocate `ask` bytes, copy, and free the block.
    Move { ask: usize },
}

/// Returns what `realloc()` of a block to `size` bytes has to do. `large` is `true` if the arena serves
/// blocks of that size.
///
/// A block that grows in small steps again and again gets a quarter more than it asks for. It keeps
/// that until it shrinks to half of it.
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
    let slack = if small_step { size >> SLACK_SHIFT } else { 0 };
    Resize::Move {
        ask: size.saturating_add(slack),
    }
}

/// The number of pages that one call of `mincore()` reports.
const STEP: usize = 256;

/// Copies `len` bytes from a lazy block to another one. A page of the first that has no memory reads as
/// zero: there the other one is made zero if it has memory, and gets none.
///
/// # Safety
///
/// Both have `len` bytes and begin with a page, and no other thread uses them during the call.
pub(crate) unsafe fn copy_touched(from: *const u8, to: *mut u8, len: usize) {
    let page = os::page_size();
    let mut done = 0;
    while done < len {
        let pages = (len - done).div_ceil(page).min(STEP);
        let (mut has, mut had) = ([1; STEP], [1; STEP]);
        let known = has
            .get_mut(..pages)
            .is_some_and(|has| os::has_memory(from as usize + done, has))
            && had
                .get_mut(..pages)
                .is_some_and(|had| os::has_memory(to as usize + done, had));
        for (has, had) in has.iter().zip(&had).take(pages) {
            let bytes = page.min(len - done);
            // SAFETY: By the caller's contract both have that many bytes there.
            unsafe {
                match (*has != 0 || !known, *had != 0) {
                    (true, _) => ptr::copy_nonoverlapping(from.add(done), to.add(done), bytes),
                    (false, true) => ptr::write_bytes(to.add(done), 0, bytes),
                    (false, false) => {}
                }
            }
            done += bytes;
        }
    }
}

impl LargeBlocks {
    /// Resizes a block to `size` bytes, at least 1, at a multiple of `align`. Returns null if there is
    /// no memory, and the block is unchanged then. `None` if the address is in none of the arena's
    /// ranges, and so one of the next allocator.
    ///
    /// A block stays as it is while it holds `size` bytes and would not shrink by an eighth, or by half
    /// if it has grown before. Otherwise it is resized in place, if the module has RESIZE and the pages
    /// that follow are free, or moved. `next` allocates that many bytes if the arena does not.
    ///
    /// Ends the program if no live block begins there.
    ///
    /// # Safety
    ///
    /// The block is live, no thread uses it during the call, and none afterwards if another address is
    /// returned. `next` returns null or a new block of at least as many bytes as its argument.
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
            abort();
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
            // The block is large enough as it is, if it was to shrink.
            return Some(if size <= entry.bytes { block } else { new });
        }
        let len = entry.bytes.min(size);
        let has_both = range.is_lazy() && self.range(new).is_some_and(Range::is_lazy);
        // SAFETY: These are two blocks, each with as many bytes; their pages have memory or are lazy.
        unsafe {
            match has_both {
                true => copy_touched(block, new, len),
                false => ptr::copy_nonoverlapping(block, new, len),
            }
        }
        if size > entry.bytes {
            if let Some(range) = self.range(new) {
                range.mark_grown(new as usize);
            }
        }
        // SAFETY: By the contract the caller does not use the old block any more.
        unsafe { self.free(block) };
        Some(new)
    }

    /// Resizes a block in place. Returns whether it did.
    fn resize_in_place(&self, range: &Range, block: *mut u8, old: Entry, size: usize) -> bool {
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

    /// Allocates `ask` bytes, or at least `size` bytes if there are no more; null if the next allocator
    /// is to serve it.
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
            "a block that is not large any more is the next allocator's"
        );
    }

    #[test]
    fn only_a_block_that_grows_in_small_steps_is_made_larger_than_asked() {
        let ask = |grown, size| resize(block(8 * MIB, grown), size, true);
        let step = 8 * MIB + 4096;
        assert_eq!(ask(false, step), Resize::Move { ask: step });
        assert_eq!(
            ask(true, step),
            Resize::Move {
                ask: step + step / 4
            }
        );
        assert_eq!(ask(true, 5 * MIB), Resize::Keep, "the slack is kept");
        assert_eq!(ask(true, 4 * MIB - 1), Resize::Move { ask: 4 * MIB - 1 });
        assert_eq!(ask(true, 16 * MIB), Resize::Move { ask: 16 * MIB });
        assert_eq!(ask(true, usize::MAX), Resize::Move { ask: usize::MAX });
    }
}
