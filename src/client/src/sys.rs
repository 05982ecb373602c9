// SPDX-License-Identifier: GPL-2.0

//! The system calls.
//!
//! Outwards everything is safe: the calls take and give structures by value,
//! [`Map`] checks every access against its length, and [`Anonymous`] is a slice.

#![expect(unsafe_code, reason = "system calls, and memory that they map")]

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::slice;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{madvise, mmap, mmap_anonymous, munmap, MapFlags, MmapAdvise, ProtFlags};

use crate::heap::{Cache, Slab};
use crate::sync::atomic::{AtomicU32, AtomicU8, Ordering};
use crate::uapi::{
    freelist_alloc, freelist_bulk, freelist_free, freelist_info, freelist_limit, freelist_resize,
    freelist_stat, freelist_trim,
};

mod request {
    use crate::uapi::*;

    nix::ioctl_read_bad!(
        /// Fills the structure that `data` points to.
        info,
        FREELIST_IOC_INFO,
        freelist_info
    );
    nix::ioctl_readwrite_bad!(
        /// Reads and fills the structure that `data` points to.
        alloc,
        FREELIST_IOC_ALLOC,
        freelist_alloc
    );
    nix::ioctl_write_ptr_bad!(
        /// Reads the structure that `data` points to.
        free,
        FREELIST_IOC_FREE,
        freelist_free
    );
    nix::ioctl_readwrite_bad!(
        /// Reads and fills the structure that `data` points to, and the array
        /// that it names.
        alloc_bulk,
        FREELIST_IOC_ALLOC_BULK,
        freelist_bulk
    );
    nix::ioctl_readwrite_bad!(
        /// Reads and fills the structure that `data` points to, and reads the
        /// array that it names.
        free_bulk,
        FREELIST_IOC_FREE_BULK,
        freelist_bulk
    );
    nix::ioctl_readwrite_bad!(
        /// Reads and fills the structure that `data` points to.
        limit,
        FREELIST_IOC_LIMIT,
        freelist_limit
    );
    nix::ioctl_readwrite_bad!(
        /// Reads and fills the structure that `data` points to.
        trim,
        FREELIST_IOC_TRIM,
        freelist_trim
    );
    nix::ioctl_readwrite_bad!(
        /// Reads and fills the structure that `data` points to.
        resize,
        FREELIST_IOC_RESIZE,
        freelist_resize
    );
    nix::ioctl_read_bad!(
        /// Fills the structure that `data` points to.
        stat,
        FREELIST_IOC_STAT,
        freelist_stat
    );
}

/// FREELIST_IOC_INFO.
pub(crate) fn info(fd: BorrowedFd<'_>) -> Result<freelist_info, Errno> {
    let mut answer = freelist_info::default();
    // SAFETY: `answer` is writable for as many bytes as the request's number
    // encodes, because the header makes that number from this structure's
    // size; no driver accesses more than a request's number says.
    unsafe { request::info(fd.as_raw_fd(), &mut answer) }?;
    Ok(answer)
}

/// FREELIST_IOC_ALLOC; the answer is in the fields of `request`.
pub(crate) fn alloc(fd: BorrowedFd<'_>, request: &mut freelist_alloc) -> Result<(), Errno> {
    // SAFETY: As in `info()`; the reference makes `request` ours alone to
    // write until the call returns.
    unsafe { request::alloc(fd.as_raw_fd(), request) }?;
    Ok(())
}

/// FREELIST_IOC_FREE.
pub(crate) fn free(fd: BorrowedFd<'_>, request: &freelist_free) -> Result<(), Errno> {
    // SAFETY: As in `info()`; the structure is only read.
    unsafe { request::free(fd.as_raw_fd(), request) }?;
    Ok(())
}

/// FREELIST_IOC_ALLOC_BULK: blocks for all of `offsets`. The answer is in the
/// fields of `request`, the array in it is `offsets`.
pub(crate) fn alloc_bulk(
    fd: BorrowedFd<'_>,
    request: &mut freelist_bulk,
    offsets: &mut [u64],
) -> Result<(), Errno> {
    request.offsets = offsets.as_mut_ptr() as u64;
    request.count = offsets.len().try_into().map_err(|_| Errno::EINVAL)?;
    // SAFETY: As in `alloc()`; the array is writable for `count` numbers, and
    // is ours alone until the call returns.
    unsafe { request::alloc_bulk(fd.as_raw_fd(), request) }?;
    Ok(())
}

/// FREELIST_IOC_FREE_BULK of all `offsets`; how many were done.
pub(crate) fn free_bulk(fd: BorrowedFd<'_>, offsets: &[u64]) -> Result<u32, Errno> {
    let mut request = freelist_bulk {
        offsets: offsets.as_ptr() as u64,
        count: offsets.len().try_into().map_err(|_| Errno::EINVAL)?,
        ..Default::default()
    };
    // SAFETY: As in `alloc()`; the array is only read.
    unsafe { request::free_bulk(fd.as_raw_fd(), &mut request) }?;
    Ok(request.done)
}

/// FREELIST_IOC_LIMIT; the answer is in the fields of `request`.
pub(crate) fn limit(fd: BorrowedFd<'_>, request: &mut freelist_limit) -> Result<(), Errno> {
    // SAFETY: As in `alloc()`.
    unsafe { request::limit(fd.as_raw_fd(), request) }?;
    Ok(())
}

/// FREELIST_IOC_TRIM; how many bytes were given back.
pub(crate) fn trim(fd: BorrowedFd<'_>, keep_bytes: u64) -> Result<u64, Errno> {
    let mut request = freelist_trim {
        keep_bytes,
        ..Default::default()
    };
    // SAFETY: As in `alloc()`.
    unsafe { request::trim(fd.as_raw_fd(), &mut request) }?;
    Ok(request.freed_bytes)
}

/// FREELIST_IOC_RESIZE; the answer is in the fields of `request`.
pub(crate) fn resize(fd: BorrowedFd<'_>, request: &mut freelist_resize) -> Result<(), Errno> {
    // SAFETY: As in `alloc()`.
    unsafe { request::resize(fd.as_raw_fd(), request) }?;
    Ok(())
}

/// FREELIST_IOC_STAT.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<freelist_stat, Errno> {
    let mut answer = freelist_stat::default();
    // SAFETY: As in `info()`.
    unsafe { request::stat(fd.as_raw_fd(), &mut answer) }?;
    Ok(answer)
}

/// A shared mapping of a device file.
///
/// # Invariants
///
/// `base` is the start of a mapping of `len` bytes that this value owns: it
/// was made by [`Map::new`] and is unmapped by `drop()` and nowhere else.
#[derive(Debug)]
pub(crate) struct Map {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: A mapping belongs to the process, not to a thread, and is accessed
// through atomics only.
unsafe impl Send for Map {}
// SAFETY: As above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes from `offset` of the file, readable and, if `writable`,
    /// writable.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: i64,
        len: NonZeroUsize,
        writable: bool,
    ) -> Result<Self, Errno> {
        let mut prot = ProtFlags::PROT_READ;
        prot.set(ProtFlags::PROT_WRITE, writable);
        // SAFETY: Without MAP_FIXED and with no address wished for, the kernel
        // puts the mapping where nothing of this process lies.
        let base = unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, fd, offset) }?;
        // INVARIANT: The kernel mapped `len` bytes at `base`, for us.
        Ok(Self {
            base: base.cast(),
            len: len.get(),
        })
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first byte's address.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.len, "byte {at} of a mapping of {}", self.len);
        // SAFETY: The assertion and the type's invariant put the byte inside
        // of a mapping that lives as long as `self`. Bytes are accessed as
        // atomics by all that this crate offers, so that threads do not race;
        // what other processes store shows as some value of the byte, which is
        // all that an atomic load promises. A page that is not there ends in
        // SIGBUS, never in a wrong access.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(at)) }
    }

    /// Loads one byte; panics beyond the mapping.
    pub(crate) fn load(&self, at: usize) -> u8 {
        self.byte(at).load(Ordering::Relaxed)
    }

    /// Stores one byte; panics beyond the mapping.
    pub(crate) fn store(&self, at: usize, value: u8) {
        self.byte(at).store(value, Ordering::Relaxed);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the range is ours, and `drop()` runs
        // when no reference into it (see `byte()`) is left.
        let result = unsafe { munmap(self.base.cast(), self.len) };
        debug_assert_eq!(result, Ok(()), "munmap of a whole mapping");
    }
}

/// A type of which all bytes zero is a value.
///
/// # Safety
///
/// That is so.
pub(crate) unsafe trait Zeros {}

// SAFETY: It is a number.
unsafe impl Zeros for AtomicU32 {}
// SAFETY: All its fields are atomic numbers.
unsafe impl Zeros for Slab {}
// SAFETY: All its fields are cells of numbers and of pointers that may be null.
unsafe impl Zeros for Cache {}

/// What a forked child finds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    /// A copy.
    Keep,
    /// Zeros.
    Wipe,
}

/// A slice of values that are zero at first, in memory of its own from the
/// system: in pages that are there when they are written, and not from the
/// program's allocator, which this may be part of.
///
/// # Invariants
///
/// `base` is the start of a private mapping of `len` values that this value
/// owns: it was made by [`Anonymous::new`], is unmapped by `drop()` and nowhere
/// else, and its bytes were 0 before values were stored there.
#[derive(Debug)]
pub(crate) struct Anonymous<T: Zeros> {
    base: NonNull<T>,
    len: usize,
}

// SAFETY: It owns its values, as `Box<[T]>` does.
unsafe impl<T: Zeros + Send> Send for Anonymous<T> {}
// SAFETY: It gives out shared references only, as `Box<[T]>` does.
unsafe impl<T: Zeros + Sync> Sync for Anonymous<T> {}

impl<T: Zeros> Anonymous<T> {
    /// `len` values, at least one.
    pub(crate) fn new(len: usize, fork: Fork) -> Result<Self, Errno> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(Errno::ENOMEM)?;
        let bytes = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: As in `Map::new()`.
        let base = unsafe { mmap_anonymous(None, bytes, prot, flags) }?.cast();
        // INVARIANT: The kernel mapped zeros for us, of `len` values, at a
        // page's start, which is aligned enough for every type.
        let new = Self { base, len };
        // Few of the values are used as a rule: a huge page of them would cost 2 MiB, and as
        // much zeroing. Where there are none, it is refused.
        // SAFETY: The range is ours, and this changes nothing that can be read in it.
        let _ = unsafe { madvise(base.cast(), bytes.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        if fork == Fork::Wipe {
            // SAFETY: The range is ours, and this changes nothing in this process.
            unsafe { madvise(base.cast(), bytes.get(), MmapAdvise::MADV_WIPEONFORK) }?;
        }
        Ok(new)
    }
}

impl<T: Zeros> Deref for Anonymous<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: By the type's invariant the values are mapped as long as
        // `self` is, and hold what was stored, or zeros, also in a forked child:
        // `Zeros` makes a value of these. Nobody has a mutable reference, as
        // this type gives none out.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: Zeros> Drop for Anonymous<T> {
    fn drop(&mut self) {
        // SAFETY: As in `Map::drop()`. No type of `Zeros` has anything to drop.
        let result = unsafe { munmap(self.base.cast(), self.len * size_of::<T>()) };
        debug_assert_eq!(result, Ok(()), "munmap of a whole mapping");
    }
}

/// A function that is called when a thread ends, as POSIX has it.
#[derive(Debug)]
pub(crate) struct ThreadEnd(libc::pthread_key_t);

impl ThreadEnd {
    /// Has `work` called at the end of threads that [`ThreadEnd::watch`] was
    /// called in, for ever.
    pub(crate) fn new(work: extern "C" fn(*mut c_void)) -> Result<Self, Errno> {
        let mut key = 0;
        // SAFETY: `key` is writable, and `work` is safe to call with any argument.
        match unsafe { libc::pthread_key_create(&mut key, Some(work)) } {
            0 => Ok(Self(key)),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    /// This thread is one.
    pub(crate) fn watch(&self) -> Result<(), Errno> {
        let anything = NonNull::<c_void>::dangling();
        // SAFETY: The key is never deleted, and nobody looks behind the pointer.
        match unsafe { libc::pthread_setspecific(self.0, anything.as_ptr()) } {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }
}
