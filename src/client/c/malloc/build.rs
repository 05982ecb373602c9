// SPDX-License-Identifier: MIT OR Apache-2.0

//! Links the library so that loading it costs little, as every program that is started with it does:
//! each mapping, each page that is touched and each function that is looked up counts.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        // What compilers begin libraries with looks up four functions that are of no use here.
        "-nostartfiles",
        // Code and what is only read are one mapping, not three.
        "-Wl,-z,noseparate-code",
        // Its functions call each other without a look-up.
        "-Wl,-Bsymbolic-functions",
        // Threads are in its functions when a program closes it.
        "-Wl,-z,nodelete",
        // Symbols are resolved when it is loaded, not in the middle of a malloc(), and what they
        // are resolved to cannot be written afterwards.
        "-Wl,-z,now,-z,relro",
    ] {
        println!("cargo::rustc-link-arg-cdylib={argument}");
    }
}
