// SPDX-License-Identifier: GPL-2.0

//! `libfreelist_malloc.so`: the malloc family for programs as they are, by `LD_PRELOAD` or linked.
//!
//! Blocks below the threshold are the next allocator's, larger ones the arena's; see
//! [`freelist::malloc`]. What the next allocator alone can answer (an alignment that is none, a size
//! that cannot be) is passed on to it, so that each function fails as it does there. `mallopt()` is
//! not defined here and so is the next allocator's too.

mod family;
mod info;
mod next;

use freelist::malloc::LARGE;

/// Runs before the program's own constructors, as a rule: reads the environment while it is as the
/// program was given it, and asks to be called around forks before any other library does.
extern "C" fn prepare() {
    LARGE.prepare();
}

#[used]
#[link_section = ".init_array"]
static PREPARE: extern "C" fn() = prepare;

extern "C" {
    /// The unwinder's, of libgcc_eh.a, which build.rs names.
    fn _Unwind_Resume();
}

/// A reference that comes before those of Rust's own library, so that the linker takes the static
/// one and needs no shared one. Nothing here unwinds.
#[used]
static UNWINDER: unsafe extern "C" fn() = _Unwind_Resume;
