// SPDX-License-Identifier: GPL-2.0

//! The bytes that a mapping of an arena shows: of live blocks, of free pages, in every process.

use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use nix::sys::signal::Signal;
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::unistd::Pid;

use crate::harness::suite;
use crate::kit::calls::write_from;
use crate::kit::pages::frames;
use crate::kit::process::{signal_of, spawn_child};
use crate::kit::{alloc, arena, free, info, page, refused, stat, View, DEFAULT, KIB, LARGER, MIB};

suite!("freelist_mapping":
    an_offset_without_a_page_is_sigbus,
    a_free_page_shows_zeros_or_the_arenas_own_bytes,
    a_page_with_a_live_block_is_mapped,
    new_pages_read_as_zero,
    other_arenas_bytes_are_never_seen,
    all_mappings_of_an_arena_show_the_same_bytes,
    a_part_of_the_arena_shows_its_bytes,
    a_freed_blocks_page_stays_mapped_where_it_was,
    contents_outlive_the_mapping,
    the_mapping_outlives_the_descriptor,
    a_forked_child_shares_the_blocks,
    a_child_without_the_mapping_does_not_have_it,
    a_page_that_was_read_first_is_the_one_that_is_written,
    system_calls_read_and_write_blocks,
    other_processes_tools_read_the_blocks,
    every_byte_of_a_block_is_memory,
);

/// Prior art: kfence test_out_of_bounds_read, test_out_of_bounds_write, test_kmalloc_aligned_oob_read,
/// test_kmalloc_aligned_oob_write, test_invalid_access; kasan kmalloc_big_oob_right,
/// kmalloc_large_oob_right, page_alloc_oob_right, mempool_kmalloc_large_oob_right; vulnerabilities
/// CVE-2023-2008; hardened_malloc overflow_large_1_byte, overflow_large_8_byte; mimalloc_security
/// one_mbyte_overflow, one_mbyte_memcpy_overflow; scudo secondary.VerifyGuardPageOption.
fn an_offset_without_a_page_is_sigbus() {
    let arena = arena();
    let view = View::shared(&arena, 0, info().arena_bytes as usize);
    let last = view.len() - 1;
    for at in [0, MIB as usize, view.len() / 2, last] {
        assert_eq!(view.probe(at), Err(Errno::EFAULT));
        let signal = signal_of(|| view.touch(at));
        assert_eq!(signal, Some(Signal::SIGBUS), "reading {at:#x}");
        let signal = signal_of(|| view.store(at, 1));
        assert_eq!(signal, Some(Signal::SIGBUS), "writing {at:#x}");
    }
    // Next to a block, too: the bytes after its last page.
    let block = alloc(&arena, 3 * page());
    let end = (block.offset + block.bytes) as usize;
    view.store(end - 1, 1);
    assert_eq!(view.probe(end), Err(Errno::EFAULT));
    free(&arena, block);
}

/// Free memory may be mapped with its neighbours: a huge page is mapped as a whole.
fn a_free_page_shows_zeros_or_the_arenas_own_bytes() {
    let arena = arena();
    for size in [64, page(), 64 * KIB] {
        let block = alloc(&arena, size);
        let view = View::shared(&arena, 0, MIB as usize);
        let at = block.offset as usize;
        free(&arena, block);
        assert_eq!(view.load(at), 0, "of {size} bytes, never touched");
        view.store(at, 0x77);
        assert_eq!(View::shared(&arena, 0, MIB as usize).load(at), 0x77);
        // Once it is trimmed there is no memory.
        arena.trim(0).unwrap();
        let signal = signal_of(|| view.touch(at));
        assert_eq!(signal, Some(Signal::SIGBUS), "of {size} bytes");
        // The next memory there is new.
        let again = alloc(&arena, size);
        assert_eq!(again.offset, block.offset, "low offsets are used first");
        assert_eq!(view.load(at), 0);
        free(&arena, again);
        arena.trim(0).unwrap();
    }
}

fn a_page_with_a_live_block_is_mapped() {
    let arena = arena();
    let small: Vec<_> = (0..4).map(|_| alloc(&arena, page() / 4)).collect();
    let view = View::shared(&arena, 0, MIB as usize);
    let start = small.iter().map(|block| block.offset).min().unwrap();
    assert_eq!(start % page(), 0);
    for block in &small[1..] {
        free(&arena, *block);
    }
    // The live block's page counts once, with any other blocks in it.
    for at in [0, page() / 2, page() - 1] {
        let at = small[0].offset / page() * page() + at;
        view.store(at as usize, 1);
        assert_eq!(view.load(at as usize), 1);
    }
    free(&arena, small[0]);
}

/// Prior art: hardened_malloc uninitialized_read_small, uninitialized_read_large.
fn new_pages_read_as_zero() {
    let arena = arena();
    for size in [32, page(), 7 * page(), 256 * KIB] {
        let block = alloc(&arena, size);
        let start = block.offset / page() * page();
        let len = (block.offset + block.bytes).next_multiple_of(page()) - start;
        let view = View::shared(&arena, start, len as usize);
        let bytes = view.bytes(0, view.len());
        assert!(bytes.iter().all(|byte| *byte == 0), "of {size} bytes");
    }
}

/// Prior art: kfence test_init_on_free; vulnerabilities CVE-2024-0582.
fn other_arenas_bytes_are_never_seen() {
    let len = 2 * MIB;
    for _ in 0..3 {
        let secret = arena();
        let block = alloc(&secret, len);
        let view = View::shared(&secret, block.offset, len as usize);
        for at in (0..len as usize).step_by(64) {
            view.store(at, 0xa5);
        }
        drop(view);
        drop(secret);

        let other = arena();
        let block = alloc(&other, len);
        let view = View::shared(&other, block.offset, len as usize);
        for at in (0..len as usize).step_by(64) {
            assert_eq!(view.load(at), 0, "byte {at:#x} of a new page");
        }
    }
}

fn all_mappings_of_an_arena_show_the_same_bytes() {
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let views: Vec<View> = (0..3)
        .map(|_| View::shared(&arena, block.offset, block.bytes as usize))
        .collect();
    for at in [0, page() as usize, block.bytes as usize - 1] {
        for (i, view) in views.iter().enumerate() {
            view.store(at, i as u8 + 1);
            for other in &views {
                assert_eq!(other.load(at), i as u8 + 1);
            }
        }
    }
    let prot = ProtFlags::PROT_READ;
    let len = block.bytes as usize;
    let reader = View::map(&arena, block.offset, len, prot, MapFlags::MAP_SHARED).unwrap();
    assert_eq!(reader.load(0), 3);
    let signal = signal_of(|| reader.store(0, 9));
    assert_eq!(signal, Some(Signal::SIGSEGV));
    assert_eq!(views[0].load(0), 3);
}

fn a_part_of_the_arena_shows_its_bytes() {
    let arena = arena();
    let block = alloc(&arena, 16 * page());
    let whole = View::shared(&arena, 0, 64 * MIB as usize);
    for i in 0..16 {
        let at = block.offset + i * page();
        whole.store(at as usize, i as u8 + 1);
        let part = View::shared(&arena, at, page() as usize);
        assert_eq!(part.load(0), i as u8 + 1);
    }
    free(&arena, block);
}

/// A program that uses a freed block harms itself alone: it gets no signal, and never reaches a page of another
/// arena.
///
/// Prior art: kasan kmalloc_large_uaf, page_alloc_uaf, mempool_kmalloc_large_uaf,
/// mempool_page_alloc_uaf; vulnerabilities CVE-2024-0582; hardened_malloc read_after_free_small.
fn a_freed_blocks_page_stays_mapped_where_it_was() {
    let arena = arena();
    for size in [64, page(), 64 * KIB] {
        let block = alloc(&arena, size);
        let start = block.offset / page() * page();
        let view = View::shared(&arena, start, block.bytes.next_multiple_of(page()) as usize);
        view.store(0, 0x77);
        free(&arena, block);
        assert_eq!(signal_of(|| view.touch(0)), None, "of {size} bytes");
        assert_eq!(view.load(0), 0x77);
        view.store(0, 0x78);
        let again = arena.alloc(size, LARGER).unwrap();
        assert_eq!(again, block, "low offsets are used first");
        assert_eq!(view.load(0), 0x78, "this arena's own bytes");
        free(&arena, again);
    }
}

fn contents_outlive_the_mapping() {
    let arena = arena();
    let block = alloc(&arena, 3 * page());
    let len = block.bytes as usize;
    for round in 1..5u8 {
        let view = View::shared(&arena, block.offset, len);
        for at in [0, len / 2, len - 1] {
            assert_eq!(view.load(at), round - 1);
            view.store(at, round);
        }
    }
    free(&arena, block);
}

fn the_mapping_outlives_the_descriptor() {
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    view.store(0, 1);
    drop(arena);
    // Also pages that were not touched before.
    for at in (0..view.len()).step_by(page() as usize) {
        view.store(at + 1, 2);
    }
    assert_eq!((view.load(0), view.load(1)), (1, 2));
}

/// Prior art: guard_regions fork, fork_cow; pfnmap fork; scudo wrappers_c.Fork.
fn a_forked_child_shares_the_blocks() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let other = alloc(&arena, 2 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    view.store(0, 1);
    spawn_child(|| {
        assert_eq!(view.load(0), 1, "written before the fork");
        view.store(1, 2);
        // A page that the parent has not touched.
        view.store(page() as usize, 3);
        // The arena is the same one.
        arena.alloc(100, DEFAULT).unwrap();
        arena.free(other.offset).unwrap();
    })
    .succeed();
    assert_eq!(view.load(1), 2);
    assert_eq!(view.load(page() as usize), 3);
    assert_eq!(stat(&arena).live_blocks, 2, "the child's is live");
    refused(arena.free(other.offset), Errno::ENOENT);
    free(&arena, block);
}

/// Prior art: guard_regions fork.
fn a_child_without_the_mapping_does_not_have_it() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, block.offset, page() as usize);
    view.store(0, 1);
    view.advise(0..view.len(), MmapAdvise::MADV_DONTFORK)
        .unwrap();
    let signal = signal_of(|| view.touch(0));
    assert_eq!(signal, Some(Signal::SIGSEGV));
    assert_eq!(view.load(0), 1, "the parent has it still");
}

/// The first access is a read: no zero page that all processes share may be mapped for it.
///
/// Prior art: guard_regions anon_zeropage.
fn a_page_that_was_read_first_is_the_one_that_is_written() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 4 * page as u64);
    let views = [0, 1].map(|_| View::shared(&arena, block.offset, 4 * page));
    for at in (0..4 * page).step_by(page) {
        assert_eq!((views[0].load(at), views[1].load(at)), (0, 0));
        let before = frames(&views[0], at, 1);
        assert_eq!(before, frames(&views[1], at, 1), "one page for both");
        views[0].store(at, 7);
        assert_eq!(views[1].load(at), 7);
        assert_eq!(before, frames(&views[0], at, 1), "the page that was read");
    }
    free(&arena, block);
}

fn system_calls_read_and_write_blocks() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    view.set_bytes(page() as usize - 3, b"across");
    // Out of a block, into a file ...
    let path = std::env::temp_dir().join(format!("freelist-{}", std::process::id()));
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let from = view.address(page() as usize - 3);
    assert_eq!(write_from(&file, from, 6), Ok(6));
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "across");
    // ... and a pipe.
    assert_eq!(view.probe(page() as usize), Ok(b'o'));
    // If there is no page, the call fails and the process lives.
    let absent = View::shared(&arena, 32 * MIB, page() as usize);
    assert_eq!(write_from(&file, absent.address(0), 6), Err(Errno::EFAULT));
    free(&arena, block);
}

fn other_processes_tools_read_the_blocks() {
    let arena = arena();
    let block = alloc(&arena, page());
    let view = View::shared(&arena, block.offset, page() as usize);
    view.set_bytes(0, b"seen");
    let mut bytes = [0; 4];
    let remote = RemoteIoVec {
        base: view.address(0).get(),
        len: bytes.len(),
    };
    let own = Pid::this();
    process_vm_readv(own, &mut [IoSliceMut::new(&mut bytes)], &[remote]).unwrap();
    assert_eq!(&bytes, b"seen");

    let mut memory = File::open("/proc/self/mem").unwrap();
    memory
        .seek(SeekFrom::Start(view.address(0).get() as u64))
        .unwrap();
    let mut bytes = [0; 4];
    memory.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"seen");
    free(&arena, block);
}

fn every_byte_of_a_block_is_memory() {
    let arena = arena();
    for size in [32, 64, 2 * KIB, 4 * KIB, 3 * page() - 1] {
        let block = alloc(&arena, size);
        let start = block.offset / page() * page();
        let into = (block.offset - start) as usize;
        let len = (into as u64 + block.bytes).next_multiple_of(page());
        let view = View::shared(&arena, start, len as usize);
        let bytes: Vec<u8> = (0..block.bytes)
            .map(|at| (at * 7 + at / 256) as u8)
            .collect();
        view.set_bytes(into, &bytes);
        assert_eq!(view.bytes(into, bytes.len()), bytes);
        free(&arena, block);
    }
}
