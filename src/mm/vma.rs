// SPDX-License-Identifier: GPL-2.0-only

//! Mappings of an arena: areas of a process's address space (VMAs).

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

/// The caller's address space with its mmap lock held for reading: its VMAs do not change meanwhile.
///
/// # Invariants
///
/// `0` is the address space of the thread that made this, which holds its mmap lock for reading.
pub(crate) struct MmapReadGuard(NonNull<raw::mm_struct>);

impl MmapReadGuard {
    /// Locks the caller's address space. Returns `None` if it has none or is being killed. May sleep.
    pub(crate) fn lock() -> Option<Self> {
        // SAFETY: May be called in the context of a task.
        let mm = unsafe { raw::freelist_mmap_read_lock() };
        // INVARIANT: It was just locked.
        NonNull::new(mm).map(Self)
    }

    /// Returns the VMA at `address`, if it maps `address_space` and is not `PROT_NONE`.
    pub(crate) fn vma_at(&self, address_space: &AddressSpace, address: usize) -> Option<Vma<'_>> {
        // SAFETY: By the invariants of both, the address space is locked and the inode exists.
        let vma = unsafe { raw::freelist_vma_at(self.0.as_ptr(), address_space.as_ptr(), address) };
        self.wrap(vma)
    }

    /// Returns the first VMA that ends after `address`, maps `address_space` and is not `PROT_NONE`. The
    /// search ends early if the caller is being killed. May sleep.
    pub(crate) fn vma_from(&self, address_space: &AddressSpace, address: usize) -> Option<Vma<'_>> {
        // SAFETY: By the invariants of both, the address space is locked and the inode exists.
        let vma =
            unsafe { raw::freelist_vma_from(self.0.as_ptr(), address_space.as_ptr(), address) };
        self.wrap(vma)
    }

    fn wrap(&self, vma: *mut raw::vm_area_struct) -> Option<Vma<'_>> {
        // SAFETY: It is not null, so it is a VMA of an address space that is locked as long as `self`
        // lives. It maps the inode of an arena, which only `mmap::map` sets up.
        (!vma.is_null()).then(|| unsafe { Vma::from_raw(vma.cast()) })
    }
}

impl Drop for MmapReadGuard {
    fn drop(&mut self) {
        // SAFETY: By the invariant this thread has locked it.
        unsafe { raw::freelist_mmap_read_unlock(self.0.as_ptr()) };
    }
}

/// A VMA that maps pages of an arena.
///
/// # Invariants
///
/// `mmap::map` has set up the VMA, which does not change during `'a`.
pub(crate) struct Vma<'a>(&'a VmaRef);

impl<'a> Vma<'a> {
    /// Wraps a VMA of the kernel.
    ///
    /// # Safety
    ///
    /// `mmap::map` has set up the VMA, and its address space is locked during `'a`.
    pub(crate) unsafe fn from_raw(vma: *const bindings::vm_area_struct) -> Self {
        // SAFETY: By the caller's promise it exists and is locked.
        // INVARIANT: By the caller's promise.
        Self(unsafe { VmaRef::from_raw(vma) })
    }

    /// Returns the address after its last byte.
    pub(crate) fn end(&self) -> usize {
        self.0.end()
    }

    /// Returns the page numbers of the arena that it maps.
    pub(crate) fn pages(&self) -> Range<u64> {
        // SAFETY: By the invariant the VMA exists, and its offset in the file does not change.
        let first = unsafe { (*self.0.as_ptr()).vm_pgoff } as u64;
        let pages = (self.0.end() - self.0.start()) >> PAGE_SHIFT;
        first..first + pages as u64
    }

    /// Returns the address of page number 0, mapped or not. It may wrap below address 0.
    pub(crate) fn base(&self) -> usize {
        let first = self.pages().start as usize;
        self.0.start().wrapping_sub(first << PAGE_SHIFT)
    }

    /// Returns how many of the `count` pages from page number `first` on are mapped, up to the first that
    /// is not; 0 if the VMA does not contain all of them. May sleep.
    pub(crate) fn mapped(&self, first: u64, count: u64) -> u64 {
        let pages = self.pages();
        if count == 0 || first < pages.start || first + count > pages.end {
            return 0;
        }
        // SAFETY: By the invariant the VMA exists and is locked; the addresses lie in it.
        let mapped = unsafe {
            raw::freelist_vma_mapped(
                self.0.as_ptr().cast(),
                self.address_of(first),
                count as usize,
            )
        };
        mapped as u64
    }

    /// Maps a page as a touch would, with the pages around it. May sleep.
    ///
    /// Fails with `EFAULT` if the page has no memory or is not in the VMA, and with `ENOMEM` if there is
    /// no memory for page tables.
    pub(crate) fn fault(&self, page: u64) -> Result {
        if !self.pages().contains(&page) {
            return Err(EFAULT);
        }
        // SAFETY: By the invariant the VMA exists and its address space is locked; the address lies in
        // it. Without an `unlocked` argument the fault does not drop the lock.
        to_result(unsafe { raw::freelist_vma_fault(self.0.as_ptr().cast(), self.address_of(page)) })
    }

    fn address_of(&self, page: u64) -> usize {
        self.base().wrapping_add((page as usize) << PAGE_SHIFT)
    }
}
