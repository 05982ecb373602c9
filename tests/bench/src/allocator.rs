// SPDX-License-Identifier: GPL-2.0

//! Allocators of small and large blocks: the program's malloc(), which is another library's if that was
//! loaded first (LD_PRELOAD), and the heap of the client.
//!
//! Each call of either is a call of a function: the heap, a crate, could be inlined into the caller, which no
//! library can.

#![expect(unsafe_code, reason = "memory that is handed out by its address")]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};

use freelist::{Global, Heap};
use nix::libc;

use crate::sys::{self, Pages};

/// An allocator of blocks, which are addresses.
pub trait Allocator {
    /// Allocates a block of at least `size` bytes, which the caller writes to.
    fn alloc(&self, size: usize) -> *mut u8;

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// It came from [`Allocator::alloc`], and is not used afterwards.
    unsafe fn free(&self, block: *mut u8);

    /// Returns the bytes that it holds, if it counts them; otherwise resident memory is measured.
    fn held(&self) -> Option<u64> {
        None
    }
}

/// The malloc() of this process.
pub struct Malloc;

impl Allocator for Malloc {
    #[inline]
    fn alloc(&self, size: usize) -> *mut u8 {
        // SAFETY: It takes any size.
        let block: *mut u8 = unsafe { libc::malloc(size) }.cast();
        assert!(!block.is_null() || size == 0);
        block
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8) {
        // SAFETY: By the caller's contract malloc() returned it.
        unsafe { libc::free(block.cast()) };
    }
}

/// The client's heap.
pub struct Client(pub Heap);

impl Client {
    /// Opens a new heap.
    pub fn open() -> Self {
        Self(Heap::open().expect("the module is loaded"))
    }

    #[inline(never)]
    fn alloc_by_call(&self, size: usize) -> *mut u8 {
        // SAFETY: 16 is a power of 2, and no size comes near half of the address space, which a
        // caller with a type need not look at either.
        let layout = unsafe { Layout::from_size_align_unchecked(size, 16) };
        self.0.alloc_or(layout, |_| ptr::null_mut())
    }

    #[inline(never)]
    unsafe fn free_by_call(&self, block: *mut u8) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: By the caller's contract it is a block of the heap.
        unsafe { self.0.free(block) };
    }
}

impl Allocator for Client {
    #[inline]
    fn alloc(&self, size: usize) -> *mut u8 {
        let block = self.alloc_by_call(size);
        assert!(!block.is_null());
        block
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8) {
        // SAFETY: The caller's promise.
        unsafe { self.free_by_call(block) };
    }

    fn held(&self) -> Option<u64> {
        Some(self.0.stat().expect("STAT").held_bytes)
    }
}

/// [`Global`]: small blocks are the C library's, large ones an arena's.
pub struct WholeProgram;

impl WholeProgram {
    #[inline(never)]
    fn alloc_by_call(&self, size: usize) -> *mut u8 {
        // SAFETY: As in `Client`; types without bytes allocate nothing.
        unsafe { Global.alloc(Layout::from_size_align_unchecked(size.max(1), 16)) }
    }

    #[inline(never)]
    unsafe fn free_by_call(&self, block: *mut u8) {
        if !block.is_null() {
            // SAFETY: By the caller's contract it came from there; its size is not used.
            unsafe { Global.dealloc(block, Layout::from_size_align_unchecked(1, 16)) };
        }
    }
}

impl Allocator for WholeProgram {
    #[inline]
    fn alloc(&self, size: usize) -> *mut u8 {
        let block = self.alloc_by_call(size);
        assert!(!block.is_null());
        block
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8) {
        // SAFETY: The caller's promise.
        unsafe { self.free_by_call(block) };
    }
}

/// An allocator that returns the same memory each time, to measure the cost of the loop alone.
pub struct Nothing(Pages);

impl Nothing {
    /// Makes one for blocks of at most `max` bytes.
    pub fn of(max: usize) -> Self {
        Self(Pages::anonymous(max))
    }

    #[inline(never)]
    fn same(&self, size: usize) -> *mut u8 {
        std::hint::black_box(size);
        self.0.as_ptr()
    }
}

impl Allocator for Nothing {
    #[inline]
    fn alloc(&self, size: usize) -> *mut u8 {
        let block = self.same(size);
        assert!(!block.is_null() || size == 0);
        block
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8) {
        self.same(block as usize);
    }
}

/// A block in use. Each of its pages is written to when it is allocated, as programs do.
pub struct Block(*mut u8);

impl Block {
    /// None.
    pub const NONE: Self = Self(ptr::null_mut());

    /// Allocates a block and touches it.
    #[inline]
    pub fn new(allocator: &impl Allocator, size: usize) -> Self {
        let block = allocator.alloc(size);
        // SAFETY: The block is new, and has as many bytes.
        unsafe { sys::touch(block, size) };
        Self(block)
    }

    /// Frees the block, if there is one, to its allocator.
    #[inline]
    pub fn free(&mut self, allocator: &impl Allocator) {
        let block = std::mem::replace(&mut self.0, ptr::null_mut());
        // SAFETY: It came from an allocator, of which a process that measures has one, and
        // is forgotten now.
        unsafe { allocator.free(block) };
    }
}
