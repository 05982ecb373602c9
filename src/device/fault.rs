// SPDX-License-Identifier: GPL-2.0

//! Page faults in mappings of an arena: what is in its page cache is mapped, and nothing is made.

use crate::{
    device::file::OpenFile,
    ffi::{
        race_point::RacePoint,
        raw, //
    }, //
};
use kernel::{
    bindings,
    ffi::c_ulong, //
};

/// Pages that a write maps at most: a window of so many, aligned, as the core has it for reads.
const AROUND: c_ulong = 16;

/// A page of the mapping is touched: maps what the arena has there and around it, a huge page as one.
/// `SIGBUS` where it has nothing.
///
/// # Safety
///
/// Called by the kernel, for a fault in an area that [`map`](super::mmap::map) has set up.
pub(super) unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    if !RacePoint::Fault.is_open() {
        // SAFETY: The fault is the caller's, in an area of an arena.
        let mapped = unsafe { raw::freelist_fault_around(fault.cast(), AROUND) };
        if mapped != 0 {
            return mapped;
        }
    }
    // SAFETY: The kernel gives a fault of an area that `mmap::map` has set up and that is locked; it holds
    // a reference to the file.
    let (arena, index) = unsafe {
        let known = &(*fault).__bindgen_anon_1;
        (OpenFile::of((*known.vma).vm_file), known.pgoff as u64)
    };
    match arena.address_space().lock_folio(index) {
        Some(folio) => {
            RacePoint::Fault.reach();
            // SAFETY: The fault is the caller's. The folio has the page; its reference and its lock
            // are the kernel's from here on.
            unsafe { raw::freelist_fault_found(fault.cast(), folio.into_raw()) }
        }
        // SAFETY: May be called at any time.
        None => unsafe { raw::freelist_fault_sigbus() },
    }
}
