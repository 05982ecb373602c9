// SPDX-License-Identifier: GPL-2.0

//! Extensions of the contract: type and number select the call, a shorter structure is extended with zeros, a
//! longer one has to end in zeros.
//! Prior art: dmabuf_heaps dmabuf_heap_alloc_older, dmabuf_heap_alloc_newer; kasan copy_user_test_oob.

use freelist::uapi::{
    freelist_alloc, freelist_bulk, freelist_free, freelist_info, freelist_limit, freelist_stat,
    freelist_trim, FREELIST_IOC_ALLOC, FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE,
    FREELIST_IOC_FREE_BULK, FREELIST_IOC_INFO, FREELIST_IOC_LIMIT, FREELIST_IOC_STAT,
    FREELIST_IOC_TRIM,
};
use freelist::Arena;
use nix::errno::Errno;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::view::Address;
use crate::kit::{alloc, arena, block_bytes_of, free, page, raw, stat, View};

suite!("freelist_extension":
    a_longer_request_that_ends_in_zeros_is_served,
    a_longer_request_that_does_not_end_in_zeros_is_e2big,
    a_longer_answer_ends_in_zeros,
    a_shorter_request_is_extended_with_zeros,
    a_shorter_answer_is_cut,
    a_structure_of_no_bytes_is_all_zeros,
    every_structure_may_be_longer_if_it_ends_in_zeros,
    every_structure_may_be_shorter,
    the_direction_of_a_call_is_ignored,
    calls_without_input_read_nothing,
);

/// Makes a call with `bytes` as the structure, whose length the request's number encodes, right before memory that
/// cannot be accessed.
fn call(arena: &Arena, request: u32, bytes: &mut [u8]) -> Result<(), Errno> {
    let view = View::anonymous(bytes.len() + 1);
    let at = view.len() - bytes.len();
    view.set_bytes(at, bytes);
    let request = raw::with_size(request, bytes.len() as u32);
    ioctl_at(arena, request, view.address(at))?;
    bytes.copy_from_slice(&view.bytes(at, bytes.len()));
    Ok(())
}

/// Returns numbers of bytes above this version's structure; the last makes the largest structure that a number
/// can encode.
fn longer(request: u32) -> [usize; 6] {
    let max = raw::LARGEST_SIZE - raw::size(request);
    [1, 7, 8, 100, 5000, max as usize]
}

fn a_longer_request_that_ends_in_zeros_is_served() {
    let arena = arena();
    for more in longer(FREELIST_IOC_ALLOC) {
        let mut bytes = raw::request(1000).to_bytes();
        bytes.resize(bytes.len() + more, 0);
        call(&arena, FREELIST_IOC_ALLOC, &mut bytes).unwrap();
        let answer = freelist_alloc::from_bytes(&bytes);
        assert_eq!(answer.block_bytes, block_bytes_of(1000, page()));
        let tail = &bytes[size_of::<freelist_alloc>()..];
        assert!(tail.iter().all(|byte| *byte == 0), "the answer's end");

        let offset = answer.offset;
        let mut bytes = freelist_free { offset }.to_bytes();
        bytes.resize(bytes.len() + more.min(5000), 0);
        call(&arena, FREELIST_IOC_FREE, &mut bytes).unwrap();
        assert_eq!(stat(&arena).live_blocks, 0);
    }
}

fn a_longer_request_that_does_not_end_in_zeros_is_e2big() {
    let arena = arena();
    let block = alloc(&arena, 64);
    let offset = block.offset;
    for more in longer(FREELIST_IOC_ALLOC) {
        for (request, bytes) in [
            (FREELIST_IOC_ALLOC, raw::request(64).to_bytes()),
            (FREELIST_IOC_FREE, freelist_free { offset }.to_bytes()),
        ] {
            for nonzero in [0, more / 2, more - 1] {
                let mut bytes = bytes.clone();
                let at = bytes.len() + nonzero;
                bytes.resize(bytes.len() + more, 0);
                bytes[at] = 1;
                let result = call(&arena, request, &mut bytes);
                assert_eq!(result, Err(Errno::E2BIG), "{more} bytes more");
            }
        }
    }
    assert_eq!(stat(&arena).live_blocks, 1);
    free(&arena, block);
}

fn a_longer_answer_ends_in_zeros() {
    let arena = arena();
    for (request, known) in [
        (FREELIST_IOC_INFO, size_of::<freelist_info>()),
        (FREELIST_IOC_STAT, size_of::<freelist_stat>()),
    ] {
        let mut exact = vec![0; known];
        call(&arena, request, &mut exact).unwrap();
        for more in longer(request) {
            let mut bytes = vec![0xff; known + more];
            call(&arena, request, &mut bytes).unwrap();
            assert_eq!(bytes[..known], exact);
            assert!(bytes[known..].iter().all(|byte| *byte == 0));
        }
    }
}

fn a_shorter_request_is_extended_with_zeros() {
    let arena = arena();
    let whole = raw::request(64).to_bytes();
    // Without the field `offset` the block is allocated all the same, and only the arena
    // knows it; without `flags` the request may neither split nor grow.
    for (len, expected) in [
        (36, Ok(())),
        (24, Ok(())),
        (16, Ok(())),
        (12, Ok(())),
        (8, Err(Errno::ENOMEM)),
        (0, Err(Errno::EINVAL)),
    ] {
        let before = stat(&arena).live_blocks;
        let result = call(&arena, FREELIST_IOC_ALLOC, &mut whole.clone()[..len]);
        assert_eq!(result, expected, "of {len} bytes");
        let made = stat(&arena).live_blocks - before;
        assert_eq!(made, u64::from(expected.is_ok()), "of {len} bytes");
    }

    let block = alloc(&arena, 64);
    assert!(block.offset < 1 << 16, "low offsets are used first");
    let mut bytes = freelist_free {
        offset: block.offset.to_le(),
    }
    .to_bytes();
    call(&arena, FREELIST_IOC_FREE, &mut bytes[..2]).unwrap();
    assert_eq!(raw::free(&arena, block.offset), Err(Errno::ENOENT));
}

fn a_shorter_answer_is_cut() {
    let arena = arena();
    for (request, known) in [
        (FREELIST_IOC_INFO, size_of::<freelist_info>()),
        (FREELIST_IOC_STAT, size_of::<freelist_stat>()),
    ] {
        let mut exact = vec![0; known];
        call(&arena, request, &mut exact).unwrap();
        for len in [1, 4, 7, 16, known - 1] {
            let mut bytes = vec![0xff; len];
            call(&arena, request, &mut bytes).unwrap();
            assert_eq!(bytes, exact[..len]);
        }
        // The kernel writes as many bytes as the number encodes, not more.
        let view = View::anonymous(known);
        view.set_bytes(0, &vec![0xff; known]);
        let short = raw::with_size(request, 8);
        ioctl_at(&arena, short, view.address(0)).unwrap();
        assert!(view.bytes(8, known - 8).iter().all(|byte| *byte == 0xff));
    }
}

fn a_structure_of_no_bytes_is_all_zeros() {
    let arena = arena();
    let of_none = |request| ioctl_at(&arena, raw::with_size(request, 0), Address::NULL);
    assert_eq!(of_none(FREELIST_IOC_INFO), Ok(0));
    assert_eq!(of_none(FREELIST_IOC_STAT), Ok(0));
    assert_eq!(of_none(FREELIST_IOC_ALLOC), Err(Errno::EINVAL));
    assert_eq!(of_none(FREELIST_IOC_FREE), Err(Errno::ENOENT));
    let first = alloc(&arena, 64);
    assert_eq!(first.offset, 0, "low offsets are used first");
    assert_eq!(of_none(FREELIST_IOC_FREE), Ok(0));
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// Returns valid requests of the calls that change more than one block, on an arena of
/// 1 MiB at most that has 8 free pages.
fn good(array: &View) -> [(u32, Vec<u8>); 4] {
    let bulk = freelist_bulk {
        size: 64,
        offsets: array.address(0).get() as u64,
        count: 4,
        flags: freelist::uapi::FREELIST_DEFAULT,
        ..Default::default()
    };
    let release = freelist_bulk {
        size: 0,
        flags: 0,
        ..bulk
    };
    let limit = freelist_limit {
        bytes: 1 << 20,
        ..Default::default()
    };
    let trim = freelist_trim {
        keep_bytes: 2 * page(),
        ..Default::default()
    };
    [
        (FREELIST_IOC_ALLOC_BULK, bulk.to_bytes()),
        (FREELIST_IOC_FREE_BULK, release.to_bytes()),
        (FREELIST_IOC_LIMIT, limit.to_bytes()),
        (FREELIST_IOC_TRIM, trim.to_bytes()),
    ]
}

/// Returns an arena with 8 free pages.
fn with_free_pages() -> Arena {
    let arena = arena();
    let block = alloc(&arena, 8 * page());
    free(&arena, block);
    arena
}

fn every_structure_may_be_longer_if_it_ends_in_zeros() {
    let array = View::anonymous(64);
    for more in longer(FREELIST_IOC_ALLOC_BULK) {
        let arena = with_free_pages();
        for (request, exact) in good(&array) {
            let mut spoiled = exact.clone();
            spoiled.resize(exact.len() + more, 0);
            *spoiled.last_mut().unwrap() = 1;
            let before = stat(&arena);
            let result = call(&arena, request, &mut spoiled);
            assert_eq!(result, Err(Errno::E2BIG), "{request:#x}, {more} bytes more");
            let failures = before.failures + 1;
            assert_eq!(stat(&arena), freelist::Stat { failures, ..before });

            let mut bytes = exact.clone();
            bytes.resize(exact.len() + more, 0);
            call(&arena, request, &mut bytes).unwrap();
            assert!(bytes[exact.len()..].iter().all(|byte| *byte == 0));
            assert_ne!(bytes[..exact.len()], exact, "it is answered");
        }
        let after = stat(&arena);
        assert_eq!((after.allocs, after.frees), (5, 5));
        assert_eq!((after.limit_bytes, after.held_bytes), (1 << 20, 2 * page()));
    }
}

fn every_structure_may_be_shorter() {
    let arena = with_free_pages();
    let array = View::anonymous(64);
    let [(_, bulk), (_, release), ..] = good(&array);
    // Without the fields of the result, and the timeout: as if these were 0.
    for len in [24, 32] {
        call(&arena, FREELIST_IOC_ALLOC_BULK, &mut bulk.clone()[..len]).unwrap();
        assert_eq!(stat(&arena).live_blocks, 4);
        call(&arena, FREELIST_IOC_FREE_BULK, &mut release.clone()[..len]).unwrap();
        assert_eq!(stat(&arena).live_blocks, 0);
    }
    // Without flags the request may neither split nor grow; without a count it is invalid.
    for (len, errno) in [(20, Errno::ENOMEM), (16, Errno::EINVAL), (0, Errno::EINVAL)] {
        let size = 64 * page();
        let mut bulk = bulk.clone();
        bulk[..8].copy_from_slice(&size.to_le_bytes());
        let result = call(&arena, FREELIST_IOC_ALLOC_BULK, &mut bulk[..len]);
        assert_eq!(result, Err(errno), "of {len} bytes");
    }
    // A structure with a limit only, and an empty one.
    let mut limit = (1u64 << 20).to_le_bytes();
    call(&arena, FREELIST_IOC_LIMIT, &mut limit).unwrap();
    call(&arena, FREELIST_IOC_LIMIT, &mut []).unwrap();
    assert_eq!(arena.info().unwrap().limit_bytes, 1 << 20);
    // A TRIM of zeros keeps no free memory.
    call(&arena, FREELIST_IOC_TRIM, &mut []).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
}

fn the_direction_of_a_call_is_ignored() {
    let arena = arena();
    for direction in 0..4 {
        let turned = |request| raw::with_direction(request, direction);
        let mut bytes = raw::request(64).to_bytes();
        call(&arena, turned(FREELIST_IOC_ALLOC), &mut bytes).unwrap();
        let offset = freelist_alloc::from_bytes(&bytes).offset;

        let mut bytes = vec![0; size_of::<freelist_stat>()];
        call(&arena, turned(FREELIST_IOC_STAT), &mut bytes).unwrap();
        assert_eq!(freelist_stat::from_bytes(&bytes).live_blocks, 1);

        let mut bytes = vec![0; size_of::<freelist_info>()];
        call(&arena, turned(FREELIST_IOC_INFO), &mut bytes).unwrap();
        assert_eq!(
            u64::from(freelist_info::from_bytes(&bytes).page_size),
            page()
        );

        let mut bytes = freelist_free { offset }.to_bytes();
        call(&arena, turned(FREELIST_IOC_FREE), &mut bytes).unwrap();
    }
}

fn calls_without_input_read_nothing() {
    let arena = arena();
    for request in [FREELIST_IOC_INFO, FREELIST_IOC_STAT] {
        // The kernel would fail with E2BIG if it read them.
        let mut bytes = vec![0xff; 300];
        call(&arena, request, &mut bytes).unwrap();
    }
}
