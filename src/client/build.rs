// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes the Rust side of the contract from its C header, so that no structure
//! and no number is written twice.

use std::env;
use std::path::PathBuf;

/// Macros whose values bindgen cannot evaluate by itself, because a `sizeof` or
/// a cast is in them, with their types. The compiler evaluates them as the value
/// of a constant.
const MACROS: &[(&str, &str)] = &[
    ("__u32", "FREELIST_IOC_INFO"),
    ("__u32", "FREELIST_IOC_ALLOC"),
    ("__u32", "FREELIST_IOC_FREE"),
    ("__u32", "FREELIST_IOC_ALLOC_BULK"),
    ("__u32", "FREELIST_IOC_FREE_BULK"),
    ("__u32", "FREELIST_IOC_LIMIT"),
    ("__u32", "FREELIST_IOC_TRIM"),
    ("__u32", "FREELIST_IOC_STAT"),
    ("__u32", "FREELIST_IOC_RESIZE"),
    ("__u32", "FREELIST_IOC_DISCARD"),
    ("__u32", "FREELIST_IOC_CLONE"),
    ("__u64", "FREELIST_FEATURE_ALIGN"),
    ("__u64", "FREELIST_FEATURE_RESIZE"),
    ("__u64", "FREELIST_FEATURE_SLACK"),
    ("__u64", "FREELIST_FEATURE_MOVED"),
    ("__u64", "FREELIST_FEATURE_HUGE"),
    ("__u64", "FREELIST_FEATURE_DISCARD"),
    ("__u64", "FREELIST_FEATURE_CLONE"),
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
    for (kind, name) in MACROS {
        // Taken as a constant under the macro's own name.
        wrapper += &format!(
            "static const {kind} {name}_ = {name};\n#undef {name}\nstatic const {kind} {name} = {name}_;\n"
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
