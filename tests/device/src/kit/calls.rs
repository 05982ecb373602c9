// SPDX-License-Identifier: GPL-2.0

//! System calls with any pointer, and the structures of the contract as bytes.

#![expect(unsafe_code, reason = "bare system calls")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use freelist::uapi;
use nix::errno::Errno;

use super::view::{Address, View};

/// Calls read() for `len` bytes to an address.
pub fn read_to(fd: impl AsFd, to: Address, len: usize) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: The kernel answers EFAULT if it cannot write. At an `Address` there is a `View`, whose
    // accesses expect any value, or no memory.
    let got = unsafe { libc::read(fd, to.get() as *mut _, len) };
    Errno::result(got).map(|got| got as usize)
}

/// Calls vmsplice() for `len` bytes at an address into a pipe, which then refers to their pages.
pub fn splice_from(pipe: impl AsFd, from: Address, len: usize) -> Result<usize, Errno> {
    let fd = pipe.as_fd().as_raw_fd();
    let bytes = libc::iovec {
        iov_base: from.get() as *mut _,
        iov_len: len,
    };
    // SAFETY: The kernel only refers to the pages, and answers EFAULT if there are none.
    let spliced = unsafe { libc::vmsplice(fd, &raw const bytes, 1, 0) };
    Errno::result(spliced).map(|spliced| spliced as usize)
}

/// Calls write() for `len` bytes at an address.
pub fn write_from(fd: impl AsFd, from: Address, len: usize) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: The kernel only reads, and answers EFAULT if it cannot.
    let written = unsafe { libc::write(fd, from.get() as *const _, len) };
    Errno::result(written).map(|written| written as usize)
}

/// Calls ioctl() with any pointer.
pub fn ioctl_at(fd: impl AsFd, request: u32, at: Address) -> Result<i32, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: A driver accesses at most the bytes that the request's number encodes, less than 16 KiB.
    // These are in a `View`, whose accesses expect any value, or after the end of an anonymous one, after
    // which at least as many bytes cannot be accessed.
    Errno::result(unsafe { libc::ioctl(fd, request as _, at.get()) })
}

/// A structure of the contract: plain numbers without padding (the test of the C header checks the layout).
pub trait Plain: Copy {
    /// Returns its bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// Makes a value from the first bytes of `bytes`.
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Plain for $type {
            fn to_bytes(&self) -> Vec<u8> {
                // SAFETY: The structure has no padding, and any byte is a u8.
                unsafe {
                    std::slice::from_raw_parts(ptr::from_ref(self).cast(), size_of::<Self>())
                }
                .to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Self {
                assert!(bytes.len() >= size_of::<Self>(), "too few bytes");
                // SAFETY: There are enough bytes, and any bytes are integers.
                unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) }
            }
        }
    )*};
}

plain!(
    uapi::freelist_info,
    uapi::freelist_alloc,
    uapi::freelist_free,
    uapi::freelist_bulk,
    uapi::freelist_limit,
    uapi::freelist_trim,
    uapi::freelist_resize,
    uapi::freelist_discard,
    uapi::freelist_clone,
    uapi::freelist_stat
);

/// Calls ioctl() with a structure, as C programs do: the result is in the structure, even of a call that fails.
pub fn ioctl<T: Plain>(fd: BorrowedFd<'_>, request: u32, with: &mut T) -> Result<i32, Errno> {
    // The structure ends where the accessible range ends.
    let view = View::anonymous(size_of::<T>());
    let at = view.len() - size_of::<T>();
    view.set_bytes(at, &with.to_bytes());
    let result = ioctl_at(fd, request, view.address(at));
    *with = T::from_bytes(&view.bytes(at, size_of::<T>()));
    result
}
