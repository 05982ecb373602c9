// SPDX-License-Identifier: GPL-2.0-only

//! The shrinker: when the system or a memory cgroup is short, free pages are given back.
//!
//! Whatever has free pages ([`Shrink`]) has a member object for each node of memory, on a list that the
//! kernel keeps per node and memory cgroup: so a cgroup at its limit meets its own members. Whoever reclaims takes hold of a member while the list is locked; one that ends leaves the
//! list and waits for him.
//!
//! The same way members are asked for free pages that another one has no room for, as all of them share
//! a limit.
//!
//! Under reclaim nothing here waits for a lock that a thread which wants memory could hold.

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

/// What has free pages that it can give back.
pub(crate) trait Shrink: Send + Sync + 'static {
    /// Pages of a node that [`Shrink::shrink`] could give back, about. Called with a spin lock held; takes
    /// none.
    fn reclaimable(&self, node: Node) -> u64;

    /// Gives some free pages of a node back to a system that is short of them, about `most`, and waits
    /// for no folio. Looks at a part of what there is. Returns how many left. May sleep.
    fn shrink(&self, node: Node, most: u64) -> u64;

    /// The same, but looks at all there is.
    fn shrink_all(&self, node: Node, most: u64) -> u64;

    /// Pages of a node that [`Shrink::hand_over`] could give up. May sleep.
    fn reclaimable_for_others(&self, node: Node) -> u64;

    /// Gives at most `most` free pages up for another one. Returns how many left. May sleep.
    fn hand_over(&self, most: u64) -> u64;
}

/// The registered shrinker of all `T`, until it is dropped.
///
/// # Invariants
///
/// It is registered, and the only one.
pub(crate) struct Shrinker<T>(PhantomData<fn(&T)>);

impl<T: Shrink> Shrinker<T> {
    /// What the kernel's side calls.
    const FUNCTIONS: &'static raw::freelist_shrinking = &raw::freelist_shrinking {
        count: Some(count::<T>),
        shrink: Some(shrink::<T>),
        shrink_all: Some(shrink_all::<T>),
        count_for_others: Some(count_for_others::<T>),
        hand_over: Some(hand_over::<T>),
    };

    /// Registers it. `ENOMEM` when memory is short.
    ///
    /// # Safety
    ///
    /// There is none yet, of whatever type.
    pub(crate) unsafe fn register() -> Result<Self> {
        // SAFETY: By the caller's promise. The table and its functions are there as long as the module.
        to_result(unsafe { raw::freelist_shrinker_register(Self::FUNCTIONS) })?;
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

/// Something that can be shrunk, until this is dropped: nobody shrinks it after that.
///
/// # Invariants
///
/// `members` are on the lists, and point to `of`, which holds a reference to their cgroup.
pub(crate) struct Member<T> {
    members: NonNull<raw::freelist_members>,
    _of: Arc<T>,
}

// SAFETY: A member may be removed by any thread.
unsafe impl<T: Shrink> Send for Member<T> {}
// SAFETY: Nothing can be done through a shared `Member`.
unsafe impl<T: Shrink> Sync for Member<T> {}

impl<T: Shrink> Member<T> {
    /// Lets something be shrunk, by reclaim of its cgroup, which is the caller's, and of all above it.
    /// `ENOMEM` when memory is short.
    ///
    /// # Safety
    ///
    /// A [`Shrinker<T>`] is registered, and stays so as long as this lives. `of` has the cgroup.
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
        // SAFETY: By the invariant they are on the lists. What they point to is there until this returns.
        unsafe { raw::freelist_members_free(self.members.as_ptr()) };
    }
}

/// How many free pages other members would hand over to `to`, which is there as long as a registered
/// [`Shrinker`].
pub(crate) fn reclaimable_of_others<T: Shrink>(to: &T) -> u64 {
    let to: *const T = to;
    // SAFETY: The shrinker is there as long as what it shrinks. The pointer is only compared.
    unsafe { raw::freelist_reclaimable_of_others(to.cast_mut().cast()) as u64 }
}

/// Makes other members hand over at most `pages` free pages to `to`: they go back to the system. Gives
/// how many went. May sleep, but waits for nobody.
pub(crate) fn reclaim_from_others<T: Shrink>(to: &T, pages: u64) -> u64 {
    let to: *const T = to;
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    // SAFETY: The shrinker is there as long as what it shrinks. The pointer is only compared.
    unsafe { raw::freelist_reclaim_from_others(to.cast_mut().cast(), pages) as u64 }
}

/// How many pages a member could give back. Called with a spin lock held.
///
/// # Safety
///
/// `of` is the `T` of a member that is on the list.
unsafe extern "C" fn count<T: Shrink>(of: *mut c_void, node: c_int) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.reclaimable(node) as c_ulong
}

/// Makes a member give at most `pages` pages back. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn shrink<T: Shrink>(of: *mut c_void, node: c_int, pages: c_ulong) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.shrink(node, pages as u64) as c_ulong
}

/// The same, of all there is.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn shrink_all<T: Shrink>(
    of: *mut c_void,
    node: c_int,
    pages: c_ulong,
) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.shrink_all(node, pages as u64) as c_ulong
}

/// How many pages a member would hand over to another one. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn count_for_others<T: Shrink>(
    of: *mut c_void,
    node: c_int,
    _most: c_ulong,
) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let (of, node) = unsafe { (&*of.cast::<T>(), Node::from_raw(node)) };
    of.reclaimable_for_others(node) as c_ulong
}

/// Makes it hand over at most `pages`. May sleep.
///
/// # Safety
///
/// `of` is the `T` of a member that cannot be freed now.
unsafe extern "C" fn hand_over<T: Shrink>(
    of: *mut c_void,
    _node: c_int,
    pages: c_ulong,
) -> c_ulong {
    // SAFETY: By the caller's promise: the member keeps it.
    let of = unsafe { &*of.cast::<T>() };
    of.hand_over(pages as u64) as c_ulong
}
