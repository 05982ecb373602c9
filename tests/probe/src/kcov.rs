// SPDX-License-Identifier: GPL-2.0

//! The points of the module that tasks reach, by KCOV (Documentation/dev-tools/kcov.rst).
//!
//! The compiler puts a call at the beginning of basic blocks; a task that has a [`Buffer`] notes there the
//! address of the call. In the debug kernel only this module has such calls (`KCOV_INSTRUMENT` in its Kbuild).
//! A buffer is for one task at a time, is not inherited, and can be read at any time by any process that has it
//! open.
//!
//! For many tasks, started anywhere, one process opens [`Buffers`] and drains them. Its children inherit them,
//! and each of their tasks that calls [`note`] takes a free one until it ends.

#![expect(unsafe_code, reason = "ioctl() and a buffer that the kernel fills")]

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

/// _IOR('c', 1, unsigned long), _IO('c', 100) and KCOV_TRACE_PC of linux/kcov.h.
const INIT_TRACE: u64 = 0x8008_6301;
const ENABLE: u64 = 0x6364;
const TRACE_PC: u64 = 0;

/// Makes an ioctl with a number.
fn ioctl(file: RawFd, request: u64, number: u64) -> io::Result<()> {
    // SAFETY: These requests of KCOV, and no request of any other file, take a number; a file that
    // does not know them refuses.
    match unsafe { libc::ioctl(file, request, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A buffer in which one task at a time notes the points that it reaches.
///
/// # Invariants
///
/// `entries` is a whole mapping of `file` that this process never undoes.
#[derive(Debug)]
pub struct Buffer {
    file: File,
    /// The entries; the first is the number of the others that are in use.
    entries: &'static [AtomicU64],
}

impl Buffer {
    /// Makes a buffer of `entries` 8-byte entries. Fails with [`io::ErrorKind::NotFound`] if the kernel has no
    /// KCOV, or debugfs is not mounted.
    pub fn new(entries: usize) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/sys/kernel/debug/kcov")?;
        ioctl(file.as_raw_fd(), INIT_TRACE, entries as u64)?;
        // SAFETY: The kernel puts the mapping where nothing of this process lies.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                entries * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: So many words were mapped, at the begin of a page, and stay; the kernel writes to
        // them as to any shared memory, hence atomics.
        let entries = unsafe { slice::from_raw_parts(at.cast(), entries) };
        // INVARIANT: Just mapped whole, and nothing here unmaps.
        Ok(Self { file, entries })
    }

    /// Makes the calling task note its points in this buffer until it ends. Fails if the task has a buffer, or
    /// another task has this one.
    pub fn enable(&self) -> io::Result<()> {
        ioctl(self.file.as_raw_fd(), ENABLE, TRACE_PC)
    }

    /// Passes every noted address to `each`, and clears the buffer. Addresses that a task notes at that time
    /// are not lost, but some may come twice. Returns whether the buffer was full, and so some were lost.
    pub fn drain(&self, mut each: impl FnMut(u64)) -> bool {
        let capacity = self.entries.len() as u64 - 1;
        let count = self.entries[0].load(Ordering::Relaxed).min(capacity);
        for entry in &self.entries[1..=count as usize] {
            each(entry.load(Ordering::Relaxed));
        }
        self.entries[0].store(0, Ordering::Relaxed);
        count == capacity
    }
}

/// The environment variable with the descriptors of the buffers that a process inherits.
const VARIABLE: &str = "FREELIST_KCOV";

/// Buffers for the tasks of child processes.
#[derive(Debug)]
pub struct Buffers(Vec<Buffer>);

impl Buffers {
    /// Makes `count` buffers, for as many tasks at a time, of `entries` entries each. Processes that are
    /// started later inherit them.
    pub fn new(count: usize, entries: usize) -> io::Result<Self> {
        let buffers: Vec<_> = (0..count)
            .map(|_| Buffer::new(entries))
            .collect::<Result<_, _>>()?;
        for buffer in &buffers {
            // SAFETY: Takes a number: no FD_CLOEXEC.
            if unsafe { libc::fcntl(buffer.file.as_raw_fd(), libc::F_SETFD, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self(buffers))
    }

    /// Returns the environment variable, name and value, for a child whose tasks are to note points.
    pub fn variable(&self) -> (&'static str, String) {
        let numbers = self.0.iter().map(|one| one.file.as_raw_fd().to_string());
        (VARIABLE, numbers.collect::<Vec<_>>().join(","))
    }

    /// Drains all buffers. Returns the number of those that were full.
    pub fn drain(&self, mut each: impl FnMut(u64)) -> usize {
        self.0.iter().filter(|one| one.drain(&mut each)).count()
    }
}

/// Takes a free inherited buffer for this task, if there is one. Children do not inherit that: each task has to
/// call this for itself.
pub fn note() {
    let Ok(numbers) = env::var(VARIABLE) else {
        return;
    };
    let mut numbers = numbers.split(',').filter_map(|number| number.parse().ok());
    numbers.any(|number| ioctl(number, ENABLE, TRACE_PC).is_ok());
}
