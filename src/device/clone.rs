// SPDX-License-Identifier: GPL-2.0

//! A new open file for a copy of an arena.

use crate::{
    arena::Arena,
    device::file::OpenFile,
    ffi::raw, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_err_ptr,
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    prelude::*,
    sync::aref::ARef, //
};

/// A file that no program has yet, and the number that it gets. Dropped, both are given up: the
/// arena is closed before the call returns to user space.
pub(super) struct NewFile {
    number: FileDescriptorReservation,
    file: ARef<File>,
}

impl NewFile {
    /// Opens the device that `file` is of once more, as the caller and in the same mode, with an
    /// empty arena. May sleep.
    ///
    /// `EMFILE` or `ENFILE` when too many files are open, `ENOMEM` when memory is short, and what the
    /// security module of the system says.
    pub(super) fn like(file: &File) -> Result<Self> {
        let number = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        // SAFETY: The file is open as long as the reference.
        let new = from_err_ptr(unsafe { raw::freelist_file_reopen(file.as_ptr().cast()) })?;
        let new = NonNull::new(new.cast::<File>()).ok_or(ENOMEM)?;
        // SAFETY: It was just opened, and the reference is the new object's. Nobody seeks in it.
        let file = unsafe { ARef::from_raw(new) };
        Ok(Self { number, file })
    }

    /// Its arena.
    pub(super) fn arena(&self) -> &Arena {
        // SAFETY: The device is ours, so `OpenFile::open` has opened the file.
        unsafe { OpenFile::of(&self.file) }
    }

    /// The number that the caller will have it by.
    pub(super) fn number(&self) -> i32 {
        self.number.reserved_fd() as i32
    }

    /// Gives it to the caller's process.
    pub(super) fn install(self) {
        self.number.fd_install(self.file);
    }
}
