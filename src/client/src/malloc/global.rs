// SPDX-License-Identifier: MIT OR Apache-2.0

//! The allocator of a Rust program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use super::{Content, Usage, LARGE};

/// The allocator of a whole Rust program: an arena has the blocks of 64 KiB and more, the system
/// allocator the smaller ones.
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
/// If the device cannot be opened, or the arena is at a limit, the system allocator serves large
/// blocks too, and one line on standard error reports it. The environment variables of
/// `libfreelist_malloc.so` apply (`FREELIST_THRESHOLD`, `FREELIST_LIMIT`, `FREELIST_STRICT`,
/// `FREELIST_FORK`, `FREELIST_QUIET`). A forked child has a copy of its parent's blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Global;

impl Global {
    /// Returns what this process holds in large blocks.
    pub fn usage() -> Usage {
        LARGE.usage()
    }

    /// Returns free memory of the arena to the system, but for `keep` bytes. Returns the bytes that
    /// were released.
    pub fn trim(keep: usize) -> usize {
        LARGE.trim(keep)
    }
}

/// Allocates a large block; `None` if the system allocator is to serve it.
fn large(layout: Layout, content: Content) -> Option<*mut u8> {
    match LARGE.alloc(layout.size(), layout.align(), content) {
        Ok(block) => Some(block.as_ptr()),
        Err(_) if LARGE.is_strict() => Some(ptr::null_mut()),
        Err(_) => None,
    }
}

// SAFETY: Each block is the arena's or the system allocator's, aligned as asked for, and overlaps no
// other. The address of a block alone decides which of both it is of: no other memory lies in the
// arena's ranges. Nothing here panics.
unsafe impl GlobalAlloc for Global {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if LARGE.serves(layout.size()) {
            if let Some(block) = large(layout, Content::Any) {
                return block;
            }
        }
        // SAFETY: By the caller's contract.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if LARGE.serves(layout.size()) {
            if let Some(block) = large(layout, Content::Zeros) {
                return block;
            }
        }
        // SAFETY: By the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: By the contract it is a live block, which the caller does not use any more.
        if !(LARGE.may_have(block) && unsafe { LARGE.free(block) }) {
            // SAFETY: It is not the arena's, so the system allocator returned it for this layout.
            unsafe { System.dealloc(block, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: By the caller's contract `size` does not overflow with the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if LARGE.may_have(block) {
            // SAFETY: By the caller's contract `size` is not 0.
            let next = |_| unsafe { System.alloc(new_layout) };
            // SAFETY: It is a live block, which the caller replaces by the one that is returned.
            if let Some(new) = unsafe { LARGE.realloc(block, size, layout.align(), next) } {
                return new;
            }
        }
        if LARGE.serves(size) && !LARGE.serves(layout.size()) {
            if let Some(new) = large(new_layout, Content::Any) {
                if !new.is_null() {
                    // SAFETY: The old block has its layout's bytes, which are fewer, and the new
                    // one does not overlap it.
                    unsafe { ptr::copy_nonoverlapping(block, new, layout.size()) };
                    // SAFETY: The system allocator returned it for this layout.
                    unsafe { System.dealloc(block, layout) };
                }
                return new;
            }
        }
        // SAFETY: By the caller's contract it is a live block of the system allocator.
        unsafe { System.realloc(block, layout, size) }
    }
}
