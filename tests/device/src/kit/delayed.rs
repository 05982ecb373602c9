// SPDX-License-Identifier: GPL-2.0

//! Memory that a test provides late (userfaultfd): a system call that touches it waits until then.

use std::ops::Range;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::calls::ioctl_at;
use super::process::userfaultfd;
use super::view::Address;
use super::{system_page, View};
use crate::harness::skip;

/// The calls of linux/userfaultfd.h.
const API: u32 = 0xc018_aa3f;
const REGISTER: u32 = 0xc020_aa00;
const COPY: u32 = 0xc028_aa03;
const WAKE: u32 = 0x8010_aa02;
/// The mode in which the descriptor serves missing pages.
const MISSING: u64 = 1;
/// The bytes of an event.
const EVENT: usize = 32;

/// Makes the structure of a call: numbers of 8 bytes.
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
    /// Makes such a page, or skips the test if the kernel cannot.
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

    /// Returns the address of its byte `at`.
    pub fn address(&self, at: usize) -> Address {
        self.view.address(at)
    }

    /// Waits until a thread touches it.
    pub fn await_touch(&self) {
        let mut event = [0; EVENT];
        let read = nix::unistd::read(&self.faults, &mut event);
        assert_eq!(read, Ok(EVENT), "an event");
    }

    /// Provides its memory, which begins with `bytes`: a call that waits for it continues.
    pub fn provide(&self, bytes: &[u8]) {
        let (page, from) = (system_page(), View::anonymous(system_page()));
        from.set_bytes(0, bytes);
        let (to, from) = (self.address(0).get() as u64, from.address(0).get() as u64);
        let provided = self.call(COPY, &[to, from, page as u64, 0, 0]);
        provided.expect("UFFDIO_COPY");
    }

    /// Unmaps it: a call that waits for it fails.
    pub fn take_away(&mut self) {
        let start = self.address(0).get() as u64;
        // Before the hole exists, in which the structure could be mapped.
        let range = argument(&[start, system_page() as u64]);
        self.view.unmap(0..system_page()).expect("munmap");
        let woken = ioctl_at(&self.faults, WAKE, range.address(0));
        woken.expect("UFFDIO_WAKE");
    }

    /// Returns its bytes in `range`, once they are there.
    pub fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        self.view.bytes(range.start, range.len())
    }
}
