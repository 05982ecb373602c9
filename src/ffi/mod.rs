// SPDX-License-Identifier: GPL-2.0-only

//! Safe wrappers of the kernel's C that the kernel crate lacks. They know no pages.

#![deny(unsafe_code)]

#[expect(unsafe_code)]
pub(crate) mod char_device;
#[expect(unsafe_code)]
pub(crate) mod debugfs;
pub(crate) mod errno;
#[expect(unsafe_code)]
pub(crate) mod nospec;
#[expect(unsafe_code)]
pub(crate) mod operations;
#[expect(unsafe_code)]
pub(crate) mod poll_queue;
pub(crate) mod race_point;
#[expect(unsafe_code)]
pub(crate) mod random;
#[expect(unsafe_code)]
pub(crate) mod raw;
#[expect(unsafe_code)]
pub(crate) mod task;
#[expect(unsafe_code)]
pub(crate) mod trace;
#[expect(unsafe_code)]
pub(crate) mod uaccess;
