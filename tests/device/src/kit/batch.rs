// SPDX-License-Identifier: GPL-2.0

//! Requests for many blocks at once, and their arrays of offsets.

use freelist::uapi::freelist_bulk;
use freelist::Arena;

use super::{stat, View, DEFAULT};

/// Returns a request for `count` blocks, whose offsets go into `array` from its byte `at` on.
pub fn request(size: u64, array: &View, at: usize, count: u32) -> freelist_bulk {
    freelist_bulk {
        size,
        offsets: array.address(at).get() as u64,
        count,
        flags: DEFAULT.bits(),
        ..Default::default()
    }
}

/// Returns a release of the `count` blocks that the array has from its byte `at` on.
pub fn release(array: &View, at: usize, count: u32) -> freelist_bulk {
    freelist_bulk {
        size: 0,
        flags: 0,
        ..request(0, array, at, count)
    }
}

/// Returns the `count` offsets that the array has from its byte `at` on.
pub fn load(array: &View, at: usize, count: usize) -> Vec<u64> {
    let bytes = array.bytes(at, 8 * count);
    let numbers = bytes.chunks_exact(8);
    numbers
        .map(|number| u64::from_le_bytes(number.try_into().unwrap()))
        .collect()
}

/// Writes offsets into the array, from its byte `at` on.
pub fn store(array: &View, at: usize, offsets: &[u64]) {
    for (i, offset) in offsets.iter().enumerate() {
        array.set_bytes(at + 8 * i, &offset.to_le_bytes());
    }
}

/// Checks that an arena has no live block, as after a batch that was refused.
#[track_caller]
pub fn nothing_is_live(arena: &Arena) {
    let stat = stat(arena);
    assert_eq!((stat.live_blocks, stat.live_bytes), (0, 0));
}
