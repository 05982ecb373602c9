// SPDX-License-Identifier: GPL-2.0

//! Pages that the kernel pins for a program: registered buffers of io_uring.

#![expect(unsafe_code, reason = "the kernel accesses the memory")]

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{opcode, squeue, types, IoUring};
use nix::errno::Errno;

use super::View;

/// A view whose pages are pinned.
pub struct Pinned<'a> {
    ring: IoUring,
    view: &'a View,
}

impl<'a> Pinned<'a> {
    /// Pins the pages of `view`.
    pub fn new(view: &'a View) -> Result<Self, Errno> {
        let ring = IoUring::new(1).map_err(errno)?;
        let buffer = libc::iovec {
            iov_base: view.address(0).get() as *mut _,
            iov_len: view.len(),
        };
        // SAFETY: Only the entries of `run()` use the buffer, whose memory expects any value, and none is
        // pending when `ring` is dropped.
        unsafe { ring.submitter().register_buffers(&[buffer]) }.map_err(errno)?;
        Ok(Self { ring, view })
    }

    /// Writes these bytes of the pages to a file that has no position.
    pub fn write_to(&mut self, to: impl AsFd, bytes: Range<usize>) -> Result<usize, Errno> {
        let fd = types::Fd(to.as_fd().as_raw_fd());
        let from = self.view.address(bytes.start).get() as *const u8;
        let entry = opcode::WriteFixed::new(fd, from, bytes.len() as u32, 0);
        self.run(&entry.build())
    }

    /// Reads from a file that has no position into these bytes of the pages.
    pub fn read_from(&mut self, from: impl AsFd, bytes: Range<usize>) -> Result<usize, Errno> {
        let fd = types::Fd(from.as_fd().as_raw_fd());
        let to = self.view.address(bytes.start).get() as *mut u8;
        let entry = opcode::ReadFixed::new(fd, to, bytes.len() as u32, 0);
        self.run(&entry.build())
    }

    fn run(&mut self, entry: &squeue::Entry) -> Result<usize, Errno> {
        // SAFETY: The descriptor and the buffer exist until this call returns, after the entry has completed.
        unsafe { self.ring.submission().push(entry) }.expect("the queue is empty");
        self.ring.submit_and_wait(1).map_err(errno)?;
        let result = self
            .ring
            .completion()
            .next()
            .expect("an entry has completed");
        usize::try_from(result.result()).map_err(|_| Errno::from_raw(-result.result()))
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}
