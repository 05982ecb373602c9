// SPDX-License-Identifier: GPL-2.0

//! Makes the Rust side of the contract from its C header, so that no structure
//! and no number is written twice.

use std::env;
use std::path::PathBuf;

/// Macros whose values bindgen cannot evaluate by itself, because `sizeof` is
/// in them. The compiler evaluates them as the value of a constant.
const REQUESTS: [&str; 9] = [
    "FREELIST_IOC_INFO",
    "FREELIST_IOC_ALLOC",
    "FREELIST_IOC_FREE",
    "FREELIST_IOC_ALLOC_BULK",
    "FREELIST_IOC_FREE_BULK",
    "FREELIST_IOC_LIMIT",
    "FREELIST_IOC_TRIM",
    "FREELIST_IOC_STAT",
    "FREELIST_IOC_RESIZE",
];

fn main() {
    // A link to src/uapi/freelist.h; in a package, its content.
    let header = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("freelist.h")
        .canonicalize()
        .expect("freelist.h lies in the package, as a link to src/uapi/freelist.h in a clone");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", header.display());

    let mut wrapper = format!("#include \"{}\"\n", header.display());
    for name in REQUESTS {
        // Taken as a constant under the macro's own name.
        wrapper += &format!(
            "static const __u32 {name}_ = {name};\n#undef {name}\nstatic const __u32 {name} = {name}_;\n"
        );
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("uapi.rs");
    bindgen::Builder::default()
        .header_contents("freelist_uapi.h", &wrapper)
        .allowlist_item("(freelist|FREELIST)_.*")
        .blocklist_item("_UAPI_.*|.*_$")
        .derive_default(true)
        .derive_eq(true)
        .use_core()
        .generate()
        .expect("bindgen reads src/uapi/freelist.h (needs libclang)")
        .write_to_file(out)
        .expect("OUT_DIR is writable");
}
