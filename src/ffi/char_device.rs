// SPDX-License-Identifier: GPL-2.0-only

//! A character device with a number and a node of its own.
//!
//! A misc device is opened under a mutex that all misc devices share. An open of `/dev/freelist` in a
//! full cgroup reclaims memory, and an open of `/dev/kvm` or `/dev/fuse` would wait for that. A
//! character device is opened under no lock.

use crate::ffi::{
    operations::Table,
    raw, //
};
use core::{
    marker::PhantomData,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

/// A registered character device with its node in `/dev`, for root only, and its data.
///
/// No new open finds the device after the drop. Fields are dropped in this order.
pub(crate) struct CharDevice<T> {
    _node: Node,
    _entry: Entry<T>,
    _number: Number,
    _data: KBox<T>,
}

impl<T: Send + Sync> CharDevice<T> {
    /// Registers a device whose files have `operations`. The device can be opened before this returns.
    /// May sleep.
    pub(crate) fn register(
        name: &'static CStr,
        operations: &'static Table<bindings::file_operations>,
        data: T,
    ) -> Result<Self> {
        let data = KBox::new(data, GFP_KERNEL)?;
        let number = Number::new(name)?;
        Ok(Self {
            _entry: Entry::new(number.0, operations, &raw const *data)?,
            _node: Node::new(name, number.0)?,
            _number: number,
            _data: data,
        })
    }

    /// Returns the data of the device that is being opened.
    ///
    /// # Safety
    ///
    /// `inode` is that of a device which [`CharDevice::register`] has registered with a `T`, and the
    /// device was not dropped.
    pub(crate) unsafe fn of(inode: *mut bindings::inode) -> *const T {
        // SAFETY: By the caller's promise.
        unsafe { raw::freelist_cdev_data(inode.cast()) }.cast()
    }
}

/// A device number.
///
/// # Invariants
///
/// The number is reserved.
struct Number(bindings::dev_t);

impl Number {
    fn new(name: &'static CStr) -> Result<Self> {
        let mut number = 0;
        // SAFETY: The name is static. May be called where sleeping is allowed.
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

/// A character device that is added to its number.
///
/// # Invariants
///
/// The device is added.
struct Entry<T>(NonNull<raw::freelist_cdev>, PhantomData<fn(&T)>);

// SAFETY: Any thread may delete a character device. All threads may use its data, as `T` is `Sync`.
unsafe impl<T: Sync> Send for Entry<T> {}
// SAFETY: Nothing can be done through a shared `Entry`. All threads may use its data, as `T` is `Sync`.
unsafe impl<T: Sync> Sync for Entry<T> {}

impl<T> Entry<T> {
    fn new(
        number: bindings::dev_t,
        operations: &'static Table<bindings::file_operations>,
        data: *const T,
    ) -> Result<Self> {
        let operations = (&raw const operations.0).cast();
        // SAFETY: The operations are static. May be called where sleeping is allowed.
        let entry = from_err_ptr(unsafe {
            raw::freelist_cdev_add(number, operations, data.cast_mut().cast())
        })?;
        // INVARIANT: It was just added.
        NonNull::new(entry)
            .map(|entry| Self(entry, PhantomData))
            .ok_or(ENOMEM)
    }
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is added, and it is not used after this.
        unsafe { raw::freelist_cdev_remove(self.0.as_ptr()) };
    }
}

/// The device's entries in sysfs and `/dev`.
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
        // SAFETY: The name is static. May be called where sleeping is allowed.
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
        // SAFETY: By the invariant both are registered.
        unsafe {
            bindings::device_destroy(self.class, self.number);
            bindings::class_destroy(self.class);
        }
    }
}
