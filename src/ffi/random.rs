// SPDX-License-Identifier: GPL-2.0

//! What the module needs of C, made safe: the contract's structures and the helpers of `helpers.c`.

use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    types::NotThreadSafe,
};

pub(crate) mod debugfs;
pub(crate) mod errno;
pub(crate) mod poll_queue;
pub(crate) mod race_point;

#[allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]
pub(crate) mod raw {
    include!(env!("FREELIST_BINDINGS"));
}

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

contract! { freelist_info freelist_alloc freelist_free freelist_bulk freelist_limit freelist_trim freelist_stat }

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

/// This module, as the owner of what the kernel calls of it.
pub(crate) const fn this_module() -> *mut kernel::bindings::module {
    (&raw const raw::__this_module).cast_mut().cast()
}

/// A table of functions for the kernel.
pub(crate) struct Table<T>(pub(crate) T);

// SAFETY: It is never changed, and what it points to is there as long as the module.
unsafe impl<T> Sync for Table<T> {}

/// The machine's memory, in bytes.
pub(crate) fn ram_bytes() -> u64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_ram_bytes() }
}

/// Whether the calling thread may go beyond what the administrator has set (`CAP_SYS_RESOURCE`).
pub(crate) fn may_exceed_defaults() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_may_exceed_defaults() }
}

/// The name of a process, as long as the kernel lets it be, with zeros behind it.
pub(crate) type ProcessName = [u8; raw::FREELIST_NAME_LEN as usize];

/// The name of the caller's process.
pub(crate) fn process_name() -> ProcessName {
    let mut name = [0; raw::FREELIST_NAME_LEN as usize];
    // SAFETY: `name` is as long as is written.
    unsafe { raw::freelist_process_name(name.as_mut_ptr().cast()) };
    name
}

/// Bytes of a huge page.
pub(crate) fn huge_page_bytes() -> usize {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_huge_page_bytes() as usize }
}

/// `index` where it is below `size`, else `None`; 0 under speculation.
pub(crate) fn index_nospec(index: u64, size: u32) -> Option<u32> {
    if index >= u64::from(size) {
        return None;
    }
    Some(clamp_nospec(index, size))
}

/// `index` where it is below `size`, else 0, without a branch.
pub(crate) fn clamp_nospec(index: u64, size: u32) -> u32 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_index_nospec(index as usize, size as usize) as u32 }
}

/// A random number.
pub(crate) fn random() -> u64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_random() }
}

/// Whether the calling thread is being killed.
pub(crate) fn fatal_signal() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_fatal_signal() }
}

/// Whether the calling thread has a signal to handle.
pub(crate) fn signal_pending() -> bool {
    // SAFETY: May be called in the context of a task.
    unsafe { raw::freelist_signal_pending() }
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> i64 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_now() }
}

/// A sleep of the calling thread that is about to begin.
pub(crate) struct Sleep(NotThreadSafe);

impl Sleep {
    /// From here on a wake-up ends the sleep, also one that comes before it. Nothing that could
    /// sleep may be done until then.
    pub(crate) fn prepare() -> Self {
        // SAFETY: May be called in the context of a task. `drop` ends it.
        unsafe { raw::freelist_sleep_prepare() };
        Self(NotThreadSafe)
    }

    /// Sleeps until a time in nanoseconds of the monotonic clock, for ever if that is `i64::MAX`.
    /// Says whether a wake-up or a signal came before.
    pub(crate) fn until(self, end: i64) -> bool {
        // SAFETY: Called where sleeping is allowed.
        unsafe { raw::freelist_sleep(end) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // SAFETY: May be called in the context of a task, of which this is a part.
        unsafe { raw::freelist_sleep_finish() };
    }
}

/// Lets others run. May sleep.
pub(crate) fn resched() {
    // SAFETY: Called where sleeping is allowed.
    unsafe { raw::freelist_resched() }
}
