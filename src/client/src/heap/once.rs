// SPDX-License-Identifier: GPL-2.0

//! A value that is made once and stays for ever.

use std::ptr;

use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicPtr};

/// A value that is made by who asks for it first; meanwhile others do without it, and
/// so does what it takes to make it.
///
/// # Invariants
///
/// `made` is null, or what [`Once::get_or_make`] was given for ever.
pub(crate) struct Once<T: 'static> {
    pub(crate) begun: AtomicBool,
    pub(crate) made: AtomicPtr<T>,
}

impl<T: Sync> Once<T> {
    /// It, if it is made.
    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: By the invariant it is for ever there if it is not null, and only shared
        // references are given out; who made it did so before it was stored.
        unsafe { self.made.load(Acquire).as_ref() }
    }

    /// It, made if nobody did or does; `None` meanwhile.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> &'static T) -> Option<&'static T> {
        let made = self.get();
        if made.is_some() {
            return made;
        }
        if self.begun.swap(true, Relaxed) {
            return None;
        }
        let made = make();
        // INVARIANT: It was given for ever.
        self.made.store(ptr::from_ref(made).cast_mut(), Release);
        Some(made)
    }
}
