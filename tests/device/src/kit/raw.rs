// SPDX-License-Identifier: GPL-2.0

//! The calls as C programs make them, and requests with any number.

use std::os::fd::{AsFd, OwnedFd};

use freelist::uapi::{
    freelist_alloc, freelist_bulk, freelist_free, freelist_info, freelist_limit, freelist_stat,
    freelist_trim, FREELIST_IOC_ALLOC, FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE,
    FREELIST_IOC_FREE_BULK, FREELIST_IOC_INFO, FREELIST_IOC_LIMIT, FREELIST_IOC_STAT,
    FREELIST_IOC_TRIM,
};
use freelist::DEVICE;
use nix::errno::Errno;
use nix::fcntl::{open, OFlag};
use nix::sys::stat::Mode;

use super::calls::ioctl;

/// The bits of a request's number, as in asm-generic/ioctl.h.
const SIZE_SHIFT: u32 = 16;
const SIZE_MASK: u32 = (1 << 14) - 1;
const DIRECTION_SHIFT: u32 = 30;
const TYPE_SHIFT: u32 = 8;

/// The largest size that a request's number can encode, in bytes.
pub const LARGEST_SIZE: u32 = SIZE_MASK;

/// Returns the size that `request` encodes, in bytes.
pub fn size(request: u32) -> u32 {
    (request >> SIZE_SHIFT) & SIZE_MASK
}

/// Returns `request` with another size.
pub fn with_size(request: u32, size: u32) -> u32 {
    request & !(SIZE_MASK << SIZE_SHIFT) | (size << SIZE_SHIFT)
}

/// Returns `request` with another direction: 0 none, 1 write, 2 read, 3 both.
pub fn with_direction(request: u32, direction: u32) -> u32 {
    request & !(3 << DIRECTION_SHIFT) | (direction << DIRECTION_SHIFT)
}

/// Returns `request` with another number.
pub fn with_number(request: u32, number: u32) -> u32 {
    request & !0xff | number
}

/// Returns `request` with another type byte.
pub fn with_type(request: u32, kind: u32) -> u32 {
    request & !(0xff << TYPE_SHIFT) | (kind << TYPE_SHIFT)
}

/// The numbers of the calls.
pub const REQUESTS: [u32; 8] = [
    FREELIST_IOC_INFO,
    FREELIST_IOC_ALLOC,
    FREELIST_IOC_FREE,
    FREELIST_IOC_ALLOC_BULK,
    FREELIST_IOC_FREE_BULK,
    FREELIST_IOC_LIMIT,
    FREELIST_IOC_TRIM,
    FREELIST_IOC_STAT,
];

/// Opens a new arena in this mode.
#[track_caller]
pub fn open_as(mode: OFlag) -> OwnedFd {
    open(DEVICE, mode | OFlag::O_CLOEXEC, Mode::empty()).expect("the device opens")
}

/// Calls FREELIST_IOC_INFO.
pub fn info(fd: impl AsFd) -> Result<freelist_info, Errno> {
    let mut answer = freelist_info::default();
    ioctl(fd.as_fd(), FREELIST_IOC_INFO, &mut answer)?;
    Ok(answer)
}

/// Calls FREELIST_IOC_ALLOC with these fields.
pub fn alloc(fd: impl AsFd, mut request: freelist_alloc) -> Result<freelist_alloc, Errno> {
    ioctl(fd.as_fd(), FREELIST_IOC_ALLOC, &mut request)?;
    Ok(request)
}

/// Calls FREELIST_IOC_ALLOC; `request` has the result, even of a call that fails.
pub fn alloc_in(fd: impl AsFd, request: &mut freelist_alloc) -> Result<(), Errno> {
    ioctl(fd.as_fd(), FREELIST_IOC_ALLOC, request).map(drop)
}

/// Calls FREELIST_IOC_FREE.
pub fn free(fd: impl AsFd, offset: u64) -> Result<(), Errno> {
    ioctl(fd.as_fd(), FREELIST_IOC_FREE, &mut freelist_free { offset })?;
    Ok(())
}

/// Calls FREELIST_IOC_ALLOC_BULK with these fields.
pub fn alloc_bulk(fd: impl AsFd, mut request: freelist_bulk) -> Result<freelist_bulk, Errno> {
    ioctl(fd.as_fd(), FREELIST_IOC_ALLOC_BULK, &mut request)?;
    Ok(request)
}

/// Calls FREELIST_IOC_FREE_BULK with these fields.
pub fn free_bulk(fd: impl AsFd, mut request: freelist_bulk) -> Result<freelist_bulk, Errno> {
    ioctl(fd.as_fd(), FREELIST_IOC_FREE_BULK, &mut request)?;
    Ok(request)
}

/// Calls FREELIST_IOC_LIMIT.
pub fn limit(fd: impl AsFd, bytes: u64, span: u64) -> Result<freelist_limit, Errno> {
    let mut request = freelist_limit {
        bytes,
        span,
        ..Default::default()
    };
    ioctl(fd.as_fd(), FREELIST_IOC_LIMIT, &mut request)?;
    Ok(request)
}

/// Calls FREELIST_IOC_TRIM. Returns the bytes that it released.
pub fn trim(fd: impl AsFd, keep_bytes: u64) -> Result<u64, Errno> {
    let mut request = freelist_trim {
        keep_bytes,
        ..Default::default()
    };
    ioctl(fd.as_fd(), FREELIST_IOC_TRIM, &mut request)?;
    Ok(request.freed_bytes)
}

/// Calls FREELIST_IOC_STAT.
pub fn stat(fd: impl AsFd) -> Result<freelist_stat, Errno> {
    let mut answer = freelist_stat::default();
    ioctl(fd.as_fd(), FREELIST_IOC_STAT, &mut answer)?;
    Ok(answer)
}

/// Returns a request for `size` bytes that may split and grow.
pub fn request(size: u64) -> freelist_alloc {
    freelist_alloc {
        size,
        flags: freelist::uapi::FREELIST_DEFAULT,
        ..Default::default()
    }
}
