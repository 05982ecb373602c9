// SPDX-License-Identifier: GPL-2.0

//! Memory that comes when a test says so (userfaultfd): a system call that touches it waits until then.

use std::ops::Range;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::process::userfaultfd;
use super::view::{ioctl_at, Address};
use super::{system_page, View};
use crate::harness::skip;

/// Calls of linux/userfaultfd.h.
const API: u32 = 0xc018_aa3f;
const REGISTER: u32 = 0xc020_aa00;
const COPY: u32 = 0xc028_aa03;
const WAKE: u32 = 0x8010_aa02;
/// Pages that are missing are served by the descriptor.
const MISSING: u64 = 1;
/// Bytes of an event.
const EVENT: usize = 32;

/// The structure of a call: numbers of 8 bytes.
fn argument(words: &[u64]) -> View {
    let view = View::anonymous(words.len() * 8);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    view.set_bytes(0, &bytes);
    view
}

/// A page of this process without memory.
pub struct Delayed {
    faults: OwnedFd,
    view: View,
}

impl Delayed {
    /// Makes one, or skips the test where the kernel cannot.
    pub fn new() -> Self {
        let Some(faults) = userfaultfd() else {
            skip("this kernel has no userfaultfd");
        };
        let view = View::anonymous(system_page());
        let this = Self { faults, view };
        this.call(API, &[0xaa, 0, 0]).expect("UFFDIO_API");
        let (start, len) = (this.address(0).get() as u64, system_page() as u64);
        let registered = this.call(REGISTER, &[start, len, MISSING, 0]);
        registered.expect("UFFDIO_REGISTER");
        this
    }

    fn call(&self, request: u32, words: &[u64]) -> Result<i32, Errno> {
        ioctl_at(&self.faults, request, argument(words).address(0))
    }

    /// The address of byte `at` of it.
    pub fn address(&self, at: usize) -> Address {
        self.view.address(at)
    }

    /// Waits until it is touched.
    pub fn await_touch(&self) {
        let mut event = [0; EVENT];
        let read = nix::unistd::read(&self.faults, &mut event);
        assert_eq!(read, Ok(EVENT), "an event");
    }

    /// Its memory comes, and begins with `bytes`: what waits for it goes on.
    pub fn bring(&self, bytes: &[u8]) {
        let (page, from) = (system_page(), View::anonymous(system_page()));
        from.set_bytes(0, bytes);
        let (to, from) = (self.address(0).get() as u64, from.address(0).get() as u64);
        let brought = self.call(COPY, &[to, from, page as u64, 0, 0]);
        brought.expect("UFFDIO_COPY");
    }

    /// It is unmapped: what waits for it fails.
    pub fn take_away(&mut self) {
        let start = self.address(0).get() as u64;
        // Before there is a hole that it could come to lie in.
        let range = argument(&[start, system_page() as u64]);
        self.view.unmap(0..system_page()).expect("munmap");
        let woken = ioctl_at(&self.faults, WAKE, range.address(0));
        woken.expect("UFFDIO_WAKE");
    }

    /// The bytes that it has in `range`, once they are there.
    pub fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        self.view.bytes(range.start, range.len())
    }
}
