// SPDX-License-Identifier: GPL-2.0

//! The device: open files, calls, mappings, page faults.

mod fault;
pub(crate) mod file;
pub(crate) mod fops;
pub(crate) mod ioctl;
pub(crate) mod mmap;
