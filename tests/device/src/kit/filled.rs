// SPDX-License-Identifier: GPL-2.0

//! Blocks of the client's heap that check their bytes.

#![expect(unsafe_code, reason = "blocks are freed by their addresses")]

use std::alloc::Layout;
use std::ptr::NonNull;

use freelist::Heap;

/// Opens a heap.
#[track_caller]
pub fn heap() -> Heap {
    Heap::open().unwrap_or_else(|error| panic!("{error}"))
}

/// Checks that nothing of the heap is live or held, after its caches were emptied.
#[track_caller]
pub fn is_empty(heap: &Heap) {
    heap.trim(0).unwrap();
    let stat = heap.stat().unwrap();
    assert_eq!((stat.live_blocks, stat.live_bytes), (0, 0));
    assert_eq!(stat.held_bytes, 0);
}

/// Returns the layout of `size` bytes at a multiple of `align`.
pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A live block of a heap, filled with one byte, that any thread may use.
pub struct Filled {
    /// Its address.
    pub block: NonNull<u8>,
    /// Its size, in bytes.
    pub size: usize,
    /// The byte that it is filled with.
    pub byte: u8,
}

// SAFETY: The block is this value's alone, and a heap's blocks belong to no thread.
unsafe impl Send for Filled {}

impl Filled {
    /// Allocates a block and fills it.
    #[track_caller]
    pub fn new(heap: &Heap, size: usize, byte: u8) -> Self {
        Self::aligned(heap, size, 1, byte)
    }

    /// Allocates a block at a multiple of `align`, and fills it.
    #[track_caller]
    pub fn aligned(heap: &Heap, size: usize, align: usize, byte: u8) -> Self {
        let block = heap.alloc(layout(size, align));
        let block = block.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(block.addr().get() % align, 0);
        let mut new = Self { block, size, byte };
        new.bytes().fill(byte);
        new
    }

    /// Returns its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: The block is live, has that many bytes, and is this value's alone.
        unsafe { std::slice::from_raw_parts_mut(self.block.as_ptr(), self.size) }
    }

    /// Checks that all its bytes are as they were filled.
    #[track_caller]
    pub fn check(&mut self) {
        let byte = self.byte;
        assert!(
            self.bytes().iter().all(|found| *found == byte),
            "{} bytes at {:p} were changed",
            self.size,
            self.block
        );
    }

    /// Resizes it, checks that it kept its bytes, and fills what was added.
    #[track_caller]
    pub fn resize(&mut self, heap: &Heap, size: usize, align: usize) -> freelist::Result<()> {
        // SAFETY: The block is live and this value's alone, and is replaced here.
        self.block = unsafe { heap.realloc(self.block, size, align) }?;
        assert_eq!(self.block.addr().get() % align, 0, "{size} bytes");
        self.size = self.size.min(size);
        self.check();
        self.size = size;
        let byte = self.byte;
        self.bytes().fill(byte);
        Ok(())
    }

    /// Checks its bytes and frees it.
    #[track_caller]
    pub fn free(mut self, heap: &Heap) {
        self.check();
        // SAFETY: The block is live, and gone with this value.
        unsafe { heap.free(self.block) };
    }
}

/// Allocates and frees `count` blocks of each small size.
pub fn use_all_sizes(heap: &Heap, count: usize) {
    for shift in 0..16 {
        let blocks: Vec<Filled> = (0..count)
            .map(|index| Filled::new(heap, 1 << shift, index as u8))
            .collect();
        for filled in blocks {
            filled.free(heap);
        }
    }
}
