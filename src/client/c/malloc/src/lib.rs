// SPDX-License-Identifier: MIT OR Apache-2.0

//! `libfreelist_malloc.so`: the malloc family for programs as they are, by `LD_PRELOAD` or linked.
//!
//! Blocks below the threshold are the next allocator's, larger ones the arena's; see
//! [`freelist::malloc`]. What the next allocator alone can answer (an alignment that is none, a size
//! that cannot be) is passed on to it, so that each function fails as it does there. `mallopt()` is
//! not defined here and so is the next allocator's too.
//!
//! Every program that is started with it loads it, so that loading has to cost next to nothing: it
//! is made of Rust's core library, calls few functions of the C library, and is linked into as few
//! mappings and pages as it can be (build.rs).

#![no_std]

mod family;
mod fork;
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

// What libraries begin with otherwise (crtbegin.o) has a name for each of them, by which the C
// library forgets its handlers when it is unloaded. This one is not unloaded.
core::arch::global_asm!(
    ".pushsection .rodata.dso_handle, \"a\"",
    ".balign 8",
    ".globl __dso_handle",
    ".hidden __dso_handle",
    ".type __dso_handle, object",
    ".size __dso_handle, 8",
    "__dso_handle: .quad 0",
    ".popsection"
);

/// Ends the program at a fault of this library. Where panics unwind, Rust's standard library, which
/// other crates of the workspace bring, has a handler.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    freelist::malloc::say(format_args!("{info}"));
    // SAFETY: It takes nothing and does not return.
    unsafe { libc::abort() }
}
