// SPDX-License-Identifier: GPL-2.0

//! The end of a thread.

use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::io::Errno;

/// A function that is called when a thread ends, as POSIX has it.
#[derive(Debug)]
pub(crate) struct ThreadEnd(libc::pthread_key_t);

impl ThreadEnd {
    /// Has `work` called at the end of threads that [`ThreadEnd::watch`] was
    /// called in, for ever.
    pub(crate) fn new(work: extern "C" fn(*mut c_void)) -> Result<Self, Errno> {
        let mut key = 0;
        // SAFETY: `key` is writable, and `work` is safe to call with any argument.
        match unsafe { libc::pthread_key_create(&mut key, Some(work)) } {
            0 => Ok(Self(key)),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }

    /// This thread is one.
    pub(crate) fn watch(&self) -> Result<(), Errno> {
        let anything = NonNull::<c_void>::dangling();
        // SAFETY: The key is never deleted, and nobody looks behind the pointer.
        match unsafe { libc::pthread_setspecific(self.0, anything.as_ptr()) } {
            0 => Ok(()),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }
}
