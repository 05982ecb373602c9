// SPDX-License-Identifier: GPL-2.0

//! Runs unchanged programs under freelist and under other allocators, and records what each held.
//!
//! The program `freelist-demo` runs in a VM and prints records, a line of JSON each;
//! `freelist-report demo` makes the table and the plots of them.

pub mod allocator;
pub mod record;
pub mod workload;
