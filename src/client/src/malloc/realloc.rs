// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blocks are made longer and shorter, where they are or elsewhere.

use core::ptr::{self, NonNull};

use super::message::say;
use super::os;
use super::range::Range;
use super::table::Entry;
use super::{abort, Content, LargeBlocks};

/// `realloc()` of a block that grows in small steps leaves a quarter more room ahead.
const ROOM_SHIFT: u32 = 2;

/// The action of a `realloc()`.
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

/// Pages that are looked at together.
const STEP: usize = 256;

/// Copies `len` bytes from a lazy block to another one. What has no memory reads as zero: there the
/// other one is zero too, and gets none either if it has none.
///
/// # Safety
///
/// Both have `len` bytes and begin with a page, and no other thread uses them meanwhile.
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
            // SAFETY: By the caller's promise both have so many bytes there.
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
    /// The block is live, no thread uses it meanwhile, and none afterwards if another address is
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
            // It was only to be smaller.
            return Some(if size <= entry.bytes { block } else { new });
        }
        let len = entry.bytes.min(size);
        let has_both = range.is_lazy() && self.range(new).is_some_and(Range::is_lazy);
        // SAFETY: Two blocks, of which each has as many bytes; their pages have memory or are lazy.
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
        // SAFETY: The caller gives the old block up.
        unsafe { self.free(block) };
        Some(new)
    }

    /// Makes a block longer or shorter where it is. Returns whether it did.
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
