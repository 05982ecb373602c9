// SPDX-License-Identifier: GPL-2.0-only

//! debugfs: the state of all arenas, and measurements of the module.

#![deny(unsafe_code)]

#[cfg(freelist_bench)]
#[expect(unsafe_code)]
mod baseline;
#[cfg(freelist_bench)]
mod bench;
#[cfg(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y"))]
mod check;
pub(crate) mod files;
pub(crate) mod show;
