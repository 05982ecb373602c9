// SPDX-License-Identifier: GPL-2.0

//! The engine of the module, the very same files, as a crate of the host.
//!
//! [`host`] is what the kernel is to it there: pages that are counted, and metadata from the heap.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[path = "../../../src/engine/mod.rs"]
pub mod engine;

pub mod copy;
pub mod host;
