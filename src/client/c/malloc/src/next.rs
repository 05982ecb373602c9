// SPDX-License-Identifier: GPL-2.0

//! The next allocator in line: the C library's, or one that is preloaded after this library.
//!
//! It is looked up at the first call of each function, by `dlsym(RTLD_NEXT, ...)`. A C library whose
//! `dlsym()` allocates would call us again before there is an answer: such a request is served from a
//! few KiB of our own, which are never taken back.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void, CStr};
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*};

use nix::libc;

/// Bytes for what is allocated while the next allocator is looked up.
const EARLY_BYTES: usize = 16 << 10;
/// Alignment of these blocks.
const ALIGN: usize = 16;

/// A function of the next allocator.
pub(crate) struct Next {
    name: &'static CStr,
    function: AtomicPtr<c_void>,
}

/// The thread that is looking something up, as `pthread_self()` names it; 0 for none. A second one
/// looks it up as well, which changes nothing; only the same thread must not.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            function: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The function's address; `None` where this very look-up asks for it, or nobody has it.
    #[inline]
    fn address(&self) -> Option<*mut c_void> {
        let function = self.function.load(Relaxed);
        if !function.is_null() {
            return Some(function);
        }
        self.look_up()
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self) -> Option<*mut c_void> {
        // SAFETY: It takes nothing and cannot fail.
        let this = unsafe { libc::pthread_self() } as usize;
        if LOOKING.load(Relaxed) == this {
            return None;
        }
        let other = LOOKING.swap(this, Relaxed);
        // SAFETY: The name is a C string.
        let function = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        LOOKING.store(other, Relaxed);
        self.function.store(function, Relaxed);
        (!function.is_null()).then_some(function)
    }
}

/// Defines a function that calls the next allocator's of that name; where there is none, or it is
/// being looked up, the result is `$otherwise`.
macro_rules! next {
    ($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?, $otherwise:expr) => {
        /// The next allocator's function of this name.
        ///
        /// # Safety
        ///
        /// As the C library says of it.
        #[inline]
        pub(crate) unsafe fn $name($($argument: $type),*) $(-> $result)? {
            static NEXT: Next = Next::new(
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
            );
            match NEXT.address() {
                Some(function) => {
                    type Function = unsafe extern "C" fn($($type),*) $(-> $result)?;
                    // SAFETY: It is the function of that name, which has this type in every C
                    // library and allocator.
                    let function = unsafe { mem::transmute::<*mut c_void, Function>(function) };
                    // SAFETY: The caller's promise.
                    unsafe { function($($argument),*) }
                }
                None => $otherwise,
            }
        }
    };
}

next!(malloc(size: usize) -> *mut c_void, early(size, ALIGN));
next!(calloc(count: usize, size: usize) -> *mut c_void, early(count.saturating_mul(size), ALIGN));
next!(realloc(block: *mut c_void, size: usize) -> *mut c_void, ptr::null_mut());
next!(free(block: *mut c_void), ());
next!(memalign(align: usize, size: usize) -> *mut c_void, early(size, align));
next!(aligned_alloc(align: usize, size: usize) -> *mut c_void, early(size, align));
next!(posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int, libc::ENOMEM);
next!(valloc(size: usize) -> *mut c_void, ptr::null_mut());
next!(pvalloc(size: usize) -> *mut c_void, ptr::null_mut());
next!(malloc_usable_size(block: *mut c_void) -> usize, 0);
next!(malloc_trim(pad: usize) -> c_int, 0);
next!(malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int, -1);
next!(malloc_stats(), ());
next!(mallinfo() -> libc::mallinfo, zeroed());
next!(mallinfo2() -> libc::mallinfo2, zeroed());

/// A structure of numbers that are all 0.
fn zeroed<T: Copy>() -> T {
    // SAFETY: It is used for the two structures above alone, which are numbers.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Memory for what is allocated while the next allocator is looked up; all zero at first.
#[repr(align(64))]
struct Early(UnsafeCell<[u8; EARLY_BYTES]>);

// SAFETY: It is given out in parts, each once.
unsafe impl Sync for Early {}

static EARLY: Early = Early(UnsafeCell::new([0; EARLY_BYTES]));
static EARLY_USED: AtomicUsize = AtomicUsize::new(0);

/// Allocates from the few bytes of our own; null when they are used up. Before the block is its
/// size.
#[cold]
fn early(size: usize, align: usize) -> *mut c_void {
    let align = align.max(ALIGN);
    let base = EARLY.0.get() as usize;
    let mut at = 0;
    let taken = EARLY_USED.fetch_update(Relaxed, Relaxed, |used| {
        let block = (base + used + ALIGN).checked_next_multiple_of(align)?;
        at = block;
        let end = (block - base).checked_add(size)?;
        (end <= EARLY_BYTES).then_some(end)
    });
    if taken.is_err() {
        return ptr::null_mut();
    }
    // SAFETY: The bytes before the block lie in the memory too, and are this block's.
    unsafe { ((at - size_of::<usize>()) as *mut usize).write_unaligned(size) };
    at as *mut c_void
}

/// The bytes of a block that was allocated while the next allocator was looked up; `None` for all
/// others.
#[inline]
pub(crate) fn early_bytes(block: *mut c_void) -> Option<usize> {
    let offset = (block as usize).wrapping_sub(EARLY.0.get() as usize);
    if offset >= EARLY_BYTES {
        return None;
    }
    // SAFETY: Such a block has its size before it.
    Some(unsafe { ((block as usize - size_of::<usize>()) as *const usize).read_unaligned() })
}
