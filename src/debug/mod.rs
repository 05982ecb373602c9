// SPDX-License-Identifier: GPL-2.0

//! What is shown and measured of the arenas.

#[cfg(freelist_bench)]
pub(crate) mod baseline;
#[cfg(freelist_bench)]
pub(crate) mod bench;
pub(crate) mod show;
