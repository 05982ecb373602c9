// SPDX-License-Identifier: GPL-2.0

//! Random operations against a plain model of what an arena is: a map of live blocks and a set of
//! pages with memory. After every step the engine's invariants are proved too.
//!
//! A failure prints the shortest sequence that shows it, and proptest keeps its seed beside
//! `steps.rs`; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` set length and seed.

mod ops;
mod steps;

use std::collections::BTreeMap;
use std::ops::Range;

use freelist_engine::engine::{Growth, Isolated, Releasing, Reservation, ALIGN_SHIFT};
use freelist_engine::host::Arena;

use ops::Size;

/// Address space of the arenas here, in pages: not a power of 2, so that runs reach its end.
const SPAN: u32 = 2 * 1024 + 300;

/// Live blocks: from where to where, headers included, and where the caller's part begins.
type Live = BTreeMap<u64, (u64, u64)>;

struct Model<const KIB: usize> {
    arena: Arena<KIB>,
    live: Live,
    /// Reserved blocks, and the sizes that were asked for.
    open: Vec<(Reservation, u64)>,
    /// Blocks whose headers are being checked.
    taken: Vec<Releasing>,
    /// The beginning and the end of each block that is growing.
    growing: Vec<(u64, u64, Growth)>,
    /// The beginnings and ends of blocks that are growing.
    grows: BTreeMap<u64, u64>,
    isolated: Vec<Isolated>,
    /// The number of blocks that became live, and the sum of their requested sizes.
    allocs: u64,
    requested: u64,
    frees: u64,
}

impl<const KIB: usize> Model<KIB> {
    const PAGE: u64 = Arena::<KIB>::PAGE;

    fn new() -> Self {
        Self {
            arena: Arena::new(SPAN),
            live: Live::new(),
            open: Vec::new(),
            taken: Vec::new(),
            growing: Vec::new(),
            grows: BTreeMap::new(),
            isolated: Vec::new(),
            allocs: 0,
            requested: 0,
            frees: 0,
        }
    }

    /// Returns the bytes of a block, with its header.
    fn block_bytes(size: Size) -> u64 {
        let align = 1 << size.align_shift;
        let bytes = size.taken().next_power_of_two().max(32).max(align);
        if bytes <= Self::PAGE / 2 {
            bytes
        } else {
            size.taken().div_ceil(Self::PAGE) * Self::PAGE
        }
    }

    /// Returns the least alignment of a block.
    fn alignment(bytes: u64, align_shift: u32) -> u64 {
        bytes
            .next_power_of_two()
            .min(1 << ALIGN_SHIFT)
            .max(1 << align_shift)
    }

    /// Returns the ranges that no request can get: blocks that are being allocated, freed or grown.
    fn reserved(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let open = self
            .open
            .iter()
            .map(|(reservation, _)| reservation.extent());
        let growing = self.growing.iter().map(|(_, end, growth)| {
            let more = growth.extent();
            assert_eq!(more.start, *end);
            more
        });
        open.chain(self.taken.iter().map(Releasing::extent))
            .chain(growing)
    }

    /// Returns whether a live or open block, or isolated pages, lie in `offset..offset + bytes`.
    fn is_taken(&self, offset: u64, bytes: u64) -> bool {
        let end = offset + bytes;
        let live = self.live.range(..end).next_back();
        live.is_some_and(|(_, (end, _))| *end > offset)
            || self
                .reserved()
                .any(|extent| extent.start < end && extent.end > offset)
            || self.isolated.iter().any(|isolated| {
                let first = u64::from(isolated.page()) * Self::PAGE;
                first < end && first + u64::from(isolated.pages()) * Self::PAGE > offset
            })
    }

    /// Returns the pages with memory that no block has.
    fn free_pages(&self) -> u64 {
        let backed = self.arena.backed.keys();
        let free = backed.filter(|page| !self.is_taken(u64::from(**page) * Self::PAGE, Self::PAGE));
        free.count() as u64
    }

    /// Returns the bytes of all live blocks and open reservations.
    fn claimed(&self) -> u64 {
        let reserved = self.reserved();
        self.live_bytes() + reserved.map(|all| all.end - all.start).sum::<u64>()
    }

    /// Returns the bytes of all live blocks.
    fn live_bytes(&self) -> u64 {
        self.live.iter().map(|(start, (end, _))| end - start).sum()
    }

    /// Returns whether free memory for an aligned block lies side by side.
    fn has_free(&self, bytes: u64, align: u64) -> bool {
        let page = Self::PAGE;
        let held = |at: u64| self.arena.backed.contains_key(&((at / page) as u32));
        self.arena.backed.keys().any(|first| {
            let first = u64::from(*first) * page;
            let starts = if bytes < page { page / bytes } else { 1 };
            (0..starts).any(|index| {
                let at = first + index * bytes;
                at % align == 0
                    && (0..bytes.div_ceil(page)).all(|page_of| held(at + page_of * page))
                    && !self.is_taken(at, bytes)
            })
        })
    }

    /// Returns whether all pages from the end of a block up to `end` are free.
    fn is_free(&self, from: u64, end: u64) -> bool {
        end <= u64::from(SPAN) * Self::PAGE && !self.is_taken(from, end - from)
    }

    fn pick(&self, index: usize) -> Option<u64> {
        let index = index.checked_rem(self.live.len())?;
        self.live.values().nth(index).map(|(_, known)| *known)
    }

    /// Checks the engine's counters against the model.
    fn compare(&self) {
        let counters = self.arena.counters();
        assert_eq!(counters.live_blocks, self.live.len() as u64);
        assert_eq!(counters.live_bytes, self.live_bytes());
        assert_eq!(counters.allocs, self.allocs);
        assert_eq!(counters.requested_bytes, self.requested);
        assert_eq!(counters.frees, self.frees);
        assert!(counters.peak_bytes >= counters.live_bytes);
        for (start, (end, _)) in &self.live {
            for at in [*start, end - 1] {
                let page = (at / Self::PAGE) as u32;
                assert!(self.arena.live_page(page).is_some());
            }
        }
    }

    /// Frees all blocks, and checks that the held memory serves any request.
    fn end(mut self) {
        for (pending, _) in std::mem::take(&mut self.open) {
            self.arena.cancel(pending);
        }
        for (_, _, growth) in std::mem::take(&mut self.growing) {
            self.arena.cancel(growth.into_reservation());
        }
        for isolated in std::mem::take(&mut self.isolated) {
            self.arena.putback(isolated);
        }
        for (_, offset) in self.live.values().copied().collect::<Vec<_>>() {
            self.free(offset);
        }
        for taken in std::mem::take(&mut self.taken) {
            self.arena.release(taken);
        }
        self.arena.drain();
        let counters = self.arena.counters();
        assert_eq!(counters.free_bytes, counters.held_bytes);
        assert_eq!(counters.metadata.trees, 0);
        self.arena.trim(0);
        let counters = self.arena.counters();
        assert_eq!(counters.held_bytes, 0);
        // A block may lie at the end of the address space, in a chunk that is not whole.
        assert!(counters.metadata.chunks <= 1);
        self.arena.end();
    }
}
