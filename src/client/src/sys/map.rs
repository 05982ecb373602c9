// SPDX-License-Identifier: MIT OR Apache-2.0

//! A mapping of a file, each access to which is checked against its length.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{mmap, mmap_anonymous, munmap, MapFlags, ProtFlags};

use crate::sync::atomic::{AtomicU8, Ordering};

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
        offset: u64,
        len: NonZeroUsize,
        writable: bool,
    ) -> Result<Self, Errno> {
        let mut prot = ProtFlags::READ;
        prot.set(ProtFlags::WRITE, writable);
        let at = ptr::null_mut();
        // SAFETY: Without MAP_FIXED and without an address, the kernel
        // puts the mapping where this process has none.
        let base = unsafe { mmap(at, len.get(), prot, MapFlags::SHARED, fd, offset) }?;
        // INVARIANT: The kernel mapped `len` bytes at `base`, for us, which is not 0.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)?,
            len: len.get(),
        })
    }

    /// Maps the file's first `len` bytes as [`Map::new`], at a multiple of `align`, a power of 2. Both are
    /// multiples of the page size.
    pub(crate) fn aligned(
        fd: BorrowedFd<'_>,
        len: NonZeroUsize,
        align: usize,
    ) -> Result<Self, Errno> {
        let reserved = len.get().checked_add(align).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let (any, none) = (ptr::null_mut(), ProtFlags::empty());
        // SAFETY: Without MAP_FIXED and without an address, the kernel
        // puts the mapping where this process has none.
        let around = unsafe { mmap_anonymous(any, reserved, none, flags) }?;
        let before = around.addr().wrapping_neg() & (align - 1);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let at = around.wrapping_byte_add(before);
        // SAFETY: The range lies in the one that was just reserved, which no other code knows.
        let base = unsafe {
            mmap(
                at,
                len.get(),
                prot,
                MapFlags::SHARED | MapFlags::FIXED,
                fd,
                0,
            )
            .inspect_err(|_| _ = munmap(around, reserved))
        }?;
        // INVARIANT: The kernel mapped `len` bytes at `base`, for us, which is not 0.
        let map = Self {
            base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)?,
            len: len.get(),
        };
        let end = at.wrapping_byte_add(len.get());
        let after = around.addr() + reserved - end.addr();
        for (at, bytes) in [(around, before), (end, after)] {
            if bytes > 0 {
                // SAFETY: It is the rest of the reserved range, which no code has used.
                unsafe { munmap(at, bytes) }?;
            }
        }
        Ok(map)
    }

    /// Returns the bytes that are mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the first byte's address.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.len, "byte {at} of a mapping of {}", self.len);
        // SAFETY: By the assertion and the type's invariant the byte is inside
        // of a mapping that lives as long as `self`. All that this crate offers
        // accesses bytes as atomics, so threads do not race; a store of another
        // process shows as some value of the byte, which is all that an atomic
        // load promises. A page without memory ends in SIGBUS, never in a wrong
        // access.
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
        // when no reference into it (see `byte()`) remains.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, Ok(()), "munmap of a whole mapping");
    }
}
