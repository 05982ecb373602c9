// SPDX-License-Identifier: GPL-2.0

//! Pages of a heap's slabs in which no block is live hold no memory.

use freelist::Heap;

use crate::figure;
use crate::harness::suite;
use crate::kit::filled::Filled;
use crate::kit::{check, page, KIB, MIB};

suite!("freelist_slabs":
    pages_of_slabs_without_a_block_hold_nothing,
);

/// Of the blocks in each 64 KiB one is kept: no slab is freed as a whole.
fn pages_of_slabs_without_a_block_hold_nothing() {
    let bytes = 16 * MIB;
    for size in [64, 1000, 3000, 9000] {
        let heap = Heap::open().expect("the module is loaded");
        let count = bytes / size;
        let every = 64 * KIB / size;
        let mut blocks: Vec<_> = (0..count)
            .map(|index| Some(Filled::new(&heap, size as usize, index as u8)))
            .collect();
        let full = heap.stat().unwrap().held_bytes;
        let freed = blocks
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| *index as u64 % every != 0)
            .filter_map(|(_, block)| block.take());
        freed.for_each(|block| block.free(&heap));
        heap.trim(0).unwrap();
        let held = heap.stat().unwrap().held_bytes;
        let kept = count.div_ceil(every);
        // A block may lie in one page more than it fills.
        let max = kept * (size.div_ceil(page()) + 1) * page() + MIB;
        figure!(
            "a heap of {:.1} MiB in blocks of {size} bytes, one in each 64 KiB kept: {:.1} MiB held",
            full as f64 / MIB as f64,
            held as f64 / MIB as f64
        );
        assert!(held <= max, "{held} of {full} held for {kept} blocks");
        // Discarded pages serve further blocks.
        let again: Vec<_> = (0..count / 2)
            .map(|index| Filled::new(&heap, size as usize, index as u8))
            .collect();
        again.into_iter().for_each(|block| block.free(&heap));
        blocks
            .into_iter()
            .flatten()
            .for_each(|block| block.free(&heap));
        check();
    }
}
