// SPDX-License-Identifier: GPL-2.0

//! How the session ended, for `scripts/vm`.

use anyhow::Result;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::ports;

/// One line on the port `verdict`. No line means that the kernel went down.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The command's exit status, 128 + N where signal N killed it.
    Exit(i32),
    /// What went wrong outside the command.
    Error(String),
}

impl Verdict {
    /// Tells the host.
    pub fn report(&self) -> Result<()> {
        let line = match self {
            Verdict::Exit(status) => format!("exit {status}\n"),
            Verdict::Error(text) => format!("error {}\n", text.replace('\n', "\\n")),
        };
        Ok(ports::open("verdict")?.write_all(line.as_bytes())?)
    }
}

impl From<ExitStatus> for Verdict {
    fn from(status: ExitStatus) -> Self {
        let by_signal = || 128 + status.signal().unwrap_or_default();
        Verdict::Exit(status.code().unwrap_or_else(by_signal))
    }
}
