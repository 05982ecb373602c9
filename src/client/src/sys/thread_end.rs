// SPDX-License-Identifier: MIT OR Apache-2.0

//! A callback at the end of a thread.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

/// A POSIX destructor that runs when a thread ends, as long as the code of this library is loaded.
#[derive(Debug)]
pub(crate) struct ThreadEnd(libc::pthread_key_t);

/// The key that is in use, plus 1. Each copy of the library in a process has its own.
static KEY: AtomicU32 = AtomicU32::new(0);

/// Deletes the key at exit, and before a plugin that has this library is unloaded: a thread that ends later
/// must not call it.
#[used]
#[link_section = ".fini_array"]
static AT_UNLOAD: extern "C" fn() = forget;

extern "C" fn forget() {
    if let Some(key) = KEY.swap(0, Ordering::Relaxed).checked_sub(1) {
        // SAFETY: It was created, and is not used again: this is the library's last call.
        unsafe { libc::pthread_key_delete(key) };
    }
}

impl ThreadEnd {
    /// Registers `work` for the end of threads that call [`ThreadEnd::watch`]. To be called once.
    pub(crate) fn new(work: extern "C" fn(*mut c_void)) -> Result<Self, Errno> {
        let mut key = 0;
        // SAFETY: `key` is writable, and `work` is safe to call with any argument.
        match unsafe { libc::pthread_key_create(&mut key, Some(work)) } {
            0 => {
                KEY.store(key + 1, Ordering::Relaxed);
                Ok(Self(key))
            }
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }

    /// Has `work` called when the calling thread ends.
    pub(crate) fn watch(&self) -> Result<(), Errno> {
        let anything = NonNull::<c_void>::dangling();
        // SAFETY: The key is deleted when nothing of this library is called any more, and the pointer is
        // never read through.
        match unsafe { libc::pthread_setspecific(self.0, anything.as_ptr()) } {
            0 => Ok(()),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }
}
