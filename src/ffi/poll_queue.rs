// SPDX-License-Identifier: GPL-2.0-only

//! Wait queues of the kernel: pollers of open files, and sleeping threads.

use crate::ffi::raw;
use core::{
    ffi::c_void,
    marker::PhantomPinned,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    types::Opaque, //
};

/// A wait queue of the pollers of one or more open files, and of [`Sleeper`]s.
///
/// # Invariants
///
/// `0` is a wait queue that was made for this object and is freed when the object is dropped.
pub(crate) struct PollQueue(NonNull<raw::wait_queue_head>);

// SAFETY: A wait queue belongs to no thread.
unsafe impl Send for PollQueue {}
// SAFETY: A wait queue has a lock of its own.
unsafe impl Sync for PollQueue {}

impl PollQueue {
    /// Makes an empty queue. Fails with `ENOMEM` when memory is short. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May be called where sleeping is allowed.
        let queue = unsafe { raw::freelist_poll_new() };
        // INVARIANT: It was just made.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Adds the poller of a file.
    ///
    /// # Safety
    ///
    /// `file` and `table` are the arguments of the file's `poll`, and the file is closed before the
    /// queue is dropped.
    pub(crate) unsafe fn register(
        &self,
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) {
        // SAFETY: By the invariant and by the caller's promise.
        unsafe { raw::freelist_poll_register(self.0.as_ptr(), file.cast(), table.cast()) };
    }

    /// Returns whether the queue is empty. A poller that registers concurrently checks its condition
    /// after that.
    pub(crate) fn is_idle(&self) -> bool {
        // SAFETY: By the invariant the queue exists.
        unsafe { raw::freelist_poll_is_idle(self.0.as_ptr()) }
    }

    /// Wakes all pollers, which poll again, and all sleepers.
    pub(crate) fn wake(&self) {
        // SAFETY: By the invariant the queue exists.
        unsafe { raw::freelist_poll_wake(self.0.as_ptr()) };
    }
}

impl Drop for PollQueue {
    fn drop(&mut self) {
        // SAFETY: By the invariant this object owns it. The kernel removed all pollers when their
        // files were closed.
        unsafe { raw::freelist_poll_free(self.0.as_ptr()) };
    }
}

/// The calling thread in a wait queue, woken together with the pollers. It lives on the thread's stack:
/// a thread that waits for memory must not allocate any.
///
/// # Invariants
///
/// `entry` is in the queue.
#[pin_data(PinnedDrop)]
pub(crate) struct Sleeper<'a> {
    queue: &'a PollQueue,
    /// 1 if the thread was woken since [`Sleeper::scan`].
    woken: Atomic<u32>,
    #[pin]
    entry: Opaque<bindings::wait_queue_entry>,
    #[pin]
    _pin: PhantomPinned,
}

impl<'a> Sleeper<'a> {
    /// Adds the calling thread to the queue.
    pub(crate) fn new(queue: &'a PollQueue) -> impl PinInit<Self> + use<'a> {
        pin_init!(Self {
            queue,
            woken: Atomic::new(0),
            // Last: it may be woken before this returns.
            entry <- Opaque::ffi_init(move |slot: *mut bindings::wait_queue_entry| {
                let entry = bindings::wait_queue_entry {
                    flags: 0,
                    private: current!().as_ptr().cast(),
                    func: Some(wake_sleeper),
                    ..pin_init::zeroed()
                };
                // SAFETY: The slot is valid for writes.
                unsafe { slot.write(entry) };
                // SAFETY: The queue outlives this object. The entry is pinned, and removed from the
                // queue before its memory is freed.
                // INVARIANT: It is in the queue after this.
                unsafe { bindings::add_wait_queue(queue.0.as_ptr().cast(), slot) };
            }),
            _pin: PhantomPinned,
        })
    }

    /// Forgets earlier wake-ups. The caller checks its condition after this.
    pub(crate) fn scan(&self) {
        self.woken.xchg(0, Full);
    }

    /// Returns whether another thread has woken this one since [`Sleeper::scan`]. To be called after
    /// [`Sleep::prepare`](super::task::Sleep::prepare), which has a barrier.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Relaxed) != 0
    }
}

#[pinned_drop]
impl PinnedDrop for Sleeper<'_> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the invariant it is in the queue, which exists.
        unsafe { bindings::remove_wait_queue(self.queue.0.as_ptr().cast(), self.entry.get()) };
    }
}

/// Wakes the thread of a [`Sleeper`], unless that is the calling thread: a waiter that returns memory
/// after a failed scan must not wake itself.
///
/// # Safety
///
/// Called by the kernel, for the entry of a [`Sleeper`], with the lock of its queue held.
unsafe extern "C" fn wake_sleeper(
    entry: *mut bindings::wait_queue_entry,
    mode: c_uint,
    flags: c_int,
    key: *mut c_void,
) -> c_int {
    // SAFETY: It is in the queue, so it exists.
    if unsafe { (*entry).private } == current!().as_ptr().cast() {
        return 0;
    }
    // SAFETY: Only `Sleeper` has this function in its entry, and `woken` was written before that.
    let woken = unsafe {
        let sleeper = kernel::container_of!(Opaque::cast_from(entry), Sleeper<'_>, entry);
        &(*sleeper).woken
    };
    // A thread that sees this also sees what the caller did before.
    woken.xchg(1, Full);
    // SAFETY: The arguments are those of the kernel's call.
    unsafe { bindings::default_wake_function(entry, mode, flags, key) }
}
