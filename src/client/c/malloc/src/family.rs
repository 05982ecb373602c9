// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions that allocate and free, as the C library documents them.
//!
//! Each decides by the size or the address whether the arena serves the call or the next allocator.

use core::ffi::{c_int, c_void};
use core::ptr;

use crate::next;
use freelist::malloc::{Content, LARGE};

/// `alignof(max_align_t)`, the alignment of `malloc()`.
const ALIGN: usize = 16;
/// The bytes of the largest possible object.
const PTRDIFF_MAX: usize = isize::MAX as usize;

/// The result of a request for a block.
enum Served {
    /// The arena's block, or null with `errno` set if the request is refused.
    Here(*mut c_void),
    /// The next allocator is to serve the request.
    Next,
}

/// Allocates a block from the arena, if it is large.
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

/// Allocates a block from the arena, if it is large; null, without `errno`, if that fails.
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

/// Sets `errno` to `ENOMEM`.
#[cold]
pub(crate) fn set_enomem() {
    // SAFETY: It returns the address of this thread's `errno`, or null while it is being looked up.
    if let Some(errno) = unsafe { next::__errno_location().as_mut() } {
        *errno = libc::ENOMEM;
    }
}

/// Allocates a block.
#[no_mangle]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    if LARGE.serves(size) {
        return malloc_large(size);
    }
    // SAFETY: Any size is allowed.
    unsafe { next::malloc(size) }
}

/// Allocates a large block. A function of its own, as a small block's then saves no register.
#[inline(never)]
fn malloc_large(size: usize) -> *mut c_void {
    match large(size, ALIGN, Content::Any) {
        Served::Here(block) => block,
        // SAFETY: Any size is allowed.
        Served::Next => unsafe { next::malloc(size) },
    }
}

/// Allocates a block of zeros. New memory of the system is not touched for that.
#[no_mangle]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // A product that overflows is larger than any object; the next allocator refuses it.
    match large(count.saturating_mul(size), ALIGN, Content::Zeros) {
        Served::Here(block) => block,
        // SAFETY: Any numbers are allowed.
        Served::Next => unsafe { next::calloc(count, size) },
    }
}

/// Frees a block.
///
/// # Safety
///
/// `block` is null or a live block, and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if LARGE.may_have(block.cast()) || next::has_early() {
        // SAFETY: By the contract the caller does not use it any more.
        return unsafe { free_not_small(block) };
    }
    // SAFETY: It is not the arena's, so the next allocator returned it.
    unsafe { next::free(block) }
}

/// Frees a block that may be the arena's, or one of a look-up.
///
/// # Safety
///
/// As that of [`free`].
#[inline(never)]
unsafe fn free_not_small(block: *mut c_void) {
    // SAFETY: By the caller's contract.
    if LARGE.may_have(block.cast()) && unsafe { LARGE.free(block.cast()) } {
        return;
    }
    if next::early_bytes(block).is_none() {
        // SAFETY: It is not the arena's, so the next allocator returned it.
        unsafe { next::free(block) }
    }
}

/// Resizes a block.
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
        // SAFETY: By the caller's contract.
        if let Some(new) = unsafe { realloc_large(block, size) } {
            return new;
        }
    }
    if let Some(has) = next::early_bytes(block) {
        let new = malloc(size);
        if !new.is_null() {
            // SAFETY: Both have at least that many bytes; the old block stays live.
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

/// Resizes a block of the arena; `None` if it is one of the next allocator.
///
/// # Safety
///
/// That of [`realloc`].
#[cold]
unsafe fn realloc_large(block: *mut c_void, size: usize) -> Option<*mut c_void> {
    if size == 0 {
        // SAFETY: By the contract the caller does not use it any more.
        return unsafe { LARGE.free(block.cast()) }.then(ptr::null_mut);
    }
    if size > PTRDIFF_MAX {
        set_enomem();
        return LARGE.usable_size(block.cast()).map(|_| ptr::null_mut());
    }
    // SAFETY: Any size is allowed.
    let next = |size| unsafe { next::malloc(size) }.cast();
    // SAFETY: By the caller's contract; what the next allocator returns is a new block, or null.
    let new = unsafe { LARGE.realloc(block.cast(), size, ALIGN, next) }?;
    if new.is_null() {
        set_enomem();
    }
    Some(new.cast())
}

/// Moves a small block of the next allocator into the arena, if its new size is large; `None` if it
/// stays there.
///
/// # Safety
///
/// `block` is a live block of the next allocator, and is not used afterwards if another is returned.
#[cold]
unsafe fn adopt(block: *mut c_void, size: usize) -> Option<*mut c_void> {
    // SAFETY: By the caller's contract it is a live block.
    let has = unsafe { next::malloc_usable_size(block) };
    // A large block is there because the arena refused it: it stays, as one of unknown size does.
    // (A block just below the threshold may have some more bytes.)
    if has == 0 || LARGE.serves(has - has / 4) {
        return None;
    }
    match large(size, ALIGN, Content::Any) {
        Served::Here(new) => {
            if !new.is_null() {
                // SAFETY: Both have at least that many bytes, and do not overlap.
                unsafe { ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast(), has.min(size)) };
                // SAFETY: By the contract the caller does not use it any more.
                unsafe { next::free(block) };
            }
            Some(new)
        }
        Served::Next => None,
    }
}

/// Resizes a block to a product. Fails with `ENOMEM` if it overflows.
///
/// # Safety
///
/// That of [`realloc`].
#[no_mangle]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: By the caller's contract.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => {
            set_enomem();
            ptr::null_mut()
        }
    }
}

/// Returns whether the arena may serve an alignment. The next allocator judges all others.
fn is_alignment(align: usize) -> bool {
    align.is_power_of_two()
}

/// Allocates an aligned block.
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

/// Allocates an aligned block.
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

/// Allocates an aligned block, and returns an error number instead of setting `errno`.
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
            // SAFETY: By the caller's contract it can be written.
            unsafe { block.write(new) };
            return 0;
        }
    }
    // SAFETY: By the caller's contract.
    unsafe { next::posix_memalign(block, align, size) }
}

/// Returns the bytes of a page.
fn page() -> usize {
    // SAFETY: It takes a number and has no effect.
    match unsafe { libc::getauxval(libc::AT_PAGESZ) } {
        0 => 4096,
        bytes => bytes as usize,
    }
}

/// Allocates a block that begins with a page.
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

/// Returns the bytes of a block.
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
        // SAFETY: By the caller's contract.
        None => unsafe { next::malloc_usable_size(block) },
    }
}
