// SPDX-License-Identifier: GPL-2.0

//! Operations on descriptors that have no wrapper in the crates that are used here.

#![expect(unsafe_code, reason = "bare system calls")]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

fn count(result: isize) -> Result<usize, Errno> {
    Errno::result(result).map(|count| count as usize)
}

/// Calls sendfile() for `len` bytes from the beginning of a file.
pub fn send_file(to: impl AsFd, from: impl AsFd, len: usize) -> Result<usize, Errno> {
    let (to, from) = (to.as_fd().as_raw_fd(), from.as_fd().as_raw_fd());
    let mut offset = 0;
    // SAFETY: The descriptors are open, and the kernel writes the offset alone.
    count(unsafe { libc::sendfile(to, from, &raw mut offset, len) })
}

/// Calls splice() for `len` bytes; one of the two is a pipe.
pub fn splice(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize, Errno> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    // SAFETY: The descriptors are open. Without offsets nothing of ours is accessed.
    count(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, 0) })
}

/// Calls copy_file_range() for `len` bytes.
pub fn copy_range(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize, Errno> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    // SAFETY: As above.
    count(unsafe { libc::copy_file_range(from, ptr::null_mut(), to, ptr::null_mut(), len, 0) })
}

/// Calls fcntl() with a number.
pub fn control(fd: impl AsFd, command: i32, number: i32) -> Result<i32, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: The descriptor is open, and the commands that are used here take numbers alone.
    Errno::result(unsafe { libc::fcntl(fd, command, number) })
}

/// Calls pidfd_getfd(): duplicates a descriptor of another process.
pub fn take_from(pid: Pid, fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: Returns a new descriptor.
    let process = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: It is new, and no other code has it.
    let process = unsafe { OwnedFd::from_raw_fd(process as RawFd) };
    // SAFETY: Returns a new descriptor.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    let taken = Errno::result(taken)?;
    // SAFETY: It is new, and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(taken as RawFd) })
}

/// Calls dup3() of a descriptor to a number that must not be in use: if it succeeds, the number is closed
/// again. Fails with `EBUSY` if a running call has reserved the number, with `EEXIST` if a file has it.
pub fn try_number(fd: impl AsFd, number: RawFd) -> Result<(), Errno> {
    // SAFETY: Asks for the flags of what may be a descriptor.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0 {
        return Err(Errno::EEXIST);
    }
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: The caller's descriptor is open. No owned descriptor of this process has the number; one
    // that gets it at this moment is the copy of a call that the caller expects.
    Errno::result(unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) })?;
    // SAFETY: It was made just now.
    unsafe { libc::close(number) };
    Ok(())
}

/// dup3() of a file to the number of another one, which is closed by that, as threads use the number.
pub fn replace(fd: impl AsFd, number: impl AsFd) -> Result<(), Errno> {
    let (fd, number) = (fd.as_fd().as_raw_fd(), number.as_fd().as_raw_fd());
    // SAFETY: Both are open and stay open: the owner of the number owns an open file before the call and after it.
    Errno::result(unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) }).map(drop)
}
