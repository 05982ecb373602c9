// SPDX-License-Identifier: GPL-2.0

//! The calls on a program's mappings.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::PoisonError;

use super::{Buffer, Machine, PAGE, PLACES, PLACE_LEN, WORDS};

impl Machine {
    /// Maps a file at one of the places.
    pub(super) fn map_file(&self, file: i32, count: usize, [_, b, c, d]: [u64; 4]) {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let prot = match d % 16 {
            0 => libc::PROT_READ,
            1 => libc::PROT_READ | libc::PROT_EXEC,
            _ => both,
        };
        let flags = match d % 32 {
            2 => libc::MAP_PRIVATE,
            3 => libc::MAP_SHARED | libc::MAP_POPULATE,
            4 => libc::MAP_SHARED | libc::MAP_LOCKED,
            _ => 0,
        };
        let len = if d % 4 == 0 { count * PAGE } else { PLACE_LEN };
        self.map(
            b as usize % PLACES,
            file,
            len,
            c % 64 * PAGE as u64,
            prot,
            flags,
        );
    }

    /// Moves the mapping at `at` to another place, or copies it there.
    pub(super) fn remap(&self, at: usize, part_len: usize, [_, b, c, d]: [u64; 4]) {
        let to = self.base + d as usize % PLACES * PLACE_LEN;
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let flags = if b % 4 == 0 {
            fixed | libc::MREMAP_DONTUNMAP
        } else {
            fixed
        };
        let new = if c % 4 == 0 { part_len } else { PLACE_LEN };
        if to != at {
            let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: Both ranges are ours (type invariant), and nothing in them is known
            // to Rust.
            let to = unsafe { libc::mremap(at as *mut c_void, new, new, flags, to as *mut c_void) };
            if to != libc::MAP_FAILED {
                self.cover(at, new);
            }
        }
    }

    /// Has the kernel copy from or to a part, with faults like a program's: it returns EFAULT instead of SIGBUS.
    pub(super) fn touch(&self, part: usize, part_len: usize, d: u64) {
        // SAFETY: By the type's invariant no other code uses the range, and Rust has no object in it; the names
        // end in 0.
        unsafe {
            if d % 4 == 0 {
                libc::pwrite(self.memory, part as *const c_void, part_len, 0);
            } else {
                let zero = libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY);
                libc::read(zero, part as *mut c_void, part_len);
                libc::close(zero);
            }
        }
    }
}

/// Advises the kernel about pages, by any advice but the two that poison them, which would remove the pages
/// from the whole machine.
///
/// # Safety
///
/// No other code uses the range, and Rust has no object in it.
pub(super) unsafe fn advise(part: usize, part_len: usize, d: u64) {
    let advice = [d % 26, 100 + d % 6][usize::from(d % 7 == 0)];
    if !(100..102).contains(&advice) {
        // SAFETY: By the caller's promise.
        unsafe { libc::madvise(part as *mut c_void, part_len, advice as i32) };
    }
}

/// Has the kernel look pages up, as for debuggers, to read or to write them.
///
/// # Safety
///
/// The range belongs to a [`Machine`], and nothing in it is known to Rust.
pub(super) unsafe fn look_up(is_read: bool, part: usize, part_len: usize) {
    let buffer = Buffer(UnsafeCell::new([0; WORDS]));
    let len = part_len.min(WORDS * 8);
    let local = libc::iovec {
        iov_base: buffer.0.get().cast(),
        iov_len: len,
    };
    let remote = libc::iovec {
        iov_base: part as *mut c_void,
        iov_len: len,
    };
    let copy = if is_read {
        libc::process_vm_readv
    } else {
        libc::process_vm_writev
    };
    // SAFETY: `buffer` is as long, and the part is ours, and nothing in it known to Rust.
    unsafe { copy(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
}
