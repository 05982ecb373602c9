// SPDX-License-Identifier: GPL-2.0-only

//! The areas of an address space (VMAs) where an arena is mapped.

use crate::{
    ffi::raw,
    mm::address_space::AddressSpace, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::to_result,
    mm::virt::VmaRef,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// The caller's address space: as long as this lives, its areas stay as they are.
///
/// # Invariants
///
/// `0` is the address space of the thread that made this, which holds its lock for reading.
pub(crate) struct MmapReadGuard(NonNull<raw::mm_struct>);

impl MmapReadGuard {
    /// Locks it. `None` when there is none, or the caller is being killed. May sleep.
    pub(crate) fn lock() -> Option<Self> {
        // SAFETY: May be called in the context of a task.
        let mm = unsafe { raw::freelist_mmap_read_lock() };
        // INVARIANT: It was just locked.
        NonNull::new(mm).map(Self)
    }

    /// The area at `address`, if it maps `address_space` and can be used.
    pub(crate) fn vma_at(&self, address_space: &AddressSpace, address: usize) -> Option<Vma<'_>> {
        // SAFETY: By the invariants of both, the address space is locked and the inode there.
        let vma = unsafe { raw::freelist_vma_at(self.0.as_ptr(), address_space.as_ptr(), address) };
        self.wrap(vma)
    }

    /// The first area that ends behind `address`, maps `address_space` and can be used. Ends early
    /// for a caller that is being killed.
    pub(crate) fn vma_from(&self, address_space: &AddressSpace, address: usize) -> Option<Vma<'_>> {
        // SAFETY: By the invariants of both, the address space is locked and the inode there.
        let vma =
            unsafe { raw::freelist_vma_from(self.0.as_ptr(), address_space.as_ptr(), address) };
        self.wrap(vma)
    }

    fn wrap(&self, vma: *mut raw::vm_area_struct) -> Option<Vma<'_>> {
        // SAFETY: It is null, or an area of an address space that is locked as long as `self`
        // lives; it maps the inode of an arena, as only `mmap::map` lets one do.
        (!vma.is_null()).then(|| unsafe { Vma::from_raw(vma.cast()) })
    }
}

impl Drop for MmapReadGuard {
    fn drop(&mut self) {
        // SAFETY: By the invariant this thread has locked it.
        unsafe { raw::freelist_mmap_read_unlock(self.0.as_ptr()) };
    }
}

/// Part of an address space where part of an arena is mapped.
///
/// # Invariants
///
/// `mmap::map` has set it up, and it stays as it is for as long as this lives.
pub(crate) struct Vma<'a>(&'a VmaRef);

impl<'a> Vma<'a> {
    /// An area of the kernel.
    ///
    /// # Safety
    ///
    /// `mmap::map` has set it up, and it is locked for as long as `'a`.
    pub(crate) unsafe fn from_raw(vma: *const bindings::vm_area_struct) -> Self {
        // SAFETY: By the caller's promise it is there and locked.
        // INVARIANT: By the caller's promise.
        Self(unsafe { VmaRef::from_raw(vma) })
    }

    /// The address behind it.
    pub(crate) fn end(&self) -> usize {
        self.0.end()
    }

    /// The page numbers of the arena that it maps.
    pub(crate) fn pages(&self) -> Range<u64> {
        // SAFETY: By the invariant the area is there, and its place in the file does not change.
        let first = unsafe { (*self.0.as_ptr()).vm_pgoff } as u64;
        let pages = (self.0.end() - self.0.start()) >> PAGE_SHIFT;
        first..first + pages as u64
    }

    /// Where page number 0 is or would be: it may lie before the beginning of all addresses.
    pub(crate) fn base(&self) -> usize {
        let first = self.pages().start as usize;
        self.0.start().wrapping_sub(first << PAGE_SHIFT)
    }

    /// How many pages from page number `first` on are mapped, of `count`, up to one that is not. None,
    /// if they are not all within the area. May sleep.
    pub(crate) fn mapped(&self, first: u64, count: u64) -> u64 {
        let pages = self.pages();
        if count == 0 || first < pages.start || first + count > pages.end {
            return 0;
        }
        // SAFETY: By the invariant the area is there and locked; the addresses lie in it.
        let mapped = unsafe {
            raw::freelist_vma_mapped(
                self.0.as_ptr().cast(),
                self.address_of(first),
                count as usize,
            )
        };
        mapped as u64
    }

    /// Maps a page as if it had been touched: with what lies around it. `EFAULT` when there is no
    /// memory behind it, `ENOMEM` when there is none for page tables. May sleep.
    pub(crate) fn fault(&self, page: u64) -> Result {
        if !self.pages().contains(&page) {
            return Err(EFAULT);
        }
        // SAFETY: By the invariant the area is there and its address space locked; the address lies
        // in it. Without a place to say so the lock is not dropped.
        to_result(unsafe { raw::freelist_vma_fault(self.0.as_ptr().cast(), self.address_of(page)) })
    }

    fn address_of(&self, page: u64) -> usize {
        self.base().wrapping_add((page as usize) << PAGE_SHIFT)
    }
}
