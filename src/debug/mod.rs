// SPDX-License-Identifier: GPL-2.0-only

//! What is shown and measured of the arenas.

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
