// SPDX-License-Identifier: GPL-2.0

//! The engine of the module, from the same files, as a crate of the host.
//!
//! [`host`] replaces the kernel: pages that are counted, and metadata from the heap.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[path = "../../../src/engine/mod.rs"]
pub mod engine;

pub mod copy;
pub mod host;
pub mod trace;
