// SPDX-License-Identifier: GPL-2.0

//! Bad pointers before and after a change of state.

use freelist::uapi::{
    freelist_alloc, freelist_free, FREELIST_IOC_ALLOC, FREELIST_IOC_FREE, FREELIST_IOC_INFO,
    FREELIST_IOC_LIMIT, FREELIST_IOC_STAT,
};
use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::process::fork_child;
use crate::kit::view::Address;
use crate::kit::{alloc, arena, free, page, random, raw, scaled, stat, View, KIB, LARGER, MIB};

suite!("freelist_pointers":
    a_pointer_to_nothing_is_efault,
    a_structure_that_is_only_half_there_is_efault,
    an_answer_that_cannot_be_written_loses_no_block,
    an_answer_that_cannot_be_written_grows_the_arena_once,
    a_cached_block_stays_free_when_its_answer_cannot_be_written,
    an_answer_whose_page_is_copied_first_is_written,
    info_and_stat_into_a_read_only_page_are_efault,
    free_needs_to_read_only,
    free_from_a_bad_pointer_changes_nothing,
    a_long_structure_that_is_only_half_there_is_efault,
    structures_need_no_alignment,
    a_structure_in_a_block_of_the_arena_itself_is_served,
    a_structure_in_a_page_of_the_arena_that_is_not_there_is_efault,
    random_arguments_never_lose_a_block,
);

fn a_pointer_to_nothing_is_efault() {
    let arena = arena();
    let guarded = View::anonymous(1);
    let mut holed = View::anonymous(1);
    let len = holed.len();
    let hole = holed.address(0);
    holed.unmap(0..len).unwrap();
    for at in [
        Address::NULL,
        Address::FIRST_PAGE,
        Address::KERNEL,
        Address::LAST,
        guarded.address(guarded.len()),
        hole,
    ] {
        for request in raw::REQUESTS {
            let result = ioctl_at(&arena, request, at);
            assert_eq!(result, Err(Errno::EFAULT), "{request:#x} at {at:x?}");
        }
    }
    let stat = stat(&arena);
    assert_eq!((stat.live_blocks, stat.allocs, stat.held_bytes), (0, 0, 0));
}

fn a_structure_that_is_only_half_there_is_efault() {
    let arena = arena();
    let view = View::anonymous(1);
    for request in raw::REQUESTS {
        for there in [1, 4, raw::size(request) as usize - 1] {
            // The beginning of it would be a valid request.
            let bytes = raw::request(64).to_bytes();
            let at = view.len() - there;
            view.set_bytes(at, &bytes[..there.min(bytes.len())]);
            let result = ioctl_at(&arena, request, view.address(at));
            assert_eq!(result, Err(Errno::EFAULT), "{request:#x}, {there} bytes");
        }
    }
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// Returns a valid request in memory that cannot be written.
fn read_only_request(size: u64) -> (View, Address) {
    let view = View::anonymous(size_of::<freelist_alloc>());
    view.set_bytes(0, &raw::request(size).to_bytes());
    view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
    let at = view.address(0);
    (view, at)
}

/// Prior art: dmabuf_heaps fd_leak_on_efault; vulnerabilities state_changed_then_EFAULT.
fn an_answer_that_cannot_be_written_loses_no_block() {
    let arena = arena();
    let kept = alloc(&arena, 100);
    for size in [1, 64, 2 * KIB, 4 * KIB, 5 * page() - 1, 300 * KIB, 3 * MIB] {
        let (_view, at) = read_only_request(size);
        for _ in 0..5 {
            let result = ioctl_at(&arena, FREELIST_IOC_ALLOC, at);
            assert_eq!(result, Err(Errno::EFAULT));
            let stat = stat(&arena);
            assert_eq!((stat.live_blocks, stat.live_bytes), (1, kept.bytes));
        }
    }
    free(&arena, kept);
    assert_eq!(stat(&arena).live_bytes, 0);
}

fn an_answer_that_cannot_be_written_grows_the_arena_once() {
    for size in [64, 5 * page(), MIB] {
        let arena = arena();
        let (_view, at) = read_only_request(size);
        ioctl_at(&arena, FREELIST_IOC_ALLOC, at).unwrap_err();
        let held = stat(&arena).held_bytes;
        for _ in 0..8 {
            ioctl_at(&arena, FREELIST_IOC_ALLOC, at).unwrap_err();
        }
        assert_eq!(stat(&arena).held_bytes, held, "for {size} bytes");
        // No held memory was lost: it serves the request at last.
        if held >= size {
            arena.alloc(size, LARGER).unwrap();
        }
    }
}

fn a_cached_block_stays_free_when_its_answer_cannot_be_written() {
    for size in [64, 3 * page()] {
        let arena = arena();
        let offset = alloc(&arena, size).offset;
        raw::free(&arena, offset).unwrap();
        let (_view, at) = read_only_request(size);
        let result = ioctl_at(&arena, FREELIST_IOC_ALLOC, at);
        assert_eq!(result, Err(Errno::EFAULT));
        let stat = stat(&arena);
        assert_eq!((stat.live_blocks, stat.allocs), (0, 1));
        assert_eq!(alloc(&arena, size).offset, offset);
    }
}

/// The write of an answer can take a page fault: to a page that was shared by a fork.
fn an_answer_whose_page_is_copied_first_is_written() {
    let arena = arena();
    let offset = alloc(&arena, 64).offset;
    raw::free(&arena, offset).unwrap();
    let view = View::anonymous(size_of::<freelist_alloc>());
    view.set_bytes(0, &raw::request(64).to_bytes());
    let status = fork_child(|| {
        ioctl_at(&arena, FREELIST_IOC_ALLOC, view.address(0)).unwrap();
        let answer = raw::request(64);
        let answer = freelist_alloc {
            offset,
            block_bytes: 64,
            ..answer
        };
        assert_eq!(
            view.bytes(0, view.len())[..size_of_val(&answer)],
            *answer.to_bytes()
        );
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    assert_eq!(stat(&arena).live_blocks, 1);
}

fn info_and_stat_into_a_read_only_page_are_efault() {
    let arena = arena();
    let view = View::anonymous(1);
    view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
    for request in [FREELIST_IOC_INFO, FREELIST_IOC_STAT] {
        let result = ioctl_at(&arena, request, view.address(0));
        assert_eq!(result, Err(Errno::EFAULT));
    }
}

fn free_needs_to_read_only() {
    let arena = arena();
    let offset = alloc(&arena, 64).offset;
    let view = View::anonymous(1);
    view.set_bytes(0, &freelist_free { offset }.to_bytes());
    view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
    ioctl_at(&arena, FREELIST_IOC_FREE, view.address(0)).unwrap();
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn free_from_a_bad_pointer_changes_nothing() {
    let arena = arena();
    let block = alloc(&arena, 64);
    assert_eq!(block.offset, 0, "the offset of a bad pointer");
    let view = View::anonymous(1);
    for at in [Address::NULL, Address::KERNEL, view.tail(4)] {
        let result = ioctl_at(&arena, FREELIST_IOC_FREE, at);
        assert_eq!(result, Err(Errno::EFAULT));
    }
    let stat = stat(&arena);
    assert_eq!((stat.live_blocks, stat.frees), (1, 0));
    free(&arena, block);
}

fn a_long_structure_that_is_only_half_there_is_efault() {
    let arena = arena();
    // Zeros up to its end: an inaccessible rest is no reason to refuse it.
    let view = View::anonymous(page() as usize);
    for request in raw::REQUESTS {
        let long = raw::with_size(request, raw::LARGEST_SIZE);
        let result = ioctl_at(&arena, long, view.address(0));
        assert_eq!(result, Err(Errno::EFAULT), "{request:#x}");
    }
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn structures_need_no_alignment() {
    let arena = arena();
    let view = View::anonymous(2 * page() as usize);
    for at in [1, 3, 7, page() as usize - 5] {
        view.set_bytes(at, &raw::request(64).to_bytes());
        ioctl_at(&arena, FREELIST_IOC_ALLOC, view.address(at)).unwrap();
        let answer = view.bytes(at, size_of::<freelist_alloc>());
        let offset = freelist_alloc::from_bytes(&answer).offset;
        view.set_bytes(at, &freelist_free { offset }.to_bytes());
        ioctl_at(&arena, FREELIST_IOC_FREE, view.address(at)).unwrap();
    }
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// The copy faults in a page of the arena that the call is about to change, so the call must hold no lock that a
/// fault needs.
///
/// Prior art: reports zfs#1689, zfs#7939, zfs#302.
fn a_structure_in_a_block_of_the_arena_itself_is_served() {
    let arena = arena();
    for size in [64, 4 * KIB, 64 * KIB] {
        let home = alloc(&arena, 2 * page());
        let view = View::shared(&arena, home.offset, home.bytes as usize);
        // Across two pages, of which the second is not mapped yet.
        let at = page() as usize - 24;
        view.set_bytes(at, &raw::request(size).to_bytes()[..24]);
        ioctl_at(&arena, FREELIST_IOC_ALLOC, view.address(at)).unwrap();
        let answer = view.bytes(at, size_of::<freelist_alloc>());
        let answer = freelist_alloc::from_bytes(&answer);
        assert_eq!(answer.block_bytes, size);
        // A block that holds the request for its own release.
        let offset = home.offset;
        view.set_bytes(at, &freelist_free { offset }.to_bytes());
        ioctl_at(&arena, FREELIST_IOC_FREE, view.address(at)).unwrap();
        arena.free(answer.offset).unwrap();
    }
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn a_structure_in_a_page_of_the_arena_that_is_not_there_is_efault() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, 16 * MIB, page() as usize);
    for request in raw::REQUESTS {
        let result = ioctl_at(&arena, request, view.address(0));
        assert_eq!(result, Err(Errno::EFAULT), "{request:#x}");
    }
    assert_eq!(stat(&arena).live_blocks, 1);
    free(&arena, block);
}

fn random_arguments_never_lose_a_block() {
    let mut rng = random();
    let arena = arena();
    let view = View::anonymous(page() as usize);
    let mut lost = 0;
    for _ in 0..scaled(500) {
        let request = raw::REQUESTS[rng.usize(0..raw::REQUESTS.len())];
        if request == FREELIST_IOC_LIMIT {
            // A low limit would refuse all the rest.
            continue;
        }
        let request = raw::with_size(request, rng.u32(0..300));
        let at = view.len() - rng.usize(0..400);
        let mut bytes = raw::request(rng.u64(0..1000)).to_bytes();
        if rng.bool() {
            let at = rng.usize(0..bytes.len());
            bytes[at] = rng.u8(..);
        }
        bytes.truncate(view.len() - at);
        view.set_bytes(at, &bytes);
        let before = stat(&arena);
        let result = ioctl_at(&arena, request, view.address(at));
        let after = stat(&arena);
        match result {
            Ok(_) => lost = after.live_blocks,
            Err(errno) => {
                assert_ne!(errno, Errno::ENOTTY);
                assert_eq!(after.live_blocks, before.live_blocks, "{errno}");
                assert_eq!(after.live_bytes, before.live_bytes, "{errno}");
            }
        }
    }
    assert_eq!(stat(&arena).live_blocks, lost);
}
