// SPDX-License-Identifier: GPL-2.0

//! The shrinker: when the system or a memory cgroup is short, arenas give their free pages back.
//!
//! Each arena has a member object on a list that the kernel keeps per memory cgroup, and that is
//! charged to the arena's: so a cgroup at its limit meets its own arenas. Whoever reclaims takes hold
//! of a member while the list is locked; an arena that ends leaves the list and waits for him.
//!
//! The same way arenas are asked for free pages that another one has no room for, as all of them share
//! a limit.
//!
//! Nothing here waits for a lock that somebody who wants memory could hold.

use crate::{
    arena::Arena,
    ffi::raw, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    ffi::{
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::Arc, //
};

/// The registered shrinker, until it is dropped.
///
/// # Invariants
///
/// It is registered, and the only one.
pub(crate) struct Shrinker(());

impl Shrinker {
    /// Registers it. `ENOMEM` when memory is short.
    ///
    /// # Safety
    ///
    /// There is none yet.
    pub(crate) unsafe fn register() -> Result<Self> {
        // SAFETY: By the caller's promise. The table and its functions are there as long as the module.
        to_result(unsafe { raw::freelist_shrinker_register(&FUNCTIONS) })?;
        // INVARIANT: It was just registered.
        Ok(Self(()))
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is registered. A `Member` borrows it, so none is left.
        unsafe { raw::freelist_shrinker_unregister() };
    }
}

/// An arena that can be shrunk, until this is dropped: nobody shrinks it after that.
///
/// # Invariants
///
/// `member` is on the list, and points to `arena`.
pub(crate) struct Member {
    member: NonNull<raw::freelist_member>,
    _arena: Arc<Arena>,
}

// SAFETY: A member may be removed by any thread.
unsafe impl Send for Member {}
// SAFETY: Nothing can be done through a shared `Member`.
unsafe impl Sync for Member {}

impl Member {
    /// Lets an arena be shrunk. `ENOMEM` when memory is short.
    ///
    /// # Safety
    ///
    /// The shrinker is registered, and stays so as long as this lives.
    pub(crate) unsafe fn new(arena: Arc<Arena>) -> Result<Self> {
        let pointer: *const Arena = &*arena;
        // SAFETY: By the caller's promise.
        let member = unsafe { raw::freelist_member_new(pointer.cast_mut().cast()) };
        // INVARIANT: It was just put on the list.
        Ok(Self {
            member: NonNull::new(member).ok_or(ENOMEM)?,
            _arena: arena,
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is on the list. The arena is there until this returns.
        unsafe { raw::freelist_member_free(self.member.as_ptr()) };
    }
}

/// How many free pages other arenas would hand over to `arena`.
pub(crate) fn spare_elsewhere(arena: &Arena) -> u64 {
    let arena: *const Arena = arena;
    // SAFETY: The shrinker is there as long as an arena. The pointer is only compared.
    unsafe { raw::freelist_spare_count(arena.cast_mut().cast()) as u64 }
}

/// Makes other arenas hand over at most `pages` free pages to `arena`: they go back to the system. Gives
/// how many went. May sleep, but waits for nobody.
pub(crate) fn take_elsewhere(arena: &Arena, pages: u64) -> u64 {
    let arena: *const Arena = arena;
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    // SAFETY: The shrinker is there as long as an arena. The pointer is only compared.
    unsafe { raw::freelist_spare_take(arena.cast_mut().cast(), pages) as u64 }
}

/// What the kernel's side calls.
static FUNCTIONS: raw::freelist_shrinking = raw::freelist_shrinking {
    count: Some(count),
    shrink: Some(shrink),
    count_spare: Some(count_spare),
    hand_over: Some(hand_over),
};

/// How many pages an arena could give back. Called with a spin lock held.
///
/// # Safety
///
/// `arena` is that of a member that is on the list.
unsafe extern "C" fn count(arena: *mut c_void) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let arena = unsafe { &*arena.cast::<Arena>() };
    arena.reclaimable() as c_ulong
}

/// Makes an arena give at most `pages` pages back. May sleep.
///
/// # Safety
///
/// `arena` is that of a member that cannot be freed now.
unsafe extern "C" fn shrink(arena: *mut c_void, pages: c_ulong) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let arena = unsafe { &*arena.cast::<Arena>() };
    arena.shrink(pages as u64) as c_ulong
}

/// How many pages an arena would hand over to another one. Called with a spin lock held.
///
/// # Safety
///
/// `arena` is that of a member that is on the list.
unsafe extern "C" fn count_spare(arena: *mut c_void) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let arena = unsafe { &*arena.cast::<Arena>() };
    arena.spare() as c_ulong
}

/// Makes it hand over at most `pages`. May sleep.
///
/// # Safety
///
/// `arena` is that of a member that cannot be freed now.
unsafe extern "C" fn hand_over(arena: *mut c_void, pages: c_ulong) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let arena = unsafe { &*arena.cast::<Arena>() };
    arena.hand_over(pages as u64) as c_ulong
}
