// SPDX-License-Identifier: GPL-2.0

//! Random operations against a plain model of what an arena is: a map of live blocks and a set of
//! pages with memory. After every step the engine's invariants are proved too.
//!
//! A failure prints the shortest sequence that shows it, and proptest keeps its seed beside this
//! file; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` set length and seed.

use freelist_engine::engine::{
    max_shift, FreeError, Growth, Isolated, Refusal, Releasing, Request, Reservation, ResizeError,
    Resized, ALIGN_SHIFT, HEADER_BYTES,
};
use freelist_engine::host::{reuse, Arena};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Address space of the arenas here, in pages: not a power of 2, so that its end is met.
const SPAN: u32 = 2 * 1024 + 300;

#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: u64,
    align_shift: u32,
    headed: bool,
}

impl Size {
    /// What a block takes for it, its header included.
    fn taken(self) -> u64 {
        self.bytes
            .saturating_add(u64::from(self.headed) * HEADER_BYTES)
    }

    fn request(self, larger: bool, grow: bool) -> Request {
        Request {
            size: self.bytes,
            align_shift: self.align_shift,
            policy: reuse(larger, grow),
            headed: self.headed,
            lazy: false,
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A whole allocation.
    Alloc {
        size: Size,
        larger: bool,
        grow: bool,
    },
    /// A release of the live block with this index, modulo their number.
    Free(usize),
    /// A release at an offset near the beginning of a live block, or anywhere.
    FreeAt {
        near: Option<usize>,
        offset: i64,
    },
    /// A reservation that stays open, with some of its pages.
    Reserve {
        size: Size,
        bring: u32,
    },
    /// The next step of an open reservation: commit, or cancel.
    Commit(usize),
    Cancel(usize),
    /// The header of a block that was taken is found as it should be.
    Release(usize),
    /// A live block becomes so long, or begins to.
    Resize {
        index: usize,
        bytes: u64,
    },
    /// One that becomes longer has its pages, or is undone.
    Grown(usize),
    Shrunk(usize),
    /// Half of an isolated range leaves, in pages.
    RemoveHalf(usize),
    /// All of every second live block goes.
    FreeHalf,
    /// Free pages are about to leave.
    Isolate(u32),
    /// They do, or stay.
    Remove(usize),
    Putback(usize),
    /// All free pages but so many go back to the system.
    Trim(u32),
}

/// Bytes of the largest block.
fn largest(page: u64) -> u64 {
    1 << max_shift(page as usize / 1024)
}

fn sizes(page: u64) -> impl Strategy<Value = Size> {
    let bytes = prop_oneof![
        4 => 1..page,
        2 => (0..=16u64).prop_map(move |shift| (32 << shift).min(300 * page)),
        4 => (1..40u64).prop_map(move |pages| pages * page),
        1 => page..600 * page,
        1 => Just(0),
        1 => (0..18u64).prop_map(move |over| largest(page) + over - 16),
    ];
    let align_shift = prop_oneof![
        6 => Just(0),
        2 => 0..22u32,
        1 => Just(20),
    ];
    (bytes, align_shift, prop::bool::weighted(0.3)).prop_map(|(bytes, align_shift, headed)| Size {
        bytes,
        align_shift,
        headed,
    })
}

fn ops(page: u64) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (sizes(page), any::<bool>(), prop::bool::weighted(0.7))
            .prop_map(|(size, larger, grow)| Op::Alloc { size, larger, grow }),
        7 => any::<usize>().prop_map(Op::Free),
        2 => (proptest::option::of(any::<usize>()), -70000..70000i64)
            .prop_map(|(near, offset)| Op::FreeAt { near, offset }),
        2 => (sizes(page), 0..100u32).prop_map(|(size, bring)| Op::Reserve { size, bring }),
        1 => any::<usize>().prop_map(Op::Commit),
        1 => any::<usize>().prop_map(Op::Cancel),
        2 => any::<usize>().prop_map(Op::Release),
        3 => (any::<usize>(), prop_oneof![0..page, (1..60u64).prop_map(move |n| n * page)])
            .prop_map(|(index, bytes)| Op::Resize { index, bytes }),
        2 => any::<usize>().prop_map(Op::Grown),
        1 => any::<usize>().prop_map(Op::Shrunk),
        1 => any::<usize>().prop_map(Op::RemoveHalf),
        1 => Just(Op::FreeHalf),
        1 => (1..100u32).prop_map(Op::Isolate),
        1 => any::<usize>().prop_map(Op::Remove),
        1 => any::<usize>().prop_map(Op::Putback),
        1 => prop_oneof![Just(0), 0..500u32].prop_map(Op::Trim),
    ];
    vec(op, 1..120)
}

/// Live blocks: from where to where, headers included, and where the caller's part begins.
type Live = BTreeMap<u64, (u64, u64)>;

struct Model<const KIB: usize> {
    arena: Arena<KIB>,
    live: Live,
    /// Reserved blocks, and the sizes that were asked for.
    open: Vec<(Reservation, u64)>,
    /// Blocks whose headers are being looked at.
    taken: Vec<Releasing>,
    /// Blocks that are becoming longer: where each begins and ends.
    growing: Vec<(u64, u64, Growth)>,
    /// Where blocks begin and end that are still the ones that are becoming longer.
    grows: BTreeMap<u64, u64>,
    isolated: Vec<Isolated>,
    /// Of blocks that became live, and of their sizes as asked for.
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

    /// Bytes that a block takes, with its header.
    fn block_bytes(size: Size) -> u64 {
        let align = 1 << size.align_shift;
        let bytes = size.taken().next_power_of_two().max(32).max(align);
        if bytes <= Self::PAGE / 2 {
            bytes
        } else {
            size.taken().div_ceil(Self::PAGE) * Self::PAGE
        }
    }

    /// What a block is aligned to at least.
    fn alignment(bytes: u64, align_shift: u32) -> u64 {
        bytes
            .next_power_of_two()
            .min(1 << ALIGN_SHIFT)
            .max(1 << align_shift)
    }

    /// What no request can get: blocks that are being allocated, freed or made longer.
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

    /// Pages with memory and nothing else in them.
    fn free_pages(&self) -> u64 {
        let backed = self.arena.backed.keys();
        let free = backed.filter(|page| !self.is_taken(u64::from(**page) * Self::PAGE, Self::PAGE));
        free.count() as u64
    }

    /// Bytes of all live and open blocks.
    fn claimed(&self) -> u64 {
        let reserved = self.reserved();
        self.live_bytes() + reserved.map(|all| all.end - all.start).sum::<u64>()
    }

    /// Bytes of all live blocks.
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

    /// Checks a reservation that was given.
    fn check_reserved(&self, pending: &Reservation, size: Size, larger: bool, grow: bool) {
        let bytes = Self::block_bytes(size);
        let start = pending.extent().start;
        let header = if size.headed { 16 } else { 0 };
        assert_eq!(pending.extent(), start..start + bytes);
        assert_eq!(pending.offset(), start + header);
        assert_eq!(pending.block_bytes(), bytes - header);
        assert!(pending.block_bytes() >= size.bytes);
        assert_eq!(start % Self::alignment(bytes, size.align_shift), 0);
        assert!(start + bytes <= u64::from(SPAN) * Self::PAGE);
        assert!(!self.is_taken(start, bytes), "two blocks at {start:#x}");
        assert!(larger || grow || pending.missing() == 0, "grows unasked");
        let first = (pending.offset() / Self::PAGE) as u32;
        let pages = bytes.div_ceil(Self::PAGE) as u32;
        let backed = self.arena.backed.range(first..first + pages).count() as u32;
        assert_eq!(pending.missing(), pages - backed);
    }

    fn check_refused(&self, refusal: Refusal, size: Size, larger: bool, grow: bool) {
        let bytes = Self::block_bytes(size);
        let align = Self::alignment(bytes, size.align_shift);
        let (asked, size) = (size.bytes, size.taken());
        match refusal {
            Refusal::Zero => assert_eq!(asked, 0),
            Refusal::TooBig => assert!(size > largest(Self::PAGE)),
            Refusal::Empty => assert!(!grow),
            Refusal::NoSpace => assert!(larger || grow),
            Refusal::Alignment => panic!("no alignment is too large here"),
            Refusal::Need(_) | Refusal::Again => panic!("the host does what it takes"),
        }
        if larger && asked > 0 && size <= largest(Self::PAGE) {
            assert!(
                !self.has_free(bytes, align),
                "{size} bytes are free and refused"
            );
            assert!(
                refusal == Refusal::NoSpace || bytes > self.free_pages() * Self::PAGE,
                "{size} bytes are free in pieces and refused"
            );
        }
    }

    /// Finishes a block. Nothing is taken from the system as long as free pages will do.
    fn commit(&mut self, mut pending: Reservation, size: u64, grow: bool) {
        let extent = pending.extent();
        let claimed = self.claimed() + extent.end - extent.start;
        let before = self.arena.counters();
        let filled = self.arena.fill(&mut pending, grow);
        assert!(filled, "what was reserved cannot be had");
        let after = self.arena.counters();
        assert!(
            grow || after.held_bytes == before.held_bytes,
            "grows unasked"
        );
        let peak = claimed.max(before.peak_bytes);
        let slack = peak / 20;
        assert!(
            after.held_bytes <= before.held_bytes.max(peak + slack)
                || self.arena.engine.free_pages() == 0,
            "grows while pages are free"
        );
        self.allocs += 1;
        self.requested += size;
        self.live
            .insert(extent.start, (extent.end, pending.offset()));
        self.arena.commit(pending);
    }

    fn free(&mut self, offset: u64) {
        let before = self.arena.counters();
        let block = self.live.range(..=offset).next_back();
        let block = block.filter(|(_, (end, _))| *end > offset);
        let block = block.map(|(start, (_, known))| (*start, *known));
        let want = if offset % 16 != 0 {
            Err(FreeError::Misaligned)
        } else if offset >= u64::from(SPAN) * Self::PAGE {
            Err(FreeError::Beyond)
        } else {
            match block {
                Some((start, known)) if known == offset => Ok(start),
                Some(_) => Err(FreeError::Inside),
                None => Err(FreeError::NotLive),
            }
        };
        let result = self.arena.take(offset);
        assert_eq!(result.as_ref().err(), want.as_ref().err(), "of {offset:#x}");
        if let (Ok(start), Ok(taken)) = (want, result) {
            self.live.remove(&start);
            self.grows.remove(&start);
            self.frees += 1;
            assert_eq!(taken.is_some(), start < offset, "of {offset:#x}");
            if let Some(taken) = taken {
                assert_eq!(taken.extent().start + HEADER_BYTES, offset);
                self.taken.push(taken);
            }
            if self.taken.len() > 3 {
                self.arena.release(self.taken.swap_remove(0));
            }
        } else {
            assert_eq!(
                self.arena.counters(),
                before,
                "a refused free changed things"
            );
        }
    }

    /// Returns whether all that lies behind a block up to `end` is free.
    fn is_free(&self, from: u64, end: u64) -> bool {
        end <= u64::from(SPAN) * Self::PAGE && !self.is_taken(from, end - from)
    }

    fn resize(&mut self, index: usize, bytes: u64) {
        let Some(offset) = self.pick(index) else {
            return;
        };
        let block = self.live.range(..=offset).next_back();
        let (start, (end, known)) = block.map(|(start, block)| (*start, *block)).unwrap();
        let before = self.arena.counters();
        let length = bytes.div_ceil(Self::PAGE) * Self::PAGE;
        self.arena.drain();
        let result = self.arena.start_resize(offset, bytes);
        let refused = result.as_ref().err().copied();
        if bytes == 0 {
            assert_eq!(refused, Some(ResizeError::Zero));
        } else if end - start < Self::PAGE || known > start {
            assert_eq!(refused, Some(ResizeError::Unsuited));
        } else if start + length > end && !self.is_free(end, start + length) {
            assert_eq!(refused, Some(ResizeError::InUse));
        } else {
            assert_eq!(refused, None);
        }
        match result {
            Err(_) => assert_eq!(self.arena.counters().live_bytes, before.live_bytes),
            Ok(Resized::Done) => {
                self.live.insert(start, (start + length, start));
                if start + length < end {
                    self.grows.remove(&start);
                }
            }
            Ok(Resized::InTheWay(_) | Resized::Shrunk(_)) => unreachable!("no block is lazy"),
            Ok(Resized::Growing(growth)) => {
                assert_eq!(growth.extent(), end..start + length);
                self.grows.insert(start, end);
                self.growing.push((start, end, growth));
            }
        }
    }

    fn pick(&self, index: usize) -> Option<u64> {
        let index = index.checked_rem(self.live.len())?;
        self.live.values().nth(index).map(|(_, known)| *known)
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Alloc { size, larger, grow } => {
                match self.arena.reserve(size.request(larger, grow)) {
                    Ok(pending) => {
                        self.check_reserved(&pending, size, larger, grow);
                        self.commit(pending, size.bytes, grow);
                    }
                    Err(refusal) => self.check_refused(refusal, size, larger, grow),
                }
            }
            Op::Free(index) => {
                if let Some(offset) = self.pick(index) {
                    self.free(offset);
                }
            }
            Op::FreeAt { near, offset } => {
                let base = near.and_then(|index| self.pick(index)).unwrap_or(0);
                self.free(base.saturating_add_signed(offset));
            }
            Op::Reserve { size, bring } => {
                if self.open.len() < 4 {
                    if let Ok(mut pending) = self.arena.reserve(size.request(true, true)) {
                        self.check_reserved(&pending, size, true, true);
                        self.arena.back(&mut pending, bring);
                        self.open.push((pending, size.bytes));
                    }
                }
            }
            Op::Commit(index) => {
                if let Some(index) = index.checked_rem(self.open.len()) {
                    let (pending, size) = self.open.swap_remove(index);
                    self.commit(pending, size, true);
                }
            }
            Op::Cancel(index) => {
                if let Some(index) = index.checked_rem(self.open.len()) {
                    let (pending, _) = self.open.swap_remove(index);
                    let held = self.arena.counters().held_bytes;
                    self.arena.cancel(pending);
                    assert!(self.arena.counters().held_bytes <= held);
                }
            }
            Op::Release(index) => {
                if let Some(index) = index.checked_rem(self.taken.len()) {
                    let taken = self.taken.swap_remove(index);
                    self.arena.release(taken);
                }
            }
            Op::Resize { index, bytes } => self.resize(index, bytes),
            Op::Grown(index) => {
                if let Some(index) = index.checked_rem(self.growing.len()) {
                    let (start, end, mut growth) = self.growing.swap_remove(index);
                    assert!(self.arena.fill_growth(&mut growth));
                    let more = growth.extent().end;
                    // Another block may lie there by now, even one of that length.
                    let is_same = self.grows.get(&start) == Some(&end);
                    let grown = self.arena.commit_growth(growth);
                    assert_eq!(grown, is_same, "of {start:#x}");
                    if grown {
                        let was = self.live.insert(start, (more, start));
                        assert_eq!(was, Some((end, start)));
                        self.grows.remove(&start);
                    }
                }
            }
            Op::Shrunk(index) => {
                if let Some(index) = index.checked_rem(self.growing.len()) {
                    let (start, end, growth) = self.growing.swap_remove(index);
                    if self.grows.get(&start) == Some(&end) {
                        self.grows.remove(&start);
                    }
                    self.arena.cancel(growth.into_reservation());
                }
            }
            Op::RemoveHalf(index) => {
                if let Some(index) = index.checked_rem(self.isolated.len()) {
                    let isolated = self.isolated.swap_remove(index);
                    let before = self.arena.backed.len() as u32;
                    let left = self.arena.remove_but(isolated, |page| page % 3 == 0);
                    assert_eq!(self.arena.backed.len() as u32, before - left);
                    self.arena.check();
                }
            }
            Op::FreeHalf => {
                let half: Vec<_> = self.live.values().step_by(2).copied().collect();
                for (_, offset) in half {
                    self.free(offset);
                }
            }
            Op::Isolate(most) => {
                if let Some(isolated) = self.arena.isolate(most) {
                    let (first, pages) = (isolated.page(), isolated.pages());
                    let taken =
                        self.is_taken(u64::from(first) * Self::PAGE, u64::from(pages) * Self::PAGE);
                    assert!(!taken, "pages that are in use leave");
                    let range = first..first + pages;
                    assert_eq!(self.arena.backed.range(range).count() as u32, pages);
                    self.isolated.push(isolated);
                }
            }
            Op::Remove(index) => {
                if let Some(index) = index.checked_rem(self.isolated.len()) {
                    let isolated = self.isolated.swap_remove(index);
                    self.arena.remove(isolated);
                    self.arena.check();
                }
            }
            Op::Putback(index) => {
                if let Some(index) = index.checked_rem(self.isolated.len()) {
                    let isolated = self.isolated.swap_remove(index);
                    self.arena.putback(isolated);
                }
            }
            Op::Trim(keep) => {
                self.arena.trim(keep);
                let left = self.free_pages();
                assert!(left <= u64::from(keep), "{left} free pages are left");
            }
        }
        self.compare();
    }

    /// The engine counts what the model has.
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

    /// All goes; what is held is as good as new.
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
        // The end of the address space, which is no whole chunk, may have been met.
        assert!(counters.metadata.chunks <= 1);
        self.arena.end();
    }
}

fn run<const KIB: usize>(ops: &[Op]) {
    let mut model = Model::<KIB>::new();
    for op in ops {
        model.step(op);
    }
    model.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_is_its_model_with_pages_of_4_kib(ops in ops(4096)) {
        run::<4>(&ops);
    }

    #[test]
    fn the_engine_is_its_model_with_pages_of_16_kib(ops in ops(16384)) {
        run::<16>(&ops);
    }

    #[test]
    fn the_engine_is_its_model_with_pages_of_64_kib(ops in ops(65536)) {
        run::<64>(&ops);
    }
}
