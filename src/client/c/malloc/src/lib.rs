// SPDX-License-Identifier: MIT OR Apache-2.0

//! `libfreelist_malloc.so`: the malloc family for unchanged programs, by `LD_PRELOAD` or linked.
//!
//! The next allocator has the blocks below the threshold, the arena the larger ones; see
//! [`freelist::malloc`]. A call that only the next allocator can judge (an invalid alignment, an
//! impossible size) is passed on to it, so each function fails as it does there. `mallopt()` is not
//! defined here, and so is the next allocator's too.
//!
//! Every program that is started with the library loads it, so loading has to cost almost nothing: it
//! is made of Rust's core library, calls few functions of the C library, and is linked into few
//! mappings and pages (build.rs).

#![no_std]

mod family;
mod fork;
mod info;
mod next;

use freelist::malloc::LARGE;

/// Usually runs before the program's own constructors: reads the environment before the program can
/// change it, and registers the handlers of forks before any other library does.
extern "C" fn prepare() {
    LARGE.prepare();
}

#[used]
#[link_section = ".init_array"]
static PREPARE: extern "C" fn() = prepare;

// The usual startup file (crtbegin.o) has such a symbol in each library, by which the C library removes
// the library's handlers when it is unloaded. This one is not unloaded.
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
/// other crates of the workspace link, has a handler.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    freelist::malloc::say(format_args!("{info}"));
    // SAFETY: It has no arguments and does not return.
    unsafe { libc::abort() }
}
