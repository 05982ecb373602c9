// SPDX-License-Identifier: GPL-2.0-only

//! The shrinker: returns free pages when the system or a memory cgroup is short, or an object is idle.
//!
//! Each object with free pages ([`Shrink`]) has a member for each NUMA node, on a list that the kernel
//! keeps per node and memory cgroup. So a cgroup at its limit reclaims from its own members. A reclaiming
//! thread marks a member busy while the list is locked; a member that ends leaves the list and waits until
//! it is not busy.
//!
//! All members share one limit. A member that needs pages under it makes the others hand over free
//! pages, by the same lists.
//!
//! Under reclaim nothing here waits for a lock whose holder may wait for memory.

use crate::{
    ffi::raw,
    mm::statistics::Node, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::Arc, //
};

/// An object with free pages that it can return to the system.
pub(crate) trait Shrink: Send + Sync + 'static {
    /// Returns about how many pages of a node [`Shrink::shrink`] could return. Called with a spin lock
    /// held; takes no lock.
    fn reclaimable(&self, node: Node) -> u64;

    /// Returns about `max_pages` free pages of a node to the system, out of a bounded part of its free
    /// pages, without waiting for a folio's lock. Returns how many. May sleep.
    fn shrink(&self, node: Node, max_pages: u64) -> u64;

    /// Returns about `max_pages` free pages of a node to the system, out of all its free pages, without
    /// waiting for a folio's lock. Returns how many. May sleep.
    fn shrink_all(&self, node: Node, max_pages: u64) -> u64;

    /// Returns how many pages of a node [`Shrink::hand_over`] could return. May sleep.
    fn reclaimable_for_others(&self, node: Node) -> u64;

    /// Returns at most `max_pages` free pages to the system, so that another member can grow under the
    /// shared limit. Returns how many. May sleep, and waits for folio locks.
    fn hand_over(&self, max_pages: u64) -> u64;

    /// Returns all free pages to the system if nothing was asked of the object since the last call. May
    /// sleep, and waits for folio locks.
    fn return_idle(&self);
}

/// The registered shrinker of all `T`, unregistered on drop.
///
/// # Invariants
///
/// The shrinker is registered, and the only one.
pub(crate) struct Shrinker<T>(PhantomData<fn(&T)>);

impl<T: Shrink> Shrinker<T> {
    /// The functions that `c/shrinker.c` calls.
    const FUNCTIONS: &'static raw::freelist_shrinking = &raw::freelist_shrinking {
        count: Some(count::<T>),
        shrink: Some(shrink::<T>),
        shrink_all: Some(shrink_all::<T>),
        count_for_others: Some(count_for_others::<T>),
        hand_over: Some(hand_over::<T>),
        return_idle: Some(return_idle::<T>),
    };

    /// Registers the shrinker, which calls [`Shrink::return_idle`] every `idle_seconds`; never if that is
    /// 0. Fails with `ENOMEM` when memory is short. May sleep.
    ///
    /// # Safety
    ///
    /// No shrinker of any type is registered.
    pub(crate) unsafe fn register(idle_seconds: u32) -> Result<Self> {
        // SAFETY: By the caller's promise. The table is static.
        to_result(unsafe { raw::freelist_shrinker_register(Self::FUNCTIONS, idle_seconds) })?;
        // INVARIANT: It was just registered.
        Ok(Self(PhantomData))
    }
}

impl<T> Drop for Shrinker<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is registered. A `Member` borrows it, so none is left.
        unsafe { raw::freelist_shrinker_unregister() };
    }
}

/// An object on the shrinker's lists, removed on drop. No call shrinks the object after that.
///
/// # Invariants
///
/// `members` are on the lists, and point to `_of`, which holds a reference to their cgroup.
pub(crate) struct Member<T> {
    members: NonNull<raw::freelist_members>,
    _of: Arc<T>,
}

// SAFETY: A member may be removed by any thread.
unsafe impl<T: Shrink> Send for Member<T> {}
// SAFETY: Nothing can be done through a shared `Member`.
unsafe impl<T: Shrink> Sync for Member<T> {}

impl<T: Shrink> Member<T> {
    /// Adds `of` to the lists of `memcg`, which is the caller's: reclaim of that cgroup and of all above it
    /// shrinks `of` from now on. Fails with `ENOMEM` when memory is short. May sleep.
    ///
    /// # Safety
    ///
    /// A [`Shrinker<T>`] is registered until the returned object is dropped. `of` holds a reference to
    /// the cgroup.
    pub(crate) unsafe fn new(of: Arc<T>, memcg: *mut raw::mem_cgroup) -> Result<Self> {
        let pointer: *const T = &*of;
        // SAFETY: By the caller's promise.
        let members = unsafe { raw::freelist_members_new(pointer.cast_mut().cast(), memcg) };
        // INVARIANT: They were just put on the lists.
        Ok(Self {
            members: NonNull::new(members).ok_or(ENOMEM)?,
            _of: of,
        })
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant they are on the lists. The object that they point to outlives this call.
        unsafe { raw::freelist_members_free(self.members.as_ptr()) };
    }
}

/// Returns how many free pages the members other than `to` could hand over. May sleep.
pub(crate) fn reclaimable_of_others<T: Shrink>(to: &T) -> u64 {
    let to: *const T = to;
    // SAFETY: A registered shrinker outlives the objects that it shrinks. The pointer is only compared.
    unsafe { raw::freelist_reclaimable_of_others(to.cast_mut().cast()) as u64 }
}

/// Makes the members other than `to` return at most `pages` free pages to the system, so that `to` can
/// grow under the shared limit. Returns how many. May sleep.
pub(crate) fn reclaim_from_others<T: Shrink>(to: &T, pages: u64) -> u64 {
    let to: *const T = to;
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    // SAFETY: A registered shrinker outlives the objects that it shrinks. The pointer is only compared.
    unsafe { raw::freelist_reclaim_from_others(to.cast_mut().cast(), pages) as u64 }
}

/// Calls [`Shrink::reclaimable`]. Called with a spin lock held.
///
/// # Safety
///
/// `of` is the `T` of a member that is on the list.
unsafe extern "C" fn count<T: Shrink>(of: *mut c_void, node: c_int) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps a reference.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.reclaimable(node) as c_ulong
}

/// Calls [`Shrink::shrink`]. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn shrink<T: Shrink>(of: *mut c_void, node: c_int, pages: c_ulong) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps a reference.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.shrink(node, pages as u64) as c_ulong
}

/// Calls [`Shrink::shrink_all`]. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn shrink_all<T: Shrink>(
    of: *mut c_void,
    node: c_int,
    pages: c_ulong,
) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps a reference.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.shrink_all(node, pages as u64) as c_ulong
}

/// Calls [`Shrink::reclaimable_for_others`]. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn count_for_others<T: Shrink>(
    of: *mut c_void,
    node: c_int,
    _pages: c_ulong,
) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps a reference.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.reclaimable_for_others(node) as c_ulong
}

/// Calls [`Shrink::hand_over`]. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn hand_over<T: Shrink>(
    of: *mut c_void,
    _node: c_int,
    pages: c_ulong,
) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps a reference.
    let of = unsafe { &*of.cast::<T>() };
    of.hand_over(pages as u64) as c_ulong
}

/// Calls [`Shrink::return_idle`]. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn return_idle<T: Shrink>(of: *mut c_void) {
    // SAFETY: By the caller's promise: the member keeps a reference.
    let of = unsafe { &*of.cast::<T>() };
    of.return_idle();
}
