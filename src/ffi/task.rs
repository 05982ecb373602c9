// SPDX-License-Identifier: GPL-2.0-only

//! The calling thread: its name and capabilities, its signals, its sleep.

use crate::ffi::raw;
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
    types::NotThreadSafe, //
};

/// Returns whether the calling thread may exceed the administrator's defaults (`CAP_SYS_RESOURCE`).
pub(crate) fn may_exceed_defaults() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_may_exceed_defaults() }
}

/// The name of a process, padded with zeros.
pub(crate) type ProcessName = [u8; raw::FREELIST_NAME_LEN as usize];

/// Returns the name of the caller's process.
pub(crate) fn process_name() -> ProcessName {
    let mut name = [0; raw::FREELIST_NAME_LEN as usize];
    // SAFETY: `name` has the `FREELIST_NAME_LEN` bytes that are written.
    unsafe { raw::freelist_process_name(name.as_mut_ptr().cast()) };
    name
}

/// Fails with `EINTR` if the calling thread is being killed.
pub(crate) fn fail_if_killed() -> Result {
    match fatal_signal() {
        true => Err(EINTR),
        false => Ok(()),
    }
}

/// Returns whether the calling thread is being killed.
pub(crate) fn fatal_signal() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_fatal_signal() }
}

/// Returns whether the calling thread has a signal to handle.
pub(crate) fn signal_pending() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_signal_pending() }
}

/// Returns whether the calling thread's process has died and is writing a core dump.
pub(crate) fn dumps_core() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_dumps_core() }
}

/// Returns the time of the monotonic clock, in nanoseconds.
pub(crate) fn now_ns() -> i64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_now() }
}

/// A sleep of the calling thread that is about to begin.
pub(crate) struct Sleep(NotThreadSafe);

impl Sleep {
    /// Prepares to sleep: from here on a wake-up ends the sleep, even one before the sleep begins. The
    /// caller may not sleep in any other way until then.
    pub(crate) fn prepare() -> Self {
        // SAFETY: May be called in the context of a task. `drop` ends it.
        unsafe { raw::freelist_sleep_prepare() };
        Self(NotThreadSafe)
    }

    /// Sleeps until `end`, in nanoseconds of the monotonic clock; `i64::MAX` is for ever. Returns
    /// whether a wake-up or a signal came before that.
    pub(crate) fn until(self, end: i64) -> bool {
        // SAFETY: Called where sleeping is allowed.
        unsafe { raw::freelist_sleep(end) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // SAFETY: Called in the context of the task that has prepared to sleep.
        unsafe { raw::freelist_sleep_finish() };
    }
}

/// Sleeps for about 100 microseconds.
pub(crate) fn pause() {
    fsleep(Delta::from_micros(100));
}

/// Lets another thread run if the scheduler asks for it. May sleep.
pub(crate) fn resched() {
    // SAFETY: Called where sleeping is allowed.
    unsafe { raw::freelist_resched() }
}
