// SPDX-License-Identifier: GPL-2.0

//! What the module needs of C, made safe: knows no pages.

pub(crate) mod debugfs;
pub(crate) mod errno;
pub(crate) mod nospec;
pub(crate) mod operations;
pub(crate) mod poll_queue;
pub(crate) mod race_point;
pub(crate) mod random;
pub(crate) mod raw;
pub(crate) mod task;
pub(crate) mod uaccess;
