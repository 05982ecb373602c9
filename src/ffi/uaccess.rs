// SPDX-License-Identifier: GPL-2.0-only

//! The caller's memory: the structures of the contract, and arrays.

use crate::ffi::raw;
use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    }, //
};

/// A structure of the contract: plain integers without padding.
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

/// The argument of a call: where the caller's structure is, and how long the caller thinks it is.
#[derive(Clone, Copy)]
pub(crate) struct Argument {
    pub(crate) address: usize,
    pub(crate) size: usize,
}

impl Argument {
    /// Copies the caller's structure, once: a shorter one is extended with zeros.
    ///
    /// `E2BIG` when a longer one does not end in zeros, `EFAULT` when it cannot be read.
    pub(crate) fn read<T: Contract>(self) -> Result<T> {
        let mut value = T::default();
        // SAFETY: `value` is valid for writes of its size and every bit pattern is a value of it
        // (`FromBytes`). The address is the caller's, and is checked as such.
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

    /// Copies an answer to the caller: as much as there is room for, zeros beyond.
    ///
    /// `EFAULT` when it cannot be written; part of it may have been.
    pub(crate) fn write<T: Contract>(self, value: &T) -> Result {
        // SAFETY: `value` is valid for reads of its size and has no unset bytes (`AsBytes`). The
        // address is the caller's, and is checked as such.
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

    /// Copies an answer to the caller without a page fault, so under a spin lock too.
    ///
    /// `EFAULT` when it cannot be written in this way: [`Argument::write`] may be able to.
    #[inline]
    pub(crate) fn write_nofault(self, value: &raw::freelist_alloc) -> Result {
        // SAFETY: `value` is valid for reads of its size and has no unset bytes (`AsBytes`). The
        // address is the caller's, and is checked as such.
        let status = unsafe { raw::freelist_copy_out_nofault(self.address, self.size, value) };
        if status != 0 {
            return Err(EFAULT);
        }
        Ok(())
    }
}

/// An array of a caller's, of numbers of 8 bytes: its address, as the contract has it.
///
/// Other threads may change it at any time: each element is copied once.
#[derive(Clone, Copy)]
pub(crate) struct Array(pub(crate) u64);

impl Array {
    /// The address of element `index`, if the array is where a caller's memory can be.
    fn at(self, index: u32) -> Option<usize> {
        let address = self
            .0
            .checked_add(u64::from(index) * size_of::<u64>() as u64)?;
        usize::try_from(address).ok()
    }

    /// Copies the elements from `index` on into `to`. Says how many: all before the first that
    /// cannot be read.
    pub(crate) fn load(self, index: u32, to: &mut [u64]) -> usize {
        let Some(address) = self.at(index) else {
            return 0;
        };
        // SAFETY: `to` is valid for writes of its size, and any bytes are numbers. The address is
        // the caller's, and is checked as such.
        let left =
            unsafe { raw::freelist_array_in(to.as_mut_ptr().cast(), address, size_of_val(to)) };
        (size_of_val(to) - left) / size_of::<u64>()
    }

    /// Copies `from` to the elements from `index` on. Says how many: all before the first that
    /// cannot be written.
    pub(crate) fn store(self, index: u32, from: &[u64]) -> usize {
        let Some(address) = self.at(index) else {
            return 0;
        };
        // SAFETY: `from` is valid for reads of its size. The address is the caller's, and is
        // checked as such.
        let left =
            unsafe { raw::freelist_array_out(address, from.as_ptr().cast(), size_of_val(from)) };
        (size_of_val(from) - left) / size_of::<u64>()
    }
}
