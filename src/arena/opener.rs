// SPDX-License-Identifier: GPL-2.0

//! Whose an arena is.

use crate::ffi::task;
use kernel::{
    fmt,
    prelude::*,
    task::Pid, //
};

/// The process that opened an arena, as it was then.
pub(crate) struct Opener {
    pid: Pid,
    name: task::ProcessName,
}

impl Opener {
    /// The caller's process.
    pub(crate) fn of_caller() -> Self {
        Self {
            pid: current!().group_leader().pid(),
            name: task::process_name(),
        }
    }

    /// Its number in the first pid namespace.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

/// Its name, on one line whatever it is.
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
