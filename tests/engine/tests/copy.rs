// SPDX-License-Identifier: GPL-2.0

//! Copies of an arena: of all blocks that stay live, and of blocks that are allocated and freed during the copy.

use freelist_engine::copy::Copying;
use freelist_engine::engine::{FreeError, Policy, Request};
use freelist_engine::host::{request, Arena};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Address space of the arenas here, in pages.
const SPAN: u32 = 3 * 1024 + 300;

#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc {
        size: u64,
        headed: bool,
        contiguous: bool,
    },
    Free(usize),
    Resize {
        index: usize,
        pages: u64,
    },
    /// A page of a live block turns out to be bad.
    Lose(usize),
    Trim,
}

fn op(page: u64) -> impl Strategy<Value = Op> {
    let sizes = prop_oneof![
        4 => 1..page,
        4 => (1..40u64).prop_map(move |pages| pages * page),
        1 => page..600 * page,
    ];
    prop_oneof![
        9 => (sizes, prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(size, headed, contiguous)| Op::Alloc { size, headed, contiguous }),
        6 => any::<usize>().prop_map(Op::Free),
        2 => (any::<usize>(), 1..60u64).prop_map(|(index, pages)| Op::Resize { index, pages }),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => Just(Op::Trim),
    ]
}

/// An arena, and the bytes of each live block by its offset.
struct Model<const KIB: usize> {
    arena: Arena<KIB>,
    live: BTreeMap<u64, u64>,
    /// Blocks that were allocated, freed or resized since this was cleared.
    touched: BTreeSet<u64>,
}

impl<const KIB: usize> Model<KIB> {
    const PAGE: u64 = Arena::<KIB>::PAGE;

    fn new() -> Self {
        let mut arena = Arena::new(SPAN);
        arena.checked = false;
        Self {
            arena,
            live: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    fn nth(&self, index: usize) -> Option<(u64, u64)> {
        let at = index.checked_rem(self.live.len())?;
        let (offset, bytes) = self.live.iter().nth(at)?;
        Some((*offset, *bytes))
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Alloc {
                size,
                headed,
                contiguous,
            } => {
                let mut asked = Request {
                    headed,
                    ..request(size)
                };
                if contiguous {
                    asked.policy = Policy::Contiguous;
                }
                if let Ok((offset, bytes)) = self.arena.alloc(asked) {
                    self.live.insert(offset, bytes);
                    self.touched.insert(offset);
                }
            }
            Op::Free(index) => {
                if let Some((offset, _)) = self.nth(index) {
                    assert_eq!(self.arena.free(offset), Ok(()));
                    self.live.remove(&offset);
                    self.touched.insert(offset);
                }
            }
            Op::Resize { index, pages } => {
                if let Some((offset, _)) = self.nth(index) {
                    if let Ok(bytes) = self.arena.resize(offset, pages * Self::PAGE) {
                        self.live.insert(offset, bytes);
                        self.touched.insert(offset);
                    }
                }
            }
            Op::Lose(index) => {
                if let Some((offset, bytes)) = self.nth(index) {
                    let page = ((offset + bytes - 1) / Self::PAGE) as u32;
                    self.arena.drain();
                    self.arena.engine.lose(page, true);
                    self.arena.backed.remove(&page);
                    if bytes < Self::PAGE {
                        // A step of the copy may have read its page.
                        self.touched.insert(offset);
                    }
                }
            }
            Op::Trim => drop(self.arena.trim(0)),
        }
    }
}

/// Checks that a copy has these blocks and no others: each is freed once.
fn has_exactly<const KIB: usize>(mut copy: Arena<KIB>, blocks: &BTreeMap<u64, u64>) {
    copy.check();
    let counters = copy.counters();
    assert_eq!(counters.live_blocks, blocks.len() as u64);
    for (offset, bytes) in blocks {
        let before = copy.counters();
        assert_eq!(copy.free(*offset), Ok(()), "{offset:#x} of {bytes} bytes");
        assert_eq!(copy.free(*offset), Err(FreeError::NotLive));
        let freed = before.live_bytes - copy.counters().live_bytes;
        assert!(
            freed == *bytes || freed == bytes + 16,
            "{bytes} bytes, and {freed} were freed"
        );
    }
    copy.trim(0);
    copy.check();
    assert_eq!(copy.counters().held_bytes, 0);
    copy.end();
}

fn runs<const KIB: usize>(before: Vec<Op>, during: Vec<(Op, u8)>) {
    let mut model = Model::<KIB>::new();
    for op in before {
        model.run(op);
    }
    has_exactly(model.arena.copy(SPAN), &model.live);
    // The source changes between the steps of a copy.
    let mut copying = Copying::new(SPAN);
    model.touched.clear();
    let first = model.live.clone();
    let mut seen = first.clone();
    let mut during = during.into_iter();
    let mut change = |model: &mut Model<KIB>| {
        let mut more = true;
        while more {
            let Some((op, rest)) = during.next() else {
                break;
            };
            model.run(op);
            seen.extend(&model.live);
            more = rest % 3 != 0;
        }
    };
    while copying.find(&model.arena, 5) {
        change(&mut model);
        copying.fill(&model.arena);
        change(&mut model);
        copying.commit(&model.arena, true);
        change(&mut model);
    }
    let mut copy = copying.target;
    copy.check();
    // A block that stayed live is in the copy. One that was allocated or freed may be in it, with earlier bytes.
    let mut live = BTreeMap::new();
    for (offset, bytes) in &seen {
        let before = copy.counters().live_bytes;
        let stayed = first.contains_key(offset) && !model.touched.contains(offset);
        match copy.free(*offset) {
            Ok(()) => {
                let freed = before - copy.counters().live_bytes;
                if stayed {
                    assert!(freed == *bytes || freed == bytes + 16);
                }
                live.insert(*offset, freed);
            }
            Err(error) => assert!(!stayed, "{offset:#x} of {bytes} bytes: {error:?}"),
        }
    }
    copy.check();
    assert_eq!(
        copy.counters().live_blocks,
        0,
        "a block that the source never had"
    );
    assert_eq!(copy.counters().frees, live.len() as u64);
    copy.trim(0);
    assert_eq!(copy.counters().held_bytes, 0);
    copy.end();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 10_000, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn a_copy_has_the_same_blocks(
        before in vec(op(4096), 1..60),
        during in vec((op(4096), any::<u8>()), 0..40),
    ) {
        runs::<4>(before, during);
    }

    #[test]
    fn a_copy_at_larger_pages_has_the_same_blocks(
        before in vec(op(65536), 1..30),
        during in vec((op(65536), any::<u8>()), 0..20),
    ) {
        runs::<64>(before, during);
    }
}

#[test]
fn a_copy_of_nothing_is_empty() {
    let mut source = Arena::<4>::new(SPAN);
    has_exactly(source.copy(SPAN), &BTreeMap::new());
    let (offset, _) = source.alloc(request(100)).unwrap();
    source.free(offset).unwrap();
    has_exactly(source.copy(SPAN), &BTreeMap::new());
}

#[test]
fn a_copy_that_is_undone_leaves_nothing() {
    let mut source = Arena::<4>::new(SPAN);
    for size in [32, 5000, 2048, 1 << 20, 64, 12345] {
        source.alloc(request(size)).unwrap();
    }
    let mut copying = Copying::new(SPAN);
    while copying.find(&source, 2) {
        copying.fill(&source);
        copying.commit(&source, false);
    }
    let copy = copying.target;
    copy.check();
    let counters = copy.counters();
    assert_eq!((counters.held_bytes, counters.live_blocks), (0, 0));
    assert_eq!((counters.metadata.chunks, counters.metadata.trees), (0, 0));
}

#[test]
fn pending_blocks_are_in_no_copy() {
    let mut source = Arena::<4>::new(SPAN);
    let (offset, bytes) = source.alloc(request(100)).unwrap();
    let pending = [100, 20_000].map(|size| source.reserve(request(size)).unwrap());
    has_exactly(source.copy(SPAN), &BTreeMap::from([(offset, bytes)]));
    for reservation in pending {
        source.cancel(reservation);
    }
}

#[test]
fn holes_stay_holes() {
    let mut source = Arena::<4>::new(SPAN);
    let (large, _) = source.alloc(request(5 * 4096)).unwrap();
    let (small, _) = source.alloc(request(100)).unwrap();
    for page in [(large / 4096) as u32 + 2, (small / 4096) as u32] {
        source.engine.lose(page, true);
        source.backed.remove(&page);
    }
    let copy = source.copy(SPAN);
    assert_eq!(copy.counters().held_bytes, 4 * 4096);
    assert_eq!(copy.counters().live_blocks, 2);
    has_exactly(copy, &BTreeMap::from([(large, 5 * 4096), (small, 128)]));
}

#[test]
fn a_copy_serves_requests_from_its_free_memory() {
    let mut source = Arena::<4>::new(SPAN);
    let blocks: Vec<_> = (0..64)
        .map(|_| source.alloc(request(64)).unwrap().0)
        .collect();
    for offset in blocks.iter().skip(1) {
        source.free(*offset).unwrap();
    }
    let mut copy = source.copy(SPAN);
    for _ in 1..64 {
        let (offset, _) = copy.alloc(request(64)).unwrap();
        assert!(blocks.contains(&offset), "not in the page with free blocks");
    }
    assert_eq!(copy.counters().held_bytes, 4096);
}
