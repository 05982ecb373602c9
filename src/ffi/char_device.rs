// SPDX-License-Identifier: GPL-2.0

//! A character device with a number and a node of its own.
//!
//! A misc device is opened under a mutex that all misc devices share, and an arena that is made in a full
//! cgroup reclaims memory meanwhile: whoever opens `/dev/kvm` or `/dev/fuse` would wait for it. A
//! character device is opened under no lock.

use crate::ffi::{
    operations::Table,
    raw, //
};
use core::ptr::null_mut;
use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    types::Opaque, //
};

/// A device of one number, for root only, with its node in `/dev`, until it is dropped: then nobody
/// opens it any more. Fields are dropped in this order.
#[pin_data]
pub(crate) struct CharDevice {
    _node: Node,
    #[pin]
    entry: Entry,
    _number: Number,
}

impl CharDevice {
    /// Registers a device whose files have `operations`. It can be opened before this returns.
    pub(crate) fn register(
        name: &'static CStr,
        operations: &'static Table<bindings::file_operations>,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let number = Number::new(name)?;
            let dev = number.0;
            Ok(try_pin_init!(Self {
                _number: number,
                entry <- Entry::new(dev, operations),
                _node: Node::new(name, dev)?,
            }))
        })
    }

    /// The device that is being opened.
    ///
    /// # Safety
    ///
    /// `inode` is that of a device which [`CharDevice::register`] has made and which is there.
    pub(crate) unsafe fn of(inode: *mut bindings::inode) -> *const Self {
        // SAFETY: By the caller's promise.
        let cdev: *mut raw::cdev = unsafe { raw::freelist_cdev_of(inode.cast()) };
        // SAFETY: By the caller's promise it is that of an `Entry`, and this of a `CharDevice`.
        unsafe {
            let entry = kernel::container_of!(Opaque::cast_from(cdev), Entry, cdev);
            kernel::container_of!(entry, Self, entry)
        }
    }
}

/// A number that is no other device's.
///
/// # Invariants
///
/// It is reserved.
struct Number(bindings::dev_t);

impl Number {
    fn new(name: &'static CStr) -> Result<Self> {
        let mut number = 0;
        // SAFETY: The name is there for good. May be called where sleeping is allowed.
        to_result(unsafe { bindings::alloc_chrdev_region(&mut number, 0, 1, name.as_char_ptr()) })?;
        // INVARIANT: It was just reserved.
        Ok(Self(number))
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is reserved.
        unsafe { bindings::unregister_chrdev_region(self.0, 1) };
    }
}

/// What the number leads to.
///
/// # Invariants
///
/// `cdev` is added.
#[pin_data(PinnedDrop)]
struct Entry {
    #[pin]
    cdev: Opaque<raw::cdev>,
}

// SAFETY: A character device may be deleted by any thread.
unsafe impl Send for Entry {}
// SAFETY: Nothing can be done through a shared `Entry`.
unsafe impl Sync for Entry {}

impl Entry {
    fn new(
        number: bindings::dev_t,
        operations: &'static Table<bindings::file_operations>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            cdev <- Opaque::try_ffi_init(move |slot: *mut raw::cdev| {
                let operations = (&raw const operations.0).cast();
                // SAFETY: The slot is ours to write: it is pinned, and deleted before its memory goes. The
                // operations are there for good.
                // INVARIANT: If this succeeds it is added.
                to_result(unsafe { raw::freelist_cdev_add(slot, operations, number) })
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Entry {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the invariant it is added. Files that are open keep the module, so there are none.
        unsafe { raw::cdev_del(self.cdev.get()) };
    }
}

/// What sysfs and `/dev` show.
///
/// # Invariants
///
/// The class is registered, and has a device of that number.
struct Node {
    class: *mut bindings::class,
    number: bindings::dev_t,
}

// SAFETY: A class belongs to no thread.
unsafe impl Send for Node {}
// SAFETY: Nothing can be done through a shared `Node`.
unsafe impl Sync for Node {}

impl Node {
    fn new(name: &'static CStr, number: bindings::dev_t) -> Result<Self> {
        // SAFETY: The name is there for good. May be called where sleeping is allowed.
        let class = from_err_ptr(unsafe { bindings::class_create(name.as_char_ptr()) })?;
        // SAFETY: The class is registered. The name is a format without arguments.
        let device = from_err_ptr(unsafe {
            bindings::device_create(class, null_mut(), number, null_mut(), name.as_char_ptr())
        });
        if let Err(error) = device {
            // SAFETY: It was just registered.
            unsafe { bindings::class_destroy(class) };
            return Err(error);
        }
        // INVARIANT: Both were just made.
        Ok(Self { class, number })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: By the invariant both are there.
        unsafe {
            bindings::device_destroy(self.class, self.number);
            bindings::class_destroy(self.class);
        }
    }
}
