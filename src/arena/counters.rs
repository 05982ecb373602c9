// SPDX-License-Identifier: GPL-2.0-only

//! Counters of arenas and size classes, and refused calls by error.
//!
//! The engine counts blocks and bytes (`engine/stats.rs`), the arena counts [`Events`]. [`Snapshot`] has both in
//! the layout of `freelist_stat`: STAT returns it, `debug/show.rs` prints it. The places of a new counter:
//!
//! | file | what is added |
//! | --- | --- |
//! | `uapi/freelist.h` | a field in place of a reserved word of `freelist_stat`; then run `scripts/bindings` |
//! | `engine/stats.rs`, or [`Events`] | the counter; a total also in `seed_totals` or `Events::seeded` |
//! | `engine/mod.rs` | for a counter in `Counters` that no size class has: a field of `Engine` |
//! | `arena/mod.rs` | for what neither of them counts, as `huge_bytes`: `Arena::snapshot` |
//! | this file | `Snapshot::add`; for a total, which counts from the beginning, `Snapshot::keep_totals` |
//! | `debug/show.rs` | its name in `with_fields!`, for debugfs and fdinfo |
//! | `man/` | its description in `freelist.4`, its name in `debugfs-freelist` |
//! | `client/src/bin/freelistctl/show.rs` | `stat`, if replays print it |
//! | `tests/` | `header/header.c`, `header/calls.c`; `fields` in `device/src/suites/debugfs.rs` |
//!
//! If a program must tell 0 from "not counted", the counter has a feature bit, too: see `device/ioctl.rs`.

use crate::{
    engine::{
        ClassCounters,
        Counters,
        MIN_SHIFT, //
    },
    ffi::raw::freelist_stat,
    mm::backend::KernelEngine, //
};
use kernel::prelude::*;

macro_rules! errnos {
    ($($name:ident)*) => {
        /// The errors that are counted by name.
        const ERRNOS: &[(&str, u32)] = &[$((stringify!($name), kernel::bindings::$name)),*];
    };
}

errnos! { EINVAL ENOENT E2BIG ENOMEM EDQUOT ENOSPC EINTR EPERM EFAULT EBADF EOPNOTSUPP EUCLEAN EAGAIN
ETIMEDOUT }

/// Adds to a running total, which wraps: Rust's overflow check would panic under a lock.
pub(super) fn add(total: &mut u64, more: u64) {
    *total = total.wrapping_add(more);
}

/// Refused calls by error, in the order of [`ERRNOS`]; the last entry counts all other errors.
#[derive(Clone, Copy, Default)]
pub(crate) struct Failures([u64; ERRNOS.len() + 1]);

impl Failures {
    /// Counts one refused call.
    pub(crate) fn count(&mut self, error: Error) {
        // User space sees `EINTR`, unless the kernel restarts the call.
        let error = if error == ERESTARTSYS { EINTR } else { error };
        let errno = error.to_errno().unsigned_abs();
        let index = ERRNOS
            .iter()
            .position(|(_, known)| *known == errno)
            .unwrap_or(ERRNOS.len());
        if let Some(count) = self.0.get_mut(index) {
            add(count, 1);
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            add(sum, count);
        }
    }

    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }
}

/// Counters of an arena that the engine does not have.
#[derive(Clone, Copy, Default)]
pub(crate) struct Events {
    /// Allocations that slept.
    pub(crate) waits: u64,
    /// Allocations whose timeout passed.
    pub(crate) timeouts: u64,
    /// The pages that were released to the system by TRIM and lowered limits.
    pub(crate) trims: u64,
    /// The pages that were released to the shrinker and to other arenas.
    pub(crate) shrinks: u64,
    /// Calls that were refused.
    pub(crate) failures: Failures,
}

#[cfg(CONFIG_KUNIT = "y")]
impl Events {
    /// Returns counters that all have the value `total`.
    pub(crate) fn seeded(total: u64) -> Self {
        Self {
            waits: total,
            timeouts: total,
            trims: total,
            shrinks: total,
            failures: Failures([total; ERRNOS.len() + 1]),
        }
    }
}

/// The counters of one arena at one moment, or the sum of several.
#[derive(Clone, Copy, Default)]
pub(crate) struct Snapshot {
    stat: freelist_stat,
    failures: Failures,
}

impl Snapshot {
    /// Adds the counters of an arena.
    pub(crate) fn add(
        &mut self,
        counters: &Counters,
        metadata_bytes: u64,
        huge_bytes: u64,
        limit_bytes: u64,
        events: &Events,
    ) {
        let stat = &mut self.stat;
        stat.live_blocks += counters.live_blocks;
        stat.live_bytes += counters.live_bytes;
        stat.free_bytes += counters.free_bytes;
        stat.held_bytes += counters.held_bytes;
        stat.metadata_bytes += metadata_bytes;
        stat.huge_bytes += huge_bytes;
        stat.limit_bytes = stat.limit_bytes.saturating_add(limit_bytes);
        add(&mut stat.requested_bytes, counters.requested_bytes);
        add(&mut stat.moved_bytes, counters.moved_bytes);
        add(&mut stat.faulted_bytes, counters.faulted_bytes);
        add(&mut stat.allocs, counters.allocs);
        add(&mut stat.frees, counters.frees);
        add(&mut stat.grows, counters.grows);
        add(&mut stat.splits, counters.splits);
        add(&mut stat.merges, counters.merges);
        add(&mut stat.waits, events.waits);
        add(&mut stat.timeouts, events.timeouts);
        add(&mut stat.trims, events.trims);
        add(&mut stat.shrinks, events.shrinks);
        add(&mut stat.failures, events.failures.sum());
        self.failures.add(&events.failures);
    }

    /// Adds the running totals of an arena that is closing, without its current values.
    pub(crate) fn keep_totals(&mut self, last: &Self) {
        let stat = &mut self.stat;
        add(&mut stat.requested_bytes, last.stat.requested_bytes);
        add(&mut stat.moved_bytes, last.stat.moved_bytes);
        add(&mut stat.faulted_bytes, last.stat.faulted_bytes);
        add(&mut stat.allocs, last.stat.allocs);
        add(&mut stat.frees, last.stat.frees);
        add(&mut stat.grows, last.stat.grows);
        add(&mut stat.splits, last.stat.splits);
        add(&mut stat.merges, last.stat.merges);
        add(&mut stat.waits, last.stat.waits);
        add(&mut stat.timeouts, last.stat.timeouts);
        add(&mut stat.trims, last.stat.trims);
        add(&mut stat.shrinks, last.stat.shrinks);
        add(&mut stat.failures, last.stat.failures);
        self.failures.add(&last.failures);
    }

    /// Returns the refused calls by the name of the error; the last is `other`.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = ERRNOS.iter().map(|(name, _)| *name);
        Iterator::chain(names, ["other"]).zip(self.failures.0)
    }

    /// Returns the counters in the layout of the uapi.
    pub(crate) fn stat(&self) -> freelist_stat {
        self.stat
    }
}

/// The counters of every size class, on the heap since they are too large for the stack.
pub(crate) struct Classes(KVec<ClassCounters>);

impl Classes {
    /// Returns zeros. `ENOMEM` when memory is short.
    pub(crate) fn new() -> Result<Self> {
        let mut classes = KVec::new();
        for _ in MIN_SHIFT..=KernelEngine::MAX_SHIFT {
            classes.push(ClassCounters::default(), GFP_KERNEL)?;
        }
        Ok(Self(classes))
    }

    /// Adds the counters of an arena, of which `class(shift)` returns those of one class.
    pub(crate) fn add(&mut self, class: impl Fn(u32) -> ClassCounters) {
        for (sum, shift) in self.0.iter_mut().zip(MIN_SHIFT..) {
            let class = class(shift);
            sum.live += class.live;
            sum.free += class.free;
            sum.held += class.held;
            add(&mut sum.splits, class.splits);
            add(&mut sum.merges, class.merges);
            add(&mut sum.grows, class.grows);
            add(&mut sum.waits, class.waits);
            sum.largest = sum.largest.max(class.largest);
        }
    }

    /// Returns the sums with the shift of each class.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &ClassCounters)> {
        (MIN_SHIFT..).zip(&self.0)
    }
}
