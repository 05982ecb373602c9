// SPDX-License-Identifier: GPL-2.0

//! Page faults in mappings of an arena: what is in its page cache is mapped; memory is made for lazy
//! blocks alone.

use crate::{
    arena::lazy::Touched,
    device::file::OpenFile,
    ffi::{
        race_point::RacePoint,
        raw, //
    }, //
};
use kernel::{
    bindings,
    ffi::c_ulong,
    fs::File, //
};

/// Pages that a write maps at most: a window of so many, aligned. (The core has 16 for reads. Where a
/// part of a huge page leaves, the rest is unmapped with it, and is mapped again by as many faults.)
const AROUND: c_ulong = 128;

/// A page of the mapping is touched: maps what the arena has there and around it, a huge page as one. A
/// page of a lazy block that has no memory gets some. `SIGBUS` where there is nothing, and where memory
/// is short and nobody can be killed for it.
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
        let file = File::from_raw_file((*known.vma).vm_file);
        (OpenFile::of(file), known.pgoff as u64)
    };
    let touched = match arena.address_space().lock_folio(index) {
        Some(folio) => Touched::Present(folio),
        None => arena.touch(index),
    };
    match touched {
        Touched::Present(folio) => {
            RacePoint::Fault.reach();
            // SAFETY: The fault is the caller's. The folio has the page; its reference and its lock
            // are the kernel's from here on.
            unsafe { raw::freelist_fault_found(fault.cast(), folio.into_raw()) }
        }
        // SAFETY: As above.
        Touched::New(folio) => unsafe { raw::freelist_fault_new(fault.cast(), folio.into_raw()) },
        // SAFETY: May be called at any time.
        Touched::Again => unsafe { raw::freelist_fault_again() },
        // SAFETY: May be called at any time.
        Touched::Nothing => unsafe { raw::freelist_fault_sigbus() },
    }
}
