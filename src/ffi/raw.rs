// SPDX-License-Identifier: GPL-2.0-only

//! The bindings to C: the structures of the contract, and the helpers of `c/`.

#![allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]

include!(env!("FREELIST_BINDINGS"));
