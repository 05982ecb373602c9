// SPDX-License-Identifier: GPL-2.0

//! Every sequence of operations on a small arena, up to a length. Each runs from the beginning; after its last
//! operation all invariants are checked, as the states before that end shorter sequences. Then all blocks are
//! freed, and nothing may remain.
//!
//! `FREELIST_DEPTH` is the length, 4 by default; from 8 on there are more than ten million sequences. Build with
//! `--release` for that.

use freelist_engine::engine::{Isolated, Refusal, Request, Reservation, ALIGN_SHIFT};
use freelist_engine::host::{reuse, Arena};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;
use std::thread;

/// Pages that the arena may hold.
const LIMIT: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    /// Allocates half a page.
    Half,
    /// Allocates half a page with a header.
    HeadedHalf,
    /// Allocates a page, from any source.
    Page,
    /// Allocates three pages, from any source.
    Pages,
    /// Allocates a page from free memory alone.
    PageWithoutGrowing,
    /// Frees the oldest block.
    FreeOldest,
    /// Frees the newest block.
    FreeNewest,
    /// Reserves three pages, and backs one of them.
    Reserve,
    /// Backs the reservation, and makes it live.
    Commit,
    /// Cancels the reservation.
    Cancel,
    /// Isolates at most two free pages.
    Isolate,
    /// Removes the isolated pages.
    Remove,
    /// Puts the isolated pages back.
    Putback,
    /// Trims all free pages.
    Trim,
}

const ALL: [Op; 14] = [
    Op::Half,
    Op::HeadedHalf,
    Op::Page,
    Op::Pages,
    Op::PageWithoutGrowing,
    Op::FreeOldest,
    Op::FreeNewest,
    Op::Reserve,
    Op::Commit,
    Op::Cancel,
    Op::Isolate,
    Op::Remove,
    Op::Putback,
    Op::Trim,
];

/// An arena, and a model of it.
struct World<const KIB: usize> {
    arena: Arena<KIB>,
    /// The live blocks: the offsets at which they are freed, and their bytes.
    live: Vec<(u64, Range<u64>)>,
    pending: Option<Reservation>,
    isolated: Option<Isolated>,
}

impl<const KIB: usize> World<KIB> {
    const PAGE: u64 = Arena::<KIB>::PAGE;

    fn new() -> Self {
        let mut arena = Arena::new(1 << 12);
        arena.limit = LIMIT as u32;
        arena.checked = false;
        Self {
            arena,
            live: Vec::new(),
            pending: None,
            isolated: None,
        }
    }

    /// Returns the pages that no request can get.
    fn pages_in_use(&self) -> u64 {
        let pages = |bytes: &Range<u64>| bytes.start / Self::PAGE..bytes.end.div_ceil(Self::PAGE);
        let mut used: Vec<u64> = self.live.iter().flat_map(|(_, all)| pages(all)).collect();
        used.extend(self.pending.iter().flat_map(|block| pages(&block.extent())));
        used.sort_unstable();
        used.dedup();
        used.len() as u64 + self.isolated.as_ref().map_or(0, |some| some.pages().into())
    }

    /// Checks that a new block is aligned and overlaps no other.
    fn is_new(&self, extent: &Range<u64>) {
        let length = extent.end - extent.start;
        let align = length.next_power_of_two().min(1 << ALIGN_SHIFT);
        assert_eq!(extent.start % align, 0, "misaligned");
        let others = self.live.iter().map(|(_, other)| other.clone());
        for other in others.chain(self.pending.iter().map(Reservation::extent)) {
            assert!(
                other.end <= extent.start || extent.end <= other.start,
                "{extent:?} and {other:?}"
            );
        }
    }

    fn alloc(&mut self, size: u64, headed: bool, grow: bool) {
        let request = Request {
            size,
            policy: reuse(true, grow),
            headed,
            ..Request::default()
        };
        let used = self.pages_in_use();
        match self.arena.alloc(request) {
            Ok((offset, bytes)) => {
                assert!(bytes >= size);
                let start = offset - 16 * u64::from(headed);
                let extent = start..offset + bytes;
                self.is_new(&extent);
                self.live.push((offset, extent));
            }
            Err(Refusal::Empty) => {
                let fits = used + size.div_ceil(Self::PAGE) <= LIMIT;
                assert!(!grow || !fits, "refused with {used} pages in use");
            }
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    fn free(&mut self, at: usize) {
        let (offset, _) = self.live.remove(at);
        self.arena.free(offset).expect("it is live");
        self.arena.free(offset).expect_err("it was just freed");
    }

    fn commit(&mut self, mut pending: Reservation) {
        if self.arena.fill(&mut pending, true) {
            self.live.push((pending.offset(), pending.extent()));
            self.arena.commit(pending);
        } else {
            self.arena.cancel(pending);
        }
    }

    /// Executes an operation. Returns `None` if it does not apply.
    fn apply(&mut self, op: Op) -> Option<()> {
        match op {
            Op::Half => self.alloc(Self::PAGE / 2, false, true),
            Op::HeadedHalf => self.alloc(Self::PAGE / 2 - 16, true, true),
            Op::Page => self.alloc(Self::PAGE, false, true),
            Op::Pages => self.alloc(3 * Self::PAGE, false, true),
            Op::PageWithoutGrowing => self.alloc(Self::PAGE, false, false),
            Op::FreeOldest if !self.live.is_empty() => self.free(0),
            // With one block it is the oldest, too.
            Op::FreeNewest => match self.live.len() {
                0 | 1 => return None,
                len => self.free(len - 1),
            },
            Op::Reserve if self.pending.is_none() => {
                let request = Request {
                    size: 3 * Self::PAGE,
                    policy: reuse(true, true),
                    ..Request::default()
                };
                let mut pending = self.arena.reserve(request).expect("there are offsets");
                self.is_new(&pending.extent());
                let held = self.arena.counters().held_bytes / Self::PAGE;
                self.arena.back(&mut pending, u32::from(held < LIMIT));
                self.pending = Some(pending);
            }
            Op::Commit => {
                let pending = self.pending.take()?;
                self.commit(pending);
            }
            Op::Cancel => {
                let pending = self.pending.take()?;
                self.arena.cancel(pending);
            }
            Op::Isolate if self.isolated.is_none() => self.isolated = Some(self.arena.isolate(2)?),
            Op::Remove => drop(self.arena.remove(self.isolated.take()?)),
            Op::Putback => {
                let isolated = self.isolated.take()?;
                self.arena.putback(isolated);
            }
            Op::Trim => (self.arena.trim(0) > 0).then_some(())?,
            Op::FreeOldest | Op::Reserve | Op::Isolate => return None,
        }
        Some(())
    }

    /// Checks the arena against the model.
    fn check(&self) {
        self.arena.check();
        let counters = self.arena.counters();
        let bytes = self.live.iter().map(|(_, all)| all.end - all.start);
        assert_eq!(counters.live_blocks, self.live.len() as u64);
        assert_eq!(counters.live_bytes, bytes.sum::<u64>());
        assert!(counters.held_bytes <= LIMIT * Self::PAGE);
    }

    /// Frees all blocks, and checks that nothing remains.
    fn end(mut self) {
        if let Some(isolated) = self.isolated.take() {
            self.arena.putback(isolated);
        }
        if let Some(pending) = self.pending.take() {
            self.arena.cancel(pending);
        }
        while !self.live.is_empty() {
            self.free(0);
        }
        let held = self.arena.counters().held_bytes / Self::PAGE;
        assert_eq!(u64::from(self.arena.trim(0)), held);
        let counters = self.arena.counters();
        assert_eq!(
            (
                counters.held_bytes,
                counters.metadata.chunks,
                counters.metadata.trees
            ),
            (0, 0, 0)
        );
        self.arena.end();
    }
}

/// Executes a sequence and checks the state after it. Returns `false` if its last operation does not apply.
fn run<const KIB: usize>(sequence: &[Op]) -> bool {
    let mut world = World::<KIB>::new();
    for op in sequence {
        if world.apply(*op).is_none() {
            return false;
        }
    }
    world.check();
    world.end();
    true
}

/// Tries all sequences that begin with `sequence` and are at most `depth` long. Returns their number.
fn extend<const KIB: usize>(sequence: &mut Vec<Op>, depth: usize) -> u64 {
    let mut count = 0;
    for op in ALL {
        sequence.push(op);
        if run::<KIB>(sequence) {
            count += 1;
            if sequence.len() < depth {
                count += extend::<KIB>(sequence, depth);
            }
        }
        sequence.pop();
    }
    count
}

/// Prints the sequence of a failure.
struct Doing<'a>(&'a [Op]);

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("in a sequence that begins with {:?}", self.0);
        }
    }
}

/// Tries all sequences of at most `depth` operations. Returns their number.
fn enumerate<const KIB: usize>(depth: usize) -> u64 {
    // The work is divided by the first two operations.
    let begins: Vec<[Op; 2]> = ALL
        .iter()
        .flat_map(|first| ALL.map(|second| [*first, second]))
        .collect();
    let single = ALL.iter().filter(|op| run::<KIB>(&[**op])).count();
    let count = AtomicU64::new(single as u64);
    let next = Mutex::new(begins.iter());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| loop {
                let Some(begin) = next.lock().unwrap().next() else {
                    break;
                };
                let _doing = Doing(begin);
                let mut sequence = begin.to_vec();
                if run::<KIB>(&sequence) {
                    count.fetch_add(1 + extend::<KIB>(&mut sequence, depth), Relaxed);
                }
            });
        }
    });
    count.into_inner()
}

/// With pages of 64 KiB three pages are too large for the quick lists.
#[test]
fn the_invariants_hold_after_every_short_sequence() {
    let depth = std::env::var("FREELIST_DEPTH").map_or(4, |depth| depth.parse().expect("a number"));
    assert!(depth >= 2, "FREELIST_DEPTH is at least 2");
    let counts = [enumerate::<4>(depth), enumerate::<64>(depth)];
    let count: u64 = counts.iter().sum();
    assert!(count > 1000, "only {count} sequences");
    println!("{count} sequences of at most {depth} operations");
    if depth >= 8 {
        println!("trust: enumerated_sequences {count} sequences >=10000000");
    }
}
