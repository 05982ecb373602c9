// SPDX-License-Identifier: GPL-2.0

//! The process to which an arena belongs: that of each open, its children, and receivers of its descriptor.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use freelist::Arena;
use nix::errno::Errno;
use nix::sys::socket::{
    recvmsg, sendmsg, socketpair, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags,
    SockFlag, SockType,
};

use crate::harness::suite;
use crate::kit::process::spawn_child;
use crate::kit::{alloc, arena, free, page, refused, scaled, stat, thread, View, KIB, MIB};

suite!("freelist_arenas":
    every_open_is_an_arena_of_its_own,
    arenas_hold_different_bytes_at_the_same_offset,
    a_duplicate_is_the_same_arena,
    a_passed_descriptor_is_the_same_arena,
    opening_a_descriptor_of_proc_is_a_new_arena,
    a_child_keeps_the_arena_of_a_parent_that_closed_it,
    blocks_of_a_dead_child_stay_until_the_last_reference,
    many_arenas_come_and_go,
    closing_one_descriptor_leaves_the_others,
    another_device_node_opens_arenas_of_its_own,
    the_device_belongs_to_root_alone,
    a_descriptor_is_closed_by_exec,
);

fn every_open_is_an_arena_of_its_own() {
    let (one, two) = (arena(), arena());
    let block = alloc(&one, 64 * KIB);
    assert_eq!(stat(&one).live_blocks, 1);
    assert_eq!(stat(&two).live_blocks, 0);
    assert_eq!(stat(&two).held_bytes, 0);
    refused(two.free(block.offset), Errno::ENOENT);
    free(&one, block);
}

/// Prior art: snmalloc two_alloc_types.
fn arenas_hold_different_bytes_at_the_same_offset() {
    let arenas: Vec<Arena> = (0..4).map(|_| arena()).collect();
    let views: Vec<View> = arenas
        .iter()
        .map(|arena| {
            let block = alloc(arena, page());
            assert_eq!(block.offset, 0, "low offsets are used first");
            View::shared(arena, 0, page() as usize)
        })
        .collect();
    for (i, view) in views.iter().enumerate() {
        view.store(100, i as u8 + 1);
    }
    for (i, view) in views.iter().enumerate() {
        assert_eq!(view.load(100), i as u8 + 1);
    }
}

fn a_duplicate_is_the_same_arena() {
    let one = arena();
    let two = one.try_clone().unwrap();
    let block = alloc(&one, 64);
    assert_eq!(stat(&two).live_blocks, 1);
    free(&two, block);
    refused(one.free(block.offset), Errno::ENOENT);
    let block = alloc(&one, 64);
    drop(one);
    free(&two, block);
}

/// Returns a socket pair, whose ends are closed with it.
pub(super) fn sockets() -> (OwnedFd, OwnedFd) {
    let (family, kind) = (AddressFamily::Unix, SockType::Stream);
    socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

pub(super) fn send(socket: &OwnedFd, file: &impl AsFd) {
    let fds = [file.as_fd().as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    let bytes = [IoSlice::new(b"x")];
    let flags = MsgFlags::empty();
    sendmsg::<()>(socket.as_raw_fd(), &bytes, &message, flags, None).unwrap();
}

#[expect(unsafe_code, reason = "a descriptor comes as a number")]
fn receive(socket: &OwnedFd) -> Arena {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags).unwrap();
    let fd = got.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: recvmsg() made the descriptor just now, for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd.expect("a descriptor was sent")) };
    Arena::from_fd(fd)
}

fn a_passed_descriptor_is_the_same_arena() {
    let (here, there) = sockets();
    let mine = arena();
    let block = alloc(&mine, page());
    let view = View::shared(&mine, block.offset, page() as usize);
    view.store(0, 1);
    let child = spawn_child(|| {
        // The child has this arena by no other way.
        let passed = receive(&there);
        let view = View::shared(&passed, 0, page() as usize);
        let block = alloc(&passed, page());
        assert_eq!(block.offset, 0);
        view.store(7, 7);
        send(&there, &passed);
    });
    {
        let passed = arena();
        send(&here, &passed);
    }
    let back = receive(&here);
    child.succeed();
    let passed = View::shared(&back, 0, page() as usize);
    assert_eq!(passed.load(7), 7);
    back.free(0).unwrap();
    assert_eq!(stat(&back).allocs, 1);
    assert_eq!(view.load(0), 1, "the other arena is untouched");
    free(&mine, block);
}

fn opening_a_descriptor_of_proc_is_a_new_arena() {
    let one = arena();
    let block = alloc(&one, 64);
    let path = format!("/proc/self/fd/{}", one.as_fd().as_raw_fd());
    let two = Arena::open_path(path).unwrap();
    assert_eq!(stat(&two).live_blocks, 0);
    refused(two.free(block.offset), Errno::ENOENT);
    alloc(&two, 3 * MIB);
    assert_eq!(stat(&one).live_blocks, 1);
}

/// Prior art: snmalloc teardown.
fn a_child_keeps_the_arena_of_a_parent_that_closed_it() {
    let (here, there) = sockets();
    let shared = arena();
    let block = alloc(&shared, 64 * KIB);
    let child = spawn_child(|| {
        let mut byte = [0];
        nix::unistd::read(&there, &mut byte).unwrap();
        // The parent has closed it by now.
        let view = View::shared(&shared, block.offset, block.bytes as usize);
        view.store(5, 5);
        assert_eq!(view.load(5), 5);
        free(&shared, block);
        assert_eq!(stat(&shared).live_blocks, 0);
    });
    drop(shared);
    nix::unistd::write(&here, b"x").unwrap();
    child.succeed();
}

fn blocks_of_a_dead_child_stay_until_the_last_reference() {
    let shared = arena();
    spawn_child(|| {
        alloc(&shared, 64);
        alloc(&shared, 64 * KIB);
    })
    .succeed();
    let stat = stat(&shared);
    assert_eq!((stat.live_blocks, stat.allocs), (2, 2));
}

/// Prior art: ttm_pool ttm_pool_fini_basic.
fn many_arenas_come_and_go() {
    for _ in 0..scaled(10) {
        let arenas: Vec<Arena> = (0..16).map(|_| arena()).collect();
        for (i, arena) in arenas.iter().enumerate() {
            alloc(arena, 32 << (i % 12));
        }
        for (i, arena) in arenas.iter().enumerate() {
            let stat = stat(arena);
            assert_eq!((stat.live_blocks, stat.live_bytes), (1, 32 << (i % 12)));
        }
    }
}

/// Threads go on with the arena while descriptors of it are closed.
fn closing_one_descriptor_leaves_the_others() {
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            let own = arena.try_clone().unwrap();
            let memory = &memory;
            scope.spawn(move || {
                let mut ledger = crate::kit::Ledger::new(&own, memory);
                for i in 0..scaled(100) as u64 {
                    ledger.alloc(32 << (i % 9), crate::kit::DEFAULT).unwrap();
                    if i % 3 == 2 {
                        ledger.free(ledger.nth(0));
                    }
                }
                ledger.free_all();
            });
        }
        for _ in 0..scaled(50) {
            let other = arena.try_clone().unwrap();
            free(&other, alloc(&other, 64));
            drop(other);
        }
    });
    assert_eq!(stat(&arena).live_blocks, 0);
}

/// A node of the same device in another place, as in a container: nothing
/// depends on which one was opened.
fn another_device_node_opens_arenas_of_its_own() {
    use nix::sys::stat::{mknod, Mode, SFlag};
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(freelist::DEVICE).unwrap().rdev();
    let path = std::env::temp_dir().join(format!("freelist-node-{}", std::process::id()));
    mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number).unwrap();
    let arenas = [
        Arena::open_path(&path),
        Arena::open_path(&path),
        Arena::open(),
    ];
    fs::remove_file(&path).unwrap();
    let arenas = arenas.map(Result::unwrap);
    let views = arenas
        .each_ref()
        .map(|arena| View::shared(arena, 0, MIB as usize));
    for (i, (arena, view)) in arenas.iter().zip(&views).enumerate() {
        assert_eq!(alloc(arena, 4 * page()).offset, 0);
        view.store(0, i as u8 + 1);
    }
    // A page that is trimmed is unmapped in its own arena only.
    for (i, arena) in arenas.iter().enumerate() {
        arena.free(0).unwrap();
        assert_eq!(arena.trim(0).unwrap(), 4 * page());
        for (j, view) in views.iter().enumerate() {
            let expected = if j > i {
                Ok(j as u8 + 1)
            } else {
                Err(Errno::EFAULT)
            };
            assert_eq!(view.probe(0), expected, "arena {j} after {i}");
        }
    }
}

fn the_device_belongs_to_root_alone() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let device = fs::metadata(freelist::DEVICE).unwrap();
    assert!(device.file_type().is_char_device());
    assert_eq!(device.mode() & 0o777, 0o600);
    assert_eq!(device.uid(), 0);
}

fn a_descriptor_is_closed_by_exec() {
    let arena = arena();
    let fd = arena.as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    assert_ne!(flags & libc::O_CLOEXEC, 0, "what the client crate opens");
}
