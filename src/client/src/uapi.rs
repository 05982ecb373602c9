// SPDX-License-Identifier: MIT OR Apache-2.0

//! The contract's structures and numbers, made from the header `freelist.h`.
//!
//! The header documents them. Programs use [`crate::Arena`]; tests and tools that need the bare calls find
//! them here.

#![expect(missing_docs, reason = "each structure documents its fields")]
#![expect(
    non_camel_case_types,
    reason = "the names of the contract are those of C"
)]

include!("uapi_generated.rs");
