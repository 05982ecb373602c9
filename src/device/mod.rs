// SPDX-License-Identifier: GPL-2.0-only

//! The device: open files, calls, mappings, page faults.

#![deny(unsafe_code)]

#[expect(unsafe_code)]
mod clone;
#[expect(unsafe_code)]
mod fault;
#[expect(unsafe_code)]
pub(crate) mod file;
#[expect(unsafe_code)]
pub(crate) mod fops;
pub(crate) mod ioctl;
#[expect(unsafe_code)]
pub(crate) mod mmap;
