// SPDX-License-Identifier: GPL-2.0

//! Links the unwinder statically: every program that is started with the library would have to
//! load libgcc_s.so too.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-lib=dylib=gcc_eh");
}
