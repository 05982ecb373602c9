// SPDX-License-Identifier: MIT OR Apache-2.0

//! A value that is computed once and read by copying it, without waiting.
//!
//! The standard library's `OnceLock` makes other threads wait for the one that computes the value. A
//! forked child does not have that thread, and would wait for ever.

use core::mem::MaybeUninit;

use crate::sync::atomic::{AtomicU32, Ordering::*};
use crate::sync::UnsafeCell;

/// No value is stored yet.
pub(crate) const EMPTY: u32 = 0;
/// A caller computes the value, or did until this process was forked.
const STORING: u32 = 1;
/// The value is stored and does not change any more.
const STORED: u32 = 2;

/// A value that is computed once. A new one is all zeros.
///
/// # Invariants
///
/// `value` is written by the one caller that changes `state` from [`EMPTY`] to [`STORING`], before
/// that caller changes it to [`STORED`], and never afterwards.
pub(crate) struct Once<T> {
    /// [`EMPTY`] at first.
    pub(crate) state: AtomicU32,
    pub(crate) value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: By the invariant one thread writes it before others read it, and they copy it.
unsafe impl<T: Copy + Send> Sync for Once<T> {}

impl<T: Copy> Once<T> {
    /// Returns the value, if it is stored.
    pub(crate) fn get(&self) -> Option<T> {
        if self.state.load(Acquire) != STORED {
            return None;
        }
        // SAFETY: By the invariant it was written before the state that was loaded, and never again.
        Some(self.value.with(|value| unsafe { (*value).assume_init() }))
    }

    /// Returns the value; `compute` makes it if none is stored. If another caller is in `compute`, this
    /// one computes a value too. `compute` is passed whether its value will be stored.
    pub(crate) fn get_or_compute(&self, compute: impl FnOnce(bool) -> T) -> T {
        if let Some(value) = self.get() {
            return value;
        }
        let first = self
            .state
            .compare_exchange(EMPTY, STORING, Relaxed, Relaxed)
            .is_ok();
        let value = compute(first);
        if first {
            self.value.with_mut(|place| {
                // SAFETY: This is the caller that changed the state, and no thread reads it before it
                // is `STORED`.
                unsafe { (*place).write(value) };
            });
            self.state.store(STORED, Release);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new<T>() -> Once<T> {
        Once {
            state: AtomicU32::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::zeroed()),
        }
    }

    #[test]
    fn a_value_is_computed_once() {
        let once = new();
        assert_eq!(once.get(), None);
        assert_eq!(once.get_or_compute(|first| (7, first)), (7, true));
        assert_eq!(once.get_or_compute(|_| unreachable!()), (7, true));
        assert_eq!(once.get(), Some((7, true)));
    }

    #[test]
    fn a_call_during_another_one_computes_its_own_value() {
        let once = new();
        let value = once.get_or_compute(|_| {
            // As a signal handler or a forked child would.
            assert_eq!(once.get_or_compute(|first| (2, first)), (2, false));
            (1, true)
        });
        assert_eq!((value, once.get()), ((1, true), Some((1, true))));
    }
}
