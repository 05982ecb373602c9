// SPDX-License-Identifier: GPL-2.0

//! Failures of the kernel at every point of a call that allocates or frees blocks.

use std::cell::RefCell;

use freelist::uapi::{
    freelist_alloc, freelist_bulk, freelist_free, freelist_resize, FREELIST_IOC_ALLOC,
    FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE, FREELIST_IOC_FREE_BULK, FREELIST_IOC_RESIZE,
};
use freelist::{Arena, Block, Flags};
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::fail_nth::{made, sweep_new, switch, Prepared, MAX_POINTS};
use crate::kit::waiter::waiting;
use crate::kit::{alloc, arena, free, info, page, raw, stat, View, DEFAULT, KIB};
use crate::{figure, trust};

suite!("freelist_fail_nth":
    alloc_fails_cleanly_in_an_empty_arena,
    alloc_fails_cleanly_beside_other_blocks,
    free_fails_only_by_its_pointer,
    batches_fail_cleanly,
    every_flag_fails_cleanly,
    moving_fails_cleanly,
    resize_fails_cleanly,
    waiting_fails_cleanly,
);

/// Checks that after every failure the same blocks are live as before, all bytes are accounted for, and the next
/// request is served.
#[track_caller]
fn alloc_sweep(size: u64, new: impl Fn() -> (Arena, u64)) {
    let mut state = new();
    let switch = switch();
    for nth in 1..MAX_POINTS {
        let (arena, live) = &state;
        let request = Prepared::new(FREELIST_IOC_ALLOC, raw::request(size));
        let (result, failed) = switch.run(nth, || request.make(arena));
        match made(result) {
            Some(_) => {
                assert_eq!(stat(arena).live_blocks, live + 1);
                let answer = request.answer::<freelist_alloc>();
                arena.free(answer.offset).unwrap();
            }
            None => assert_eq!(stat(arena).live_blocks, *live, "point {nth}"),
        }
        let block = arena.alloc(size, DEFAULT).expect("the next is served");
        let memory = View::shared(arena, block.offset / page() * page(), page() as usize);
        memory.touch((block.offset % page()) as usize);
        if !failed {
            eprintln!("{} failure points for {size} bytes", nth - 1);
            return;
        }
        state = new();
    }
    panic!("more than {MAX_POINTS} failure points");
}

/// Prior art: iommufd_fail_nth map_domain.
fn alloc_fails_cleanly_in_an_empty_arena() {
    for size in [64, page(), 3 * page(), 64 * KIB] {
        alloc_sweep(size, || (arena(), 0));
    }
}

/// Prior art: iommufd_fail_nth map_two_domains.
fn alloc_fails_cleanly_beside_other_blocks() {
    let busy = || {
        let arena = arena();
        // Free and live blocks of all kinds; none of them fits the request below.
        let blocks = [32, 128, page(), 3 * page()].map(|size| alloc(&arena, size));
        free(&arena, blocks[1]);
        free(&arena, blocks[2]);
        (arena, 2)
    };
    for size in [page() / 2, 2 * page(), 64 * KIB] {
        alloc_sweep(size, busy);
    }
}

fn free_fails_only_by_its_pointer() {
    let arena = arena();
    let switch = switch();
    for size in [64, page(), 64 * KIB] {
        for nth in 1..MAX_POINTS {
            let Block { offset, .. } = alloc(&arena, size);
            let request = Prepared::new(FREELIST_IOC_FREE, freelist_free { offset });
            let (result, failed) = switch.run(nth, || request.make(&arena));
            match result {
                Ok(_) => {}
                // The block is live as before; a release needs no memory.
                Err(Errno::EFAULT) => arena.free(offset).unwrap(),
                Err(errno) => panic!("failed by {errno}"),
            }
            assert_eq!(stat(&arena).live_blocks, 0);
            if !failed {
                break;
            }
        }
    }
}

fn batches_fail_cleanly() {
    let array = View::anonymous(8 * 70);
    let bulk = |size, count| freelist_bulk {
        size,
        offsets: array.address(0).get() as u64,
        count,
        flags: DEFAULT.bits(),
        ..Default::default()
    };
    let release = |done| freelist_bulk {
        size: 0,
        flags: 0,
        ..bulk(0, done)
    };
    for (size, count) in [(96, 5), (3 * page(), 4)] {
        sweep_new(
            || Prepared::new(FREELIST_IOC_ALLOC_BULK, bulk(size, count)),
            || (arena(), 0),
            |arena, call, result| {
                // The blocks that were allocated stay live, and are reported.
                let done = made(result).map_or(0, |_| call.answer::<freelist_bulk>().done);
                assert_eq!(stat(arena).live_blocks, u64::from(done));
                if done > 0 {
                    let freed = raw::free_bulk(arena, release(done)).unwrap();
                    assert_eq!(freed.done, done);
                }
            },
        );
    }
    sweep_new(
        || Prepared::new(FREELIST_IOC_FREE_BULK, release(70)),
        || {
            let arena = arena();
            raw::alloc_bulk(&arena, bulk(64, 70)).unwrap();
            (arena, 0)
        },
        |arena, call, result| {
            match result {
                Ok(_) => {
                    let done = u64::from(call.answer::<freelist_bulk>().done);
                    assert_eq!(stat(arena).live_blocks, 70 - done);
                }
                // After the releases only the last write can fail.
                Err(errno) => assert_eq!(errno, Errno::EFAULT),
            }
            let offsets = array.bytes(0, 8 * 70);
            for offset in offsets.chunks_exact(8) {
                let offset = u64::from_le_bytes(offset.try_into().unwrap());
                let _ = raw::free(arena, offset);
            }
        },
    );
}

/// The flags that do not select the source of a block.
const SPECIAL: [Flags; 6] = [
    Flags::WAIT,
    Flags::ZERO,
    Flags::CONTIG,
    Flags::HEADER,
    Flags::POPULATE,
    Flags::LAZY,
];

/// Tries all combinations of flags that the contract allows, on subpages and on whole pages.
fn every_flag_fails_cleanly() {
    // A new flag has to be added to `SPECIAL`.
    let known = SPECIAL.into_iter().fold(DEFAULT, |all, flag| all | flag);
    assert_eq!(info().features as u32, known.bits());
    let sources = [Flags::empty(), Flags::LARGER, Flags::GROW].map(|flags| (flags, 0));
    let special = (0..1 << SPECIAL.len()).map(|set| {
        let mut flags = DEFAULT;
        for (bit, flag) in SPECIAL.into_iter().enumerate() {
            if set & (1 << bit) != 0 {
                flags |= flag;
            }
        }
        (flags, set)
    });
    let mut points = 0;
    for (flags, set) in sources.into_iter().chain(special) {
        let excluded = flags.contains(Flags::LAZY)
            && flags.intersects(Flags::CONTIG | Flags::HEADER)
            || flags.contains(Flags::CONTIG | Flags::WAIT);
        if excluded {
            continue;
        }
        let request = freelist_alloc {
            flags: flags.bits(),
            timeout_ns: if flags.contains(Flags::WAIT) {
                1_000_000
            } else {
                0
            },
            ..raw::request([100, 3 * page()][set as usize % 2])
        };
        let views = RefCell::new(Vec::new());
        points += sweep_new(
            || Prepared::new(FREELIST_IOC_ALLOC, request),
            || {
                let arena = arena();
                // POPULATE needs a mapping of the arena.
                views
                    .borrow_mut()
                    .push(View::shared(&arena, 0, 64 * page() as usize));
                (arena, 0)
            },
            |arena, call, result| {
                if made(result).is_some() {
                    arena.free(call.answer::<freelist_alloc>().offset).unwrap();
                }
            },
        );
    }
    figure!("{points} failure points in calls with all flags");
    trust!("failure_points_of_flags", points, "points", ">=100");
}

/// The pages of free blocks move to a request at the limit.
///
/// Prior art: iommufd_fail_nth access_pin_domain.
fn moving_fails_cleanly() {
    sweep_new(
        || Prepared::new(FREELIST_IOC_ALLOC, raw::request(4 * page())),
        || {
            let arena = arena();
            arena.set_limit(16 * page()).unwrap();
            let blocks: Vec<Block> = (0..16).map(|_| alloc(&arena, page())).collect();
            for block in blocks.iter().step_by(2) {
                free(&arena, *block);
            }
            (arena, 8)
        },
        |arena, call, result| {
            if made(result).is_some() {
                arena.free(call.answer::<freelist_alloc>().offset).unwrap();
            }
        },
    );
}

fn resize_fails_cleanly() {
    for pages in [8, 400] {
        let request = freelist_resize {
            size: pages * page(),
            flags: (DEFAULT | Flags::ZERO | Flags::POPULATE).bits(),
            ..Default::default()
        };
        sweep_new(
            || Prepared::new(FREELIST_IOC_RESIZE, request),
            || {
                let arena = arena();
                assert_eq!(alloc(&arena, 16 * page()).offset, 0);
                (arena, 1)
            },
            |arena, _, result| {
                let now = stat(arena).live_bytes / page();
                assert_eq!(now, if made(result).is_some() { pages } else { 16 });
            },
        );
    }
}

fn waiting_fails_cleanly() {
    let request = waiting(page(), DEFAULT, Some(std::time::Duration::from_millis(1)));
    sweep_new(
        || Prepared::new(FREELIST_IOC_ALLOC, request),
        || {
            let arena = arena();
            arena.set_limit(page()).unwrap();
            let quarters = [0; 4].map(|_| alloc(&arena, page() / 4));
            free(&arena, quarters[2]);
            (arena, 3)
        },
        |arena, _, result| {
            let errno = result.expect_err("there is no such block");
            let expected = [Errno::ETIMEDOUT, Errno::ENOMEM, Errno::EFAULT];
            assert!(expected.contains(&errno), "{errno}");
            // No waiter remains: the next one is served at once.
            alloc(arena, page() / 4);
            let live = stat(arena).live_blocks;
            assert_eq!(live, 4);
            arena.free(2 * page() / 4).unwrap();
        },
    );
}
