// SPDX-License-Identifier: GPL-2.0

//! Blocks of which every promise is checked.

use std::collections::BTreeMap;

use freelist::{Arena, Block, Flags, Mapping, Result};

use super::{block_bytes_of, class_of, KIB};

/// The size in bytes above which not every page of a block is touched.
const TOUCH_ALL: u64 = 4 << 20;
/// The distance of touches in larger blocks, in bytes; not a multiple of any page size, so that touches
/// are at all positions of a page.
const STRIDE: u64 = (256 << 10) + 61;

#[derive(Debug)]
struct Live {
    size: u64,
    bytes: u64,
    key: u64,
}

/// The live blocks of one user of an arena, whose bytes no other user writes.
pub struct Ledger<'a> {
    arena: &'a Arena,
    memory: &'a Mapping,
    page: u64,
    arena_bytes: u64,
    live: BTreeMap<u64, Live>,
    keys: u64,
}

impl<'a> Ledger<'a> {
    /// Makes a ledger of an arena and a mapping of all of it.
    #[track_caller]
    pub fn new(arena: &'a Arena, memory: &'a Mapping) -> Self {
        let info = arena.info().expect("INFO");
        Self {
            arena,
            memory,
            page: info.page_size.into(),
            arena_bytes: info.arena_bytes,
            live: BTreeMap::new(),
            keys: 0,
        }
    }

    /// Makes this ledger's bytes differ from those of other users' ledgers.
    pub fn with_key(self, key: u64) -> Self {
        Self {
            keys: key << 32,
            ..self
        }
    }

    /// Allocates a block, and checks it against the contract and all other blocks.
    #[track_caller]
    pub fn alloc(&mut self, size: u64, flags: Flags) -> Result<Block> {
        let block = self.arena.alloc(size, flags)?;
        let Block { offset, bytes } = block;
        assert_eq!(
            bytes,
            block_bytes_of(size, self.page),
            "block_bytes of a request for {size}"
        );
        assert_eq!(
            offset % class_of(size).min(64 * KIB),
            0,
            "offset {offset:#x} of a request for {size} is aligned to its size class, or to 64 KiB"
        );
        let end = offset.checked_add(bytes).expect("offsets do not wrap");
        assert!(
            end <= self.arena_bytes,
            "block {offset:#x}..{end:#x} ends within the arena"
        );
        let before = self.live.range(..end).next_back();
        if let Some((other, live)) = before {
            assert!(
                other + live.bytes <= offset,
                "block {offset:#x}..{end:#x} overlaps {live:?} at {other:#x}"
            );
        }
        self.keys += 1;
        let live = Live {
            size,
            bytes,
            key: self.keys,
        };
        for (at, value) in touches(&live, self.page) {
            self.memory
                .set_byte(offset + at, value)
                .expect("all of the arena is mapped");
        }
        self.live.insert(offset, live);
        Ok(block)
    }

    /// Checks that a live block's bytes are unchanged.
    #[track_caller]
    pub fn check(&self, offset: u64) {
        let live = &self.live[&offset];
        for (at, value) in touches(live, self.page) {
            let found = self
                .memory
                .byte(offset + at)
                .expect("all of the arena is mapped");
            assert_eq!(
                found, value,
                "byte {at} of the block of {} bytes at {offset:#x}",
                live.bytes
            );
        }
    }

    /// Checks a block and frees it.
    #[track_caller]
    pub fn free(&mut self, offset: u64) {
        self.check(offset);
        self.live.remove(&offset);
        self.arena.free(offset).expect("the block is live");
    }

    /// Checks and frees every block, and checks the arena's own invariants.
    #[track_caller]
    pub fn free_all(&mut self) {
        super::check();
        while let Some((&offset, _)) = self.live.first_key_value() {
            self.free(offset);
        }
    }

    /// Returns the live blocks' offsets, ascending.
    pub fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.live.keys().copied()
    }

    /// Returns the offset of the live block number `nth`, counted by offset.
    pub fn nth(&self, nth: usize) -> u64 {
        self.offsets().nth(nth).expect("that many blocks are live")
    }

    /// Returns the number of live blocks.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Returns the bytes of live blocks.
    pub fn bytes(&self) -> u64 {
        self.live.values().map(|live| live.bytes).sum()
    }

    /// Returns the bytes that were asked for by the live blocks.
    pub fn requested(&self) -> u64 {
        self.live.values().map(|live| live.size).sum()
    }

    /// Returns whether `offset` lies in a live block, its first byte included.
    pub fn covers(&self, offset: u64) -> bool {
        let before = self.live.range(..=offset).next_back();
        before.is_some_and(|(start, live)| offset - start < live.bytes)
    }

    /// Returns whether a live block begins at `offset`.
    pub fn starts(&self, offset: u64) -> bool {
        self.live.contains_key(&offset)
    }
}

/// Returns the positions and bytes of a block's pattern: its first and its last byte, and one of every page, or of
/// every [`STRIDE`] if there are many pages.
fn touches(live: &Live, page: u64) -> impl Iterator<Item = (u64, u8)> {
    let step = if live.bytes <= TOUCH_ALL {
        page
    } else {
        STRIDE
    };
    let key = live.key;
    let places = (0..live.bytes).step_by(step as usize);
    let last = std::iter::once(live.bytes - 1);
    places.chain(last).map(move |at| {
        let mixed = (key ^ (at << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (at, (mixed >> 56) as u8)
    })
}
