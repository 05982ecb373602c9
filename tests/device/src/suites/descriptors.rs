// SPDX-License-Identifier: GPL-2.0

//! Operations on files that a program may try on the file of an arena: calls for other kinds of files, flags
//! of mmap(), links in /proc, and passing it to other processes.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use freelist::debugfs::Stats;
use freelist::{Arena, Flags};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::ptrace;
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::signal::{kill, Signal};
use nix::sys::uio::{process_vm_writev, RemoteIoVec};
use nix::sys::wait::waitpid;
use nix::unistd::{pause, pipe};

use super::arenas::{send, sockets};
use crate::harness::suite;
use crate::kit::calls::{splice_from, write_from};
use crate::kit::files::{control, copy_range, send_file, splice, take_from, try_number};
use crate::kit::process::spawn_child;
use crate::kit::{
    alloc, arena, check, free, info, page, refused, stat, thread, touch_all, View, DEFAULT, MIB,
};

suite!("freelist_descriptors":
    an_open_by_map_files_is_another_arena,
    calls_of_other_files_change_nothing,
    leases_and_pipe_commands_are_refused_on_an_arena,
    the_limit_on_file_sizes_does_not_apply_to_an_arena,
    flags_of_other_mappings_are_refused_or_change_nothing,
    nothing_writes_through_a_read_only_mapping,
    a_write_to_a_pipe_does_not_reach_a_spliced_page,
    a_descriptor_that_another_process_takes_is_the_same_arena,
    an_arena_in_a_cycle_of_sockets_ends,
    the_number_of_a_copy_is_reserved_until_it_is_returned,
);

/// Returns the protection for reading and writing.
fn both() -> ProtFlags {
    ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
}

#[track_caller]
fn arenas() -> u64 {
    let stats = Stats::read().expect("debugfs is mounted");
    stats.get("arenas").expect("a line arenas")
}

/// The link leads to the mapping's file. If that were a file behind the device, a program that can read a mapping
/// could open it for writing.
///
/// Prior art: reports ashmem-CVE-2020-0009.
fn an_open_by_map_files_is_another_arena() {
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let len = block.bytes as usize;
    let view = View::map(&arena, 0, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED).unwrap();
    View::shared(&arena, 0, len).store(0, 1);
    let start = view.address(0).get();
    let link = format!("/proc/self/map_files/{start:x}-{:x}", start + len);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(link)
        .unwrap();
    let other = Arena::from_fd(file.into());
    assert_eq!(stat(&other).live_blocks, 0);
    refused(other.free(block.offset), Errno::ENOENT);
    let block = alloc(&other, 4 * page());
    let theirs = View::shared(&other, block.offset, len);
    assert_eq!(theirs.load(0), 0);
    theirs.store(0, 2);
    assert_eq!(view.load(0), 1);
    assert_eq!(
        view.protect(0..len, both()),
        Ok(()),
        "it was opened for both"
    );
}

/// Each call fails with an errno, or does nothing.
///
/// Prior art: reports ashmem-cb57469c9573.
fn calls_of_other_files_change_nothing() {
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let view = View::shared(&arena, 0, block.bytes as usize);
    view.store(0, 7);
    let before = stat(&arena);
    let mut file = File::from(arena.as_fd().try_clone_to_owned().unwrap());
    for from in [
        SeekFrom::Start(1 << 40),
        SeekFrom::End(-1),
        SeekFrom::Current(-5),
    ] {
        // There is no position: it stays 0, or it is refused.
        let sought = file.seek(from);
        assert!(
            sought.is_err() || sought.as_ref().is_ok_and(|at| *at == 0),
            "{sought:?}"
        );
    }
    let (read, write) = pipe().unwrap();
    let other = File::open("/proc/self/exe").unwrap();
    let mut bytes = [0; 8];
    for (call, failed) in [
        ("pread", file.read_at(&mut bytes, 0).is_err()),
        ("pwrite", file.write_at(&bytes, 0).is_err()),
        ("fsync", file.sync_all().is_err()),
        ("sendfile from", send_file(&write, &arena, 8).is_err()),
        ("sendfile to", send_file(&arena, &other, 8).is_err()),
        ("splice from", splice(&arena, &write, 8).is_err()),
        (
            "copy_file_range from",
            copy_range(&arena, &file, 8).is_err(),
        ),
        ("copy_file_range to", copy_range(&other, &arena, 8).is_err()),
    ] {
        assert!(failed, "{call}");
    }
    nix::unistd::write(&write, b"bytes").unwrap();
    assert!(splice(&read, &arena, 5).is_err(), "splice to");
    assert_eq!(view.load(0), 7);
    assert_eq!(stat(&arena), before);
}

/// Tries the fcntl() commands of regular files and pipes.
fn leases_and_pipe_commands_are_refused_on_an_arena() {
    let arena = arena();
    let block = alloc(&arena, page());
    for (command, number) in [
        (libc::F_SETLEASE, libc::F_RDLCK),
        (libc::F_SETLEASE, libc::F_WRLCK),
        (libc::F_SETPIPE_SZ, 1 << 20),
        // DN_MODIFY of linux/fcntl.h.
        (libc::F_NOTIFY, 2),
    ] {
        let result = control(&arena, command, number);
        assert!(result.is_err(), "{command} {number}: {result:?}");
    }
    // It is a device file, and can be locked and asked to send signals like any other.
    assert_eq!(
        control(&arena, libc::F_SETOWN, std::process::id() as i32),
        Ok(0)
    );
    assert!(control(&arena, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK).is_ok());
    free(&arena, block);
    drop(arena);
    check();
}

/// RLIMIT_FSIZE of 0: the program may write to no file.
fn the_limit_on_file_sizes_does_not_apply_to_an_arena() {
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0).unwrap();
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    let block = alloc(&arena, 3 * MIB);
    touch_all(&view, block.offset, block.bytes);
    let lazy = arena.alloc(3 * MIB, DEFAULT | Flags::LAZY).unwrap();
    touch_all(&view, lazy.offset, lazy.bytes);
    arena.resize(lazy.offset, 5 * MIB, DEFAULT).unwrap();
    touch_all(&view, lazy.offset, 5 * MIB);
    arena.discard(lazy.offset, 5 * MIB).unwrap();
    touch_all(&view, lazy.offset, 5 * MIB);
    let copy = arena.copy().unwrap();
    assert_eq!(stat(&copy).live_bytes, 8 * MIB);
    arena.free_bulk(&[block.offset, lazy.offset]).unwrap();
    check();
}

/// Tries the mmap() flags for other files, stacks and other huge pages.
fn flags_of_other_mappings_are_refused_or_change_nothing() {
    const SHARED_VALIDATE: i32 = 3;
    let arena = arena();
    let block = alloc(&arena, 4 * page());
    let len = info().arena_bytes as usize;
    let whole = View::shared(&arena, 0, len);
    let map = |flags: i32| {
        let flags = MapFlags::from_bits_retain(flags);
        View::map(&arena, 0, len, both(), flags)
    };
    for (name, flags) in [
        ("SYNC", SHARED_VALIDATE | libc::MAP_SYNC),
        ("HUGETLB", libc::MAP_SHARED | libc::MAP_HUGETLB),
        ("GROWSDOWN", libc::MAP_SHARED | libc::MAP_GROWSDOWN),
        ("an unknown bit", SHARED_VALIDATE | (1 << 24)),
        ("DROPPABLE", 8),
        ("no kind", 0),
    ] {
        let result = map(flags);
        assert!(result.is_err(), "{name}: {result:?}");
    }
    for (name, flags) in [
        ("VALIDATE", SHARED_VALIDATE),
        ("NORESERVE", libc::MAP_SHARED | libc::MAP_NORESERVE),
        ("STACK", libc::MAP_SHARED | libc::MAP_STACK),
        ("LOCKED", libc::MAP_SHARED | libc::MAP_LOCKED),
        (
            "NONBLOCK",
            libc::MAP_SHARED | libc::MAP_POPULATE | libc::MAP_NONBLOCK,
        ),
        ("DENYWRITE", libc::MAP_SHARED | libc::MAP_DENYWRITE),
    ] {
        let view = map(flags).unwrap_or_else(|errno| panic!("{name}: {errno}"));
        view.store(block.offset as usize, flags as u8);
        assert_eq!(whole.load(block.offset as usize), flags as u8, "{name}");
        assert_eq!(view.probe(len - 1), Err(Errno::EFAULT), "{name}");
        assert_eq!(stat(&arena).held_bytes, 4 * page(), "{name}");
    }
}

/// The kernel may write to memory that a program may only read if it breaks a copy on write. A shared mapping
/// has no such copies.
///
/// Prior art: reports dirty_cow-CVE-2016-5195, shmem-CVE-2022-2590, mali-CVE-2022-22706.
fn nothing_writes_through_a_read_only_mapping() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let len = block.bytes as usize;
    let writable = View::shared(&arena, 0, len);
    writable.set_bytes(0, b"mine");
    let view = View::map(&arena, 0, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED).unwrap();
    assert_eq!(view.load(0), b'm');
    let base = view.address(0).get();
    let child = spawn_child(|| loop {
        pause();
    });
    let path = format!("/proc/{}/mem", child.pid());
    let memory = File::options().read(true).write(true).open(path).unwrap();
    for round in 0..20 {
        // An advice that clears page tables in between, as exploits do.
        let _ = view.advise_raw(0..len, libc::MADV_DONTNEED);
        let written = memory.write_at(b"evil", base as u64);
        assert!(written.is_err(), "round {round}: {written:?}");
        let there = [RemoteIoVec { base, len: 4 }];
        let written = process_vm_writev(child.pid(), &[IoSlice::new(b"evil")], &there);
        assert_eq!(written, Err(Errno::EFAULT), "round {round}");
    }
    ptrace::attach(child.pid()).unwrap();
    waitpid(child.pid(), None).unwrap();
    let poked = ptrace::write(child.pid(), base as ptrace::AddressType, 0);
    assert!(poked.is_err(), "{poked:?}");
    ptrace::detach(child.pid(), None).unwrap();
    kill(child.pid(), Signal::SIGKILL).unwrap();
    child.wait();
    let (read, write) = pipe().unwrap();
    nix::unistd::write(&write, b"evil").unwrap();
    let result = crate::kit::calls::read_to(&read, view.address(0), 4);
    assert_eq!(result, Err(Errno::EFAULT));
    assert_eq!(writable.bytes(0, 4), b"mine");
}

/// A pipe appends to its last page if that page is its own.
///
/// Prior art: reports dirty_pipe-CVE-2022-0847.
fn a_write_to_a_pipe_does_not_reach_a_spliced_page() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let view = View::shared(&arena, 0, block.bytes as usize);
    view.set_bytes(0, b"minemine");
    let (read, write) = pipe().unwrap();
    // Each buffer of the pipe has had a page of its own before.
    for _ in 0..32 {
        nix::unistd::write(&write, &[1; 64]).unwrap();
        nix::unistd::read(&read, &mut [0; 64]).unwrap();
    }
    assert_eq!(splice_from(&write, view.address(0), 4), Ok(4));
    nix::unistd::write(&write, b"evil").unwrap();
    assert_eq!(view.bytes(0, 8), b"minemine");
    let mut bytes = [0; 8];
    assert_eq!(nix::unistd::read(&read, &mut bytes), Ok(8));
    assert_eq!(&bytes, b"mineevil");
    // The same after its block was freed.
    assert_eq!(write_from(&write, view.address(0), 4), Ok(4));
    free(&arena, block);
    nix::unistd::write(&write, b"evil").unwrap();
    assert_eq!(view.bytes(0, 8), b"minemine");
}

fn a_descriptor_that_another_process_takes_is_the_same_arena() {
    let (read, write) = pipe().unwrap();
    let child = spawn_child(|| {
        let arena = arena();
        let block = alloc(&arena, page());
        View::shared(&arena, block.offset, page() as usize).store(0, 5);
        let fd = arena.as_fd().as_raw_fd().to_ne_bytes();
        nix::unistd::write(&write, &fd).unwrap();
        loop {
            pause();
        }
    });
    let mut fd = [0; 4];
    nix::unistd::read(&read, &mut fd).unwrap();
    let taken = take_from(child.pid(), i32::from_ne_bytes(fd)).unwrap();
    let taken = Arena::from_fd(taken);
    assert_eq!(stat(&taken).live_blocks, 1);
    kill(child.pid(), Signal::SIGKILL).unwrap();
    child.wait();
    assert_eq!(View::shared(&taken, 0, page() as usize).load(0), 5);
    taken.free(0).unwrap();
    assert_eq!(stat(&taken).live_blocks, 0);
}

/// Only the kernel's garbage collector of sockets can release the arena then.
///
/// Prior art: reports unix_gc-CVE-2021-0920.
fn an_arena_in_a_cycle_of_sockets_ends() {
    let before = arenas();
    for _ in 0..4 {
        let (here, there) = sockets();
        let arena = arena();
        alloc(&arena, MIB);
        let view = View::shared(&arena, 0, page() as usize);
        send(&here, &there);
        send(&here, &arena);
        send(&there, &here);
        send(&there, &arena);
        view.store(0, 1);
    }
    let start = Instant::now();
    while arenas() > before {
        // A socket that is closed may set the collection off.
        drop(sockets());
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{} stay",
            arenas()
        );
        thread::sleep(Duration::from_millis(5));
    }
    check();
}

/// A program that guesses the number can neither use what is not complete, nor put another file there,
/// to be taken for the copy or closed with it.
///
/// Prior art: reports vmwgfx-CVE-2022-22942, udmabuf-f49856f525ac, vfio-e98137f0a874.
fn the_number_of_a_copy_is_reserved_until_it_is_returned() {
    let source = arena();
    let view = View::shared(&source, 0, 64 * MIB as usize);
    let block = alloc(&source, 48 * MIB);
    touch_all(&view, block.offset, block.bytes);
    let (read, _write) = pipe().unwrap();
    let (mut reserved, mut copies) = (0, 0);
    while reserved < 2 && copies < 20 {
        copies += 1;
        // The lowest that is free.
        let guess = read.try_clone().unwrap().as_raw_fd();
        let copy = thread::scope(|scope| {
            let copy = scope.spawn(|| source.copy().unwrap());
            while !copy.is_finished() {
                match try_number(&read, guess) {
                    // From now on the number is reserved for the copy, and has no file until that is complete.
                    Err(Errno::EBUSY) => {
                        reserved += 1;
                        break;
                    }
                    Err(Errno::EEXIST) => break,
                    result => assert_eq!(result, Ok(())),
                }
            }
            copy.join().unwrap()
        });
        assert_eq!(stat(&copy).live_blocks, 1);
        free(&copy, block);
    }
    assert!(
        reserved > 0,
        "the number was not seen while it was reserved"
    );
    check();
}
