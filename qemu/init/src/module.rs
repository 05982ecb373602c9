// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading the module.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crate::TASK;

const NAME: &CStr = c"freelist";

/// The longest wait for the last users of the module: a killed process closes its
/// files a moment after its parent has waited for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The loaded module.
pub struct Module(());

impl Module {
    /// Loads `module.ko`, if there is one.
    pub fn load_if_given() -> Result<Option<Self>> {
        let file = match File::open(format!("{TASK}/module.ko")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let args = CString::new(fs::read_to_string(format!("{TASK}/module-args"))?.trim_end())?;
        finit_module(file, &args, ModuleInitFlags::empty()).context("the module does not load")?;
        Ok(Some(Module(())))
    }

    /// Unloads the module, unless the command has done so. Fails with the module's line
    /// of `/proc/modules` if it is still in use.
    pub fn unload(self) -> Result<()> {
        let start = Instant::now();
        loop {
            match delete_module(NAME, DeleteModuleFlags::O_NONBLOCK) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::EWOULDBLOCK) if start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(error) => {
                    let users = fs::read_to_string("/proc/modules").unwrap_or_default();
                    return Err(error)
                        .with_context(|| format!("the module does not unload ({})", users.trim()));
                }
            }
        }
    }
}
