// SPDX-License-Identifier: MIT OR Apache-2.0

//! The contract's structures and numbers, made from `src/uapi/freelist.h`.
//!
//! What they mean is said in that header. [`crate::Arena`] is the way to use
//! them; tests and tools that need the bare calls find them here.

#![expect(missing_docs, reason = "the header documents every field")]
#![expect(
    non_camel_case_types,
    reason = "the names of the contract are those of C"
)]

include!(concat!(env!("OUT_DIR"), "/uapi.rs"));
