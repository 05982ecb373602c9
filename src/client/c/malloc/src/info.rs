// SPDX-License-Identifier: MIT OR Apache-2.0

//! Statistics and trimming: the results of the next allocator with those of the arena added.

use core::ffi::{c_char, c_int, c_void};
use core::{ptr, slice};

use freelist::malloc::{Text, LARGE};

use crate::{family, next};

/// Returns free memory to the system: the arena's but for `pad` bytes, and the next allocator's. Returns 1 if
/// any was returned, otherwise 0.
#[no_mangle]
pub extern "C" fn malloc_trim(pad: usize) -> c_int {
    let freed = LARGE.trim(pad);
    // SAFETY: Any number is allowed.
    let next = unsafe { next::malloc_trim(pad) };
    c_int::from(freed != 0 || next != 0)
}

/// Returns the next allocator's numbers. Large blocks are added to the blocks that are mapped one by one
/// (`hblks`, `hblkhd`), not to `uordblks`; the arena's free memory is added to `fordblks` and
/// `keepcost`.
#[no_mangle]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    let usage = LARGE.usage();
    // SAFETY: It has no arguments.
    let mut info = unsafe { next::mallinfo2() };
    info.hblks += usage.live_blocks;
    info.hblkhd += usage.live_bytes;
    info.fordblks += usage.free_bytes;
    info.keepcost += usage.free_bytes;
    info
}

/// Returns the numbers of [`mallinfo2`], which wrap at 2 GiB.
#[no_mangle]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let usage = LARGE.usage();
    // SAFETY: It has no arguments.
    let mut info = unsafe { next::mallinfo() };
    let add = |field: &mut c_int, bytes: usize| *field = field.wrapping_add(bytes as c_int);
    add(&mut info.hblks, usage.live_blocks);
    add(&mut info.hblkhd, usage.live_bytes);
    add(&mut info.fordblks, usage.free_bytes);
    add(&mut info.keepcost, usage.free_bytes);
    info
}

/// The most bytes of the texts below, for any numbers.
const MAX_TEXT: usize = 512;

/// Writes to a C stream.
fn write(stream: *mut libc::FILE, bytes: &[u8]) {
    // SAFETY: The callers' contract is that the stream is open, and the bytes can be read.
    unsafe { next::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), stream) };
}

/// Writes the next allocator's statistics to standard error, and the arena's.
#[no_mangle]
pub extern "C" fn malloc_stats() {
    // SAFETY: It has no arguments.
    unsafe { next::malloc_stats() };
    let usage = LARGE.usage();
    let text = Text::<MAX_TEXT>::new(format_args!(
        "freelist arena:\nlive blocks      = {:10}\nlive bytes       = {:10}\n\
         max live bytes   = {:10}\nfree bytes       = {:10}\n",
        usage.live_blocks, usage.live_bytes, usage.peak_live, usage.free_bytes
    ));
    let stream = next::stderr();
    if !stream.is_null() {
        write(stream, text.bytes());
    }
}

/// Writes the next allocator's XML document to a stream, with an element `freelist` for the arena
/// before its end. Returns 0, or what the next allocator returns.
///
/// # Safety
///
/// `stream` is open.
#[no_mangle]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    let mut document: *mut c_char = ptr::null_mut();
    let mut len = 0;
    // SAFETY: Both are writable, until the stream is closed below.
    let memory = unsafe { next::open_memstream(&mut document, &mut len) };
    if memory.is_null() {
        // SAFETY: By the caller's contract.
        return unsafe { next::malloc_info(options, stream) };
    }
    // SAFETY: The stream was opened just now.
    let result = unsafe { next::malloc_info(options, memory) };
    // SAFETY: It is open, and is closed once.
    let closed = unsafe { next::fclose(memory) };
    if closed == 0 && !document.is_null() {
        // SAFETY: Closing the stream made these bytes.
        let bytes = unsafe { slice::from_raw_parts(document.cast::<u8>(), len) };
        let end = b"</malloc>";
        let at = bytes.windows(end.len()).rposition(|window| window == end);
        let parts = bytes.split_at_checked(at.unwrap_or(bytes.len()));
        let (head, tail) = parts.unwrap_or((bytes, &[]));
        write(stream, head);
        if at.is_some() && result == 0 {
            let usage = LARGE.usage();
            let text = Text::<MAX_TEXT>::new(format_args!(
                "<freelist>\n<live count=\"{}\" size=\"{}\"/>\n<free size=\"{}\"/>\n\
                 <peak size=\"{}\"/>\n</freelist>\n",
                usage.live_blocks, usage.live_bytes, usage.free_bytes, usage.peak_live
            ));
            write(stream, text.bytes());
        }
        write(stream, tail);
    }
    // SAFETY: The stream's bytes are a block of this process's allocator.
    unsafe { family::free(document.cast::<c_void>()) };
    result
}
