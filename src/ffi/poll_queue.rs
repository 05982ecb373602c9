// SPDX-License-Identifier: GPL-2.0-only

//! Wait queues: whoever polls open files, and threads that sleep beside them.

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

/// Those who poll an open file, or one of many, and [`Sleeper`]s.
///
/// # Invariants
///
/// `0` is a wait queue that was made for this object and is freed when it is dropped.
pub(crate) struct PollQueue(NonNull<raw::wait_queue_head>);

// SAFETY: A wait queue belongs to no thread.
unsafe impl Send for PollQueue {}
// SAFETY: A wait queue has a lock of its own.
unsafe impl Sync for PollQueue {}

impl PollQueue {
    /// Nobody. `ENOMEM` when memory is short.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May be called where sleeping is allowed.
        let queue = unsafe { raw::freelist_poll_new() };
        // INVARIANT: It was just made.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Adds whoever polls a file now: `table` is what the kernel has given for that.
    ///
    /// # Safety
    ///
    /// `file` and `table` are those that the file's `poll` was called with, and the file is closed
    /// before this is dropped.
    pub(crate) unsafe fn register(
        &self,
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) {
        // SAFETY: By the invariant and by the caller's promise.
        unsafe { raw::freelist_poll_register(self.0.as_ptr(), file.cast(), table.cast()) };
    }

    /// Whether there is nobody. Who comes at this moment looks after that.
    pub(crate) fn is_idle(&self) -> bool {
        // SAFETY: By the invariant the queue is there.
        unsafe { raw::freelist_poll_is_idle(self.0.as_ptr()) }
    }

    /// Wakes all of them: they poll again.
    pub(crate) fn wake(&self) {
        // SAFETY: By the invariant the queue is there.
        unsafe { raw::freelist_poll_wake(self.0.as_ptr()) };
    }
}

impl Drop for PollQueue {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is ours. Whoever polled the file was removed when that was
        // closed.
        unsafe { raw::freelist_poll_free(self.0.as_ptr()) };
    }
}

/// The calling thread, on its stack, as one that is woken with those who poll. Nothing is allocated for
/// it: it may be memory that it waits for.
///
/// # Invariants
///
/// `entry` is in the queue.
#[pin_data(PinnedDrop)]
pub(crate) struct Sleeper<'a> {
    queue: &'a PollQueue,
    /// Whether it was woken since [`Sleeper::scan`].
    woken: Atomic<u32>,
    #[pin]
    entry: Opaque<bindings::wait_queue_entry>,
    #[pin]
    _pin: PhantomPinned,
}

impl<'a> Sleeper<'a> {
    /// From now on it is woken.
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
                // SAFETY: The slot is ours to write.
                unsafe { slot.write(entry) };
                // SAFETY: The queue is there as long as this, and the entry is pinned and leaves it
                // before its memory goes.
                // INVARIANT: It is in the queue after this.
                unsafe { bindings::add_wait_queue(queue.0.as_ptr().cast(), slot) };
            }),
            _pin: PhantomPinned,
        })
    }

    /// Forgets that it was woken up to now: who calls this looks for himself after that.
    pub(crate) fn scan(&self) {
        self.woken.xchg(0, Full);
    }

    /// Whether it was woken, by another thread, since it looked. Asked after
    /// [`Sleep::prepare`](super::task::Sleep::prepare), which has a barrier.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Relaxed) != 0
    }
}

#[pinned_drop]
impl PinnedDrop for Sleeper<'_> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the invariant it is in the queue, which is there.
        unsafe { bindings::remove_wait_queue(self.queue.0.as_ptr().cast(), self.entry.get()) };
    }
}

/// Wakes a thread, unless it is the caller: who gives what it has taken in vain looks again itself.
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
    // SAFETY: It is in the queue, so it is there.
    if unsafe { (*entry).private } == current!().as_ptr().cast() {
        return 0;
    }
    // SAFETY: Only `Sleeper` has this function in its entry, and `woken` was written before that.
    let woken = unsafe {
        let sleeper = kernel::container_of!(Opaque::cast_from(entry), Sleeper<'_>, entry);
        &(*sleeper).woken
    };
    // What the caller gave is seen by who sees this.
    woken.xchg(1, Full);
    // SAFETY: The arguments are the kernel's.
    unsafe { bindings::default_wake_function(entry, mode, flags, key) }
}
