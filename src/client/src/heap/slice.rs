// SPDX-License-Identifier: MIT OR Apache-2.0

//! Owned memory of a heap.

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use super::Heap;
use crate::error::{Call, Error, Result};
use crate::sys::Errno;

/// Bytes in a heap, freed when they are dropped, by any thread.
pub type Buffer = Slice<u8>;

/// Values in a heap, freed when they are dropped, by any thread. They keep the heap alive.
///
/// # Invariants
///
/// `block` is a live block of `heap`, aligned for `T`, whose first `len` values are initialised, and that
/// nothing else uses.
pub struct Slice<T: Copy> {
    heap: Heap,
    block: NonNull<T>,
    len: usize,
}

// SAFETY: It owns its values, as `Vec<T>` does; a heap is for all threads.
unsafe impl<T: Copy + Send> Send for Slice<T> {}
// SAFETY: As above.
unsafe impl<T: Copy + Sync> Sync for Slice<T> {}

impl Buffer {
    pub(super) fn zeroed(heap: Heap, len: usize) -> Result<Self> {
        let block = heap.alloc_zeroed(layout::<u8>(len)?)?;
        // INVARIANT: The block is new, and its bytes were made zeros.
        Ok(Self { heap, block, len })
    }
}

impl<T: Copy> Slice<T> {
    pub(super) fn filled(heap: Heap, len: usize, value: T) -> Result<Self> {
        let block = heap.alloc(layout::<T>(len)?)?.cast();
        let mut new = Self {
            heap,
            block,
            len: 0,
        };
        new.fill_to(len, value);
        Ok(new)
    }

    /// Changes the length to `len` values: drops those at the end, or appends copies of `value`. The values
    /// stay in place while the block holds `len` values and not more than twice as many.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::alloc`]; the slice is unchanged then.
    pub fn resize(&mut self, len: usize, value: T) -> Result<()> {
        let layout = layout::<T>(len)?;
        // SAFETY: By the type's invariant the block is live and ours, and its
        // layout had the same alignment; `self.block` is replaced below.
        let block = unsafe {
            self.heap
                .realloc(self.block.cast(), layout.size(), layout.align())
        }?;
        // INVARIANT: The new block has the values of the old one that it has room for.
        self.block = block.cast();
        self.len = self.len.min(len);
        self.fill_to(len, value);
        Ok(())
    }

    /// Appends copies of `value` up to `len` values, for which the block has room.
    fn fill_to(&mut self, len: usize, value: T) {
        while self.len < len {
            // SAFETY: The callers got a block for a layout of `len` values.
            unsafe { self.block.add(self.len).write(value) };
            // INVARIANT: One more value is initialised.
            self.len += 1;
        }
    }
}

/// Returns the layout of `len` values.
fn layout<T>(len: usize) -> Result<Layout> {
    Layout::array::<T>(len).map_err(|_| {
        let size = len as u64;
        let flags = crate::Flags::DEFAULT;
        Error::refused(Call::Alloc { size, flags })(Errno::TOOBIG)
    })
}

impl<T: Copy> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: By the type's invariant, and the borrow keeps writers out.
        unsafe { slice::from_raw_parts(self.block.as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for Slice<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: As in `deref()`, and the borrow is the only one.
        unsafe { slice::from_raw_parts_mut(self.block.as_ptr(), self.len) }
    }
}

impl<T: Copy> Drop for Slice<T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the block is live and ours.
        unsafe { self.heap.free(self.block.cast()) };
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Slice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
