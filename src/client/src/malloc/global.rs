// SPDX-License-Identifier: MIT OR Apache-2.0

//! The allocator of a Rust program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use super::{Content, Usage, LARGE};

/// The allocator of a whole Rust program: blocks of 64 KiB and more are an arena's, smaller ones
/// are the system allocator's.
///
/// ```no_run
/// #[global_allocator]
/// static ALLOCATOR: freelist::Global = freelist::Global;
///
/// fn main() {
///     let numbers: Vec<u32> = (0..1_000_000).collect();
///     println!("{}", numbers.len());
/// }
/// ```
///
/// Where the device cannot be opened, or the arena is at a limit, the system allocator serves large
/// blocks too, and one line on standard error says so. The environment variables of
/// `libfreelist_malloc.so` hold (`FREELIST_THRESHOLD`, `FREELIST_LIMIT`, `FREELIST_STRICT`,
/// `FREELIST_FORK`, `FREELIST_QUIET`). A forked child has a copy of its parent's blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Global;

impl Global {
    /// Returns what this process has in large blocks.
    pub fn usage() -> Usage {
        LARGE.usage()
    }

    /// Gives free memory of the arena back to the system, down to `keep` bytes of it. Returns the
    /// bytes that went.
    pub fn trim(keep: usize) -> usize {
        LARGE.trim(keep)
    }
}

/// Allocates a large block; `None` if it is the system allocator's to do so.
fn large(layout: Layout, content: Content) -> Option<*mut u8> {
    match LARGE.alloc(layout.size(), layout.align(), content) {
        Ok(block) => Some(block.as_ptr()),
        Err(_) if LARGE.is_strict() => Some(ptr::null_mut()),
        Err(_) => None,
    }
}

// SAFETY: Blocks are the arena's, aligned as asked for and apart, or the system allocator's. Which
// of both a block is of is told by its address, always in the same way: no other memory lies in a
// range of the arena's addresses. Nothing here panics.
unsafe impl GlobalAlloc for Global {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if LARGE.serves(layout.size()) {
            if let Some(block) = large(layout, Content::Any) {
                return block;
            }
        }
        // SAFETY: The caller's promise.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if LARGE.serves(layout.size()) {
            if let Some(block) = large(layout, Content::Zeros) {
                return block;
            }
        }
        // SAFETY: The caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: It is a live block that the caller gives up.
        if !(LARGE.may_have(block) && unsafe { LARGE.free(block) }) {
            // SAFETY: It is none of ours, so that it came from there with this layout.
            unsafe { System.dealloc(block, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `size` does not overflow with the alignment, says the caller.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if LARGE.may_have(block) {
            // SAFETY: `size` is not 0, says the caller.
            let next = |_| unsafe { System.alloc(wanted) };
            // SAFETY: It is a live block that the caller gives up for the one that is returned.
            if let Some(new) = unsafe { LARGE.realloc(block, size, layout.align(), next) } {
                return new;
            }
        }
        if LARGE.serves(size) && !LARGE.serves(layout.size()) {
            if let Some(new) = large(wanted, Content::Any) {
                if !new.is_null() {
                    // SAFETY: The old block has its layout's bytes, which are fewer, and the new
                    // one is another.
                    unsafe { ptr::copy_nonoverlapping(block, new, layout.size()) };
                    // SAFETY: It came from there with this layout.
                    unsafe { System.dealloc(block, layout) };
                }
                return new;
            }
        }
        // SAFETY: It is a live block of the system allocator, says the caller.
        unsafe { System.realloc(block, layout, size) }
    }
}
