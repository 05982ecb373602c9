// SPDX-License-Identifier: GPL-2.0

//! Blocks with a header.

use freelist_engine::engine::{FreeError, Refusal, ALIGN_SHIFT};
use freelist_engine::host::Arena;

use super::{headed, largest, request, DEFAULT, NONE};

at_every_page_size! {
    a_header_takes_16_bytes_of_its_block;
    a_reservation_extends_over_its_header_too;
    a_block_with_a_header_is_freed_by_its_own_offset_alone;
    /// Prior art: vulnerabilities racing_frees.
    one_of_several_frees_of_a_block_with_a_header_succeeds;
    a_reservation_knows_whether_it_has_a_header;
}

mod generic {
    use super::*;

    pub fn a_header_takes_16_bytes_of_its_block<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        for (size, all) in [
            (1, 32),
            (16, 32),
            (17, 64),
            (29, 64),
            (48, 64),
            (page / 2 - 16, page / 2),
            (page / 2 - 15, page),
            (page - 16, page),
            (page - 15, 2 * page),
            (5 * page, 6 * page),
            ((1 << 25) - 16, 1 << 25),
        ] {
            let before = arena.counters().live_bytes;
            let (offset, bytes) = arena.alloc(headed(size, DEFAULT)).unwrap();
            assert_eq!(bytes, all - 16, "of {size}");
            let align = all.next_power_of_two().min(1 << ALIGN_SHIFT);
            assert_eq!(offset % align, 16, "of {size}");
            assert_eq!(arena.counters().live_bytes - before, all);
            arena.free(offset).unwrap();
            assert_eq!(arena.counters().live_bytes, before);
        }
        arena.check();
        for size in [largest::<KIB>() - 15, largest::<KIB>(), u64::MAX] {
            assert_eq!(arena.alloc(headed(size, DEFAULT)), Err(Refusal::TooBig));
        }
        assert_eq!(arena.alloc(headed(0, DEFAULT)), Err(Refusal::Zero));
    }

    pub fn a_reservation_extends_over_its_header_too<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, page / 2, page, 5 * page] {
            for request in [headed(size - 16, DEFAULT), request(size, DEFAULT)] {
                let pending = arena.reserve(request).unwrap();
                let extent = pending.extent();
                let header = if request.headed { 16 } else { 0 };
                assert_eq!(extent.end - extent.start, size);
                assert_eq!(
                    extent.start % size.next_power_of_two().min(1 << ALIGN_SHIFT),
                    0
                );
                assert_eq!(pending.offset(), extent.start + header);
                assert_eq!(pending.block_bytes(), size - header);
                arena.cancel(pending);
            }
        }
    }

    pub fn a_block_with_a_header_is_freed_by_its_own_offset_alone<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, 200, page / 2, page, 3 * page] {
            // A block with a header before one without; then the other way round, at the same offset.
            let with = headed(size - 16, DEFAULT);
            let without = request(size, DEFAULT);
            for requests in [[with, without], [without, with]] {
                let blocks = requests.map(|request| (arena.alloc(request).unwrap().0, request));
                for (offset, request) in blocks {
                    let start = offset - offset % 32;
                    assert_eq!(offset - start, if request.headed { 16 } else { 0 });
                    arena.checked = false;
                    for wrong in (start..start + size).step_by(16) {
                        if wrong != offset {
                            assert_eq!(arena.free(wrong), Err(FreeError::Inside));
                        }
                    }
                    arena.checked = true;
                }
                for (offset, _) in blocks {
                    arena.free(offset).unwrap();
                    for again in [offset - offset % 32, offset, offset - offset % 32 + 16] {
                        assert_eq!(arena.free(again), Err(FreeError::NotLive));
                    }
                }
            }
        }
    }

    pub fn one_of_several_frees_of_a_block_with_a_header_succeeds<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [100, page, 3 * page] {
            let (offset, bytes) = arena.alloc(headed(size, DEFAULT)).unwrap();
            let taken = arena.take(offset).unwrap().unwrap();
            assert_eq!(taken.extent(), offset - 16..offset + bytes);
            assert!(arena.engine.is_backed((taken.extent().start / page) as u32));
            // No other block gets it until it is released.
            assert_eq!(arena.take(offset).err(), Some(FreeError::NotLive));
            let (other, _) = arena.alloc(headed(size, DEFAULT)).unwrap();
            assert_ne!(other, offset);
            arena.release(taken);
            assert_eq!(arena.take(offset).err(), Some(FreeError::NotLive));
            assert_eq!(
                arena.alloc(headed(size, NONE)).map(|(offset, _)| offset),
                Ok(offset)
            );
        }
    }

    pub fn a_reservation_knows_whether_it_has_a_header<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        for size in [64, 3 * Arena::<KIB>::PAGE] {
            for (asked, has) in [
                (request(size, DEFAULT), false),
                (headed(size, DEFAULT), true),
            ] {
                let pending = arena.reserve(asked).unwrap();
                assert_eq!(pending.is_headed(), has);
                arena.cancel(pending);
            }
        }
    }
}
