// SPDX-License-Identifier: GPL-2.0

//! Random operations against a plain model of what an arena is: a map of live blocks and a set of
//! pages with memory. After every step the engine's invariants are proved too.
//!
//! A failure prints the shortest sequence that shows it, and proptest keeps its seed beside this
//! file; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` set length and seed.

use freelist_engine::engine::{
    FreeError, Isolated, Pending, Refusal, Request, HEADER_BYTES, MAX_SHIFT,
};
use freelist_engine::host::Arena;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Address space of the arenas here, in pages: not a power of 2, so that its end is met.
const SPAN: u32 = 2 * 1024 + 300;

#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: u64,
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
            larger,
            grow,
            headed: self.headed,
            ..Request::default()
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
    GiveBack(usize),
    /// All of every second live block goes.
    FreeHalf,
    /// Free pages are about to leave.
    Detach(u32),
    /// They do, or stay.
    Unback(usize),
    Reattach(usize),
    /// All free pages but so many go back to the system.
    Trim(u32),
}

fn sizes(page: u64) -> impl Strategy<Value = Size> {
    let bytes = prop_oneof![
        4 => 1..page,
        2 => (0..=16u64).prop_map(move |shift| (32 << shift).min(300 * page)),
        4 => (1..40u64).prop_map(move |pages| pages * page),
        1 => page..600 * page,
        1 => Just(0),
        1 => (0..18u64).prop_map(|over| (1 << MAX_SHIFT) + over - 16),
    ];
    (bytes, prop::bool::weighted(0.3)).prop_map(|(bytes, headed)| Size { bytes, headed })
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
        2 => any::<usize>().prop_map(Op::GiveBack),
        1 => Just(Op::FreeHalf),
        1 => (1..100u32).prop_map(Op::Detach),
        1 => any::<usize>().prop_map(Op::Unback),
        1 => any::<usize>().prop_map(Op::Reattach),
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
    open: Vec<(Pending, u64)>,
    /// Blocks whose headers are being looked at.
    taken: Vec<Pending>,
    leaving: Vec<Isolated>,
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
            leaving: Vec::new(),
            allocs: 0,
            requested: 0,
            frees: 0,
        }
    }

    fn block_bytes(size: u64) -> u64 {
        if size <= Self::PAGE / 2 {
            size.next_power_of_two().max(32)
        } else {
            size.div_ceil(Self::PAGE) * Self::PAGE
        }
    }

    /// Blocks that are reserved.
    fn reserved(&self) -> impl Iterator<Item = &Pending> {
        let open = self.open.iter().map(|(pending, _)| pending);
        open.chain(&self.taken)
    }

    /// Whether a live or open block, or leaving pages, lie in `offset..offset + bytes`.
    fn is_taken(&self, offset: u64, bytes: u64) -> bool {
        let end = offset + bytes;
        let live = self.live.range(..end).next_back();
        live.is_some_and(|(_, (end, _))| *end > offset)
            || self
                .reserved()
                .any(|pending| pending.extent().start < end && pending.extent().end > offset)
            || self.leaving.iter().any(|leaving| {
                let first = u64::from(leaving.page()) * Self::PAGE;
                first < end && first + u64::from(leaving.pages()) * Self::PAGE > offset
            })
    }

    /// Pages with memory and nothing else in them.
    fn free_pages(&self) -> u64 {
        let backed = self.arena.backed.iter();
        let free = backed.filter(|page| !self.is_taken(u64::from(**page) * Self::PAGE, Self::PAGE));
        free.count() as u64
    }

    /// Bytes of all live and open blocks.
    fn claimed(&self) -> u64 {
        let reserved = self.reserved().map(Pending::extent);
        self.live_bytes() + reserved.map(|all| all.end - all.start).sum::<u64>()
    }

    /// Bytes of all live blocks.
    fn live_bytes(&self) -> u64 {
        self.live.iter().map(|(start, (end, _))| end - start).sum()
    }

    /// Whether a free block of a power of 2 with memory is there to be had.
    fn has_free(&self, bytes: u64) -> bool {
        let page = Self::PAGE;
        let held = |at: u64| self.arena.backed.contains(&((at / page) as u32));
        self.arena.backed.iter().any(|first| {
            let first = u64::from(*first) * page;
            let starts = if bytes < page { page / bytes } else { 1 };
            (0..starts).any(|index| {
                let at = first + index * bytes;
                at % bytes == 0
                    && (0..bytes.div_ceil(page)).all(|page_of| held(at + page_of * page))
                    && !self.is_taken(at, bytes)
            })
        })
    }

    /// Checks a reservation that was given.
    fn check_reserved(&self, pending: &Pending, size: Size, larger: bool, grow: bool) {
        let bytes = Self::block_bytes(size.taken());
        let start = pending.extent().start;
        let header = if size.headed { 16 } else { 0 };
        assert_eq!(pending.extent(), start..start + bytes);
        assert_eq!(pending.offset(), start + header);
        assert_eq!(pending.block_bytes(), bytes - header);
        assert!(pending.block_bytes() >= size.bytes);
        assert_eq!(start % bytes.next_power_of_two(), 0);
        assert!(start + bytes <= u64::from(SPAN) * Self::PAGE);
        assert!(!self.is_taken(start, bytes), "two blocks at {start:#x}");
        assert!(larger || grow || pending.missing() == 0, "grows unasked");
        let first = (pending.offset() / Self::PAGE) as u32;
        let pages = bytes.div_ceil(Self::PAGE) as u32;
        let backed = self.arena.backed.range(first..first + pages).count() as u32;
        assert_eq!(pending.missing(), pages - backed);
    }

    fn check_refused(&self, refusal: Refusal, size: Size, larger: bool, grow: bool) {
        let (asked, size) = (size.bytes, size.taken());
        match refusal {
            Refusal::Zero => assert_eq!(asked, 0),
            Refusal::TooBig => assert!(size > 1 << MAX_SHIFT),
            Refusal::Empty => assert!(!grow),
            Refusal::NoSpace => assert!(larger || grow),
            Refusal::Need(_) => panic!("the host makes metadata"),
        }
        let class = size.next_power_of_two().max(32);
        if larger && asked > 0 && size <= 1 << MAX_SHIFT {
            let bytes = Self::block_bytes(size);
            assert!(
                bytes != class || !self.has_free(class),
                "{size} bytes are free and refused"
            );
            assert!(
                refusal == Refusal::NoSpace || bytes > self.free_pages() * Self::PAGE,
                "{size} bytes are free in pieces and refused"
            );
        }
    }

    /// Finishes a block. Nothing is taken from the system as long as free pages will do.
    fn commit(&mut self, mut pending: Pending, size: u64, grow: bool) {
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
        assert!(
            after.held_bytes <= before.held_bytes.max(peak + peak / 100)
                || self.arena.engine.run_pages() == 0,
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
            self.frees += 1;
            assert_eq!(taken.is_some(), start < offset, "of {offset:#x}");
            if let Some(taken) = taken {
                assert_eq!(taken.offset(), offset);
                assert!(taken.is_headed());
                self.taken.push(taken);
            }
            if self.taken.len() > 3 {
                self.arena.give_back(self.taken.swap_remove(0));
            }
        } else {
            assert_eq!(
                self.arena.counters(),
                before,
                "a refused free changed things"
            );
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
            Op::GiveBack(index) => {
                if let Some(index) = index.checked_rem(self.taken.len()) {
                    let taken = self.taken.swap_remove(index);
                    self.arena.give_back(taken);
                }
            }
            Op::FreeHalf => {
                let half: Vec<_> = self.live.values().step_by(2).copied().collect();
                for (_, offset) in half {
                    self.free(offset);
                }
            }
            Op::Detach(most) => {
                if let Some(leaving) = self.arena.isolate(most) {
                    let (first, pages) = (leaving.page(), leaving.pages());
                    let taken =
                        self.is_taken(u64::from(first) * Self::PAGE, u64::from(pages) * Self::PAGE);
                    assert!(!taken, "pages that are in use leave");
                    let range = first..first + pages;
                    assert_eq!(self.arena.backed.range(range).count() as u32, pages);
                    self.leaving.push(leaving);
                }
            }
            Op::Unback(index) => {
                if let Some(index) = index.checked_rem(self.leaving.len()) {
                    let leaving = self.leaving.swap_remove(index);
                    drop(self.arena.remove_isolated(leaving));
                    self.arena.check();
                }
            }
            Op::Reattach(index) => {
                if let Some(index) = index.checked_rem(self.leaving.len()) {
                    let leaving = self.leaving.swap_remove(index);
                    self.arena.putback(leaving);
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
        for leaving in std::mem::take(&mut self.leaving) {
            self.arena.putback(leaving);
        }
        for (_, offset) in self.live.values().copied().collect::<Vec<_>>() {
            self.free(offset);
        }
        for taken in std::mem::take(&mut self.taken) {
            self.arena.give_back(taken);
        }
        self.arena.drain();
        let counters = self.arena.counters();
        assert_eq!(counters.free_bytes, counters.held_bytes);
        assert_eq!(counters.trees, 0);
        self.arena.trim(0);
        let counters = self.arena.counters();
        assert_eq!(counters.held_bytes, 0);
        // The end of the address space, which is no whole chunk, may have been met.
        assert!(counters.chunks <= 1);
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
