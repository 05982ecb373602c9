// SPDX-License-Identifier: GPL-2.0

//! The verdict: how the session ended, for `scripts/vm`.

use anyhow::Result;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::ports;

/// The result of a session: one line on the port `verdict`. Without a line the kernel has crashed.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The exit status of the command, or 128 + N if signal N killed it.
    Exit(i32),
    /// An error outside the command.
    Error(String),
}

impl Verdict {
    /// Writes the line to the port.
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
