// SPDX-License-Identifier: GPL-2.0

//! Mappings that the module allows, and those that it refuses.

use nix::errno::Errno;
use nix::fcntl::{fallocate, fcntl, FallocateFlags, FcntlArg, OFlag, SealFlag};
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::unistd::ftruncate;

use super::memory::huge;
use crate::harness::suite;
use crate::kit::process::{fork_child, signal_of};
use crate::kit::{alloc, arena, info, largest_folio, numbered_pages, page, raw, View, MIB};

suite!("freelist_mmap":
    the_whole_arena_is_mapped,
    a_mapping_is_aligned_to_a_huge_page,
    a_mapping_is_at_its_hint_if_nothing_is_mapped_there,
    a_full_address_space_is_enomem,
    a_mapping_that_ends_beyond_the_arena_is_refused,
    a_mapping_whose_offset_overflows_is_refused,
    a_private_mapping_is_refused,
    an_executable_mapping_is_refused,
    a_mapping_cannot_become_executable,
    a_read_only_arena_cannot_be_mapped_for_writing,
    a_write_only_arena_cannot_be_mapped,
    a_mapping_cannot_grow,
    a_mapping_cannot_be_duplicated_by_mremap,
    nothing_is_left_behind_by_mremap,
    a_mapping_can_shrink_and_move,
    the_file_has_no_size_no_holes_and_no_seals,
    populating_an_arena_with_holes_does_no_harm,
    a_mapping_is_shared_and_may_not_grow_or_be_executed,
    many_mappings_come_and_go,
);

const READ: ProtFlags = ProtFlags::PROT_READ;
const WRITE: ProtFlags = ProtFlags::PROT_WRITE;
const EXEC: ProtFlags = ProtFlags::PROT_EXEC;

fn both() -> ProtFlags {
    READ | WRITE
}

/// Prior art: binder_alloc binder_alloc_test_mmap.
fn the_whole_arena_is_mapped() {
    let arena = arena();
    let view = View::shared(&arena, 0, info().arena_bytes as usize);
    let block = alloc(&arena, 64);
    view.store(block.offset as usize, 7);
    assert_eq!(view.load(block.offset as usize), 7);
}

fn a_mapping_is_aligned_to_a_huge_page() {
    let huge = huge() as usize;
    let arena = arena();
    // An odd mapping before each, so that its alignment is not by chance.
    for len in [info().arena_bytes as usize, 64 << 20, 8 << 20] {
        let _odd = View::anonymous(page() as usize);
        let view = View::shared(&arena, 0, len);
        let base = view.address(0).get();
        assert_eq!(base % huge, 0, "base {base:#x} of {len} bytes");
    }
}

fn a_mapping_is_at_its_hint_if_nothing_is_mapped_there() {
    const LEN: usize = 8 << 20;
    let arena = arena();
    let first = View::shared(&arena, 0, 2 * LEN);
    let odd = first.address(3 * page() as usize);
    let near = |wish| View::map_near(wish, &arena, 0, LEN, both(), MapFlags::MAP_SHARED).unwrap();
    let other = near(odd);
    assert_ne!(other.address(0).get(), odd.get());
    assert_eq!(other.address(0).get() % largest_folio() as usize, 0);
    drop(first);
    assert_eq!(near(odd).address(0).get(), odd.get());
}

fn a_full_address_space_is_enomem() {
    let arena = arena();
    let len = info().arena_bytes as usize;
    let mut views = Vec::new();
    let errno = loop {
        match View::map(&arena, 0, len, both(), MapFlags::MAP_SHARED) {
            Ok(view) => views.push(view),
            Err(errno) => break errno,
        }
    };
    assert_eq!(errno, Errno::ENOMEM);
    // A shorter mapping fits, and the mapped part can be used.
    let small = View::shared(&arena, 0, page() as usize);
    let block = alloc(&arena, 64);
    views.push(small);
    for view in [&views[0], &views[views.len() - 1]] {
        view.store(block.offset as usize, 7);
        assert_eq!(view.load(block.offset as usize), 7);
    }
}

/// Prior art: vulnerabilities CVE-2018-8781, CVE-2024-42259.
fn a_mapping_that_ends_beyond_the_arena_is_refused() {
    let arena = arena();
    let end = info().arena_bytes;
    let page = page();
    for (offset, len) in [
        (0, end + page),
        (page, end),
        (end - page, 2 * page),
        (end, page),
        (end + page, page),
        (end / 2, end),
        (2 * end, page),
    ] {
        let result = View::map(&arena, offset, len as usize, both(), MapFlags::MAP_SHARED);
        assert_eq!(result.err(), Some(Errno::EINVAL), "{len:#x} at {offset:#x}");
    }
    View::shared(&arena, end - page, page as usize);
    let result = View::map(&arena, 0, 0, both(), MapFlags::MAP_SHARED);
    assert_eq!(result.err(), Some(Errno::EINVAL), "of no bytes");
}

/// Prior art: vulnerabilities CVE-2018-8781, CVE-2024-42259.
fn a_mapping_whose_offset_overflows_is_refused() {
    let arena = arena();
    let page = page();
    for (offset, pages) in [
        (u64::MAX - page + 1, 1),
        (u64::MAX - page + 1, 2),
        (u64::MAX - 4 * page + 1, 8),
        ((1 << 63) - page, 1),
        ((1 << 63) - page, 2),
        (1 << 63, 1),
        (1 << 62, 16),
    ] {
        let len = (pages * page) as usize;
        let result = View::map(&arena, offset, len, both(), MapFlags::MAP_SHARED);
        // The kernel refuses some before it calls the device.
        let errno = result.err();
        assert!(
            matches!(errno, Some(Errno::EINVAL | Errno::EOVERFLOW)),
            "{len:#x} at {offset:#x}: {errno:?}"
        );
    }
}

/// Prior art: vulnerabilities CVE-2024-39497; guard_regions map_private.
fn a_private_mapping_is_refused() {
    let arena = arena();
    alloc(&arena, 64);
    for prot in [READ, both(), ProtFlags::PROT_NONE] {
        let result = View::map(&arena, 0, page() as usize, prot, MapFlags::MAP_PRIVATE);
        assert_eq!(result.err(), Some(Errno::EINVAL), "{prot:?}");
    }
}

/// Prior art: mimalloc_security executable_heap.
fn an_executable_mapping_is_refused() {
    let arena = arena();
    for prot in [EXEC, READ | EXEC, both() | EXEC] {
        let errno = View::map(&arena, 0, page() as usize, prot, MapFlags::MAP_SHARED).err();
        assert!(
            matches!(errno, Some(Errno::EINVAL | Errno::EPERM | Errno::EACCES)),
            "{prot:?}: {errno:?}"
        );
    }
}

/// Prior art: mimalloc_security executable_heap.
fn a_mapping_cannot_become_executable() {
    let arena = arena();
    let view = View::shared(&arena, 0, page() as usize);
    for prot in [EXEC, READ | EXEC, both() | EXEC] {
        let result = view.protect(0..view.len(), prot);
        assert_eq!(result, Err(Errno::EACCES), "{prot:?}");
    }
    view.protect(0..view.len(), READ).unwrap();
    view.protect(0..view.len(), both()).unwrap();
}

/// Prior art: guard_regions readonly_file.
fn a_read_only_arena_cannot_be_mapped_for_writing() {
    let fd = raw::open_as(OFlag::O_RDONLY);
    let len = page() as usize;
    for prot in [WRITE, both()] {
        let result = View::map(&fd, 0, len, prot, MapFlags::MAP_SHARED);
        assert_eq!(result.err(), Some(Errno::EACCES));
    }
    let view = View::map(&fd, 0, len, READ, MapFlags::MAP_SHARED).unwrap();
    assert_eq!(view.protect(0..len, both()), Err(Errno::EACCES));
    // These offsets can never have a page.
    assert_eq!(view.probe(0), Err(Errno::EFAULT));
}

fn a_write_only_arena_cannot_be_mapped() {
    let fd = raw::open_as(OFlag::O_WRONLY);
    let result = View::map(&fd, 0, page() as usize, WRITE, MapFlags::MAP_SHARED);
    assert_eq!(result.err(), Some(Errno::EACCES));
}

/// Prior art: pfnmap mremap_expand; vulnerabilities CVE-2024-46852; guard_regions mremap_expand.
fn a_mapping_cannot_grow() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 8 * page as u64);
    let mut view = View::shared(&arena, block.offset, page);
    view.store(0, 1);
    for (len, flags) in [
        (2 * page, 0),
        (2 * page, libc::MREMAP_MAYMOVE),
        (info().arena_bytes as usize + page, libc::MREMAP_MAYMOVE),
    ] {
        let result = view.remap(page, len, flags);
        assert!(result.is_err(), "to {len:#x} bytes, flags {flags}");
    }
    assert_eq!(view.load(0), 1);
}

/// Prior art: mremap_dontunmap mremap_dontunmap_simple, mremap_dontunmap_simple_shmem.
fn a_mapping_cannot_be_duplicated_by_mremap() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, page as u64);
    let mut view = View::shared(&arena, block.offset, page);
    view.store(0, 1);
    let result = view.remap(0, page, libc::MREMAP_MAYMOVE);
    assert!(result.is_err(), "by an old size of 0");
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    assert!(view.remap(page, page, flags).is_err(), "by DONTUNMAP");
    assert_eq!(view.load(0), 1);
}

/// Moves all of a mapping and any part of it, to an address of the kernel's or of the caller's choice.
///
/// Prior art: mremap_dontunmap mremap_dontunmap_simple_fixed, mremap_dontunmap_partial_mapping,
/// mremap_dontunmap_partial_mapping_overwrite.
fn nothing_is_left_behind_by_mremap() {
    let page = page() as usize;
    let (arena, block, view) = numbered_pages(4);
    for range in [0..4 * page, 0..page, page..3 * page, 3 * page..4 * page] {
        for target in [None, Some(View::anonymous(4 * page))] {
            let errno = view.leave_behind(range.clone(), target);
            assert_eq!(errno, Errno::EINVAL, "{range:?}");
            for i in 0..4 {
                assert!(view.is_mapped(i * page), "page {i} after {range:?}");
                assert_eq!(view.load(i * page), i as u8 + 1);
            }
        }
    }
    // Its memory is released as usual: the kernel knows every mapping.
    arena.free(block.offset).unwrap();
    arena.trim(0).unwrap();
    for i in 0..4 {
        assert_eq!(view.probe(i * page), Err(Errno::EFAULT), "page {i}");
    }
}

/// Tries the operations of files in memory, beside their bytes.
///
/// Prior art: guard_regions truncation, hole_punch, memfd_write_seal.
fn the_file_has_no_size_no_holes_and_no_seals() {
    let arena = arena();
    let page = page();
    let block = alloc(&arena, 4 * page);
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    view.store(0, 1);
    for len in [0, page, 1 << 40] {
        let result = ftruncate(&arena, len as libc::off_t);
        assert_eq!(result, Err(Errno::EINVAL), "to {len:#x} bytes");
    }
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for flags in [
        FallocateFlags::empty(),
        FallocateFlags::FALLOC_FL_ZERO_RANGE,
        hole,
    ] {
        let result = fallocate(&arena, flags, 0, 2 * page as libc::off_t);
        assert!(
            matches!(result, Err(Errno::ENODEV | Errno::EOPNOTSUPP)),
            "{flags:?}: {result:?}"
        );
    }
    let seals = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK);
    assert_eq!(fcntl(&arena, seals), Err(Errno::EINVAL));
    assert_eq!(fcntl(&arena, FcntlArg::F_GET_SEALS), Err(Errno::EINVAL));
    assert_eq!(view.load(0), 1);
    view.store(block.bytes as usize - 1, 2);
    arena.free(block.offset).unwrap();
}

/// Prior art: pfnmap mremap_fixed, mremap_shrink; guard_regions mremap_shrink.
fn a_mapping_can_shrink_and_move() {
    let page = page() as usize;
    let (arena, block, mut view) = numbered_pages(8);
    view.remap(8 * page, 4 * page, 0).unwrap();
    for i in 0..4 {
        assert_eq!(view.load(i * page), i as u8 + 1);
    }
    // The pages that were cut off are still in the arena.
    let rest = View::shared(&arena, block.offset + 4 * page as u64, 4 * page);
    assert_eq!(rest.load(3 * page), 8);
    arena.free(block.offset).unwrap();
}

fn populating_an_arena_with_holes_does_no_harm() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
    let len = 4 * MIB as usize;
    let view = View::map(&arena, 0, len, both(), flags).unwrap();
    view.store(block.offset as usize, 3);
    assert_eq!(view.load(block.offset as usize), 3);
    assert_eq!(view.probe(len - 1), Err(Errno::EFAULT));
}

/// The flags of the mapping in smaps: shared (sh), without growth (de), never executable (me), in dumps by the filter (no dd).
///
/// Prior art: guard_regions smaps.
fn a_mapping_is_shared_and_may_not_grow_or_be_executed() {
    let arena = arena();
    let view = View::shared(&arena, 0, page() as usize);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let base = format!("{:x}-", view.address(0).get());
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&base));
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
    let flags: Vec<&str> = flags.expect("VmFlags").split_whitespace().collect();
    for flag in ["rd", "wr", "sh", "de"] {
        assert!(flags.contains(&flag), "{flag} in {flags:?}");
    }
    for flag in ["me", "ex", "dd"] {
        assert!(!flags.contains(&flag), "{flag} in {flags:?}");
    }
}

/// Prior art: test_vmalloc vm_map_ram_test; vulnerabilities CVE-2025-38563.
fn many_mappings_come_and_go() {
    let arena = arena();
    let page = page() as usize;
    let block = alloc(&arena, 16 * page as u64);
    let views: Vec<View> = (0..64)
        .map(|i| {
            let at = block.offset + (i % 16 * page) as u64;
            let view = View::shared(&arena, at, page);
            view.store(i, i as u8);
            view
        })
        .collect();
    let status = fork_child(|| views.iter().for_each(|view| view.touch(0)));
    assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)));
    let view = View::shared(&arena, block.offset, 16 * page);
    for i in 0..64 {
        assert_eq!(view.load(i % 16 * page + i), i as u8);
    }
    drop(views);
    arena.free(block.offset).unwrap();
    assert_eq!(signal_of(|| view.touch(0)), None, "still mapped");
}
