// SPDX-License-Identifier: GPL-2.0

//! KUnit suites: the arena and what is below it, in the kernel, where memory is real. The engine by
//! itself is tested on the host, with a model.

#![deny(unsafe_code)]

mod arena;
