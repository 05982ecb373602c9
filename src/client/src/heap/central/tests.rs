// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the slabs of a heap, over a simulated arena.

use super::*;
use crate::heap::class::UNIT_SHIFT;
use crate::heap::model::Pages;
use std::collections::BTreeSet;

const UNITS: usize = 256;

struct Fixture {
    arena: Pages,
    table: Table,
    central: Central,
}

impl Fixture {
    fn new(bytes: usize) -> Self {
        let (table, central) = (Table::new(bytes).unwrap(), Central::new(bytes).unwrap());
        table.open(bytes).unwrap();
        central.open(bytes).unwrap();
        Self {
            arena: Pages::new(bytes),
            table,
            central,
        }
    }

    fn take(&self, class: Class, count: usize) -> Result<Vec<usize>> {
        let mut taken = Vec::new();
        let hand = |offset| taken.push(offset);
        let first = self
            .central
            .take(&self.arena, &self.table, class, count - 1, hand)?;
        taken.insert(0, first);
        Ok(taken)
    }

    fn put(&self, class: Class, offsets: &[usize]) -> std::result::Result<(), NotLive> {
        let offsets = offsets.iter().copied();
        self.central.put(&self.arena, &self.table, class, offsets)
    }

    fn trim(&self) -> usize {
        self.central.trim(&self.arena)
    }

    fn discard(&self) -> u32 {
        self.central.discard(&self.arena, &self.table)
    }
}

#[test]
fn no_block_is_allocated_twice_and_all_are_freed() {
    let fixture = Fixture::new(UNITS << UNIT_SHIFT);
    let mut live: Vec<(Class, usize)> = Vec::new();
    let mut bytes = BTreeSet::new();
    for round in 0..8 {
        for class in Class::all() {
            for offset in fixture.take(class, 3 + round).unwrap() {
                assert_eq!(fixture.table.block(offset), Some(class.bytes()));
                assert!((offset..offset + class.bytes())
                    .step_by(16)
                    .all(|byte| bytes.insert(byte)));
                live.push((class, offset));
            }
        }
        // Every third block is freed.
        let mut index = 0;
        live.retain(|(class, offset)| {
            index += 1;
            if index % 3 == 0 {
                fixture.put(*class, &[*offset]).unwrap();
                for byte in (*offset..offset + class.bytes()).step_by(16) {
                    bytes.remove(&byte);
                }
            }
            index % 3 != 0
        });
    }
    for (class, offset) in live {
        fixture.put(class, &[offset]).unwrap();
    }
    let held = fixture.arena.live();
    assert!(held > 0 && fixture.arena.held_bytes() <= 1 << 20, "{held}");
    assert_eq!(fixture.trim(), held);
    assert_eq!(fixture.arena.live(), 0);
}

#[test]
fn a_small_heap_asks_for_one_slab_at_a_time() {
    let fixture = Fixture::new(UNITS << UNIT_SHIFT);
    for (number, class) in Class::all().take(8).enumerate() {
        fixture.take(class, 1).unwrap();
        assert_eq!(fixture.arena.live(), number + 1);
    }
}

#[test]
fn a_slab_that_is_free_serves_another_class_of_its_size() {
    let fixture = Fixture::new(2 * GRAIN_BYTES);
    let (small, other) = (Class::of(16).unwrap(), Class::of(1024).unwrap());
    let blocks = fixture.take(small, 256 + 1).unwrap();
    assert_eq!((blocks.len(), fixture.arena.live()), (256, 1));
    let more = fixture.take(small, 1).unwrap();
    assert!(fixture.take(other, 1).is_err());
    fixture.put(small, &more).unwrap();
    assert_eq!(fixture.take(other, 5).unwrap().len(), 4);
    assert!(fixture.take(other, 1).is_err());
    fixture.put(small, &blocks).unwrap();
    assert_eq!(fixture.trim(), 1);
    let two = Class::of(8192).unwrap();
    assert!(fixture.take(two, 1).is_err());
}

#[test]
fn a_block_that_is_not_live_cannot_be_freed() {
    let fixture = Fixture::new(UNITS << UNIT_SHIFT);
    let class = Class::of(128).unwrap();
    let blocks = fixture.take(class, 10).unwrap();
    let refused = |offset| Err(NotLive { offset });
    fixture.put(class, &blocks[3..5]).unwrap();
    assert_eq!(fixture.put(class, &blocks[3..]), refused(blocks[3]));
    assert_eq!(fixture.put(class, &[128 * 20]), refused(128 * 20));
    let other = Class::of(16).unwrap();
    assert_eq!(fixture.put(other, &blocks[..1]), refused(blocks[0]));
    // Beyond any slab, and beyond the arena.
    assert_eq!(fixture.put(class, &[1 << 20]), refused(1 << 20));
    assert_eq!(fixture.put(class, &[1 << 40]), refused(1 << 40));
}

#[test]
fn wholly_free_slabs_beyond_a_few_are_released() {
    let fixture = Fixture::new(UNITS << UNIT_SHIFT);
    for class in Class::all() {
        let mut all = Vec::new();
        while fixture.arena.held_bytes() < 8 << 20 {
            all.extend(fixture.take(class, 2).unwrap());
            // All of it is used.
            all.iter().rev().take(2).for_each(|block| {
                fixture.arena.touch(*block, class.bytes());
            });
        }
        fixture.put(class, &all).unwrap();
        let held = fixture.arena.held_bytes();
        assert!(held <= 1 << 20, "{held} of {class:?}");
        fixture.trim();
        assert_eq!(fixture.arena.live(), 0);
    }
    // No entry remains where they were.
    let mut grains = (0..UNITS << UNIT_SHIFT).step_by(GRAIN_BYTES);
    assert!(grains.all(|offset| fixture.table.class(offset).is_none()));
}

/// Keeps one block in use in each slab of a class: it holds memory in its own pages only.
#[test]
fn a_block_in_use_holds_its_own_pages_of_a_slab() {
    for class in Class::all() {
        let fixture = Fixture::new(UNITS << UNIT_SHIFT);
        let blocks = fixture.take(class, 20 * class.blocks()).unwrap();
        let mut blocks = blocks;
        while blocks.len() < 20 * class.blocks() {
            blocks.extend(fixture.take(class, class.blocks()).unwrap());
        }
        for block in &blocks {
            fixture.arena.touch(*block, class.bytes());
        }
        let stays = |block: &usize| class.block_at(*block) == Some(0);
        let (stay, go): (Vec<_>, Vec<_>) = blocks.into_iter().partition(stays);
        fixture.put(class, &go).unwrap();
        fixture.discard();
        fixture.trim();
        let pages = class.bytes().div_ceil(GRAIN_BYTES) * stay.len();
        assert_eq!(fixture.arena.held_bytes(), pages * GRAIN_BYTES, "{class:?}");
        assert_eq!(fixture.discard(), 0, "once");
    }
}

/// Has each step need again the memory that the step before freed: after a few steps none is discarded.
#[test]
fn memory_that_is_needed_again_and_again_is_not_discarded_each_time() {
    let fixture = Fixture::new(UNITS << UNIT_SHIFT);
    let class = Class::of(9 << 10).unwrap();
    let mut live: Vec<usize> = Vec::new();
    let mut discards = Vec::new();
    for _ in 0..64 {
        while live.len() < 1000 {
            for block in fixture.take(class, 1).unwrap() {
                fixture.arena.touch(block, class.bytes());
                live.push(block);
            }
        }
        let before = fixture.arena.discards();
        let (stay, go): (Vec<_>, Vec<_>) = live.iter().enumerate().partition(|at| at.0 % 50 == 0);
        for (_, block) in go {
            fixture.put(class, &[*block]).unwrap();
        }
        live = stay.into_iter().map(|(_, block)| *block).collect();
        discards.push(fixture.arena.discards() - before);
    }
    let steps = discards.iter().filter(|count| **count > 0).count();
    assert!(discards[0] > 0 && steps <= 8, "{discards:?}");
    // Memory that is not needed again is discarded.
    assert!(fixture.discard() > 0);
}

#[test]
fn threads_share_slabs_and_lose_nothing() {
    let fixture = Fixture::new(UNITS << UNIT_SHIFT);
    let fixture = &fixture;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..300 {
                    let class = Class::numbered(((round + thread) % 3) * 30).unwrap();
                    let blocks = fixture.take(class, 1 + round as usize % 64).unwrap();
                    if round % 16 == 0 {
                        fixture.discard();
                    }
                    fixture.put(class, &blocks).unwrap();
                }
            });
        }
    });
    fixture.trim();
    assert_eq!(fixture.arena.live(), 0);
}
