// SPDX-License-Identifier: GPL-2.0-only

//! The new open file of `FREELIST_IOC_CLONE`.

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

/// An open file that is not installed yet, and its file descriptor. When it is dropped both are released,
/// and the arena is closed before the call returns to user space.
pub(super) struct NewFile {
    number: FileDescriptorReservation,
    file: ARef<File>,
}

impl NewFile {
    /// Opens the device of `file` again, with the caller's credentials and in the same mode: a new,
    /// empty arena. May sleep.
    ///
    /// `EMFILE` or `ENFILE` when too many files are open, `ENOMEM` when memory is short, and the error of
    /// the system's security module if it refuses the open.
    pub(super) fn like(file: &File) -> Result<Self> {
        let number = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        // SAFETY: The file is open as long as the reference.
        let new = from_err_ptr(unsafe { raw::freelist_file_reopen(file.as_ptr().cast()) })?;
        let new = NonNull::new(new.cast::<File>()).ok_or(ENOMEM)?;
        // SAFETY: It was just opened, and its reference passes to the new object. No other thread has it,
        // so that its position is not in use.
        let file = unsafe { ARef::from_raw(new) };
        Ok(Self { number, file })
    }

    /// Returns its arena.
    pub(super) fn arena(&self) -> &Arena {
        // SAFETY: The device is ours, so `OpenFile::open` has opened the file.
        unsafe { OpenFile::of(&self.file) }
    }

    /// Returns the file descriptor that it will have.
    pub(super) fn number(&self) -> i32 {
        self.number.reserved_fd() as i32
    }

    /// Installs it in the caller's file descriptor table.
    pub(super) fn install(self) {
        self.number.fd_install(self.file);
    }
}
