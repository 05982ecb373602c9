// SPDX-License-Identifier: GPL-2.0

//! A heap for all memory of a program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Write};
use std::process;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use super::once::Once;
use super::{Content, Heap, Shared};
use crate::error::Error;
use crate::sync::atomic::{AtomicBool, AtomicPtr};

/// A [`Heap`] as the allocator of a whole program, which does not fork:
///
/// ```no_run
/// #[global_allocator]
/// static ALLOCATOR: freelist::Global = freelist::Global;
///
/// fn main() {
///     let numbers: Vec<u32> = (0..1000).collect();
///     println!("{}", numbers.len());
/// }
/// ```
///
/// The heap is opened at the first request; what that takes itself comes from the
/// system's allocator, and goes back there. If it cannot be opened the program
/// ends, and says why.
///
/// # Forking
///
/// A forked child shares all its memory with its parent instead of having a copy:
/// what the one writes the other reads. To run another program (fork and exec, as
/// [`std::process::Command`] does) is fine; to go on in the child is not. Requests
/// there are served by the system's allocator, and releases of the parent's blocks
/// do nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Global;

static HEAP: OnceLock<Heap> = OnceLock::new();

/// What [`HEAP`] has, as one word that is quick to look at.
static AT_HAND: Once<Shared> = Once {
    begun: AtomicBool::new(false),
    made: AtomicPtr::new(ptr::null_mut()),
};

impl Global {
    /// The heap, for its counters; `None` while nothing was asked for.
    pub fn heap() -> Option<&'static Heap> {
        HEAP.get()
    }
}

/// The heap, opened if nobody did or does. `None` meanwhile: to open it takes
/// memory too.
fn opened() -> Option<&'static Shared> {
    AT_HAND.get_or_make(|| match Heap::open() {
        Ok(heap) => &HEAP.get_or_init(|| heap).0,
        Err(error) => {
            // A closed stderr is no reason to go on.
            let _ = writeln!(io::stderr(), "freelist: no memory: {error}");
            process::abort()
        }
    })
}

/// A block's address, or null.
fn address(block: crate::Result<NonNull<u8>>, forked: impl FnOnce() -> *mut u8) -> *mut u8 {
    match block {
        Ok(block) => block.as_ptr(),
        Err(Error::Forked) => forked(),
        Err(_) => ptr::null_mut(),
    }
}

/// A block that this thread does not keep.
///
/// # Safety
///
/// As [`GlobalAlloc::alloc`].
#[inline(never)]
unsafe fn alloc_elsewhere(layout: Layout) -> *mut u8 {
    // SAFETY: The caller's promise.
    let system = || unsafe { System.alloc(layout) };
    match opened() {
        Some(heap) => address(heap.alloc(layout, Content::Any), system),
        None => system(),
    }
}

// SAFETY: Blocks are a heap's, which are aligned and do not overlap, or the
// system allocator's. Which of both a block is of is told by its address, always
// in the same way: the heap is never closed, and nobody else maps what it has
// mapped. Nothing in a heap panics.
unsafe impl GlobalAlloc for Global {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match AT_HAND.get().and_then(|heap| heap.kept(layout)) {
            Some(block) => block.as_ptr(),
            // SAFETY: The caller's promise.
            None => unsafe { alloc_elsewhere(layout) },
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: The caller's promise.
        let system = || unsafe { System.alloc_zeroed(layout) };
        match opened() {
            Some(heap) => address(heap.alloc(layout, Content::Zeros), system),
            None => system(),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let own = AT_HAND.get().zip(NonNull::new(block));
        // Of this heap if it lies in it: it is a live block, says the caller.
        if !own.is_some_and(|(heap, block)| heap.free(block)) {
            // SAFETY: It is a live block, says the caller, and no heap's.
            unsafe { System.dealloc(block, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let heap = HEAP.get().zip(NonNull::new(block));
        match heap.filter(|(heap, block)| heap.has(*block)) {
            Some((heap, old)) => {
                // SAFETY: The caller's promise, and it lies in the heap.
                let new = unsafe { heap.realloc(old, size, layout.align()) };
                address(new, || {
                    // SAFETY: `size` is not 0, and no overflow with the alignment, says
                    // the caller.
                    let new = unsafe {
                        System.alloc(Layout::from_size_align_unchecked(size, layout.align()))
                    };
                    if !new.is_null() {
                        // SAFETY: The old block has its bytes in the child too, and the
                        // new one is new.
                        unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
                    }
                    new
                })
            }
            // SAFETY: It is a live block, says the caller, and no heap's.
            None => unsafe { System.realloc(block, layout, size) },
        }
    }
}
