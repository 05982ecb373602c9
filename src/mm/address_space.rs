// SPDX-License-Identifier: GPL-2.0

//! The address space of an arena: what of it is mapped, in whatever process, and how that is undone.
//!
//! It is an inode of its own, in a file system that nobody sees, so that unmapping meets the mappings
//! of this arena and no others, whichever device node they were made through.
//!
//! A page that leaves must not come back through a fault in flight. So a fault holds the lock
//! shared ([`AddressSpace::invalidate_lock_shared`]) from its lookup until the page table entry is
//! set, and whoever takes a page away makes it unfindable first, then waits for the faults that may
//! have found it ([`AddressSpace::invalidate_barrier`]), then removes the entries
//! ([`AddressSpace::unmap`]).

use crate::{
    engine::BATCH,
    ffi::raw,
    mm::page::Page, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    prelude::*, //
};

/// The address space of one arena.
///
/// # Invariants
///
/// `0` is an inode that was made for this object and is put when it is dropped.
pub(crate) struct AddressSpace(NonNull<raw::inode>);

// SAFETY: An inode belongs to no thread.
unsafe impl Send for AddressSpace {}
// SAFETY: What is done through a shared `AddressSpace` is done under the inode's own locks.
unsafe impl Sync for AddressSpace {}

/// The lock, taken shared: pages may be found as long as this lives, and what is found stays.
pub(crate) struct InvalidateGuard<'a> {
    address_space: &'a AddressSpace,
}

/// Pages that were found to be mapped, at most a batch. Without references: they stay as long as
/// the guard lives.
///
/// # Invariants
///
/// The first `len` of `pages` have been written.
pub(crate) struct PageBatch<'a> {
    pages: [MaybeUninit<*mut raw::page>; BATCH as usize],
    len: usize,
    guard: PhantomData<&'a InvalidateGuard<'a>>,
}

impl InvalidateGuard<'_> {
    /// Nothing found yet.
    pub(crate) fn find(&self) -> PageBatch<'_> {
        // INVARIANT: None has been written.
        PageBatch {
            pages: [const { MaybeUninit::uninit() }; BATCH as usize],
            len: 0,
            guard: PhantomData,
        }
    }
}

impl PageBatch<'_> {
    /// Adds a page of the arena that can be found now, as long as there is room.
    pub(crate) fn push(&mut self, page: &Page) {
        if let Some(place) = self.pages.get_mut(self.len) {
            place.write(page.as_ptr());
            // INVARIANT: It was just written.
            self.len += 1;
        }
    }

    /// All of them.
    pub(crate) fn pages(&self) -> &[*mut raw::page] {
        // SAFETY: By the invariant so many have been written, and a `MaybeUninit` has the layout of
        // what it may have.
        unsafe { core::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len) }
    }
}

impl AddressSpace {
    /// An address space that is mapped nowhere. `ENOMEM` when memory is short.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May be called where sleeping is allowed.
        let inode = unsafe { raw::freelist_address_space_new() };
        // INVARIANT: It was just made.
        NonNull::new(inode).map(Self).ok_or(ENOMEM)
    }

    /// Makes all mappings of a file mappings of this address space.
    ///
    /// # Safety
    ///
    /// `file` is being opened: nobody else sees it. The address space outlives it.
    pub(crate) unsafe fn attach(&self, file: *mut bindings::file) {
        // SAFETY: By the invariant and by the caller's promise both are there.
        unsafe { raw::freelist_address_space_attach(self.0.as_ptr(), file.cast()) };
    }

    pub(crate) fn as_ptr(&self) -> *mut raw::inode {
        self.0.as_ptr()
    }

    /// Begins a lookup whose page is to be mapped. May sleep.
    pub(crate) fn invalidate_lock_shared(&self) -> InvalidateGuard<'_> {
        // SAFETY: By the invariant the inode is there. `InvalidateGuard` releases what is taken
        // here.
        unsafe { raw::freelist_invalidate_lock_shared(self.0.as_ptr()) };
        InvalidateGuard {
            address_space: self,
        }
    }

    /// Waits until all lookups that have begun are over. May sleep.
    pub(crate) fn invalidate_barrier(&self) {
        // SAFETY: By the invariant the inode is there.
        unsafe { raw::freelist_invalidate_barrier(self.0.as_ptr()) };
    }

    /// Says whether no lookup is going on, without waiting for one.
    pub(crate) fn try_invalidate_barrier(&self) -> bool {
        // SAFETY: By the invariant the inode is there.
        unsafe { raw::freelist_try_invalidate_barrier(self.0.as_ptr()) }
    }

    /// Removes the mappings of `pages` pages from page number `first` on. May sleep.
    pub(crate) fn unmap(&self, first: u32, pages: u32) {
        // SAFETY: By the invariant the inode is there.
        unsafe { raw::freelist_address_space_unmap(self.0.as_ptr(), first.into(), pages.into()) };
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // SAFETY: By the invariant the inode is ours, and nobody has it after this.
        unsafe { raw::freelist_address_space_free(self.0.as_ptr()) };
    }
}

impl Drop for InvalidateGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: It was taken when this was made, by the same thread.
        unsafe { raw::freelist_invalidate_unlock_shared(self.address_space.0.as_ptr()) };
    }
}
