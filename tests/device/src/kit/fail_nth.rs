// SPDX-License-Identifier: GPL-2.0

//! Failures at every point of a call, one after the other (Documentation/fault-injection of the kernel,
//! `fail-nth`). Needs a kernel with fault injection; otherwise tests are skipped.

use std::fmt::Debug;

use freelist::Arena;
use freelist_probe::FailNth;
use nix::errno::Errno;

use super::calls::{ioctl_at, Plain};
use super::{check, stat, View, DEFAULT};
use crate::harness::skip;

/// A number above the failure points of any call.
pub const MAX_POINTS: usize = 3000;

/// Returns the switch of this thread.
pub fn switch() -> FailNth {
    let switch = FailNth::new().expect("root may set its options");
    switch.unwrap_or_else(|| skip("this kernel has no fault injection"))
}

/// A call with its structure, so that making it is one system call.
pub struct Prepared {
    request: u32,
    view: View,
}

impl Prepared {
    /// Prepares the call `request`, whose structure is `with`.
    pub fn new<T: Plain>(request: u32, with: T) -> Self {
        let view = View::anonymous(size_of::<T>());
        view.set_bytes(0, &with.to_bytes());
        Self { request, view }
    }

    /// Makes the call.
    pub fn make(&self, arena: &Arena) -> Result<i32, Errno> {
        ioctl_at(arena, self.request, self.view.address(0))
    }

    /// Returns the structure, as the call left it.
    pub fn answer<T: Plain>(&self) -> T {
        T::from_bytes(&self.view.bytes(0, size_of::<T>()))
    }
}

/// Makes every failure point of `call` fail in turn and hands each result to
/// `after`, until there is no further point.
#[track_caller]
pub fn sweep<T: Debug>(mut call: impl FnMut() -> T, mut after: impl FnMut(T)) {
    let switch = switch();
    // One-time work is done before.
    after(call());
    for nth in 1..MAX_POINTS {
        let (result, failed) = switch.run(nth, &mut call);
        after(result);
        if !failed {
            eprintln!("{} failure points", nth - 1);
            return;
        }
    }
    panic!("more than {MAX_POINTS} failure points");
}

/// Returns the value of a call, or [`None`] where it failed as one does of which a point was made to fail.
#[track_caller]
pub fn made<T: Debug>(result: Result<T, Errno>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Errno::ENOMEM | Errno::EFAULT) => None,
        Err(errno) => panic!("failed by {errno}"),
    }
}

/// Sweeps the failure points of one call, each in an arena of its own. `new` returns the arena and the number
/// of its live blocks. `after` gets the result of the call, and undoes it.
#[track_caller]
pub fn sweep_new(
    prepared: impl Fn() -> Prepared,
    new: impl Fn() -> (Arena, u64),
    after: impl Fn(&Arena, &Prepared, Result<i32, Errno>),
) -> usize {
    let switch = switch();
    for nth in 1..MAX_POINTS {
        let (arena, live) = new();
        let call = prepared();
        let (result, failed) = switch.run(nth, || call.make(&arena));
        after(&arena, &call, result);
        assert_eq!(stat(&arena).live_blocks, live, "point {nth}");
        check();
        arena.alloc(64, DEFAULT).expect("the next is served");
        if !failed {
            eprintln!("{} failure points", nth - 1);
            return nth - 1;
        }
    }
    panic!("more than {MAX_POINTS} failure points");
}
