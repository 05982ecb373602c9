// SPDX-License-Identifier: GPL-2.0

//! Random touches, discards, resizes and releases of lazy blocks, against a map of live blocks and of
//! the pages with memory in each.

use std::collections::{BTreeMap, BTreeSet};

use freelist_engine::engine::{
    Admission, Discard, Discarding, Loss, Request, ResizeError, Resized, Touch,
};
use freelist_engine::host::{request, Arena};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        pages: u64,
        lazy: bool,
    },
    Free(usize),
    Resize {
        index: usize,
        pages: u64,
        lazy: bool,
    },
    /// Begins a touch of a page; the next two end the touch with this index.
    Touch {
        at: usize,
        max_order: u32,
    },
    Finish(usize),
    Cancel(usize),
    Discard {
        at: usize,
        pages: u32,
    },
    Discarded {
        index: usize,
        stays: u32,
    },
    Lose(usize),
    Trim(u32),
    Drain,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let pages = || prop_oneof![6 => 1..40u64, 1 => 500..1500u64];
    let op = prop_oneof![
        5 => (pages(), prop::bool::weighted(0.8)).prop_map(|(pages, lazy)| Op::Alloc { pages, lazy }),
        3 => any::<usize>().prop_map(Op::Free),
        3 => (any::<usize>(), pages(), any::<bool>())
            .prop_map(|(index, pages, lazy)| Op::Resize { index, pages, lazy }),
        12 => (any::<usize>(), 0..11u32).prop_map(|(at, max_order)| Op::Touch { at, max_order }),
        8 => any::<usize>().prop_map(Op::Finish),
        2 => any::<usize>().prop_map(Op::Cancel),
        4 => (any::<usize>(), 1..64u32).prop_map(|(at, pages)| Op::Discard { at, pages }),
        4 => (any::<usize>(), 0..4u32)
            .prop_map(|(index, stays)| Op::Discarded { index, stays }),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => (0..200u32).prop_map(Op::Trim),
        1 => Just(Op::Drain),
    ];
    vec(op, 1..150)
}

/// The model of a live block: its pages, and which of them have memory.
struct Block {
    pages: u32,
    has: BTreeSet<u32>,
}

struct Model<const KIB: usize> {
    arena: Arena<KIB>,
    blocks: BTreeMap<u32, Block>,
    touches: Vec<Touch>,
    discards: Vec<Discard>,
}

impl<const KIB: usize> Model<KIB> {
    fn new() -> Self {
        Self {
            arena: Arena::new(4 * 1024 + 100),
            blocks: BTreeMap::new(),
            touches: Vec::new(),
            discards: Vec::new(),
        }
    }

    fn nth_block(&self, index: usize) -> Option<u32> {
        let len = self.blocks.len();
        self.blocks.keys().nth(index.checked_rem(len)?).copied()
    }

    /// Returns a page of some live block.
    fn page_at(&self, at: usize) -> Option<u32> {
        let first = self.nth_block(at)?;
        let pages = self.blocks[&first].pages as usize;
        Some(first + (at / 7 % pages) as u32)
    }

    fn block_of(&mut self, page: u32) -> Option<&mut Block> {
        let (first, block) = self.blocks.range_mut(..=page).next_back()?;
        (page < first + block.pages).then_some(block)
    }

    /// Returns the pages of a block that have memory according to the engine.
    fn backed(&self, first: u32, pages: u32) -> BTreeSet<u32> {
        let all = first..first + pages;
        all.filter(|page| self.arena.engine.is_backed(*page))
            .collect()
    }

    fn apply(&mut self, op: Op) {
        let page_bytes = Arena::<KIB>::PAGE;
        match op {
            Op::Alloc { pages, lazy } => self.alloc(pages, lazy),
            Op::Free(index) => {
                if let Some(first) = self.nth_block(index) {
                    self.blocks.remove(&first);
                    self.arena.free(u64::from(first) * page_bytes).unwrap();
                }
            }
            Op::Resize { index, pages, lazy } => self.resize(index, pages as u32, lazy),
            Op::Touch { at, max_order } => {
                if let Some(page) = self.page_at(at) {
                    if let Ok(touch) = self.arena.touch(page, max_order) {
                        assert!(touch.order() <= max_order && touch.range().contains(&page));
                        self.touches.push(touch);
                    }
                }
            }
            Op::Finish(index) => {
                if let Some(index) = index.checked_rem(self.touches.len()) {
                    let touch = self.touches.swap_remove(index);
                    let range = touch.range();
                    if self.arena.finish_touch(touch) {
                        let block = self.block_of(range.start).expect("it is live");
                        block.has.extend(range);
                    }
                }
            }
            Op::Cancel(index) => {
                if let Some(index) = index.checked_rem(self.touches.len()) {
                    let touch = self.touches.swap_remove(index);
                    self.arena.cancel_touch(touch);
                }
            }
            Op::Discard { at, pages } => {
                if let Some(page) = self.page_at(at) {
                    if let Discarding::Range(discard) =
                        self.arena.engine.discard(page, page + pages)
                    {
                        self.discards.push(discard);
                        self.arena.check();
                    }
                }
            }
            Op::Discarded { index, stays } => self.discarded(index, stays),
            Op::Lose(at) => self.lose(at),
            Op::Trim(keep) => {
                self.arena.trim(keep);
            }
            Op::Drain => self.arena.drain(),
        }
    }

    fn alloc(&mut self, pages: u64, lazy: bool) {
        let page_bytes = Arena::<KIB>::PAGE;
        let request = Request {
            lazy,
            ..request(pages * page_bytes)
        };
        let Ok((offset, bytes)) = self.arena.alloc(request) else {
            return;
        };
        let (first, pages) = ((offset / page_bytes) as u32, (bytes / page_bytes) as u32);
        let has = self.backed(first, pages);
        assert!(lazy || has.len() == pages as usize);
        let before = self.blocks.insert(first, Block { pages, has });
        assert!(before.is_none());
    }

    /// Ends a discard, in which `stays` of four pages keep their memory.
    fn discarded(&mut self, index: usize, stays: u32) {
        let Some(index) = index.checked_rem(self.discards.len()) else {
            return;
        };
        let discard = self.discards.swap_remove(index);
        let (range, keeps) = (discard.range(), discard.keeps_memory());
        let stays = |page: u32| page % 4 < stays;
        self.arena.finish_discard(discard, stays);
        for page in range.filter(|page| !keeps && !stays(*page)) {
            if let Some(block) = self.block_of(page) {
                block.has.remove(&page);
            }
        }
    }

    fn resize(&mut self, index: usize, pages: u32, lazy: bool) {
        let Some(first) = self.nth_block(index) else {
            return;
        };
        let page_bytes = Arena::<KIB>::PAGE;
        let (offset, bytes) = (u64::from(first) * page_bytes, u64::from(pages) * page_bytes);
        let arena = &mut self.arena;
        match arena.start_resize_as(offset, bytes, lazy, Admission::Full) {
            Ok(Resized::Done) => {}
            Ok(Resized::Shrunk(holed)) => {
                arena.release_holed(holed);
            }
            Ok(Resized::InTheWay(_)) => unreachable!("it was removed"),
            Ok(Resized::Growing(mut growth)) => {
                if growth.reservation().is_lazy() && growth.reservation().missing() > 0 {
                    arena.engine.owe(growth.reservation());
                    arena.check();
                } else {
                    assert!(arena.fill_growth(&mut growth));
                }
                assert!(arena.commit_growth(growth));
            }
            Err(ResizeError::Busy) => {
                let end = first + pages;
                let touches = self.touches.iter().map(Touch::range);
                let mut all = touches.chain(self.discards.iter().map(Discard::range));
                let had = first + self.blocks[&first].pages;
                let wanted = had..end.max(had);
                assert!(all.any(|range| {
                    let across = range.start < end && end < range.end;
                    across || range.start < wanted.end && wanted.start < range.end
                }));
                return;
            }
            Err(_) => return,
        }
        let had = self.blocks[&first].pages;
        let more = self.backed(first + had.min(pages), pages.saturating_sub(had));
        let block = self.blocks.get_mut(&first).unwrap();
        block.pages = pages;
        block.has.retain(|page| *page < first + pages);
        block.has.extend(more);
    }

    fn lose(&mut self, at: usize) {
        let Some(page) = self.page_at(at) else {
            return;
        };
        if self
            .discards
            .iter()
            .any(|discard| discard.range().contains(&page))
        {
            return;
        }
        let loss = self.arena.engine.lose(page, false);
        let had = self.arena.backed.remove(&page);
        assert_eq!(had.is_some(), loss != Loss::Nothing);
        self.arena.check();
        if let Some(block) = self.block_of(page) {
            block.has.remove(&page);
        }
    }

    /// Checks the engine against the model; the arena checks itself after each step.
    fn check(&self) {
        let engine = &self.arena.engine;
        for (first, block) in &self.blocks {
            let all = *first..first + block.pages;
            let backed = all.filter(|page| engine.is_backed(*page));
            assert!(backed.eq(block.has.iter().copied()), "block at {first}");
        }
        let live: u64 = self
            .blocks
            .values()
            .map(|block| u64::from(block.pages))
            .sum();
        assert_eq!(engine.counters().live_bytes, live * Arena::<KIB>::PAGE);
    }

    fn finish(mut self) {
        while !self.touches.is_empty() {
            self.apply(Op::Finish(0));
        }
        while !self.discards.is_empty() {
            self.apply(Op::Discarded { index: 0, stays: 0 });
        }
        while !self.blocks.is_empty() {
            self.apply(Op::Free(0));
        }
        self.arena.trim(0);
        let counters = self.arena.counters();
        assert_eq!((counters.held_bytes, counters.pending_bytes), (0, 0));
        assert_eq!(self.arena.engine.owed_pages(), 0);
        assert_eq!((counters.metadata.chunks, counters.live_blocks), (0, 0));
        self.arena.end();
    }
}

fn run<const KIB: usize>(ops: &[Op]) {
    let mut model = Model::<KIB>::new();
    for op in ops {
        model.apply(op.clone());
        model.check();
    }
    model.finish();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn lazy_blocks_are_as_the_model_says(ops in ops()) {
        run::<4>(&ops);
    }

    #[test]
    fn lazy_blocks_of_64_kib_pages_are_as_the_model_says(ops in ops()) {
        run::<64>(&ops);
    }
}
