// SPDX-License-Identifier: GPL-2.0-only

//! Copies from and to user space: the structures of the contract, and arrays.

use crate::ffi::raw;
use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    }, //
};

/// A structure of the contract: integers without padding.
pub(crate) trait Contract: Default + FromBytes + AsBytes {}

macro_rules! contract {
    ($($name:ident)*) => {$(
        // SAFETY: The structure has integers only, so any bytes are a value of it.
        unsafe impl FromBytes for raw::$name {}
        // SAFETY: Its fields are aligned by their order and its size is a multiple of 8 (the
        // tests of the header assert both), so it has no padding, and it has no interior
        // mutability.
        unsafe impl AsBytes for raw::$name {}
        impl Contract for raw::$name {}
    )*};
}

contract! { freelist_info freelist_alloc freelist_free freelist_bulk freelist_limit freelist_trim freelist_discard freelist_stat
freelist_resize freelist_clone }

/// The argument of an ioctl: the address of the caller's structure, and its size by the ioctl's number.
#[derive(Clone, Copy)]
pub(crate) struct Argument {
    pub(crate) address: usize,
    pub(crate) size: usize,
}

impl Argument {
    /// Copies the caller's structure, once. A shorter one is extended with zeros. May sleep.
    ///
    /// Fails with `E2BIG` if a longer one does not end in zeros, and with `EFAULT` if it cannot be
    /// read.
    pub(crate) fn read<T: Contract>(self) -> Result<T> {
        let mut value = T::default();
        // SAFETY: `value` is valid for writes of its size and every bit pattern is a value of it
        // (`FromBytes`). The address is checked as one of user space.
        let status = unsafe {
            raw::freelist_copy_in(
                (&raw mut value).cast(),
                size_of::<T>(),
                self.address,
                self.size,
            )
        };
        if status != 0 {
            return Err(Error::from_errno(status));
        }
        Ok(value)
    }

    /// Copies an answer to the caller's structure. A shorter one gets the first bytes, a longer one ends
    /// in zeros. May sleep.
    ///
    /// Fails with `EFAULT` if it cannot be written; a part may have been written then.
    pub(crate) fn write<T: Contract>(self, value: &T) -> Result {
        // SAFETY: `value` is valid for reads of its size and has no unset bytes (`AsBytes`). The
        // address is checked as one of user space.
        let status = unsafe {
            raw::freelist_copy_out(
                self.address,
                self.size,
                core::ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        };
        if status != 0 {
            return Err(Error::from_errno(status));
        }
        Ok(())
    }

    /// Copies an answer to the caller without a page fault. Does not sleep: may be called under a spin
    /// lock.
    ///
    /// Fails with `EFAULT` if that needs a page fault: [`Argument::write`] may succeed.
    #[inline]
    pub(crate) fn write_nofault(self, value: &raw::freelist_alloc) -> Result {
        // SAFETY: `value` is valid for reads of its size and has no unset bytes (`AsBytes`). The
        // address is checked as one of user space.
        let status = unsafe { raw::freelist_copy_out_nofault(self.address, self.size, value) };
        if status != 0 {
            return Err(EFAULT);
        }
        Ok(())
    }
}

/// An array of `u64` in user space, by its address.
///
/// Other threads may change it at any time, so each element is copied once.
#[derive(Clone, Copy)]
pub(crate) struct Array(pub(crate) u64);

impl Array {
    /// Returns the address of element `index`; `None` if that is no address of this machine.
    fn at(self, index: u32) -> Option<usize> {
        let address = self
            .0
            .checked_add(u64::from(index) * size_of::<u64>() as u64)?;
        usize::try_from(address).ok()
    }

    /// Copies the elements from `index` on into `to`. Returns how many: all before the first that
    /// cannot be read. May sleep.
    pub(crate) fn load(self, index: u32, to: &mut [u64]) -> usize {
        let Some(address) = self.at(index) else {
            return 0;
        };
        // SAFETY: `to` is valid for writes of its size, and any bytes are numbers. The address is
        // checked as one of user space.
        let left =
            unsafe { raw::freelist_array_in(to.as_mut_ptr().cast(), address, size_of_val(to)) };
        (size_of_val(to) - left) / size_of::<u64>()
    }

    /// Copies `from` to the elements from `index` on. Returns how many: all before the first that
    /// cannot be written. May sleep.
    pub(crate) fn store(self, index: u32, from: &[u64]) -> usize {
        let Some(address) = self.at(index) else {
            return 0;
        };
        // SAFETY: `from` is valid for reads of its size. The address is
        // checked as one of user space.
        let left =
            unsafe { raw::freelist_array_out(address, from.as_ptr().cast(), size_of_val(from)) };
        (size_of_val(from) - left) / size_of::<u64>()
    }
}
