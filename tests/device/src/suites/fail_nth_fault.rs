// SPDX-License-Identifier: GPL-2.0

//! Failures of the kernel at every point of a page fault, and of a call that reclaims pages.

use freelist::uapi::{freelist_discard, FREELIST_IOC_DISCARD};
use freelist::{Arena, Flags};

use crate::harness::suite;
use crate::kit::calls::write_from;
use crate::kit::fail_nth::{made, sweep_new, switch, Prepared, MAX_POINTS};
use crate::kit::{alloc, arena, check, free, page, stat, View, DEFAULT};

suite!("freelist_fail_nth_fault":
    a_fault_fails_cleanly,
    a_touch_fails_cleanly,
    discard_fails_cleanly,
);

/// Prior art: iommufd_fail_nth access_pin.
fn a_fault_fails_cleanly() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let switch = switch();
    for nth in 1..MAX_POINTS {
        let view = View::shared(&arena, block.offset, block.bytes as usize);
        // The pipe is made before, so that it cannot fail.
        let (read, write) = nix::unistd::pipe().expect("pipe");
        let from = view.address(page() as usize - 8);
        let (_, failed) = switch.run(nth, || write_from(&write, from, 16));
        drop((read, write));
        view.store(0, 5);
        assert_eq!(view.load(0), 5);
        if !failed {
            eprintln!("{} failure points", nth - 1);
            break;
        }
    }
    assert_eq!(stat(&arena).live_blocks, 1);
    free(&arena, block);
}

/// Touches a lazy block, for one page and for several.
fn a_touch_fails_cleanly() {
    let switch = switch();
    for present in [0, 6] {
        for nth in 1..MAX_POINTS {
            let arena = arena();
            let block = arena.alloc(16 * page(), DEFAULT | Flags::LAZY).unwrap();
            let view = View::shared(&arena, block.offset, block.bytes as usize);
            for index in 0..present {
                view.store(index * page() as usize, 1);
            }
            let held = stat_of_lazy(&arena).held_bytes;
            let (read, write) = nix::unistd::pipe().expect("pipe");
            let from = view.address(present * page() as usize);
            let (result, failed) = switch.run(nth, || write_from(&write, from, 16));
            drop((read, write));
            if made(result).is_some() {
                assert!(stat_of_lazy(&arena).held_bytes > held);
            }
            check();
            // The next touch has its memory, which is zero.
            assert_eq!(view.load(present * page() as usize), 0);
            view.store(present * page() as usize, 5);
            arena.free(block.offset).unwrap();
            arena.trim(0).unwrap();
            assert_eq!(stat(&arena).held_bytes, 0);
            if !failed {
                eprintln!("{} failure points with {present} pages before", nth - 1);
                break;
            }
        }
    }
}

/// Returns the counters, with live blocks that have not all their memory.
fn stat_of_lazy(arena: &Arena) -> freelist::Stat {
    arena.stat().expect("STAT")
}

fn discard_fails_cleanly() {
    let pages = 16;
    let request = freelist_discard {
        offset: 0,
        bytes: 5 * page(),
    };
    sweep_new(
        || Prepared::new(FREELIST_IOC_DISCARD, request),
        || {
            let arena = arena();
            assert_eq!(alloc(&arena, pages * page()).offset, 0);
            let view = View::shared(&arena, 0, (pages * page()) as usize);
            (0..pages).for_each(|index| view.store((index * page()) as usize, 7));
            (arena, 1)
        },
        |arena, _, result| {
            let view = View::shared(arena, 0, (pages * page()) as usize);
            let discarded = made(result).is_some();
            for index in 0..pages {
                let byte = view.load((index * page()) as usize);
                if index >= 5 {
                    assert_eq!(byte, 7);
                } else if discarded {
                    assert_eq!(byte, 0);
                }
            }
        },
    );
}
