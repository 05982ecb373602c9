// SPDX-License-Identifier: GPL-2.0

//! RESIZE in place, requested alignments, and the slack.

use freelist::uapi::{freelist_resize, FREELIST_IOC_RESIZE, FREELIST_SLACK_NONE};
use freelist::{Arena, Flags};
use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;

use crate::harness::suite;
use crate::kit::calls::{ioctl, ioctl_at, Plain};
use crate::kit::process::signal_of;
use crate::kit::{
    alloc, arena, check, free, largest_block, largest_folio, page, raw, refused, stat, thread,
    View, DEFAULT, GROW, KIB, LARGER, MIB,
};

suite!("freelist_resize":
    the_tail_of_a_shorter_block_is_free_at_once,
    a_longer_block_keeps_its_bytes,
    free_memory_after_address_space_yields_to_a_growth,
    a_resize_that_may_not_grow_releases_nothing_in_vain,
    added_pages_read_as_zero_if_that_was_asked_for,
    pages_in_use_after_a_block_are_enospc,
    a_block_whose_resize_is_refused_is_unchanged,
    growth_beyond_a_limit_is_edquot_and_changes_nothing,
    without_grow_a_block_takes_free_memory_alone,
    an_answer_that_cannot_be_written_changes_nothing,
    resizes_and_releases_at_once_lose_nothing,
    blocks_are_aligned_as_asked_for,
    the_slack_bounds_the_held_memory,
    a_slack_out_of_range_is_einval,
);

fn fill(view: &View, offset: u64, bytes: u64, with: u8) {
    view.set_bytes(offset as usize, &vec![with; bytes as usize]);
}

fn has_only(view: &View, offset: u64, bytes: u64, with: u8) -> bool {
    let has = view.bytes(offset as usize, bytes as usize);
    has.iter().all(|byte| *byte == with)
}

/// Touches the tail that was cut off: it has no memory any more.
///
/// Prior art: kasan krealloc_less_oob, krealloc_large_less_oob; scudo combined.ReallocateLargeDecreasing,
/// combined.ReallocateSame.
fn the_tail_of_a_shorter_block_is_free_at_once() {
    let arena = arena();
    let view = View::shared(&arena, 0, MIB as usize);
    let block = alloc(&arena, 64 * page());
    fill(&view, block.offset, block.bytes, 7);
    for (size, pages) in [(64, 64), (40, 40), (1, 1)] {
        let size = size * page() - u64::from(size > 1);
        let bytes = arena.resize(block.offset, size, Flags::empty()).unwrap();
        assert_eq!(bytes, pages * page());
        let now = stat(&arena);
        assert_eq!((now.live_blocks, now.live_bytes), (1, bytes));
        assert_eq!(now.free_bytes, (64 - pages) * page());
        assert!(has_only(&view, block.offset, bytes, 7));
    }
    // No mapping has these pages any more.
    let tail = (block.offset + page()) as usize;
    arena.trim(0).unwrap();
    assert_eq!(signal_of(|| view.touch(tail)), Some(Signal::SIGBUS));
    free(&arena, block);
    assert_eq!(stat(&arena).live_bytes, 0);
    check();
}

/// Touches the first byte after the block: it has no memory.
///
/// Prior art: kasan krealloc_more_oob, krealloc_large_more_oob; kfence test_krealloc; test_vmalloc
/// vrealloc_test; hardened_malloc large_array_growth; scudo combined.ReallocateLargeIncreasing,
/// wrappers_c.Realloc.
fn a_longer_block_keeps_its_bytes() {
    let arena = arena();
    let view = View::shared(&arena, 0, 4 * MIB as usize);
    let block = alloc(&arena, 10 * page());
    fill(&view, block.offset, block.bytes, 5);
    let mut before = block.bytes;
    // Grows by new pages, shrinks, grows by the pages that were cut off and by new ones.
    for pages in [30, 11, 50, 300] {
        let size = pages * page();
        let bytes = arena.resize(block.offset, size, DEFAULT).unwrap();
        assert_eq!(bytes, size);
        assert!(has_only(&view, block.offset, before.min(size), 5));
        fill(&view, block.offset, bytes, 5);
        assert_eq!(stat(&arena).live_bytes, bytes);
        before = size;
    }
    assert_eq!(stat(&arena).held_bytes, 300 * page());
    let end = (block.offset + before) as usize;
    assert_eq!(signal_of(|| view.touch(end)), Some(Signal::SIGBUS));
    free(&arena, block);
    check();
}

fn free_memory_after_address_space_yields_to_a_growth() {
    let arena = arena();
    let view = View::shared(&arena, 0, MIB as usize);
    let other = View::shared(&arena, 0, MIB as usize);
    for flags in [DEFAULT | Flags::ZERO, DEFAULT] {
        let blocks = [(); 4].map(|()| alloc(&arena, 16 * page()));
        let [block, gone, way, last] = blocks;
        for block in blocks {
            fill(&view, block.offset, block.bytes, 3);
        }
        // After the block: address space, then memory that is free and mapped.
        free(&arena, gone);
        arena.trim(0).unwrap();
        free(&arena, way);
        assert_eq!(stat(&arena).held_bytes, 48 * page());
        let bytes = arena.resize(block.offset, 48 * page(), flags).unwrap();
        assert_eq!(bytes, 48 * page());
        let now = stat(&arena);
        assert_eq!((now.held_bytes, now.free_bytes), (64 * page(), 0));
        assert!(has_only(&view, block.offset, block.bytes, 3));
        assert!(has_only(&view, last.offset, last.bytes, 3));
        if flags.contains(Flags::ZERO) {
            assert!(has_only(&view, gone.offset, 32 * page(), 0));
        }
        // All mappings have the same memory.
        fill(&view, block.offset, bytes, 4);
        assert!(has_only(&other, block.offset, bytes, 4));
        free(&arena, block);
        free(&arena, last);
        arena.trim(0).unwrap();
    }
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
}

fn a_resize_that_may_not_grow_releases_nothing_in_vain() {
    let arena = arena();
    let [block, gone, way, last] = [(); 4].map(|()| alloc(&arena, 16 * page()));
    free(&arena, gone);
    arena.trim(0).unwrap();
    free(&arena, way);
    let before = stat(&arena);
    // Address space follows the block, then free memory.
    let longer = arena.resize(block.offset, 48 * page(), LARGER);
    refused(longer, Errno::ENOMEM);
    let now = stat(&arena);
    assert_eq!(
        (now.held_bytes, now.free_bytes, now.live_bytes),
        (before.held_bytes, before.free_bytes, before.live_bytes)
    );
    // The free memory still serves requests.
    let again = arena.alloc(16 * page(), LARGER).unwrap();
    assert_eq!(again.offset, way.offset);
    for block in [block, way, last] {
        free(&arena, block);
    }
    check();
}

/// Prior art: slub_kunit test_krealloc_redzone_zeroing; hardened_malloc realloc_init.
fn added_pages_read_as_zero_if_that_was_asked_for() {
    let arena = arena();
    let view = View::shared(&arena, 0, MIB as usize);
    let block = alloc(&arena, 20 * page());
    fill(&view, block.offset, block.bytes, 9);
    for flags in [DEFAULT, DEFAULT | Flags::POPULATE] {
        arena.resize(block.offset, page(), Flags::empty()).unwrap();
        let flags = flags | Flags::ZERO;
        let bytes = arena.resize(block.offset, 40 * page(), flags).unwrap();
        assert!(has_only(&view, block.offset, page(), 9));
        let more = block.offset + page();
        assert!(has_only(&view, more, bytes - page(), 0));
        fill(&view, block.offset, bytes, 9);
    }
}

fn pages_in_use_after_a_block_are_enospc() {
    let arena = arena();
    let unit = 64 * KIB;
    let [one, two] = [(); 2].map(|()| alloc(&arena, unit));
    assert_eq!(two.offset, one.offset + unit);
    let before = stat(&arena);
    refused(arena.resize(one.offset, unit + 1, DEFAULT), Errno::ENOSPC);
    let failures = before.failures + 1;
    assert_eq!(stat(&arena), freelist::Stat { failures, ..before });
    free(&arena, two);
    // A block that was freed just now is free.
    let bytes = arena.resize(one.offset, 2 * unit, LARGER).unwrap();
    assert_eq!(bytes, 2 * unit);
    assert_eq!(stat(&arena).held_bytes, 2 * unit);
    check();
}

/// Prior art: kasan krealloc_uaf; mimalloc_security realloc_reuse; hardened_malloc uninitialized_realloc.
fn a_block_whose_resize_is_refused_is_unchanged() {
    let arena = arena();
    let block = alloc(&arena, 3 * page());
    let small = alloc(&arena, 64);
    let headed = arena.alloc(3 * page(), DEFAULT | Flags::HEADER).unwrap();
    let pages = largest_folio().min(3 * page());
    let contiguous = arena.alloc(pages, GROW | Flags::CONTIG).unwrap();
    let gone = alloc(&arena, 200 * page());
    free(&arena, gone);
    let before = stat(&arena);
    let end = arena.info().unwrap().arena_bytes;
    for (offset, size, flags, errno) in [
        (block.offset, 0, DEFAULT, Errno::EINVAL),
        (block.offset, page(), DEFAULT | Flags::WAIT, Errno::EINVAL),
        (block.offset, page(), DEFAULT | Flags::CONTIG, Errno::EINVAL),
        (block.offset, page(), DEFAULT | Flags::HEADER, Errno::EINVAL),
        (block.offset, largest_block() + 1, LARGER, Errno::E2BIG),
        (block.offset, u64::MAX, LARGER, Errno::E2BIG),
        (block.offset + 1, page(), DEFAULT, Errno::EINVAL),
        (block.offset + 16, page(), DEFAULT, Errno::EINVAL),
        (block.offset + page(), page(), DEFAULT, Errno::EINVAL),
        (small.offset, page(), DEFAULT, Errno::EINVAL),
        (headed.offset, page(), DEFAULT, Errno::EINVAL),
        (contiguous.offset, page(), DEFAULT, Errno::EINVAL),
        (gone.offset, page(), DEFAULT, Errno::ENOENT),
        (end, page(), DEFAULT, Errno::EINVAL),
        (u64::MAX, page(), DEFAULT, Errno::EINVAL),
    ] {
        let result = arena.resize(offset, size, flags);
        assert_eq!(
            result.as_ref().err().and_then(freelist::Error::errno),
            Some(errno),
            "{offset:#x}, {size}, {flags}: {result:?}"
        );
    }
    let mut request = freelist_resize {
        offset: block.offset,
        size: page(),
        reserved: 1,
        ..Default::default()
    };
    let result = ioctl(
        std::os::fd::AsFd::as_fd(&arena),
        FREELIST_IOC_RESIZE,
        &mut request,
    );
    assert_eq!(result.err(), Some(Errno::EINVAL));
    let failures = before.failures + 16;
    assert_eq!(stat(&arena), freelist::Stat { failures, ..before });
    check();
}

fn growth_beyond_a_limit_is_edquot_and_changes_nothing() {
    let arena = arena();
    arena.set_limit(100 * page()).unwrap();
    let block = alloc(&arena, 60 * page());
    let other = alloc(&arena, 20 * page());
    let before = stat(&arena);
    free(&arena, other);
    for size in [101 * page(), 1 << 30] {
        refused(arena.resize(block.offset, size, DEFAULT), Errno::EDQUOT);
        assert_eq!(stat(&arena).held_bytes, before.held_bytes);
        assert_eq!(stat(&arena).live_bytes, block.bytes);
    }
    arena.resize(block.offset, 100 * page(), DEFAULT).unwrap();
    assert_eq!(stat(&arena).held_bytes, 100 * page());
}

fn without_grow_a_block_takes_free_memory_alone() {
    let arena = arena();
    let block = alloc(&arena, 64 * page());
    arena
        .resize(block.offset, 16 * page(), Flags::empty())
        .unwrap();
    for flags in [LARGER, Flags::empty()] {
        refused(
            arena.resize(block.offset, 65 * page(), flags),
            Errno::ENOMEM,
        );
        assert_eq!(stat(&arena).live_bytes, 16 * page());
    }
    assert_eq!(
        arena.resize(block.offset, 64 * page(), LARGER).unwrap(),
        64 * page()
    );
    assert_eq!(stat(&arena).held_bytes, 64 * page());
}

fn an_answer_that_cannot_be_written_changes_nothing() {
    let arena = arena();
    let block = alloc(&arena, 8 * page());
    let before = stat(&arena);
    let view = View::anonymous(size_of::<freelist_resize>());
    for size in [page(), 80 * page()] {
        let asked = freelist_resize {
            offset: block.offset,
            size,
            flags: DEFAULT.bits(),
            ..Default::default()
        };
        view.protect(0..view.len(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
            .unwrap();
        view.set_bytes(0, &asked.to_bytes());
        view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
        let result = ioctl_at(&arena, FREELIST_IOC_RESIZE, view.address(0));
        assert_eq!(result, Err(Errno::EFAULT));
    }
    let failures = before.failures + 2;
    assert_eq!(stat(&arena), freelist::Stat { failures, ..before });
}

/// Resizes a block at random until another thread has freed it.
fn resize_until_gone(arena: &Arena, offset: u64, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    loop {
        let size = page() * rng.u64(1..100);
        match arena.resize(offset, size, DEFAULT) {
            Ok(bytes) => assert_eq!(bytes, size),
            Err(error) => match error.errno() {
                Some(Errno::ENOSPC) => {}
                Some(Errno::ENOENT | Errno::EINVAL) => return,
                other => panic!("{other:?}"),
            },
        }
    }
}

/// Prior art: scudo combined.ReallocateInPlaceStress.
fn resizes_and_releases_at_once_lose_nothing() {
    let arena = arena();
    for round in 0..50 {
        let blocks = [(); 3].map(|()| alloc(&arena, 16 * page()));
        thread::scope(|scope| {
            for block in blocks {
                for seed in 0..2 {
                    let arena = &arena;
                    scope.spawn(move || resize_until_gone(arena, block.offset, round * 2 + seed));
                }
            }
            for block in blocks {
                arena.trim(0).unwrap();
                free(&arena, block);
            }
        });
        assert_eq!(stat(&arena).live_bytes, 0, "round {round}");
    }
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
    check();
}

fn blocks_are_aligned_as_asked_for() {
    let arena = arena();
    for align_shift in 0..=30 {
        for size in [1, 100, 5000, 100_000] {
            let block = arena.alloc_aligned(size, align_shift, DEFAULT).unwrap();
            assert_eq!(
                block.offset % (1 << align_shift),
                0,
                "{size}, {align_shift}"
            );
            assert!(block.bytes >= size);
            free(&arena, block);
        }
    }
    refused(arena.alloc_aligned(1, 31, DEFAULT), Errno::EINVAL);
    check();
}

fn the_slack_bounds_the_held_memory() {
    let mut moved = Vec::new();
    for slack in [Some(10), Some(50), None] {
        let arena = arena();
        let now = arena.set_slack_permille(slack).unwrap();
        assert_eq!(now.slack_permille, slack.unwrap_or(FREELIST_SLACK_NONE));
        // Every second page is free: 512 separate pages.
        let blocks: Vec<_> = (0..1024).map(|_| alloc(&arena, page())).collect();
        for block in blocks.iter().step_by(2) {
            free(&arena, *block);
        }
        alloc(&arena, 400 * page());
        let now = stat(&arena);
        let max = match slack {
            Some(slack) => 1024 * page() * (1000 + u64::from(slack)) / 1000,
            None => 1424 * page(),
        };
        assert!(now.held_bytes <= max, "{slack:?}: {}", now.held_bytes);
        assert!(
            now.held_bytes > max - page(),
            "{slack:?}: {}",
            now.held_bytes
        );
        moved.push(now.moved_bytes);
    }
    assert!(
        moved[0] > moved[1] && moved[1] > 0 && moved[2] == 0,
        "{moved:?}"
    );
}

fn a_slack_out_of_range_is_einval() {
    let arena = arena();
    let before = raw::limit(&arena, 0, 0).unwrap();
    assert_eq!(before.slack_permille, 50);
    for slack in [0, 1001, 1 << 31, u32::MAX - 1] {
        refused(arena.set_slack_permille(Some(slack)), Errno::EINVAL);
    }
    assert_eq!(raw::limit(&arena, 0, 0).unwrap(), before);
    for slack in [1, 1000] {
        let now = arena.set_slack_permille(Some(slack)).unwrap();
        assert_eq!(now.slack_permille, slack);
    }
}
