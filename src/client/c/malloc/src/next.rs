// SPDX-License-Identifier: MIT OR Apache-2.0

//! The next allocator: the C library's, or one that is preloaded after this library.
//!
//! Each of its functions is looked up at the first call, by `dlsym(RTLD_NEXT, ...)`. If the C library's
//! `dlsym()` allocates, it calls this library again before the look-up is complete: such a request is
//! served from a few KiB of memory of this module, which are never freed.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::{self, MaybeUninit};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering::*};

use rustix::mm::{mmap_anonymous, munmap, MapFlags, ProtFlags};
use rustix::thread::gettid;

/// The bytes for blocks that are allocated while the next allocator is looked up.
const EARLY_BYTES: usize = 16 << 10;
/// The alignment of these blocks.
const ALIGN: usize = 16;

/// The address of a function of the next allocator; null until it is looked up.
pub(crate) struct Next(AtomicPtr<c_void>);

/// The most threads that can be in a look-up at a time and still be recognised in it.
const LOOKING_THREADS: usize = 8;

/// The threads that are in a look-up, by their numbers (`gettid()`); 0 is an empty entry. Two threads may look
/// up the same function, which does no harm; one thread must not do so within its own look-up. An entry
/// may remain in a forked child, in which no thread gets that number.
///
/// It is in the section of values that are not zero at first. All that is written at the start of a program is
/// less than a page, and so follows in the same page of the file's mapping. A section of zeros would be a
/// mapping of its own, which each program makes and each fork copies.
#[link_section = ".data"]
static LOOKING: [AtomicI32; LOOKING_THREADS] = [const { AtomicI32::new(0) }; LOOKING_THREADS];

impl Next {
    /// Returns the address of the function of this name; `None` if this thread is looking it up, or no
    /// library has it.
    #[inline]
    fn address(&self, name: &'static CStr) -> Option<*mut c_void> {
        let function = self.0.load(Relaxed);
        if !function.is_null() {
            return Some(function);
        }
        self.look_up(name)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self, name: &CStr) -> Option<*mut c_void> {
        let this = gettid().as_raw_nonzero().get();
        if LOOKING.iter().any(|entry| entry.load(Relaxed) == this) {
            return None;
        }
        // With more threads than entries one has none: only a C library whose `dlsym()` allocates
        // would notice.
        let claim = |entry: &&AtomicI32| {
            let claimed = entry.compare_exchange(0, this, Relaxed, Relaxed);
            claimed.is_ok()
        };
        let entry = LOOKING.iter().find(claim);
        // SAFETY: The name is a C string.
        let function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        if let Some(entry) = entry {
            entry.store(0, Relaxed);
        }
        self.0.store(function, Relaxed);
        (!function.is_null()).then_some(function)
    }
}

/// Defines a function that calls the next allocator's function of that name. If there is none, or it is
/// being looked up, it returns `$otherwise`.
macro_rules! next {
    ($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?, $otherwise:expr) => {
        /// Calls the next allocator's function of this name.
        ///
        /// # Safety
        ///
        /// That of the C library's function.
        #[inline]
        pub(crate) unsafe fn $name($($argument: $type),*) $(-> $result)? {
            const NAME: &CStr =
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                };
            static NEXT: Next = Next(AtomicPtr::new(ptr::null_mut()));
            type Function = unsafe extern "C" fn($($type),*) $(-> $result)?;

            /// The first call. A function of its own, as the others then save no register.
            #[cold]
            #[inline(never)]
            unsafe fn first($($argument: $type),*) $(-> $result)? {
                match NEXT.look_up(NAME) {
                    Some(function) => {
                        // SAFETY: As below.
                        let function = unsafe { mem::transmute::<*mut c_void, Function>(function) };
                        // SAFETY: By the caller's contract.
                        unsafe { function($($argument),*) }
                    }
                    None => $otherwise,
                }
            }

            let function = NEXT.0.load(Relaxed);
            if function.is_null() {
                // SAFETY: By the caller's contract.
                return unsafe { first($($argument),*) };
            }
            // SAFETY: It is the function of that name, which has this type in every C library and allocator.
            let function = unsafe { mem::transmute::<*mut c_void, Function>(function) };
            // SAFETY: By the caller's contract.
            unsafe { function($($argument),*) }
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

next!(fork() -> c_int, -1);

// Functions of the C library that few programs need. Linked symbols would be looked up in each program.
next!(fclose(stream: *mut libc::FILE) -> c_int, libc::EOF);
next!(fwrite(bytes: *const c_void, size: usize, count: usize, stream: *mut libc::FILE) -> usize, 0);
next!(open_memstream(bytes: *mut *mut c_char, len: *mut usize) -> *mut libc::FILE, ptr::null_mut());
next!(__errno_location() -> *mut c_int, ptr::null_mut());

/// Returns the C library's stream of standard error; null if there is none.
pub(crate) fn stderr() -> *mut libc::FILE {
    static STDERR: Next = Next(AtomicPtr::new(ptr::null_mut()));
    match STDERR.address(c"stderr") {
        // SAFETY: It is the variable of that name, which is a pointer to a stream.
        Some(stream) => unsafe { *stream.cast() },
        None => ptr::null_mut(),
    }
}

/// Returns a structure of numbers that are all 0.
fn zeroed<T: Copy>() -> T {
    // SAFETY: It is used for the two structures above alone, which are numbers.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// The memory for blocks that are allocated during a look-up; null until it is needed.
static EARLY: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static EARLY_USED: AtomicUsize = AtomicUsize::new(0);

/// Returns that memory, and maps it if it was not; `None` if there is none.
fn early_memory() -> Option<usize> {
    let base = EARLY.load(Relaxed);
    if !base.is_null() {
        return Some(base as usize);
    }
    let (anywhere, access) = (ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: The kernel chooses where nothing is mapped.
    let new = unsafe { mmap_anonymous(anywhere, EARLY_BYTES, access, MapFlags::PRIVATE) }.ok()?;
    match EARLY.compare_exchange(base, new, Relaxed, Relaxed) {
        Ok(_) => Some(new as usize),
        Err(other) => {
            // SAFETY: Another thread has stored its mapping before, and no other code knows of this one.
            let _ = unsafe { munmap(new, EARLY_BYTES) };
            Some(other as usize)
        }
    }
}

/// Allocates from that memory; null if it is used up. The size of the block is stored before it.
#[cold]
fn early(size: usize, align: usize) -> *mut c_void {
    let Some(base) = early_memory() else {
        return ptr::null_mut();
    };
    let align = align.max(ALIGN);
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
    // SAFETY: The bytes before the block lie in that memory too, and belong to this block.
    unsafe { ((at - size_of::<usize>()) as *mut usize).write_unaligned(size) };
    at as *mut c_void
}

/// Returns whether blocks were allocated during a look-up: not with a C library whose `dlsym()` allocates
/// nothing.
#[inline]
pub(crate) fn has_early() -> bool {
    !EARLY.load(Relaxed).is_null()
}

/// Returns the bytes of a block that was allocated during a look-up; `None` for all others.
#[inline]
pub(crate) fn early_bytes(block: *mut c_void) -> Option<usize> {
    let base = EARLY.load(Relaxed);
    let offset = (block as usize).wrapping_sub(base as usize);
    if base.is_null() || offset >= EARLY_BYTES {
        return None;
    }
    // SAFETY: Such a block has its size before it.
    Some(unsafe { ((block as usize - size_of::<usize>()) as *const usize).read_unaligned() })
}
