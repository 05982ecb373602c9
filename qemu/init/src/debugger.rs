// SPDX-License-Identifier: GPL-2.0

//! Waits for a debugger that attaches before the command runs.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{Read, Write};

use crate::ports;

/// The directory in which the kernel shows the addresses of the module's sections.
const SECTIONS: &str = "/sys/module/freelist/sections";

/// Writes the sections of the module to the host, a name and an address a line and an empty line at the
/// end. Then waits for a byte from the host, which is sent when a debugger lets the guest continue.
pub fn wait_for_one() -> Result<()> {
    let mut port = ports::open_with("symbols", File::options().read(true).write(true))?;
    let mut lines = String::new();
    for section in fs::read_dir(SECTIONS).context(SECTIONS)? {
        let section = section?;
        let address = fs::read_to_string(section.path())?;
        lines += &format!(
            "{} {}\n",
            section.file_name().to_string_lossy(),
            address.trim()
        );
    }
    lines.push('\n');
    port.write_all(lines.as_bytes())?;
    port.read_exact(&mut [0])?;
    Ok(())
}
