// SPDX-License-Identifier: GPL-2.0-only

//! Counters. Totals of events so far wrap by intention; the counters of what is there now are exact even
//! then.

use super::class::CLASSES;
use super::{Backend, Changes, Engine, MetadataCounts, MIN_SHIFT};

/// The counters of one size class that the fast path updates. [`Engine::class`] derives the others when
/// they are read.
#[derive(Clone, Copy, Default)]
pub(super) struct ClassStats {
    /// Blocks that became live so far.
    pub(super) allocs: u64,
    /// Blocks that were freed so far.
    pub(super) frees: u64,
    /// Resizes of live blocks into this class so far, less those out of it.
    pub(super) resized: u64,
    /// Pages of live blocks; of subpage blocks 0.
    pub(super) live_pages: u64,
    /// Free blocks and backed runs, unmerged blocks not included.
    pub(super) listed: u64,
    /// Pages of these; of subpage blocks 0.
    pub(super) listed_pages: u64,
    pub(super) splits: u64,
    pub(super) merges: u64,
    pub(super) grows: u64,
    pub(super) waits: u64,
}

impl ClassStats {
    /// Returns how many blocks are live now.
    fn live(&self) -> u64 {
        let live = self.allocs.wrapping_sub(self.frees);
        live.wrapping_add(self.resized)
    }
}

/// The counters of an arena. Those named `_bytes` are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks that are live now.
    pub live_blocks: u64,
    /// Bytes of live blocks.
    pub live_bytes: u64,
    /// Held bytes that are neither live nor pending.
    pub free_bytes: u64,
    /// Held bytes of blocks that are being allocated or freed, and of isolated ranges.
    pub pending_bytes: u64,
    /// Bytes of all backed pages.
    pub held_bytes: u64,
    /// The most bytes that were live or reserved at a time so far.
    pub peak_bytes: u64,
    /// Bytes requested by all allocations so far.
    pub requested_bytes: u64,
    /// Bytes of free runs that were dropped so far to back blocks elsewhere.
    pub moved_bytes: u64,
    /// Bytes that touches of lazy blocks have backed so far.
    pub faulted_bytes: u64,
    /// Blocks that became live so far.
    pub allocs: u64,
    /// Blocks that were freed so far.
    pub frees: u64,
    /// Allocations so far that took new pages.
    pub grows: u64,
    /// Free blocks and backed runs that were split so far.
    pub splits: u64,
    /// Pairs of neighbouring free blocks or backed runs that were merged so far.
    pub merges: u64,
    /// The metadata there is now.
    pub metadata: MetadataCounts,
}

/// The counters of one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Blocks that are live now.
    pub live: u64,
    /// Free blocks and backed runs now.
    pub free: u64,
    /// Bytes of both.
    pub held: u64,
    /// Blocks or runs of this class that were split so far.
    pub splits: u64,
    /// Blocks or runs of this class that two others were merged into so far.
    pub merges: u64,
    /// Allocations of this class so far that took new pages.
    pub grows: u64,
    /// Allocations of this class so far that slept.
    pub waits: u64,
    /// Bytes of the largest request that this class's freelist serves without a merge.
    pub largest: u64,
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Returns the bytes of all backed pages.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Returns how many pages are in backed runs, or in the deferred block. Blocks on quick lists are not
    /// counted.
    pub fn free_pages(&self) -> u32 {
        self.free_pages + self.deferred_pages()
    }

    /// Returns how much metadata there is.
    pub fn metadata(&self) -> MetadataCounts {
        self.directory.counts()
    }

    /// Returns whether [`Engine::take_changes`] would return a change.
    #[inline(always)]
    pub fn has_changes(&self) -> bool {
        let Changes { free, held } = self.directory.changes;
        free | held
    }

    /// Returns what may have changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        core::mem::take(&mut self.directory.changes)
    }

    /// Sets all totals to `total`, for tests of how they wrap.
    #[doc(hidden)]
    #[allow(dead_code)]
    pub fn seed_totals(&mut self, total: u64) {
        self.requested_bytes = total;
        self.moved_bytes = total;
        self.faulted_bytes = total;
        for stats in &mut self.stats {
            let live = stats.live();
            stats.allocs = total;
            stats.frees = total.wrapping_sub(live);
            stats.resized = 0;
            for of in [
                &mut stats.splits,
                &mut stats.merges,
                &mut stats.grows,
                &mut stats.waits,
            ] {
                *of = total;
            }
        }
    }

    /// Returns the counters of the arena.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            held_bytes: self.held_bytes,
            peak_bytes: self.peak_bytes,
            requested_bytes: self.requested_bytes,
            moved_bytes: self.moved_bytes,
            faulted_bytes: self.faulted_bytes,
            metadata: self.metadata(),
            ..Counters::default()
        };
        for (index, stats) in self.stats.iter().enumerate() {
            counters.allocs = counters.allocs.wrapping_add(stats.allocs);
            counters.frees = counters.frees.wrapping_add(stats.frees);
            counters.grows = counters.grows.wrapping_add(stats.grows);
            counters.splits = counters.splits.wrapping_add(stats.splits);
            counters.merges = counters.merges.wrapping_add(stats.merges);
            let (live, free) = self.bytes_of(index);
            counters.live_blocks += stats.live();
            counters.live_bytes += live;
            counters.free_bytes += free;
        }
        let all = counters.held_bytes + (u64::from(self.holes) << Self::PAGE_SHIFT);
        counters.pending_bytes = all - counters.live_bytes - counters.free_bytes;
        counters
    }

    /// Returns the bytes of the live blocks of the size class `index`, and of the free ones.
    fn bytes_of(&self, index: usize) -> (u64, u64) {
        let Some(stats) = self.stats.get(index) else {
            return (0, 0);
        };
        let shift = MIN_SHIFT + index as u32;
        let blocks = self.unmerged_blocks(index);
        let unmerged: u64 = blocks.map(|(_, class)| class.block_bytes()).sum();
        if shift < Self::PAGE_SHIFT {
            (stats.live() << shift, (stats.listed << shift) + unmerged)
        } else {
            let bytes = |pages| pages << Self::PAGE_SHIFT;
            let listed = bytes(stats.listed_pages);
            (bytes(stats.live_pages), listed + unmerged)
        }
    }

    /// Returns the counters of the size class of `1 << shift` bytes; zeros outside
    /// [`MIN_SHIFT`]`..=`[`Engine::MAX_SHIFT`].
    pub fn class(&self, shift: u32) -> ClassCounters {
        if !(MIN_SHIFT..=Self::MAX_SHIFT).contains(&shift) {
            return ClassCounters::default();
        }
        let index = (shift - MIN_SHIFT) as usize;
        debug_assert!(index < CLASSES);
        let stats = &self.stats[index];
        let (live_bytes, free_bytes) = self.bytes_of(index);
        let free = stats.listed + self.unmerged_blocks(index).count() as u64;
        let largest = if shift < Self::PAGE_SHIFT {
            u64::from(free > 0) << shift
        } else {
            let run = self.largest_run(shift - Self::PAGE_SHIFT);
            let quick = self.newest_pages(shift);
            u64::from(run.max(quick)) << Self::PAGE_SHIFT
        };
        ClassCounters {
            live: stats.live(),
            free,
            held: live_bytes + free_bytes,
            splits: stats.splits,
            merges: stats.merges,
            grows: stats.grows,
            waits: stats.waits,
            largest,
        }
    }
}
