// SPDX-License-Identifier: GPL-2.0

//! The operations that are tried, and how likely each is.

use freelist_engine::engine::{max_shift, Request, HEADER_BYTES};
use freelist_engine::host::reuse;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub bytes: u64,
    pub align_shift: u32,
    pub headed: bool,
}

impl Size {
    /// Returns the bytes that a block occupies, with its header.
    pub fn taken(self) -> u64 {
        self.bytes
            .saturating_add(u64::from(self.headed) * HEADER_BYTES)
    }

    pub fn request(self, larger: bool, grow: bool) -> Request {
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
pub enum Op {
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
        pages: u32,
    },
    /// The next step of an open reservation: commit, or cancel.
    Commit(usize),
    Cancel(usize),
    /// The release of a block whose header is being checked: the header is right.
    Release(usize),
    /// A resize of a live block to this size, which may stay open.
    Resize {
        index: usize,
        bytes: u64,
    },
    /// Completes a growth, or cancels it.
    Grown(usize),
    Shrunk(usize),
    /// Removes half of an isolated range, in pages.
    RemoveHalf(usize),
    /// Frees every second live block.
    FreeHalf,
    /// Free pages are isolated.
    Isolate(u32),
    /// Removes an isolated range, or puts it back.
    Remove(usize),
    Putback(usize),
    /// Trims all free pages but for that many.
    Trim(u32),
}

/// Returns the bytes of the largest block.
pub fn largest(page: u64) -> u64 {
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

pub fn ops(page: u64) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (sizes(page), any::<bool>(), prop::bool::weighted(0.7))
            .prop_map(|(size, larger, grow)| Op::Alloc { size, larger, grow }),
        7 => any::<usize>().prop_map(Op::Free),
        2 => (proptest::option::of(any::<usize>()), -70000..70000i64)
            .prop_map(|(near, offset)| Op::FreeAt { near, offset }),
        2 => (sizes(page), 0..100u32).prop_map(|(size, pages)| Op::Reserve { size, pages }),
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
