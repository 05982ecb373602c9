// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions that allocate and release, as the C library documents them.
//!
//! A function of ours decides by the size, or by the address, and is the next allocator's otherwise.

use core::ffi::{c_int, c_void};
use core::ptr;

use crate::next;
use freelist::malloc::{Content, LARGE};

/// `alignof(max_align_t)`, of which the alignment of `malloc()` is a multiple.
const ALIGN: usize = 16;
/// The largest object that there can be.
const PTRDIFF_MAX: usize = isize::MAX as usize;

/// What became of a request for a large block.
enum Served {
    /// The arena has it; or it is refused, null with `errno` set.
    Here(*mut c_void),
    /// It is the next allocator's.
    Next,
}

/// Asks the arena for a block, if it is large.
#[inline]
fn large(size: usize, align: usize, content: Content) -> Served {
    if LARGE.serves(size) {
        really_large(size, align, content)
    } else {
        Served::Next
    }
}

#[inline(never)]
fn really_large(size: usize, align: usize, content: Content) -> Served {
    let served = try_large(size, align, content);
    if let Served::Here(block) = served {
        if block.is_null() {
            set_enomem();
        }
    }
    served
}

/// Asks the arena for a block; null, without `errno`, if it is refused.
fn try_large(size: usize, align: usize, content: Content) -> Served {
    if size > PTRDIFF_MAX {
        return Served::Next;
    }
    match LARGE.alloc(size, align, content) {
        Ok(block) => Served::Here(block.as_ptr().cast()),
        Err(_) if LARGE.is_strict() => Served::Here(ptr::null_mut()),
        Err(_) => Served::Next,
    }
}

/// Sets `errno`.
#[cold]
pub(crate) fn set_enomem() {
    // SAFETY: It returns where this thread's own number is, or null where it is being looked up.
    if let Some(errno) = unsafe { next::__errno_location().as_mut() } {
        *errno = libc::ENOMEM;
    }
}

/// Allocates.
#[no_mangle]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    match large(size, ALIGN, Content::Any) {
        Served::Here(block) => block,
        // SAFETY: Any size is allowed.
        Served::Next => unsafe { next::malloc(size) },
    }
}

/// Allocates zeros. What the system gives anew is not touched for it.
#[no_mangle]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // A product that overflows is larger than any object, and the next allocator's to refuse.
    match large(count.saturating_mul(size), ALIGN, Content::Zeros) {
        Served::Here(block) => block,
        // SAFETY: Any numbers are allowed.
        Served::Next => unsafe { next::calloc(count, size) },
    }
}

/// Releases.
///
/// # Safety
///
/// `block` is null or a live block, and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: It is given up, says the caller.
    if LARGE.may_have(block.cast()) && unsafe { LARGE.free(block.cast()) } {
        return;
    }
    if next::early_bytes(block).is_none() {
        // SAFETY: It is none of ours, so that it came from there.
        unsafe { next::free(block) }
    }
}

/// Resizes.
///
/// # Safety
///
/// `block` is null or a live block, and is not used afterwards unless null is returned.
#[no_mangle]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    if LARGE.may_have(block.cast()) {
        // SAFETY: The caller's promise.
        if let Some(new) = unsafe { realloc_large(block, size) } {
            return new;
        }
    }
    if let Some(has) = next::early_bytes(block) {
        let new = malloc(size);
        if !new.is_null() {
            // SAFETY: Both have as many bytes; the old block stays.
            unsafe { ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast(), has.min(size)) };
        }
        return new;
    }
    if LARGE.serves(size) {
        // SAFETY: It is a live block of the next allocator.
        if let Some(new) = unsafe { adopt(block, size) } {
            return new;
        }
    }
    // SAFETY: As above.
    unsafe { next::realloc(block, size) }
}

/// Resizes a block of the arena; `None` if it is none.
///
/// # Safety
///
/// As [`realloc`].
#[cold]
unsafe fn realloc_large(block: *mut c_void, size: usize) -> Option<*mut c_void> {
    if size == 0 {
        // SAFETY: The caller gives it up.
        return unsafe { LARGE.free(block.cast()) }.then(ptr::null_mut);
    }
    if size > PTRDIFF_MAX {
        set_enomem();
        return LARGE.usable_size(block.cast()).map(|_| ptr::null_mut());
    }
    // SAFETY: Any size is allowed.
    let next = |size| unsafe { next::malloc(size) }.cast();
    // SAFETY: The caller's promise; what the next allocator returns is a new block, or null.
    let new = unsafe { LARGE.realloc(block.cast(), size, ALIGN, next) }?;
    if new.is_null() {
        set_enomem();
    }
    Some(new.cast())
}

/// Moves a small block of the next allocator, which is to be large, into the arena. `None` if it
/// stays there.
///
/// # Safety
///
/// `block` is a live block of the next allocator that the caller gives up if another is returned.
#[cold]
unsafe fn adopt(block: *mut c_void, size: usize) -> Option<*mut c_void> {
    // SAFETY: It is a live block, says the caller.
    let has = unsafe { next::malloc_usable_size(block) };
    // A large one is there because the arena refused it; where its bytes are not known it stays.
    // (One that is just below the threshold may have some more.)
    if has == 0 || LARGE.serves(has - has / 4) {
        return None;
    }
    match large(size, ALIGN, Content::Any) {
        Served::Here(new) => {
            if !new.is_null() {
                // SAFETY: Both have as many bytes, and are two blocks.
                unsafe { ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast(), has.min(size)) };
                // SAFETY: The caller gives it up.
                unsafe { next::free(block) };
            }
            Some(new)
        }
        Served::Next => None,
    }
}

/// Resizes to a product, which may overflow: `ENOMEM` then.
///
/// # Safety
///
/// As [`realloc`].
#[no_mangle]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: The caller's promise.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => {
            set_enomem();
            ptr::null_mut()
        }
    }
}

/// Returns whether the arena may serve an alignment: others are the next allocator's to judge.
fn is_alignment(align: usize) -> bool {
    align.is_power_of_two()
}

/// Allocates, aligned.
#[no_mangle]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    if is_alignment(align) {
        if let Served::Here(block) = large(size, align, Content::Any) {
            return block;
        }
    }
    // SAFETY: Any numbers are allowed.
    unsafe { next::memalign(align, size) }
}

/// Allocates, aligned.
#[no_mangle]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if is_alignment(align) {
        if let Served::Here(block) = large(size, align, Content::Any) {
            return block;
        }
    }
    // SAFETY: Any numbers are allowed.
    unsafe { next::aligned_alloc(align, size) }
}

/// Allocates, aligned, and returns an errno instead of setting it.
///
/// # Safety
///
/// `block` can be written.
#[no_mangle]
pub unsafe extern "C" fn posix_memalign(
    block: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if is_alignment(align) && align % size_of::<*mut c_void>() == 0 && LARGE.serves(size) {
        if let Served::Here(new) = try_large(size, align, Content::Any) {
            if new.is_null() {
                return libc::ENOMEM;
            }
            // SAFETY: It can be written, says the caller.
            unsafe { block.write(new) };
            return 0;
        }
    }
    // SAFETY: The caller's promise.
    unsafe { next::posix_memalign(block, align, size) }
}

/// Returns the system's page size.
fn page() -> usize {
    // SAFETY: It takes a number and has no effect.
    match unsafe { libc::getauxval(libc::AT_PAGESZ) } {
        0 => 4096,
        bytes => bytes as usize,
    }
}

/// Allocates whole pages' worth of alignment.
#[no_mangle]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    match large(size, page(), Content::Any) {
        Served::Here(block) => block,
        // SAFETY: Any size is allowed.
        Served::Next => unsafe { next::valloc(size) },
    }
}

/// Allocates whole pages.
#[no_mangle]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    // Blocks of the arena are whole pages.
    match large(size, page(), Content::Any) {
        Served::Here(block) => block,
        // SAFETY: Any size is allowed.
        Served::Next => unsafe { next::pvalloc(size) },
    }
}

/// Returns the bytes that a block has.
///
/// # Safety
///
/// `block` is null or a live block.
#[no_mangle]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    if LARGE.may_have(block.cast()) {
        if let Some(bytes) = LARGE.usable_size(block.cast()) {
            return bytes;
        }
    }
    match next::early_bytes(block) {
        Some(bytes) => bytes,
        // SAFETY: The caller's promise.
        None => unsafe { next::malloc_usable_size(block) },
    }
}
