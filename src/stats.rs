// SPDX-License-Identifier: GPL-2.0

//! What is counted, and how debugfs shows it.

use crate::{
    engine::{
        ClassCounters,
        Counters,
        MAX_SHIFT,
        MIN_SHIFT, //
    },
    ffi::raw::freelist_stat,
    registry::Registry,
};
use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

macro_rules! errnos {
    ($($name:ident)*) => {
        /// The errors that are counted by name.
        const ERRNOS: &[(&str, u32)] = &[$((stringify!($name), kernel::bindings::$name)),*];
    };
}

errnos! { EINVAL ENOENT E2BIG ENOMEM EDQUOT ENOSPC EINTR EFAULT EBADF EOPNOTSUPP }

/// Calls that were refused, by error; the last is for all others.
#[derive(Clone, Copy, Default)]
pub(crate) struct Failures([u64; ERRNOS.len() + 1]);

impl Failures {
    /// Counts one.
    pub(crate) fn count(&mut self, error: Error) {
        let errno = error.to_errno().unsigned_abs();
        let index = ERRNOS
            .iter()
            .position(|(_, known)| *known == errno)
            .unwrap_or(ERRNOS.len());
        if let Some(count) = self.0.get_mut(index) {
            *count += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }

    fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Counters of one arena at one moment, or sums of such.
#[derive(Clone, Copy, Default)]
pub(crate) struct Snapshot {
    stat: freelist_stat,
    failures: Failures,
}

impl Snapshot {
    /// Adds an arena's counters.
    pub(crate) fn add(&mut self, counters: &Counters, metadata_bytes: u64, failures: &Failures) {
        let stat = &mut self.stat;
        stat.live_blocks += counters.live_blocks;
        stat.live_bytes += counters.live_bytes;
        stat.free_bytes += counters.free_bytes;
        stat.held_bytes += counters.held_bytes;
        stat.metadata_bytes += metadata_bytes;
        stat.requested_bytes += counters.requested_bytes;
        stat.allocs += counters.allocs;
        stat.frees += counters.frees;
        stat.grows += counters.grows;
        stat.splits += counters.splits;
        stat.merges += counters.merges;
        stat.failures += failures.sum();
        self.failures.add(failures);
    }

    /// Adds what an arena that is closing has counted in all, not what it has now.
    pub(crate) fn keep_totals(&mut self, last: &Self) {
        let stat = &mut self.stat;
        stat.requested_bytes += last.stat.requested_bytes;
        stat.allocs += last.stat.allocs;
        stat.frees += last.stat.frees;
        stat.grows += last.stat.grows;
        stat.splits += last.stat.splits;
        stat.merges += last.stat.merges;
        stat.failures += last.stat.failures;
        self.failures.add(&last.failures);
    }

    /// As the contract has it.
    pub(crate) fn stat(&self, limit_bytes: u64) -> freelist_stat {
        freelist_stat {
            limit_bytes,
            ..self.stat
        }
    }
}

/// The counters of every size class, too many for the stack.
pub(crate) struct Classes(KVec<ClassCounters>);

impl Classes {
    fn new() -> Result<Self> {
        let mut classes = KVec::new();
        for _ in MIN_SHIFT..=MAX_SHIFT {
            classes.push(ClassCounters::default(), GFP_KERNEL)?;
        }
        Ok(Self(classes))
    }

    /// Adds an arena's: `class` gives those of a shift.
    pub(crate) fn add(&mut self, class: impl Fn(u32) -> ClassCounters) {
        for (sum, shift) in self.0.iter_mut().zip(MIN_SHIFT..) {
            let class = class(shift);
            sum.live += class.live;
            sum.free += class.free;
            sum.held += class.held;
            sum.splits += class.splits;
            sum.merges += class.merges;
            sum.grows += class.grows;
            sum.largest = sum.largest.max(class.largest);
        }
    }
}

/// debugfs `stats`: a name and a value a line.
pub(crate) fn write_stats(registry: &Arc<Registry>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (arenas, sum) = registry.snapshot();
    let stat = sum.stat(registry.limit().bytes());
    macro_rules! lines {
        ($($name:ident)*) => {$( writeln!(f, "{} {}", stringify!($name), stat.$name)?; )*};
    }
    writeln!(f, "arenas {arenas}")?;
    lines! {
        live_blocks live_bytes free_bytes held_bytes metadata_bytes limit_bytes
        requested_bytes allocs frees grows splits merges waits timeouts trims shrinks failures
    }
    let names = ERRNOS.iter().map(|(name, _)| *name);
    for (name, count) in Iterator::chain(names, ["other"]).zip(sum.failures.0) {
        writeln!(f, "failures_{name} {count}")?;
    }
    Ok(())
}

/// debugfs `classes`: a row a size class. Sizes are in bytes.
pub(crate) fn write_classes(registry: &Arc<Registry>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut classes = Classes::new().map_err(|_| fmt::Error)?;
    registry.classes(&mut classes);
    writeln!(
        f,
        "{:>5} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "shift", "size", "live", "free", "held", "splits", "merges", "grows", "waits", "largest"
    )?;
    for (class, shift) in classes.0.iter().zip(MIN_SHIFT..) {
        writeln!(
            f,
            "{:>5} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
            shift,
            1u64 << shift,
            class.live,
            class.free,
            class.held,
            class.splits,
            class.merges,
            class.grows,
            0,
            class.largest
        )?;
    }
    Ok(())
}
