// SPDX-License-Identifier: GPL-2.0

//! The engine's promises at every page size: a test for each, a file for each subject.

use freelist_engine::engine::{max_shift, Request, Tree};
use freelist_engine::host::{reuse, Arena};

/// Returns the bytes of the largest block.
const fn largest<const KIB: usize>() -> u64 {
    1 << max_shift(KIB)
}

const NONE: (bool, bool) = (false, false);
const LARGER: (bool, bool) = (true, false);
const GROW: (bool, bool) = (false, true);
const DEFAULT: (bool, bool) = (true, true);

fn request(size: u64, (larger, grow): (bool, bool)) -> Request {
    Request {
        size,
        policy: reuse(larger, grow),
        ..Request::default()
    }
}

fn headed(size: u64, flags: (bool, bool)) -> Request {
    Request {
        headed: true,
        ..request(size, flags)
    }
}

/// Fills `pages` pages with blocks of one page and frees every second one.
fn comb<const KIB: usize>(arena: &mut Arena<KIB>, pages: u64) -> Vec<u64> {
    let page = Arena::<KIB>::PAGE;
    let blocks: Vec<u64> = (0..pages)
        .map(|_| arena.alloc(request(page, DEFAULT)).unwrap().0)
        .collect();
    for offset in blocks.iter().skip(1).step_by(2) {
        arena.free(*offset).unwrap();
    }
    arena.drain();
    blocks.into_iter().step_by(2).collect()
}

/// Runs a generic test at 4, 16 and 64 KiB pages.
macro_rules! at_every_page_size {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        mod $name {
            $(#[$doc])*
            #[test] fn pages_of_4_kib() { super::generic::$name::<4>() }
            $(#[$doc])*
            #[test] fn pages_of_16_kib() { super::generic::$name::<16>() }
            $(#[$doc])*
            #[test] fn pages_of_64_kib() { super::generic::$name::<64>() }
        }
    )*};
}

mod alloc;
mod batch;
mod free;
mod header;
mod moving;
mod reservation;
mod resize;
mod span;
mod split_merge;
mod trim;
mod waiting;

/// The metadata of a divided page: no more than a slab object of 96 bytes at 4 KiB.
#[test]
fn a_divided_page_costs_little() {
    assert!(size_of::<Tree<4>>() <= 96);
    assert!(size_of::<Tree<16>>() <= 512);
    assert!(size_of::<Tree<64>>() <= 2048);
}
