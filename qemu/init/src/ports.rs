// SPDX-License-Identifier: GPL-2.0

//! The virtio ports to the host, by the names that QEMU gave them.

use anyhow::{bail, Result};
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const PORTS: &str = "/sys/class/virtio-ports";

/// The longest wait for a port to appear: its name comes in a message of its own.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens a port for writing. Fails if it does not appear in time.
pub fn open(name: &str) -> Result<File> {
    open_with(name, File::options().write(true))
}

/// Opens the port of that name with these options.
pub fn open_with(name: &str, options: &OpenOptions) -> Result<File> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(device) = find(name) {
            return Ok(options.open(device)?);
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("there is no port {name}")
}

fn find(name: &str) -> Option<PathBuf> {
    fs::read_dir(PORTS).ok()?.flatten().find_map(|port| {
        let its_name = fs::read_to_string(port.path().join("name")).ok()?;
        let device = PathBuf::from("/dev").join(port.file_name());
        (its_name.trim_end() == name && device.exists()).then_some(device)
    })
}
