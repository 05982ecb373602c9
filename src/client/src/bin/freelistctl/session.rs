// SPDX-License-Identifier: GPL-2.0

//! Which kernel and which module a session ran on.

use std::fs;

/// The kernel and the module, as people name them.
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

/// The module's version where it has one, else its source's checksum.
fn module() -> String {
    let attribute = |name: &str| {
        let text = fs::read_to_string(format!("/sys/module/freelist/{name}")).ok()?;
        Some(text.trim().to_owned())
    };
    match (attribute("version"), attribute("srcversion")) {
        (Some(version), _) => format!("freelist {version}"),
        (None, Some(sources)) => format!("freelist (srcversion {sources})"),
        (None, None) if fs::exists("/sys/module/freelist").unwrap_or(false) => {
            "freelist".to_owned()
        }
        (None, None) => "freelist is not loaded".to_owned(),
    }
}
