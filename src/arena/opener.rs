// SPDX-License-Identifier: GPL-2.0-only

//! The process that opened an arena.

use crate::ffi::task;
use kernel::{
    fmt,
    prelude::*,
    task::Pid, //
};

/// The process that opened an arena, as of that moment.
pub(crate) struct Opener {
    pid: Pid,
    name: task::ProcessName,
}

impl Opener {
    /// Returns the process of the caller.
    pub(crate) fn of_caller() -> Self {
        Self {
            pid: current!().group_leader().pid(),
            name: task::process_name(),
        }
    }

    /// Returns its pid in the initial pid namespace.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

/// Writes its name on one line, bytes other than printable ASCII as `\xNN`.
impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.name.iter().take_while(|byte| **byte != 0) {
            match byte {
                b' '..=b'~' if *byte != b'\\' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}
