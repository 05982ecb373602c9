// SPDX-License-Identifier: GPL-2.0-only

//! The calling thread: who it is, its signals, its sleep.

use crate::ffi::raw;
use kernel::{
    time::{
        delay::fsleep,
        Delta, //
    },
    types::NotThreadSafe, //
};

/// Whether the calling thread may go beyond what the administrator has set (`CAP_SYS_RESOURCE`).
pub(crate) fn may_exceed_defaults() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_may_exceed_defaults() }
}

/// The name of a process, as long as the kernel lets it be, with zeros behind it.
pub(crate) type ProcessName = [u8; raw::FREELIST_NAME_LEN as usize];

/// The name of the caller's process.
pub(crate) fn process_name() -> ProcessName {
    let mut name = [0; raw::FREELIST_NAME_LEN as usize];
    // SAFETY: `name` is as long as is written.
    unsafe { raw::freelist_process_name(name.as_mut_ptr().cast()) };
    name
}

/// Whether the calling thread is being killed.
pub(crate) fn fatal_signal() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_fatal_signal() }
}

/// Whether the calling thread has a signal to handle.
pub(crate) fn signal_pending() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_signal_pending() }
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> i64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_now() }
}

/// A sleep of the calling thread that is about to begin.
pub(crate) struct Sleep(NotThreadSafe);

impl Sleep {
    /// From here on a wake-up ends the sleep, also one that comes before it. Nothing that could
    /// sleep may be done until then.
    pub(crate) fn prepare() -> Self {
        // SAFETY: May be called in the context of a task. `drop` ends it.
        unsafe { raw::freelist_sleep_prepare() };
        Self(NotThreadSafe)
    }

    /// Sleeps until a time in nanoseconds of the monotonic clock, for ever if that is `i64::MAX`.
    /// Says whether a wake-up or a signal came before.
    pub(crate) fn until(self, end: i64) -> bool {
        // SAFETY: Called where sleeping is allowed.
        unsafe { raw::freelist_sleep(end) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // SAFETY: May be called in the context of a task, of which this is a part.
        unsafe { raw::freelist_sleep_finish() };
    }
}

/// Sleeps for about 100 microseconds, while another thread finishes something.
pub(crate) fn pause() {
    fsleep(Delta::from_micros(100));
}

/// Lets others run. May sleep.
pub(crate) fn resched() {
    // SAFETY: Called where sleeping is allowed.
    unsafe { raw::freelist_resched() }
}
