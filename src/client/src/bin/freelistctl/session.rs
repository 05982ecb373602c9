// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel and the module of a session.

use std::fs;

/// The kernel and the module, as printed.
pub(crate) struct Identity {
    pub(crate) kernel: String,
    pub(crate) module: String,
}

impl Identity {
    pub(crate) fn read() -> Self {
        let kernel = match nix::sys::utsname::uname() {
            Ok(name) => format!(
                "{} {} ({})",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy(),
                name.machine().to_string_lossy()
            ),
            Err(_) => "unknown".to_owned(),
        };
        Self {
            kernel,
            module: module(),
        }
    }
}

/// Returns the module with its version, its source's checksum or its size in memory, whichever the kernel has
/// first.
pub(crate) fn module() -> String {
    let attribute = |name: &str| {
        let text = fs::read_to_string(format!("/sys/module/freelist/{name}")).ok()?;
        Some(text.trim().to_owned())
    };
    if let Some(version) = attribute("version") {
        format!("freelist {version}")
    } else if let Some(sources) = attribute("srcversion") {
        format!("freelist (srcversion {sources})")
    } else if let Some(bytes) = attribute("coresize") {
        format!("freelist ({bytes} bytes)")
    } else {
        "freelist, as part of the kernel or not loaded".to_owned()
    }
}
