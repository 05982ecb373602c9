// SPDX-License-Identifier: GPL-2.0

//! The end of the address space.

use freelist_engine::engine::Refusal;
use freelist_engine::host::Arena;

use super::{request, DEFAULT, GROW};

at_every_page_size! {
    a_request_beyond_the_address_space_is_refused;
    an_odd_span_is_used_to_its_last_page;
    the_span_can_be_set_until_it_is_used;
}

mod generic {
    use super::*;

    pub fn a_request_beyond_the_address_space_is_refused<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(64);
        let page = Arena::<KIB>::PAGE;
        let max = 64 * page;
        assert_eq!(
            arena.alloc(request(max + 1, DEFAULT)),
            Err(Refusal::NoSpace)
        );
        let (offset, _) = arena.alloc(request(33 * page, DEFAULT)).unwrap();
        assert_eq!(
            arena.alloc(request(32 * page, DEFAULT)),
            Err(Refusal::NoSpace)
        );
        arena.alloc(request(page, DEFAULT)).unwrap();
        arena.free(offset).unwrap();
        arena.free(33 * page).unwrap();
        arena.drain();
        assert_eq!(arena.alloc(request(max, DEFAULT)), Ok((0, max)));
        assert_eq!(arena.alloc(request(32, DEFAULT)), Err(Refusal::NoSpace));
        let mut none = Arena::<KIB>::new(0);
        assert_eq!(none.alloc(request(32, DEFAULT)), Err(Refusal::NoSpace));
    }

    pub fn an_odd_span_is_used_to_its_last_page<const KIB: usize>() {
        let span = 3 * 1024 + 777;
        let mut arena = Arena::<KIB>::new(span);
        arena.checked = false;
        let page = Arena::<KIB>::PAGE;
        let mut seen = vec![false; span as usize];
        while let Ok((offset, _)) = arena.alloc(request(page, DEFAULT)) {
            seen[(offset / page) as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
        arena.check();
    }

    pub fn the_span_can_be_set_until_it_is_used<const KIB: usize>() {
        let mut arena = Arena::<KIB>::new(1 << 20);
        let page = Arena::<KIB>::PAGE;
        assert!(!arena.engine.set_span(0));
        assert!(!arena.engine.set_span(u32::MAX));
        assert!(arena.engine.set_span(7));
        assert_eq!(arena.engine.span_bytes(), 7 * page);
        for _ in 0..7 {
            arena.alloc(request(page, GROW)).unwrap();
        }
        assert_eq!(arena.alloc(request(1, GROW)), Err(Refusal::NoSpace));
        assert!(!arena.engine.set_span(8));
    }
}
