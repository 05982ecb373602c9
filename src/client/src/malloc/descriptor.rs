// SPDX-License-Identifier: MIT OR Apache-2.0

//! The open device in a process whose program does not know of it.
//!
//! Programs close all descriptors that they do not know (daemons; shells before a command), and open
//! files at numbers that they choose. So the device is moved to a number that the program cannot
//! reach: one at or above its soft limit of open files, which only the kernel and `close_range()`
//! pass. If the limit cannot be raised for that moment, or is so large that the kernel's table of
//! open files would grow too much, it is a high number below the limit. Each call's result shows
//! whether the number is still the device: another file fails with `ENOTTY`, a closed number with
//! `EBADF`.

use core::ffi::CStr;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use crate::sys::Errno;

/// The largest soft limit above which the device is put: the kernel copies a table of that many
/// entries at each fork.
const MAX_BEYOND: u64 = 4096;
/// The number at which it is put otherwise, if the limit allows it.
const HIGH: u64 = 1000;

/// Opens the device at a number that the program is not likely to use.
///
/// # Errors
///
/// Those of `open()`.
pub(super) fn open(device: &CStr) -> Result<RawFd, Errno> {
    let file = fs::open(device, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok(hide(file))
}

/// Moves an open file to a number that the program is not likely to use.
pub(super) fn hide(file: OwnedFd) -> RawFd {
    let moved = beyond_limit(&file).or_else(|| below_limit(&file));
    moved.unwrap_or(file).into_raw_fd()
}

/// Where it is put for a fork: in the part of the table of open files that each process has.
const LOW: RawFd = 32;

/// Moves the device to a lower number, with which a fork costs less. Returns its number: the old one if there
/// is no lower one.
pub(super) fn lower(fd: RawFd) -> RawFd {
    // SAFETY: The number is used for this call alone, which the kernel refuses if it is closed.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    match fcntl_dupfd_cloexec(file, LOW) {
        Ok(low) if low.as_raw_fd() < fd => {
            close(fd);
            low.into_raw_fd()
        }
        _ => fd,
    }
}

/// Opens a file for a short time, above the program's soft limit of open files if that is reached.
///
/// # Errors
///
/// Those of `open`.
pub(super) fn with_room(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let result = open();
    let (soft, hard) = soft_and_hard_limit();
    let raised = soft.saturating_add(16).min(hard);
    if result.as_ref().err() != Some(&Errno::MFILE) || raised <= soft {
        return result;
    }
    set_soft_limit(raised)?;
    let result = open();
    let _ = set_soft_limit(soft);
    result
}

fn duplicate(file: &OwnedFd, at_least: u64) -> Option<OwnedFd> {
    fcntl_dupfd_cloexec(file, RawFd::try_from(at_least).ok()?).ok()
}

/// Returns the soft and the hard limit of open files; infinity is the largest number.
fn soft_and_hard_limit() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    (number(limit.current), number(limit.maximum))
}

fn set_soft_limit(soft: u64) -> Result<(), Errno> {
    let limit = Rlimit {
        current: Some(soft),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit)
}

/// Duplicates a file to a number above the program's soft limit, which is raised for that moment.
fn beyond_limit(file: &OwnedFd) -> Option<OwnedFd> {
    let (soft, hard) = soft_and_hard_limit();
    // A few more, as another library may do the same.
    let raised = soft.checked_add(16)?.min(hard);
    if soft > MAX_BEYOND || raised <= soft {
        return None;
    }
    set_soft_limit(raised).ok()?;
    let moved = duplicate(file, soft);
    let _ = set_soft_limit(soft);
    moved
}

/// Duplicates a file to a high number below the soft limit.
fn below_limit(file: &OwnedFd) -> Option<OwnedFd> {
    let (soft, _) = soft_and_hard_limit();
    let high = HIGH.min(soft.saturating_sub(8));
    (high > file.as_raw_fd() as u64)
        .then(|| duplicate(file, high))
        .flatten()
}

/// Closes the device.
pub(super) fn close(fd: RawFd) {
    // SAFETY: The caller got it from `open()` and does not use it again.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_moved_beyond_the_limit_and_the_limit_stays() {
        let before = soft_and_hard_limit();
        let fd = open(c"/dev/null").unwrap();
        assert_eq!(soft_and_hard_limit(), before);
        let (soft, hard) = before;
        if soft <= MAX_BEYOND && soft < hard {
            assert!(fd as u64 >= soft, "{fd} below {soft}");
        } else {
            assert!(fd as u64 >= HIGH.min(soft.saturating_sub(8)));
        }
        close(fd);
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        assert_eq!(open(c"/nonexistent"), Err(Errno::NOENT));
    }
}
