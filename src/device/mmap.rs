// SPDX-License-Identifier: GPL-2.0-only

//! Mappings of an arena.
//!
//! They map the page cache of a file as any other mapping does, so that the core maps huge pages, and
//! ptrace, pipes, direct I/O, futexes and migration work. A page is not freed to the system, and does not
//! become another arena's, while it is mapped or pinned.

use crate::{
    arena::Arena,
    device::fault::fault,
    ffi::{
        operations::Table,
        raw, //
    }, //
};
use kernel::{
    bindings,
    mm::virt::VmaNew,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Sets up a new mapping.
///
/// `EINVAL` when it is private, executable, or ends beyond the arena's span.
pub(crate) fn map(arena: &Arena, vma: &VmaNew) -> Result {
    // SAFETY: The VMA lives as long as `vma`.
    if !unsafe { raw::freelist_vma_is_shared(vma.as_ptr().cast()) } {
        return Err(EINVAL);
    }
    let pages = ((vma.end() - vma.start()) >> PAGE_SHIFT) as u64;
    // SAFETY: The VMA lives as long as `vma`.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff } as u64;
    let last = first.checked_add(pages).ok_or(EINVAL)?;
    if last > arena.bounds().span >> PAGE_SHIFT {
        return Err(EINVAL);
    }
    vma.try_clear_mayexec()?;
    // It may not grow by mremap. The core refuses MADV_DODUMP for such mappings, so no VM_DONTDUMP here:
    // the process's coredump_filter decides.
    vma.set_dontexpand();
    arena.mapped_at(vma.start().wrapping_sub((first as usize) << PAGE_SHIFT));
    // SAFETY: The VMA is being set up, and no other thread has it.
    unsafe { (*vma.as_ptr()).vm_ops = &raw const OPERATIONS.0 };
    Ok(())
}

static OPERATIONS: Table<bindings::vm_operations_struct> = Table(bindings::vm_operations_struct {
    fault: Some(fault),
    map_pages: Some(bindings::filemap_map_pages),
    ..pin_init::zeroed()
});
