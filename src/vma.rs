// SPDX-License-Identifier: GPL-2.0

//! Mappings of an arena, and the page faults in them.
//!
//! Every page table entry holds a reference to its page: a page cannot reach another arena or the
//! system while it is mapped. The kernel knows these pages as ordinary ones (`VM_MIXEDMAP`), so that
//! ptrace, pipes and direct I/O work on them.

use crate::{
    arena::Arena,
    ffi::{
        raw,
        Table, //
    },
    file::OpenFile,
    window::Window, //
};
use kernel::{
    bindings,
    mm::virt::VmaNew,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Sets up a new mapping.
///
/// `EINVAL` when it is private, executable, or ends beyond the arena.
pub(crate) fn map(arena: &Arena, vma: &VmaNew) -> Result {
    // SAFETY: The area is there for as long as `vma` is.
    if !unsafe { raw::freelist_area_is_shared(vma.as_ptr().cast()) } {
        return Err(EINVAL);
    }
    let pages = ((vma.end() - vma.start()) >> PAGE_SHIFT) as u64;
    // SAFETY: The area is there for as long as `vma` is.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff } as u64;
    let last = first.checked_add(pages).ok_or(EINVAL)?;
    if last > arena.bounds().span >> PAGE_SHIFT {
        return Err(EINVAL);
    }
    vma.try_clear_mayexec()?;
    vma.set_mixedmap();
    vma.set_dontexpand();
    vma.set_dontdump();
    // SAFETY: The area is being made, and nobody else sees it yet.
    unsafe { (*vma.as_ptr()).vm_ops = &raw const OPERATIONS.0 };
    Ok(())
}

static OPERATIONS: Table<bindings::vm_operations_struct> = Table(bindings::vm_operations_struct {
    fault: Some(fault),
    ..pin_init::zeroed()
});

/// A page of the mapping is touched: maps it if a live block lies in it.
///
/// # Safety
///
/// Called by the kernel, for a fault in an area that [`map`] has set up.
unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The kernel gives a fault of an area that `map` has set up; it holds a reference to
    // the file.
    let (arena, index) = unsafe {
        let known = &(*fault).__bindgen_anon_1;
        (OpenFile::of((*known.vma).vm_file), known.pgoff)
    };
    // Until the page is mapped: what is found stays.
    let _held = arena.space().hold();
    let Some(page) = arena.live_page(index as u64) else {
        // SAFETY: May be called at any time.
        return unsafe { raw::freelist_fault_sigbus() };
    };
    Window::Fault.open();
    // SAFETY: The fault is the caller's, and we hold a reference to the page.
    unsafe { raw::freelist_fault_insert(fault.cast(), page.as_ptr()) }
}
