// SPDX-License-Identifier: MIT OR Apache-2.0

//! The end of a thread.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

/// A function that is called when a thread ends, as POSIX has it, as long as the code of this library is
/// there.
#[derive(Debug)]
pub(crate) struct ThreadEnd(libc::pthread_key_t);

/// The key that is in use, plus 1; each copy of the library in a process has its own.
static KEY: AtomicU32 = AtomicU32::new(0);

/// Called at exit, and before a plugin is unloaded that this library is linked into: then no thread that
/// ends later may call it.
#[used]
#[link_section = ".fini_array"]
static AT_UNLOAD: extern "C" fn() = forget;

extern "C" fn forget() {
    if let Some(key) = KEY.swap(0, Ordering::Relaxed).checked_sub(1) {
        // SAFETY: It was created, and is used no more: this is the library's last call.
        unsafe { libc::pthread_key_delete(key) };
    }
}

impl ThreadEnd {
    /// Has `work` called at the end of threads that [`ThreadEnd::watch`] was
    /// called in. Made once.
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

    /// This thread is one.
    pub(crate) fn watch(&self) -> Result<(), Errno> {
        let anything = NonNull::<c_void>::dangling();
        // SAFETY: The key is deleted when nothing of this library is called any more, and nobody looks
        // behind the pointer.
        match unsafe { libc::pthread_setspecific(self.0, anything.as_ptr()) } {
            0 => Ok(()),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }
}
