// SPDX-License-Identifier: GPL-2.0-only

//! Page faults in mappings of an arena. [`fault`] maps folios of the page cache (`c/wrappers/folio.c`). It
//! allocates memory only for a page of a lazy block, or one that was discarded: [`Arena::touch`] in
//! `arena/lazy.rs`.

use crate::{
    arena::{
        lazy::Touched,
        Arena, //
    },
    device::file::OpenFile,
    ffi::{
        race_point::RacePoint,
        raw,
        task,
        trace, //
    }, //
};
use kernel::{
    bindings,
    ffi::c_ulong,
    fs::File,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    }, //
};

/// The pages of the aligned window that a write fault maps. The core's is 16, for reads. A removal of a
/// part of a huge page unmaps the rest, and a larger window maps that again with fewer faults.
const AROUND: c_ulong = 128;

/// Handles a page fault: maps the folio of the page and those around it, a huge page as one entry. A
/// page of a lazy block without memory gets some, except for a core dump. `SIGBUS` if no block has
/// memory there, or if memory is short and the OOM killer finds no process to kill. May sleep.
///
/// # Safety
///
/// The caller is the kernel, for a fault in a VMA that [`map`](super::mmap::map) has set up.
pub(super) unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    if !RacePoint::Fault.is_open() {
        // SAFETY: The caller's fault is in a VMA of an arena.
        let mapped = unsafe { raw::freelist_fault_around(fault.cast(), AROUND) };
        if mapped != 0 {
            if trace::Fault::is_enabled() {
                // SAFETY: By the caller's promise.
                unsafe { report(fault, trace::FAULT_AROUND, 0) };
            }
            return mapped;
        }
    }
    let touch = |arena: &Arena, index| match arena.address_space().lock_folio(index) {
        Some(folio) => Touched::Present(folio),
        // A dump looks at every page of a mapping: what it finds without memory is a hole in the file.
        None if task::dumps_core() => Touched::Nothing,
        None => arena.touch(index),
    };
    // SAFETY: By the caller's promise.
    let touched = unsafe { at_place(fault, touch) };
    if trace::Fault::is_enabled() {
        let (outcome, bytes) = match &touched {
            Touched::Present(_) => (trace::FAULT_PRESENT, 0),
            Touched::New(folio) => (trace::FAULT_NEW, PAGE_SIZE << folio.order()),
            Touched::Again => (trace::FAULT_RETRY, 0),
            Touched::Nothing => (trace::FAULT_SIGBUS, 0),
        };
        // SAFETY: By the caller's promise.
        unsafe { report(fault, outcome, bytes as u64) };
    }
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

/// Calls `work` with the arena whose mapping faults, and the page number there.
///
/// # Safety
///
/// As [`fault`].
#[inline(always)]
unsafe fn at_place<R>(fault: *mut bindings::vm_fault, work: impl FnOnce(&Arena, u64) -> R) -> R {
    // SAFETY: By the caller's promise `mmap::map` has set the VMA up. The kernel has locked it, and it
    // holds a reference to the file until `fault` returns.
    let (arena, index) = unsafe {
        let known = &(*fault).__bindgen_anon_1;
        let file = File::from_raw_file((*known.vma).vm_file);
        (OpenFile::of(file), known.pgoff as u64)
    };
    work(arena, index)
}

/// Reports a fault to those that listen.
///
/// # Safety
///
/// As [`fault`].
#[cold]
#[inline(never)]
unsafe fn report(fault: *mut bindings::vm_fault, outcome: u32, bytes: u64) {
    // SAFETY: By the caller's promise.
    let flags = unsafe { (*fault).flags };
    let event = |arena: &Arena, index: u64| trace::Fault {
        arena: arena.id(),
        offset: index << PAGE_SHIFT,
        bytes,
        write: flags & bindings::fault_flag_FAULT_FLAG_WRITE != 0,
        outcome,
    };
    // SAFETY: By the caller's promise.
    trace::Fault::report(|| unsafe { at_place(fault, event) });
}
