// SPDX-License-Identifier: MIT OR Apache-2.0

//! Safe access to `/dev/freelist`. `unsafe` is in `sys`, `heap` and `malloc` alone, and in the C library
//! (`client/c`).
//!
//! An [`Arena`] is one open of the device: an address space of offsets, in
//! bytes, from which it hands out [`Block`]s. A [`Mapping`] shows a part of
//! that address space as memory.
//!
//! ```no_run
//! use freelist::{Arena, Flags};
//!
//! let arena = Arena::open()?;
//! let block = arena.alloc(3 << 20, Flags::DEFAULT)?;
//! let memory = arena.map(arena.info()?.arena_bytes)?;
//! memory.write(block.offset, b"hello")?;
//! arena.free(block.offset)?;
//! # Ok::<(), freelist::Error>(())
//! ```
//!
//! All of that may sleep in the kernel, and keeps no state beside the open file.
//!
//! A [`Heap`] is an allocator over an arena of its own, with a cache a thread.
//! [`Global`] is the allocator of a whole program: the system allocator serves small
//! blocks, an arena serves large ones.
//!
//! | module | is |
//! | --- | --- |
//! | `uapi` | the contract's structures and numbers, made from its header |
//! | `sys`, `sync` | the system calls; locks and atomics |
//! | `arena`, `flags`, `mapping`, `timeout`, `error` | the calls, for a program |
//! | `heap` | the allocator over an arena, small blocks too |
//! | `malloc` | the large blocks of a whole process, above another allocator |
//! | `debugfs` | the module's statistics, parsed |
//! | `fdinfo` | the arenas of processes, without root |
//! | `trace` | recorded allocation traces, parsed (feature `trace`) |
//! | `size` | sizes as people write them |
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `std` | yes | all but `malloc`, `size` and `uapi`, which need Rust's core library alone, so that a library that every program loads can use them |
//! | `trace` | no | the module `trace`; with `std`, and a decompressor |
//! | `ctl` | no | the command `freelistctl`; with `trace`, and the crates of a command line |
//!
//! # Examples
//!
//! In `examples/`: `arena`, `heap` and `global`, each a program for `cargo run --example NAME`. They need the
//! module and permission to open the device.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "std")]
mod arena;
#[cfg(feature = "std")]
pub mod debugfs;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
pub mod fdinfo;
#[cfg(feature = "std")]
mod flags;
#[cfg(feature = "std")]
mod heap;
pub mod malloc;
#[cfg(feature = "std")]
mod mapping;
pub mod size;
mod sync;
mod sys;
#[cfg(feature = "std")]
mod timeout;
#[cfg(feature = "trace")]
pub mod trace;
pub mod uapi;

#[cfg(feature = "std")]
pub use arena::{Arena, Block, DEVICE};
#[cfg(feature = "std")]
pub use error::{Call, Error, Result};
#[cfg(feature = "std")]
pub use flags::{Features, Flags};
#[cfg(feature = "std")]
pub use heap::{Buffer, Heap, Slice};
#[cfg(feature = "std")]
pub use malloc::Global;
#[cfg(feature = "std")]
pub use mapping::Mapping;
#[cfg(feature = "std")]
pub use timeout::Timeout;
pub use uapi::{freelist_info as Info, freelist_limit as Limit, freelist_stat as Stat};

/// Compiles the examples of README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
