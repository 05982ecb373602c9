// SPDX-License-Identifier: GPL-2.0

//! The contract's table of errors, for INFO, ALLOC, FREE and STAT.

use std::os::fd::AsFd;

use freelist::uapi::{
    freelist_alloc, FREELIST_IOC_ALLOC, FREELIST_IOC_FREE, FREELIST_IOC_INFO, FREELIST_IOC_STAT,
};
use freelist::Flags;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::harness::{skip, suite};
use crate::kit::calls::ioctl_at;
use crate::kit::view::Address;
use crate::kit::{alloc, arena, info, largest_block, raw, refused, stat, View, DEFAULT, GROW, KIB};

suite!("freelist_errors":
    size_0_is_einval,
    unknown_flags_are_einval,
    too_large_an_alignment_is_einval,
    a_timeout_without_wait_is_einval,
    flags_of_later_versions_are_eopnotsupp,
    a_size_over_the_largest_block_is_e2big,
    no_flags_and_nothing_free_is_enomem,
    a_block_larger_than_the_limit_is_edquot,
    growing_beyond_the_limit_is_edquot,
    calls_that_change_a_read_only_arena_are_ebadf,
    a_write_only_arena_serves_every_call,
    unknown_calls_are_enotty,
    another_type_byte_is_enotty,
    failures_are_counted,
    a_refused_request_changes_nothing,
    read_and_write_are_refused,
);

/// Makes the request, and checks that it is refused with this error.
#[track_caller]
fn refused_request(request: freelist_alloc, errno: Errno) {
    let arena = arena();
    let result = raw::alloc(&arena, request);
    assert_eq!(result.err(), Some(errno), "of {request:?}");
    let stat = stat(&arena);
    assert_eq!((stat.live_blocks, stat.held_bytes), (0, 0));
}

/// Prior art: hardened_malloc read_zero_size, write_zero_size; mimalloc_security read_zero_size,
/// read_zero_size_free, write_zero_size, write_zero_size_free; scudo wrappers_c.Malloc.
fn size_0_is_einval() {
    for flags in [0, 1, 2, 3] {
        let request = freelist_alloc {
            flags,
            ..raw::request(0)
        };
        refused_request(request, Errno::EINVAL);
    }
}

/// Prior art: dmabuf_heaps invalid_heap_flags, invalid_fd_flags.
fn unknown_flags_are_einval() {
    for bit in Flags::all().bits().count_ones()..u32::BITS {
        for known in [0, DEFAULT.bits()] {
            let request = freelist_alloc {
                flags: known | (1 << bit),
                ..raw::request(64)
            };
            refused_request(request, Errno::EINVAL);
        }
    }
}

fn too_large_an_alignment_is_einval() {
    for align_shift in [31, 64, 1 << 31, u32::MAX] {
        let request = freelist_alloc {
            align_shift,
            ..raw::request(64)
        };
        refused_request(request, Errno::EINVAL);
    }
}

fn a_timeout_without_wait_is_einval() {
    for timeout_ns in [1, -1, i64::MAX, i64::MIN] {
        let request = freelist_alloc {
            timeout_ns,
            ..raw::request(64)
        };
        refused_request(request, Errno::EINVAL);
    }
}

fn flags_of_later_versions_are_eopnotsupp() {
    let features = info().features as u32;
    let absent = Flags::all() - Flags::from_bits_retain(features);
    for flag in absent.iter() {
        for with in [Flags::empty(), DEFAULT] {
            let request = freelist_alloc {
                flags: (flag | with).bits(),
                ..raw::request(64)
            };
            refused_request(request, Errno::EOPNOTSUPP);
        }
    }
    if absent.is_empty() {
        skip("this module serves every flag");
    }
}

/// Prior art: gpu_buddy gpu_test_buddy_alloc_exceeds_max_order; test_vmalloc align_shift_alloc_test;
/// kasan kmalloc_memmove_negative_size; vulnerabilities size_arithmetic, CVE-2018-8781;
/// hardened_malloc impossibly_large_malloc; mimalloc_security impossibly_large_malloc; scudo
/// wrappers_c.Malloc.
fn a_size_over_the_largest_block_is_e2big() {
    for size in [
        largest_block() + 1,
        2 * largest_block(),
        1 << 40,
        (1 << 40) + 64,
        1 << 63,
        u64::MAX - 4095,
        u64::MAX - 1,
        u64::MAX,
    ] {
        for flags in [0, 1, 2, 3] {
            let request = freelist_alloc {
                flags,
                ..raw::request(size)
            };
            refused_request(request, Errno::E2BIG);
        }
    }
}

fn no_flags_and_nothing_free_is_enomem() {
    for size in [1, 32, 4 * KIB, 5000, largest_block()] {
        let request = freelist_alloc {
            flags: 0,
            ..raw::request(size)
        };
        // Without GROW the limit does not matter.
        refused_request(request, Errno::ENOMEM);
    }
}

fn a_block_larger_than_the_limit_is_edquot() {
    let limit = info().limit_bytes;
    if limit >= largest_block() {
        skip("the limit is not below the largest block; needs a machine below 2 GiB");
    }
    for size in [limit + 1, largest_block()] {
        for flags in [GROW, DEFAULT] {
            let request = freelist_alloc {
                flags: flags.bits(),
                ..raw::request(size)
            };
            refused_request(request, Errno::EDQUOT);
        }
    }
}

fn growing_beyond_the_limit_is_edquot() {
    let limit = info().limit_bytes;
    if limit > largest_block() {
        skip("too much memory to fill; needs a machine of at most 2 GiB");
    }
    let arena = arena();
    // One block is more than half, so a second one is too much. The machine may
    // not have that much memory.
    let size = limit / 2 + (1 << 20);
    match arena.alloc(size, DEFAULT) {
        Ok(_) => {}
        Err(error) if error.errno() == Some(Errno::ENOMEM) => skip("memory is short"),
        Err(error) => panic!("{error}"),
    }
    let before = stat(&arena);
    refused(arena.alloc(size, DEFAULT), Errno::EDQUOT);
    assert_eq!(stat(&arena).held_bytes, before.held_bytes);
    alloc(&arena, 64 * KIB);
}

fn calls_that_change_a_read_only_arena_are_ebadf() {
    let fd = raw::open_as(OFlag::O_RDONLY);
    assert_eq!(raw::alloc(&fd, raw::request(64)).err(), Some(Errno::EBADF));
    assert_eq!(raw::free(&fd, 0).err(), Some(Errno::EBADF));
    assert_eq!(raw::info(&fd).unwrap(), info());
    assert_eq!(raw::stat(&fd).unwrap().live_blocks, 0);
    let unknown = raw::with_number(FREELIST_IOC_INFO, 99);
    let view = View::anonymous(64);
    let result = ioctl_at(&fd, unknown, view.address(0));
    assert_eq!(result.err(), Some(Errno::ENOTTY));
}

fn a_write_only_arena_serves_every_call() {
    let fd = raw::open_as(OFlag::O_WRONLY);
    let block = raw::alloc(&fd, raw::request(64)).unwrap();
    assert_eq!(raw::stat(&fd).unwrap().live_blocks, 1);
    raw::free(&fd, block.offset).unwrap();
    raw::info(&fd).unwrap();
}

#[track_caller]
fn unknown_call(request: u32) {
    let arena = arena();
    let view = View::anonymous(raw::LARGEST_SIZE as usize);
    view.set_bytes(0, &vec![0x5a; view.len()]);
    // With any pointer: nothing is read before the call is known.
    for at in [view.address(0), Address::NULL, Address::KERNEL] {
        let result = ioctl_at(&arena, request, at);
        assert_eq!(result.err(), Some(Errno::ENOTTY), "request {request:#x}");
    }
    assert!(view.bytes(0, 64).iter().all(|byte| *byte == 0x5a));
}

fn unknown_calls_are_enotty() {
    for number in (11..16).chain([31, 64, 128, 200, 255]) {
        for request in raw::REQUESTS {
            unknown_call(raw::with_number(request, number));
        }
    }
}

fn another_type_byte_is_enotty() {
    for kind in [0xf0, 0xf2, 0x01, 0x00, 0xff] {
        for request in raw::REQUESTS {
            // Type 0 with small numbers is the file system's own FIOQSIZE etc.
            unknown_call(raw::with_type(request, kind));
        }
    }
}

fn failures_are_counted() {
    let arena = arena();
    refused(arena.alloc(0, DEFAULT), Errno::EINVAL);
    refused(arena.alloc(u64::MAX, DEFAULT), Errno::E2BIG);
    refused(arena.alloc(64, Flags::empty()), Errno::ENOMEM);
    refused(arena.free(0), Errno::ENOENT);
    refused(arena.free(1), Errno::EINVAL);
    assert_eq!(stat(&arena).failures, 5);
}

fn a_refused_request_changes_nothing() {
    let arena = arena();
    alloc(&arena, 5000);
    let before = stat(&arena);
    for request in [
        raw::request(0),
        raw::request(u64::MAX),
        freelist_alloc {
            align_shift: 31,
            ..raw::request(64)
        },
        freelist_alloc {
            flags: 1 << 30,
            ..raw::request(64)
        },
    ] {
        raw::alloc(&arena, request).unwrap_err();
    }
    let failures = before.failures;
    assert_eq!(
        freelist::Stat {
            failures,
            ..stat(&arena)
        },
        before
    );
}

fn read_and_write_are_refused() {
    let arena = arena();
    alloc(&arena, 5000);
    let mut bytes = [0u8; 8];
    let read = nix::unistd::read(arena.as_fd(), &mut bytes);
    assert!(read.is_err(), "{read:?}");
    let write = nix::unistd::write(arena.as_fd(), &bytes);
    assert!(write.is_err(), "{write:?}");
    // None of the contract's numbers is one of another's by accident.
    let mut numbers = [
        FREELIST_IOC_INFO,
        FREELIST_IOC_ALLOC,
        FREELIST_IOC_FREE,
        FREELIST_IOC_STAT,
    ]
    .map(|request| request & 0xffff);
    numbers.sort_unstable();
    assert_eq!(numbers, [0xf100, 0xf101, 0xf102, 0xf107]);
}
