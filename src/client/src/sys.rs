// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system calls, and memory that is mapped by them.
//!
//! Its interface is safe: the calls take and return structures by value, and [`Anonymous`] and [`Lazy`] are
//! slices. System calls are made without the C library (rustix does so on Linux), so `errno` keeps its value.

#![expect(unsafe_code, reason = "system calls, and memory that they map")]

#[cfg(feature = "std")]
mod map;
#[cfg(feature = "std")]
mod thread_end;

use core::mem;
use core::num::NonZeroUsize;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::slice;

use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd};
pub(crate) use rustix::io::Errno;
use rustix::ioctl::{ioctl, Setter, Updater};
use rustix::mm::{madvise, mmap_anonymous, munmap, Advice, MapFlags, ProtFlags};
#[cfg(feature = "std")]
use rustix::mm::{mprotect, MprotectFlags};

#[cfg(feature = "std")]
use crate::sync::atomic::AtomicU8;
#[cfg(feature = "std")]
use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::uapi::{
    self, freelist_alloc, freelist_clone, freelist_free, freelist_info, freelist_limit,
    freelist_resize, freelist_stat, freelist_trim,
};
#[cfg(feature = "std")]
use crate::uapi::{freelist_bulk, freelist_discard};

#[cfg(feature = "std")]
pub(crate) use map::Map;
#[cfg(feature = "std")]
pub(crate) use thread_end::ThreadEnd;

/// Calls FREELIST_IOC_INFO.
pub(crate) fn info(fd: BorrowedFd<'_>) -> Result<freelist_info, Errno> {
    let mut answer = freelist_info::default();
    // SAFETY: `answer` is writable for as many bytes as the request's number
    // encodes, because the header makes that number from this structure's
    // size; no driver accesses more bytes than the number encodes.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::FREELIST_IOC_INFO }, _>::new(&mut answer),
        )
    }?;
    Ok(answer)
}

/// Calls FREELIST_IOC_ALLOC; the result is in the fields of `request`.
pub(crate) fn alloc(fd: BorrowedFd<'_>, request: &mut freelist_alloc) -> Result<(), Errno> {
    // SAFETY: As in `info()`; the reference makes `request` ours alone to
    // write until the call returns.
    unsafe { ioctl(fd, Updater::<{ uapi::FREELIST_IOC_ALLOC }, _>::new(request)) }
}

/// Calls FREELIST_IOC_FREE.
pub(crate) fn free(fd: BorrowedFd<'_>, request: freelist_free) -> Result<(), Errno> {
    // SAFETY: As in `info()`; the structure is only read.
    unsafe { ioctl(fd, Setter::<{ uapi::FREELIST_IOC_FREE }, _>::new(request)) }
}

/// Calls FREELIST_IOC_ALLOC_BULK for blocks for all of `offsets`. The result is in the fields of
/// `request`; its array is `offsets`.
#[cfg(feature = "std")]
pub(crate) fn alloc_bulk(
    fd: BorrowedFd<'_>,
    request: &mut freelist_bulk,
    offsets: &mut [u64],
) -> Result<(), Errno> {
    request.offsets = offsets.as_mut_ptr() as u64;
    request.count = offsets.len().try_into().map_err(|_| Errno::INVAL)?;
    // SAFETY: As in `alloc()`; the array is writable for `count` numbers, and
    // is ours alone until the call returns.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::FREELIST_IOC_ALLOC_BULK }, _>::new(request),
        )
    }
}

/// Calls FREELIST_IOC_FREE_BULK for all `offsets`, and returns the number of blocks that it freed.
#[cfg(feature = "std")]
pub(crate) fn free_bulk(fd: BorrowedFd<'_>, offsets: &[u64]) -> Result<u32, Errno> {
    let mut request = freelist_bulk {
        offsets: offsets.as_ptr() as u64,
        count: offsets.len().try_into().map_err(|_| Errno::INVAL)?,
        ..Default::default()
    };
    // SAFETY: As in `alloc()`; the array is only read.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::FREELIST_IOC_FREE_BULK }, _>::new(&mut request),
        )
    }?;
    Ok(request.done)
}

/// Calls FREELIST_IOC_LIMIT; the result is in the fields of `request`.
pub(crate) fn limit(fd: BorrowedFd<'_>, request: &mut freelist_limit) -> Result<(), Errno> {
    // SAFETY: As in `alloc()`.
    unsafe { ioctl(fd, Updater::<{ uapi::FREELIST_IOC_LIMIT }, _>::new(request)) }
}

/// Calls FREELIST_IOC_TRIM, and returns the bytes that it released.
pub(crate) fn trim(fd: BorrowedFd<'_>, keep_bytes: u64) -> Result<u64, Errno> {
    let mut request = freelist_trim {
        keep_bytes,
        ..Default::default()
    };
    // SAFETY: As in `alloc()`.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::FREELIST_IOC_TRIM }, _>::new(&mut request),
        )
    }?;
    Ok(request.freed_bytes)
}

/// Calls FREELIST_IOC_RESIZE; the result is in the fields of `request`.
pub(crate) fn resize(fd: BorrowedFd<'_>, request: &mut freelist_resize) -> Result<(), Errno> {
    // SAFETY: As in `alloc()`.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::FREELIST_IOC_RESIZE }, _>::new(request),
        )
    }
}

/// Calls FREELIST_IOC_DISCARD.
#[cfg(feature = "std")]
pub(crate) fn discard(fd: BorrowedFd<'_>, request: freelist_discard) -> Result<(), Errno> {
    // SAFETY: As in `free()`.
    unsafe {
        ioctl(
            fd,
            Setter::<{ uapi::FREELIST_IOC_DISCARD }, _>::new(request),
        )
    }
}

/// Calls FREELIST_IOC_CLONE, and returns the open file of the copy.
pub(crate) fn clone(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut request = freelist_clone::default();
    // SAFETY: As in `alloc()`.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::FREELIST_IOC_CLONE }, _>::new(&mut request),
        )
    }?;
    // SAFETY: The call succeeded, so the number is a new file's, and no other object owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

/// Calls FREELIST_IOC_STAT.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<freelist_stat, Errno> {
    let mut answer = freelist_stat::default();
    // SAFETY: As in `info()`.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::FREELIST_IOC_STAT }, _>::new(&mut answer),
        )
    }?;
    Ok(answer)
}

/// A type of which all bytes zero is a value.
///
/// # Safety
///
/// All bytes zero is a valid value of the type, and the type needs no `Drop`.
pub(crate) unsafe trait Zeros {}

// SAFETY: It is a number.
unsafe impl Zeros for AtomicU32 {}
#[cfg(feature = "std")]
// SAFETY: It is a number.
unsafe impl Zeros for AtomicU8 {}
#[cfg(feature = "std")]
// SAFETY: All its fields are atomic numbers.
unsafe impl Zeros for crate::heap::Slab {}
#[cfg(feature = "std")]
// SAFETY: All its fields are numbers, atomic or in cells, and pointers that may be null.
unsafe impl Zeros for crate::heap::Cache {}

/// The content of memory in a forked child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    /// A copy.
    Keep,
    /// Zeros.
    Wipe,
}

/// A slice of values that are zero at first, in memory of its own from the system. Its pages get memory
/// when they are written. It does not use the program's allocator, which it may be part of.
///
/// # Invariants
///
/// `base` is the start of a private mapping of `len` values that this value
/// owns: it was made by [`Anonymous::map`], is unmapped by `drop()` and nowhere
/// else, and its bytes were 0 before values were stored there.
#[derive(Debug)]
pub(crate) struct Anonymous<T: Zeros> {
    base: NonNull<T>,
    len: usize,
    /// The bytes that can be written, from the beginning.
    #[cfg(feature = "std")]
    open_bytes: AtomicUsize,
}

/// The fewest bytes that [`Anonymous::open`] makes writable at a time.
#[cfg(feature = "std")]
const OPEN_BYTES: usize = 256 << 10;

// SAFETY: It owns its values, as `Box<[T]>` does.
unsafe impl<T: Zeros + Send> Send for Anonymous<T> {}
// SAFETY: It returns shared references only, as `Box<[T]>` does.
unsafe impl<T: Zeros + Sync> Sync for Anonymous<T> {}

impl<T: Zeros> Anonymous<T> {
    /// Maps `len` values, at least one.
    pub(crate) fn new(len: usize, fork: Fork) -> Result<Self, Errno> {
        Self::map(len, fork, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Reserves `len` values, at least one. A value has to be opened before it is written: a write before
    /// that is a segmentation fault. Where the system limits committed memory (`vm.overcommit_memory` 2),
    /// values count once they are open.
    #[cfg(feature = "std")]
    pub(crate) fn reserve(len: usize, fork: Fork) -> Result<Self, Errno> {
        let new = Self::map(len, fork, ProtFlags::READ)?;
        new.open_bytes.store(0, Ordering::Relaxed);
        Ok(new)
    }

    /// Makes the first `count` values writable, and some more.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[cfg(feature = "std")]
    pub(crate) fn open(&self, count: usize) -> Result<(), Errno> {
        let bytes = count.min(self.len) * size_of::<T>();
        let open = self.open_bytes.load(Ordering::Relaxed);
        if bytes <= open {
            return Ok(());
        }
        let more = bytes.max(open * 2).next_multiple_of(OPEN_BYTES);
        let bytes = more.min(self.len * size_of::<T>());
        // SAFETY: The range is ours, and can be read before and after.
        unsafe {
            mprotect(
                self.base.as_ptr().cast(),
                bytes,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
        }?;
        self.open_bytes.fetch_max(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn map(len: usize, fork: Fork, prot: ProtFlags) -> Result<Self, Errno> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(Errno::NOMEM)?;
        let bytes = NonZeroUsize::new(bytes).ok_or(Errno::INVAL)?.get();
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: Without MAP_FIXED and without an address, the kernel puts the mapping
        // where this process has none.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, prot, flags) }?;
        // INVARIANT: The kernel mapped zeros for us, of `len` values, at a page's start, which is
        // aligned enough for every type, and is not 0.
        let new = Self {
            base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)?,
            len,
            #[cfg(feature = "std")]
            open_bytes: AtomicUsize::new(bytes),
        };
        // Usually few of the values are used: a huge page of them would cost 2 MiB, and as much
        // zeroing. A kernel without huge pages refuses it, which does no harm.
        // SAFETY: The range is ours, and this changes nothing that can be read in it.
        let _ = unsafe { madvise(base, bytes, Advice::LinuxNoHugepage) };
        if fork == Fork::Wipe {
            // SAFETY: The range is ours, and this changes nothing in this process.
            unsafe { madvise(base, bytes, Advice::LinuxWipeOnFork) }?;
        }
        Ok(new)
    }
}

impl<T: Zeros> Deref for Anonymous<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: By the type's invariant the values are mapped as long as `self` is, and hold what was
        // stored, or zeros, also in a forked child: `Zeros` makes a value of these. There is no mutable
        // reference, as this type returns none.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: Zeros> Drop for Anonymous<T> {
    fn drop(&mut self) {
        // SAFETY: As in `Map::drop()`. No type of `Zeros` has anything to drop.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) };
        debug_assert_eq!(result, Ok(()), "munmap of a whole mapping");
    }
}

/// A slice of `LEN` values that are zero at first, mapped at the first call that needs it, and never
/// unmapped. Any thread may use it, and a signal handler too: nothing waits.
///
/// # Invariants
///
/// `base` is null, or the start of the mapping of an [`Anonymous`] of `LEN` values that was
/// forgotten.
#[derive(Debug)]
pub(crate) struct Lazy<T: Zeros, const LEN: usize> {
    base: AtomicPtr<T>,
}

// SAFETY: A null pointer is all zeros, and satisfies the invariant.
unsafe impl<T: Zeros, const LEN: usize> Zeros for Lazy<T, LEN> {}

impl<T: Zeros + Sync, const LEN: usize> Lazy<T, LEN> {
    /// Makes one that is not mapped.
    pub(crate) const fn new() -> Self {
        // INVARIANT: It is null.
        Self {
            base: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Returns the values; `None` if they are not mapped yet.
    #[inline]
    pub(crate) fn get(&self) -> Option<&[T; LEN]> {
        // SAFETY: By the invariant it is null, or as many values that are mapped for ever and to
        // which only shared references exist. The thread that mapped them did so before it stored
        // the pointer.
        unsafe {
            self.base
                .load(Ordering::Acquire)
                .cast::<[T; LEN]>()
                .as_ref()
        }
    }

    /// Returns the values, and maps them if they were not.
    ///
    /// # Errors
    ///
    /// Those of `mmap()`.
    pub(crate) fn get_or_map(&self, fork: Fork) -> Result<&[T; LEN], Errno> {
        if let Some(values) = self.get() {
            return Ok(values);
        }
        let new = Anonymous::<T>::new(LEN, fork)?;
        let (old, base) = (ptr::null_mut(), new.base.as_ptr());
        let stored = self
            .base
            .compare_exchange(old, base, Ordering::AcqRel, Ordering::Relaxed);
        if stored.is_ok() {
            // INVARIANT: It stays mapped from now on. If another thread has mapped one meanwhile, this
            // one is unmapped.
            mem::forget(new);
        }
        self.get().ok_or(Errno::NOMEM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn all_threads_get_the_same_values() {
        static LAZY: Lazy<AtomicU32, 3> = Lazy::new();
        assert!(LAZY.get().is_none());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let values = LAZY.get_or_map(Fork::Keep).unwrap();
                    values[2].fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        let values = LAZY.get().unwrap().each_ref();
        assert_eq!(values.map(|value| value.load(Ordering::Relaxed)), [0, 0, 8]);
    }
}
