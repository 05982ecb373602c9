// SPDX-License-Identifier: MIT OR Apache-2.0

//! Links the library so that loading it costs little, as every program that is started with it loads it: each
//! mapping, each page that is touched and each symbol that is looked up counts.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        // The usual startup files look up four functions that are of no use here.
        "-nostartfiles",
        // Code and constants are one mapping, not three.
        "-Wl,-z,noseparate-code",
        // Its functions call each other without a symbol look-up.
        "-Wl,-Bsymbolic-functions",
        // It is never unloaded: when a program closes it, threads may be in its functions.
        "-Wl,-z,nodelete",
        // Symbols are resolved when it is loaded, not in the middle of a malloc(), and their
        // addresses are read-only afterwards.
        "-Wl,-z,now,-z,relro",
    ] {
        println!("cargo::rustc-link-arg-cdylib={argument}");
    }
}
