// SPDX-License-Identifier: GPL-2.0

//! The array of a batch: where it cannot be read or written, or changes under the call.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use freelist::uapi::{freelist_bulk, FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE_BULK};
use freelist::Flags;
use nix::errno::Errno;
use nix::sys::mman::ProtFlags;

use crate::harness::suite;
use crate::kit::batch::{load, nothing_is_live, release, request, store};
use crate::kit::calls::{ioctl_at, Plain};
use crate::kit::view::Address;
use crate::kit::{
    alloc, arena, page, raw, scaled, stat, system_page, thread, View, DEFAULT, LARGER, MIB,
};

suite!("freelist_bulk_array":
    an_offset_that_cannot_be_stored_undoes_its_element,
    cached_blocks_whose_offsets_cannot_be_stored_are_free_again,
    an_offset_that_cannot_be_read_ends_the_release,
    an_array_that_is_nowhere_is_efault,
    an_answer_that_cannot_be_written_loses_nothing,
    an_array_in_a_block_of_the_arena_itself_is_served,
    a_count_beyond_the_array_is_harmless,
    arrays_and_requests_that_change_under_the_call_lose_nothing,
);

/// Prior art: vulnerabilities state_changed_then_EFAULT.
fn an_offset_that_cannot_be_stored_undoes_its_element() {
    let page = system_page();
    let array = View::anonymous(2 * page);
    array.protect(page..2 * page, ProtFlags::PROT_READ).unwrap();
    for there in [1, 5, 63, 64, 65, 130] {
        let arena = arena();
        let at = page - 8 * there;
        let answer = raw::alloc_bulk(&arena, request(96, &array, at, 200)).unwrap();
        assert_eq!(answer.done as usize, there);
        assert_eq!(stat(&arena).live_blocks as usize, there);
        let offsets = load(&array, at, there);
        assert_eq!(arena.free_bulk(&offsets).unwrap(), there);
        nothing_is_live(&arena);
    }
    // An array of which only half is mapped.
    let arena = arena();
    let answer = raw::alloc_bulk(&arena, request(96, &array, page - 20, 10)).unwrap();
    assert_eq!(answer.done, 2);
    assert_eq!(stat(&arena).live_blocks, 2);
}

/// Blocks on the fast path, which were freed just now, are allocated together.
///
/// Prior art: vulnerabilities state_changed_then_EFAULT.
fn cached_blocks_whose_offsets_cannot_be_stored_are_free_again() {
    const COUNT: usize = 64;
    let page = system_page();
    let array = View::anonymous(2 * page);
    array.protect(page..2 * page, ProtFlags::PROT_READ).unwrap();
    for (flags, there) in [DEFAULT, DEFAULT | Flags::POPULATE]
        .into_iter()
        .flat_map(|flags| [0, 1, 5, 63, 64].map(|there| (flags, there)))
    {
        let arena = arena();
        let view = View::shared(&arena, 0, MIB as usize);
        let mut offsets = [0; COUNT];
        arena.alloc_bulk(96, DEFAULT, &mut offsets).unwrap();
        arena.free_bulk(&offsets).unwrap();
        let held = stat(&arena).held_bytes;
        let at = page - 8 * there;
        let asked = freelist_bulk {
            flags: flags.bits(),
            ..request(96, &array, at, COUNT as u32)
        };
        let answer = raw::alloc_bulk(&arena, asked);
        match there {
            0 => assert_eq!(answer.err(), Some(Errno::EFAULT)),
            _ => assert_eq!(answer.unwrap().done as usize, there),
        }
        let got = load(&array, at, there);
        assert!(got.iter().all(|offset| offsets.contains(offset)));
        for offset in &got {
            view.store(*offset as usize, 1);
        }
        // The cancelled blocks can be allocated, and no others exist.
        let mut rest = vec![0; COUNT - there];
        if !rest.is_empty() {
            let done = arena.alloc_bulk(96, LARGER, &mut rest).unwrap();
            assert_eq!(done, rest.len());
        }
        let all: BTreeSet<u64> = got.into_iter().chain(rest).collect();
        assert_eq!(all.len(), COUNT, "each is given out once");
        let stat = stat(&arena);
        assert_eq!((stat.live_blocks, stat.held_bytes), (COUNT as u64, held));
    }
}

fn an_offset_that_cannot_be_read_ends_the_release() {
    let page = system_page();
    let array = View::anonymous(2 * page);
    for there in [1, 64, 65] {
        let arena = arena();
        let at = page - 8 * there;
        let asked = request(64, &array, at, 100);
        assert_eq!(raw::alloc_bulk(&arena, asked).unwrap().done, 100);
        array.protect(page..2 * page, ProtFlags::PROT_NONE).unwrap();
        let answer = raw::free_bulk(&arena, release(&array, at, 100)).unwrap();
        assert_eq!(answer.done as usize, there);
        assert_eq!(stat(&arena).live_blocks as usize, 100 - there);
        let none = raw::free_bulk(&arena, release(&array, page, 10));
        assert_eq!(none.err(), Some(Errno::EFAULT));
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        array.protect(page..2 * page, both).unwrap();
    }
}

fn an_array_that_is_nowhere_is_efault() {
    let arena = arena();
    let array = View::anonymous(8);
    for at in [
        Address::NULL,
        Address::KERNEL,
        Address::LAST,
        array.address(array.len()),
    ] {
        let asked = freelist_bulk {
            offsets: at.get() as u64,
            ..request(64, &array, 0, 100)
        };
        assert_eq!(raw::alloc_bulk(&arena, asked).err(), Some(Errno::EFAULT));
        let asked = freelist_bulk {
            offsets: at.get() as u64,
            ..release(&array, 0, 100)
        };
        assert_eq!(raw::free_bulk(&arena, asked).err(), Some(Errno::EFAULT));
    }
    nothing_is_live(&arena);
}

/// Prior art: vulnerabilities state_changed_then_EFAULT.
fn an_answer_that_cannot_be_written_loses_nothing() {
    let arena = arena();
    let array = View::anonymous(8 * 10);
    let view = View::anonymous(size_of::<freelist_bulk>());
    let read_only = |request: freelist_bulk, call: u32| {
        view.set_bytes(0, &request.to_bytes());
        view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
        let result = ioctl_at(&arena, call, view.address(0));
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        view.protect(0..view.len(), both).unwrap();
        result
    };
    let result = read_only(request(64, &array, 0, 10), FREELIST_IOC_ALLOC_BULK);
    assert_eq!(result, Err(Errno::EFAULT));
    nothing_is_live(&arena);
    raw::alloc_bulk(&arena, request(64, &array, 0, 10)).unwrap();
    let result = read_only(release(&array, 0, 10), FREELIST_IOC_FREE_BULK);
    assert_eq!(result, Err(Errno::EFAULT));
    assert_eq!(stat(&arena).live_blocks, 10, "none was released unseen");
}

/// The copies fault in a page of the arena that the call is about to change.
fn an_array_in_a_block_of_the_arena_itself_is_served() {
    let arena = arena();
    let home = alloc(&arena, 2 * page());
    let view = View::shared(&arena, home.offset, home.bytes as usize);
    // Across two pages, of which the second is not mapped yet.
    let at = page() as usize - 8 * 10;
    let answer = raw::alloc_bulk(&arena, request(64, &view, at, 150)).unwrap();
    assert_eq!(answer.done, 150);
    let mut offsets = load(&view, at, 150);
    offsets.push(home.offset);
    store(&view, at, &offsets);
    let answer = raw::free_bulk(&arena, release(&view, at, 151)).unwrap();
    assert_eq!(answer.done, 151);
    nothing_is_live(&arena);
}

/// Prior art: kasan kmalloc_memmove_invalid_size; vulnerabilities size_arithmetic; hardened_malloc
/// calloc_overflow.
fn a_count_beyond_the_array_is_harmless() {
    let arena = arena();
    let array = View::anonymous(8);
    let at = array.len() - 8 * 10;
    let asked = request(64, &array, at, u32::MAX);
    assert_eq!(raw::alloc_bulk(&arena, asked).unwrap().done, 10);
    let asked = release(&array, at, u32::MAX);
    assert_eq!(raw::free_bulk(&arena, asked).unwrap().done, 10);
    nothing_is_live(&arena);
}

/// Prior art: vulnerabilities CVE-2016-6516.
fn arrays_and_requests_that_change_under_the_call_lose_nothing() {
    let arena = arena();
    let fixed = alloc(&arena, 64).offset;
    let array = View::anonymous(8 * 256);
    let view = View::anonymous(size_of::<freelist_bulk>());
    let count_at = std::mem::offset_of!(freelist_bulk, count);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut flip = 0;
            while !stop.load(Ordering::Relaxed) {
                // 1 or 201 elements; an offset that another thread's block has.
                flip ^= 200;
                view.store(count_at, 1 + flip);
                store(&array, 8 * 100, &[fixed + u64::from(flip)]);
            }
        });
        for _ in 0..scaled(100) {
            let before = stat(&arena).live_blocks;
            view.set_bytes(0, &request(64, &array, 0, 1).to_bytes());
            ioctl_at(&arena, FREELIST_IOC_ALLOC_BULK, view.address(0)).unwrap();
            let answer = freelist_bulk::from_bytes(&view.bytes(0, view.len()));
            let live = stat(&arena).live_blocks;
            assert_eq!(live - before, u64::from(answer.done), "{answer:?}");
            // Frees the offsets that are in the array by now.
            view.set_bytes(0, &release(&array, 0, 1).to_bytes());
            match ioctl_at(&arena, FREELIST_IOC_FREE_BULK, view.address(0)) {
                Ok(_) => {
                    let answer = freelist_bulk::from_bytes(&view.bytes(0, view.len()));
                    let left = stat(&arena).live_blocks;
                    assert_eq!(live - left, u64::from(answer.done), "{answer:?}");
                }
                Err(errno) => assert!(matches!(errno, Errno::ENOENT | Errno::EINVAL)),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
