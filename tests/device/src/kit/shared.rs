// SPDX-License-Identifier: GPL-2.0

//! Objects of the C library and the kernel in shared memory: mutexes, stacks.

#![expect(unsafe_code, reason = "the C library works on memory by itself")]

use std::mem::MaybeUninit;

use nix::errno::Errno;

use super::View;

/// A robust mutex between processes, in a view.
pub struct Mutex<'a> {
    view: &'a View,
    at: usize,
}

fn errno(result: i32) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    }
}

impl<'a> Mutex<'a> {
    /// Makes one at byte `at` of a view, which is a multiple of 64.
    pub fn new(view: &'a View, at: usize) -> Self {
        assert!(at % 64 == 0 && at + size_of::<libc::pthread_mutex_t>() <= view.len());
        let mutex = Self { view, at };
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: The attributes are initialized by the first call, and the mutex by the last; its
        // memory is the view's, which expects any value.
        unsafe {
            let attributes = attributes.as_mut_ptr();
            errno(libc::pthread_mutexattr_init(attributes)).unwrap();
            let shared = libc::PTHREAD_PROCESS_SHARED;
            errno(libc::pthread_mutexattr_setpshared(attributes, shared)).unwrap();
            let robust = libc::PTHREAD_MUTEX_ROBUST;
            errno(libc::pthread_mutexattr_setrobust(attributes, robust)).unwrap();
            errno(libc::pthread_mutex_init(mutex.get(), attributes)).unwrap();
        }
        mutex
    }

    fn get(&self) -> *mut libc::pthread_mutex_t {
        self.view.address(self.at).get() as *mut _
    }

    /// Locks it. Fails with `EOWNERDEAD` if its owner has died; it is locked then.
    pub fn lock(&self) -> Result<(), Errno> {
        // SAFETY: `new` has initialized it, and the view is there.
        errno(unsafe { libc::pthread_mutex_lock(self.get()) })
    }

    /// Unlocks it.
    pub fn unlock(&self) -> Result<(), Errno> {
        // SAFETY: As above.
        errno(unsafe { libc::pthread_mutex_unlock(self.get()) })
    }

    /// Makes it usable again after its owner has died.
    pub fn repair(&self) -> Result<(), Errno> {
        // SAFETY: As above.
        errno(unsafe { libc::pthread_mutex_consistent(self.get()) })
    }
}

/// Runs a thread whose stack is `len` bytes of a view from `at` on, until it has counted to `count` recursively.
/// Returns the count.
pub fn on_a_stack(view: &View, at: usize, len: usize, count: usize) -> usize {
    extern "C" fn run(count: *mut libc::c_void) -> *mut libc::c_void {
        fn count_to(left: usize) -> usize {
            let frame = std::hint::black_box([left; 32]);
            match frame[0] {
                0 => 0,
                left => 1 + count_to(left - 1),
            }
        }
        count_to(count as usize) as *mut _
    }

    assert!(at + len <= view.len());
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    let mut result = std::ptr::null_mut();
    // SAFETY: The attributes are initialized by the first call, the thread by the third; the stack is
    // the view's, which nothing else uses, until the thread has ended.
    unsafe {
        let attributes = attributes.as_mut_ptr();
        errno(libc::pthread_attr_init(attributes)).unwrap();
        let stack = view.address(at).get() as *mut _;
        errno(libc::pthread_attr_setstack(attributes, stack, len)).unwrap();
        let count = count as *mut libc::c_void;
        errno(libc::pthread_create(
            thread.as_mut_ptr(),
            attributes,
            run,
            count,
        ))
        .unwrap();
        errno(libc::pthread_join(thread.assume_init(), &raw mut result)).unwrap();
    }
    result as usize
}
