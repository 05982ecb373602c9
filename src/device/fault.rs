// SPDX-License-Identifier: GPL-2.0

//! Page faults in mappings of an arena.

use crate::{
    device::file::OpenFile,
    ffi::{
        race_point::RacePoint,
        raw, //
    },
    mm::vma::Vma, //
};
use kernel::bindings;

/// Pages that one fault maps at most: a window of so many, aligned. Instructions a page of 4 MiB
/// touched from end to end, and a touch of 64 of its pages anywhere: 2481 and 2425 with 1, 691 and
/// 4470 with 8, 550 and 5222 with 16, 481 and 6666 with 32.
const AROUND: u64 = 16;

/// A page of the mapping is touched: maps it if a live block lies in it, and what the same block has
/// around it.
///
/// # Safety
///
/// Called by the kernel, for a fault in an area that [`map`](super::mmap::map) has set up.
pub(super) unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The kernel gives a fault of an area that `mmap::map` has set up and that is locked; it holds
    // a reference to the file.
    let (arena, vma, index) = unsafe {
        let known = &(*fault).__bindgen_anon_1;
        let arena = OpenFile::of((*known.vma).vm_file);
        (arena, Vma::from_raw(known.vma), known.pgoff as u64)
    };
    let here = vma.pages();
    let first = index / AROUND * AROUND;
    let window = first.max(here.start)..(first + AROUND).min(here.end);
    // Until the pages are mapped: what is found stays.
    let guard = arena.address_space().invalidate_lock_shared();
    let mut found = guard.find();
    let Some(first) = arena.live_pages(index, window, &mut found) else {
        // SAFETY: May be called at any time.
        return unsafe { raw::freelist_fault_sigbus() };
    };
    RacePoint::Fault.reach();
    let (at, count) = ((index - first) as usize, found.pages().len());
    let Some(page) = found.pages().get(at) else {
        // SAFETY: May be called at any time.
        return unsafe { raw::freelist_fault_sigbus() };
    };
    // SAFETY: The fault is the caller's, and what was found is there as the guard lives.
    let result = unsafe { raw::freelist_fault_insert(fault.cast(), *page) };
    // What cannot be mapped now, or is already, is left to its own fault.
    let _ = vma.insert(&found, first, at + 1..count);
    let _ = vma.insert(&found, first, 0..at);
    result
}

/// Maps nothing: that the function is there lets the kernel call [`fault`] under the area's own lock
/// instead of that of the whole address space.
///
/// # Safety
///
/// None: its arguments are not used.
pub(super) unsafe extern "C" fn map_pages(
    _fault: *mut bindings::vm_fault,
    _first: usize,
    _last: usize,
) -> bindings::vm_fault_t {
    0
}
