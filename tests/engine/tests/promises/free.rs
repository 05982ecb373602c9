// SPDX-License-Identifier: GPL-2.0

//! The offsets that can be freed, and the pages that can be mapped.

use freelist_engine::engine::FreeError;
use freelist_engine::host::Arena;

use super::{request, DEFAULT};

at_every_page_size! {
    /// Prior art: hardened_malloc double_free_small, double_free_large.
    a_double_free_is_refused;
    /// Frees every wrong offset around a live block.
    /// Prior art: gpu_buddy gpu_test_buddy_addr_to_block; kasan kmem_cache_invalid_free.
    an_offset_inside_a_live_block_is_refused;
    a_reserved_block_cannot_be_freed;
    only_pages_with_a_live_block_can_be_faulted_in;
}

mod generic {
    use super::*;

    pub fn a_double_free_is_refused<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, page / 2, page, 3 * page, 1000 * page] {
            let (offset, _) = arena.alloc(request(size, DEFAULT)).unwrap();
            let (_neighbour, _) = arena.alloc(request(size, DEFAULT)).unwrap();
            arena.free(offset).unwrap();
            let counters = arena.counters();
            assert_eq!(arena.free(offset), Err(FreeError::NotLive));
            assert_eq!(arena.counters(), counters);
        }
    }

    pub fn an_offset_inside_a_live_block_is_refused<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, 256, page / 2, page, 3 * page, 8 * page] {
            let (offset, bytes) = arena.alloc(request(size, DEFAULT)).unwrap();
            for within in (1..bytes).filter(|at| at % 16 != 0).step_by(97) {
                assert_eq!(arena.free(offset + within), Err(FreeError::Misaligned));
            }
            arena.checked = false;
            for within in (16..bytes).step_by(16) {
                assert_eq!(arena.free(offset + within), Err(FreeError::Inside));
            }
            arena.checked = true;
            arena.check();
            let slot = bytes.next_power_of_two();
            if slot > bytes {
                assert_eq!(arena.free(offset + bytes), Err(FreeError::NotLive));
            }
            arena.free(offset).unwrap();
        }
        let end = arena.engine.span_bytes();
        assert_eq!(arena.free(end), Err(FreeError::Beyond));
        assert_eq!(arena.free(end - 16), Err(FreeError::NotLive));
        assert_eq!(arena.free(!15), Err(FreeError::Beyond));
    }

    pub fn a_reserved_block_cannot_be_freed<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        for size in [32, page / 2, page, 3 * page] {
            let mut pending = arena.reserve(request(size, DEFAULT)).unwrap();
            let offset = pending.offset();
            assert_eq!(arena.free(offset), Err(FreeError::NotLive));
            arena.back(&mut pending, u32::MAX);
            assert_eq!(arena.free(offset), Err(FreeError::NotLive));
            assert_eq!(arena.free(offset + 16), Err(FreeError::NotLive));
            arena.commit(pending);
            arena.free(offset).unwrap();
        }
    }

    pub fn only_pages_with_a_live_block_can_be_faulted_in<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        assert!(arena.live_page(0).is_none());
        let (offset, _) = arena.alloc(request(5 * page, DEFAULT)).unwrap();
        let first = (offset / page) as u32;
        let mut ids = Vec::new();
        for index in 0..5 {
            ids.push(arena.live_page(first + index).unwrap().id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 5);
        for index in 5..9 {
            assert!(arena.live_page(first + index).is_none());
        }
        assert!(arena.live_page(u32::MAX).is_none());
        arena.free(offset).unwrap();
        assert!(arena.live_page(first).is_none());

        let mut pending = arena.reserve(request(64, DEFAULT)).unwrap();
        let divided = (pending.offset() / page) as u32;
        arena.back(&mut pending, 1);
        assert!(arena.live_page(divided).is_none());
        arena.commit(pending);
        assert!(arena.live_page(divided).is_some());
    }
}
