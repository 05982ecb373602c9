// SPDX-License-Identifier: MIT OR Apache-2.0

//! The heap of the crate `freelist` for C, as `freelist_client.h` declares and documents it.
//!
//! A `struct freelist_heap` is a [`Heap`]. Nothing here panics; a panic would end the program at the
//! border to C.

use std::alloc::Layout;
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void, CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{self, NonNull};

use freelist::uapi::FREELIST_SLACK_NONE;
use freelist::{Error, Heap, Stat, DEVICE};
use nix::errno::Errno;

/// `alignof(max_align_t)`, the alignment of `malloc()`.
const ALIGN: usize = 16;

/// Parses a part of this crate's version.
const fn part(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(part) => part,
        Err(_) => panic!("cargo sets numbers"),
    }
}

/// The version of this library, in the form of `FREELIST_CLIENT_VERSION`.
const VERSION: u32 = (part(env!("CARGO_PKG_VERSION_MAJOR")) << 16)
    | (part(env!("CARGO_PKG_VERSION_MINOR")) << 8)
    | part(env!("CARGO_PKG_VERSION_PATCH"));

/// Returns the error number for an error.
fn number(error: &Error) -> Errno {
    match error {
        Error::Forked => Errno::EPERM,
        error => error.errno().unwrap_or(Errno::EINVAL),
    }
}

/// Returns the result, or sets `errno` and returns `failed`.
#[inline]
fn or<T>(result: Result<T, Error>, failed: T) -> T {
    result.unwrap_or_else(|error| {
        number(&error).set();
        failed
    })
}

thread_local! {
    /// The error number of this thread's last failed allocation.
    static REFUSED: Cell<c_int> = const { Cell::new(0) };
}

/// Sets `errno` as malloc() does: ENOMEM, or EINVAL for an alignment. Returns null.
#[cold]
fn refused(error: Error) -> *mut u8 {
    REFUSED.set(number(&error) as c_int);
    let errno = match error {
        Error::Alignment { .. } => Errno::EINVAL,
        _ => Errno::ENOMEM,
    };
    errno.set();
    ptr::null_mut()
}

/// Returns a block's address, or sets `errno` and returns null.
#[inline]
fn address(block: Result<NonNull<u8>, Error>) -> *mut c_void {
    block.map_or_else(refused, NonNull::as_ptr).cast()
}

/// Returns the layout of an object; `None`, with `errno` set, if there is none.
#[inline]
fn layout(size: usize, align: usize) -> Option<Layout> {
    let layout = Layout::from_size_align(size, align).ok();
    if layout.is_none() {
        let errno = match align.is_power_of_two() {
            true => Errno::ENOMEM,
            false => Errno::EINVAL,
        };
        REFUSED.set(errno as c_int);
        errno.set();
    }
    layout
}

/// Returns the version of this library.
#[no_mangle]
pub extern "C" fn freelist_client_version() -> u32 {
    VERSION
}

/// Returns the error number of this thread's last failed allocation; 0 if none failed.
#[no_mangle]
pub extern "C" fn freelist_heap_refused() -> c_int {
    REFUSED.get()
}

/// Opens a heap.
///
/// # Safety
///
/// `device` is null or a C string.
#[no_mangle]
pub unsafe extern "C" fn freelist_heap_open(device: *const c_char) -> *mut Heap {
    let device = if device.is_null() {
        OsStr::new(DEVICE)
    } else {
        // SAFETY: By the caller's contract it is a C string.
        OsStr::from_bytes(unsafe { CStr::from_ptr(device) }.to_bytes())
    };
    let heap = Heap::open_path(device).map(|heap| Box::into_raw(Box::new(heap)));
    or(heap, ptr::null_mut())
}

/// Closes a heap.
///
/// # Safety
///
/// `heap` is null or open, and neither it nor its blocks are used afterwards.
#[no_mangle]
pub unsafe extern "C" fn freelist_heap_close(heap: *mut Heap) {
    if !heap.is_null() {
        // SAFETY: `freelist_heap_open()` made it so.
        drop(unsafe { Box::from_raw(heap) });
    }
}

/// Allocates a block.
///
/// # Safety
///
/// `heap` is open.
#[no_mangle]
pub unsafe extern "C" fn freelist_malloc(heap: *const Heap, size: usize) -> *mut c_void {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    match layout(size, ALIGN) {
        Some(layout) => heap.alloc_or(layout, refused).cast(),
        None => ptr::null_mut(),
    }
}

/// Allocates a block of zeros.
///
/// # Safety
///
/// `heap` is open.
#[no_mangle]
pub unsafe extern "C" fn freelist_calloc(
    heap: *const Heap,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    // A product that overflows is larger than any layout.
    match layout(count.saturating_mul(size), ALIGN) {
        Some(layout) => address(heap.alloc_zeroed(layout)),
        None => ptr::null_mut(),
    }
}

/// Allocates an aligned block.
///
/// # Safety
///
/// `heap` is open.
#[no_mangle]
pub unsafe extern "C" fn freelist_aligned_alloc(
    heap: *const Heap,
    align: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    match layout(size, align) {
        Some(layout) => address(heap.alloc(layout)),
        None => ptr::null_mut(),
    }
}

/// Resizes a block.
///
/// # Safety
///
/// `heap` is open, `block` is null or a live block of it, and is not used
/// afterwards unless null is returned.
#[no_mangle]
pub unsafe extern "C" fn freelist_realloc(
    heap: *const Heap,
    block: *mut c_void,
    size: usize,
) -> *mut c_void {
    let Some(block) = NonNull::new(block.cast()) else {
        // SAFETY: By the caller's contract.
        return unsafe { freelist_malloc(heap, size) };
    };
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    // SAFETY: By the caller's contract it is a live block, and all blocks are aligned so.
    address(unsafe { heap.realloc(block, size, ALIGN) })
}

/// Frees a block.
///
/// # Safety
///
/// `heap` is open, `block` is null or a live block of it, and is not used
/// afterwards.
#[no_mangle]
pub unsafe extern "C" fn freelist_free(heap: *const Heap, block: *mut c_void) {
    if let Some(block) = NonNull::new(block.cast()) {
        // SAFETY: By the caller's contract it is open.
        let heap = unsafe { &*heap };
        // SAFETY: By the caller's contract it is a live block.
        unsafe { heap.free(block) };
    }
}

/// Returns the bytes of a block; 0 for null.
///
/// # Safety
///
/// `heap` is open.
#[no_mangle]
pub unsafe extern "C" fn freelist_usable_size(heap: *const Heap, block: *const c_void) -> usize {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    NonNull::new(block.cast_mut().cast())
        .and_then(|block| heap.usable_size(block))
        .unwrap_or(0)
}

/// Limits the bytes of pages that the heap may hold.
///
/// # Safety
///
/// `heap` is open.
#[no_mangle]
pub unsafe extern "C" fn freelist_heap_set_limit(heap: *const Heap, bytes: u64) -> c_int {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    or(heap.set_limit(bytes).map(|_| 0), -1)
}

/// Sets the slack.
///
/// # Safety
///
/// `heap` is open.
#[no_mangle]
pub unsafe extern "C" fn freelist_heap_set_slack(heap: *const Heap, permille: u32) -> c_int {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    let slack = (permille != FREELIST_SLACK_NONE).then_some(permille);
    or(heap.set_slack_permille(slack).map(|_| 0), -1)
}

/// Returns free memory to the system.
///
/// # Safety
///
/// `heap` is open, and `freed_bytes` is null or can be written.
#[no_mangle]
pub unsafe extern "C" fn freelist_heap_trim(
    heap: *const Heap,
    keep_bytes: u64,
    freed_bytes: *mut u64,
) -> c_int {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    let freed = heap.trim(keep_bytes).map(|bytes| {
        if !freed_bytes.is_null() {
            // SAFETY: By the caller's contract it can be written.
            unsafe { freed_bytes.write(bytes) };
        }
        0
    });
    or(freed, -1)
}

/// Copies the counters.
///
/// # Safety
///
/// `heap` is open, and `stat` can be written.
#[no_mangle]
pub unsafe extern "C" fn freelist_heap_stat(heap: *const Heap, stat: *mut Stat) -> c_int {
    // SAFETY: By the caller's contract it is open.
    let heap = unsafe { &*heap };
    let read = heap.stat().map(|counters| {
        // SAFETY: By the caller's contract it can be written.
        unsafe { stat.write(counters) };
        0
    });
    or(read, -1)
}
