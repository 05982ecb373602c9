// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocation. The fast path is [`Shared::kept`]: a block from the calling thread's cache.

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use super::class::{Class, Place, GRAIN_BYTES, MIN_BYTES, UNIT_BYTES};
use super::{local, Shared};
use crate::error::{Call, Error, Result};
use crate::flags::Flags;

/// The content of a new block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Any,
    Zeros,
}

/// Returns the size of a block for a layout: a multiple of the alignment, so that the blocks of its class
/// are aligned so. The module aligns a block above 32 KiB.
pub(super) fn bytes_for(layout: Layout) -> usize {
    let align = layout.align().clamp(MIN_BYTES, UNIT_BYTES);
    let bytes = layout.size().max(1);
    match align {
        MIN_BYTES => bytes,
        _ => bytes.next_multiple_of(align),
    }
}

impl Shared {
    /// Takes a block from this thread's cache.
    #[inline]
    pub(super) fn kept(&self, layout: Layout) -> Option<NonNull<u8>> {
        let bytes = match layout.align() {
            // Every block is so aligned; a request for 0 bytes goes the slow path.
            ..=MIN_BYTES => layout.size(),
            // Cannot overflow: a layout's size, rounded up to its alignment, fits.
            align => layout.size().wrapping_add(align - 1) & !(align - 1),
        };
        let place = Place::of(bytes)?;
        local::with(self.id, |cache| cache.pop(place))?
    }

    /// Allocates a block.
    #[inline]
    pub(super) fn alloc(&self, layout: Layout, content: Content) -> Result<NonNull<u8>> {
        let block = match self.kept(layout) {
            Some(block) => block,
            None => {
                let bytes = bytes_for(layout);
                match Class::of(bytes) {
                    Some(class) => self.refill(class)?,
                    None => return self.alloc_large(bytes, layout.align(), content),
                }
            }
        };
        if content == Content::Zeros {
            // SAFETY: The block is new, and has at least that many bytes.
            unsafe { ptr::write_bytes(block.as_ptr(), 0, layout.size()) };
        }
        Ok(block)
    }

    /// Allocates a block on the slow path, or returns what `failed` makes of the error.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(
        &self,
        layout: Layout,
        failed: impl FnOnce(Error) -> *mut u8,
    ) -> *mut u8 {
        let bytes = bytes_for(layout);
        let block = match Class::of(bytes) {
            Some(class) => self.refill(class),
            None => self.alloc_large(bytes, layout.align(), Content::Any),
        };
        block.map_or_else(failed, NonNull::as_ptr)
    }

    /// Allocates a block of a class of which this thread's cache has none, or where the fast path has the
    /// thread's cache of another heap.
    #[cold]
    #[inline(never)]
    fn refill(&self, class: Class) -> Result<NonNull<u8>> {
        self.must_be_here()?;
        self.or_relieved(|| {
            let refilled = local::attached(self, |cache| self.small.refill(self, cache, class));
            match refilled {
                Some(refilled) => self.unless_misused(refilled),
                None => self.small.take_one(self, class),
            }
        })
    }

    #[inline(never)]
    fn alloc_large(&self, bytes: usize, align: usize, content: Content) -> Result<NonNull<u8>> {
        self.must_be_here()?;
        self.can_align(align)?;
        let flags = match content {
            Content::Any => self.lazy,
            Content::Zeros => self.lazy | Flags::ZERO,
        };
        // The arena has to be asked for an alignment above its usual one.
        let align_shift = match align {
            ..=UNIT_BYTES => 0,
            align => align.ilog2(),
        };
        let block =
            self.or_relieved(|| self.arena.alloc_aligned(bytes as u64, align_shift, flags))?;
        let (offset, bytes) = (block.offset as usize, block.bytes as usize);
        if let Err(errno) = self.small.open_tables(offset + bytes) {
            let _ = self.arena.free(block.offset);
            let size = bytes as u64;
            return Err(Error::refused(Call::Alloc { size, flags })(errno));
        }
        self.small.table.set_large(offset, bytes);
        Ok(self.small.at(offset))
    }

    /// Resizes a large block of `has` bytes to `bytes` bytes in place, in whole pages. Returns `false` if it
    /// is unchanged: the pages that follow are in use, memory is short, or the module has no RESIZE.
    pub(super) fn resize_large(&self, block: NonNull<u8>, has: usize, bytes: usize) -> bool {
        if bytes <= has && has - bytes < GRAIN_BYTES {
            return true;
        }
        let offset = self.offset(block);
        match self.arena.resize(offset as u64, bytes as u64, self.lazy) {
            Ok(bytes) => {
                self.small.table.set_large(offset, bytes as usize);
                true
            }
            Err(_) => false,
        }
    }
}
