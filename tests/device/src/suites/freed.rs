// SPDX-License-Identifier: GPL-2.0

//! The page of a freed block stays mapped until it is reclaimed, and all that works on mapped pages may
//! work on it: pipes, other processes, debuggers, direct I/O, pins. None of it is an error of the
//! kernel's, so a kernel that looks for errors (KASAN, page poisoning) has nothing to report.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;

use freelist::Arena;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{kill, Signal};
use nix::sys::uio::{process_vm_readv, process_vm_writev, RemoteIoVec};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{pause, pipe, read, Pid};

use crate::harness::{skip, suite};
use crate::kit::calls::{read_to, splice_from, write_from};
use crate::kit::process::{spawn_child, Child};
use crate::kit::uring::Pinned;
use crate::kit::{alloc, arena, free, page, stat, View, KIB};

suite!("freelist_freed":
    a_pipe_reads_the_page_of_a_freed_block,
    another_process_reads_and_writes_the_page_of_a_freed_block,
    a_debugger_reads_and_writes_the_page_of_a_freed_block,
    direct_io_reads_and_writes_the_page_of_a_freed_block,
    a_pin_reads_and_writes_the_page_of_a_freed_block,
    a_write_through_a_pin_to_a_removed_page_shows_nowhere,
);

/// A subpage, a page, and several pages, in bytes.
const SIZES: [u64; 3] = [64, 4 * KIB, 64 * KIB];

/// Returns the mapped pages of a block that begins with `mine`, and that is freed after `meanwhile`.
fn freed<T>(size: u64, meanwhile: impl FnOnce(&View) -> T) -> (Arena, View, T) {
    let arena = arena();
    let block = alloc(&arena, size);
    let len = block.bytes.next_multiple_of(page()) as usize;
    let view = View::shared(&arena, block.offset / page() * page(), len);
    assert_eq!(block.offset, 0, "low offsets are used first");
    view.set_bytes(0, b"mine");
    let result = meanwhile(&view);
    free(&arena, block);
    let stat = stat(&arena);
    assert_eq!((stat.live_bytes, stat.free_bytes), (0, len as u64));
    (arena, view, result)
}

/// Returns the first bytes that a pipe, or another file, has.
fn got(from: &impl std::os::fd::AsFd) -> [u8; 4] {
    let mut bytes = [0; 4];
    assert_eq!(read(from, &mut bytes), Ok(4));
    bytes
}

fn a_pipe_reads_the_page_of_a_freed_block() {
    for size in SIZES {
        let (_arena, view, ()) = freed(size, |_| ());
        let (read, write) = pipe().unwrap();
        // A copy, then the page itself.
        assert_eq!(write_from(&write, view.address(0), 4), Ok(4));
        assert_eq!(splice_from(&write, view.address(0), 4), Ok(4));
        view.set_bytes(0, b"next");
        assert_eq!(&got(&read), b"mine", "of {size} bytes");
        assert_eq!(&got(&read), b"next", "of {size} bytes");
    }
}

/// A forked child that has the view too, and does nothing, until it goes.
struct Other(Option<Child>);

impl Other {
    fn new(view: &View) -> Self {
        let touch = || {
            view.touch(0);
            loop {
                pause();
            }
        };
        Self(Some(spawn_child(touch)))
    }

    fn pid(&self) -> Pid {
        self.0.as_ref().expect("until it goes").pid()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let killed = kill(self.pid(), Signal::SIGKILL);
        if !thread::panicking() {
            killed.expect("the child is there");
            self.0.take().map(Child::wait);
        }
    }
}

fn another_process_reads_and_writes_the_page_of_a_freed_block() {
    for size in SIZES {
        let (_arena, view, other) = freed(size, Other::new);
        let base = view.address(0).get();
        let there = [RemoteIoVec { base, len: 4 }];
        let mut bytes = [0; 4];
        let result = process_vm_readv(other.pid(), &mut [IoSliceMut::new(&mut bytes)], &there);
        assert_eq!((result, &bytes), (Ok(4), b"mine"), "of {size} bytes");
        let result = process_vm_writev(other.pid(), &[IoSlice::new(b"next")], &there);
        assert_eq!((result, view.bytes(0, 4)), (Ok(4), b"next".to_vec()));

        let path = format!("/proc/{}/mem", other.pid());
        let memory = File::options().read(true).write(true).open(path).unwrap();
        memory.read_exact_at(&mut bytes, base as u64).unwrap();
        assert_eq!(&bytes, b"next", "of {size} bytes");
        memory.write_all_at(b"last", base as u64).unwrap();
        assert_eq!(view.bytes(0, 4), b"last", "of {size} bytes");
    }
}

fn a_debugger_reads_and_writes_the_page_of_a_freed_block() {
    for size in SIZES {
        let (_arena, view, other) = freed(size, Other::new);
        let word = view.address(0).get() as ptrace::AddressType;
        ptrace::attach(other.pid()).unwrap();
        let stopped = WaitStatus::Stopped(other.pid(), Signal::SIGSTOP);
        assert_eq!(waitpid(other.pid(), None), Ok(stopped));
        let seen = ptrace::read(other.pid(), word).unwrap().to_ne_bytes();
        assert_eq!(&seen[..4], b"mine", "of {size} bytes");
        let next = i64::from_ne_bytes(*b"nextword");
        ptrace::write(other.pid(), word, next).unwrap();
        assert_eq!(view.bytes(0, 8), b"nextword", "of {size} bytes");
        ptrace::detach(other.pid(), None).unwrap();
    }
}

/// The device that has its data in memory, in kernels for tests.
const DISK: &str = "/dev/ram0";

fn direct_io_reads_and_writes_the_page_of_a_freed_block() {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let Ok(mut disk) = options.open(DISK) else {
        skip("this kernel has no disk in memory (brd)");
    };
    for size in SIZES {
        let (_arena, view, ()) = freed(size, |_| ());
        disk.rewind().unwrap();
        assert_eq!(
            write_from(&disk, view.address(0), view.len()),
            Ok(view.len())
        );
        for at in (0..view.len()).step_by(512) {
            view.set_bytes(at, b"next");
        }
        disk.rewind().unwrap();
        assert_eq!(read_to(&disk, view.address(0), view.len()), Ok(view.len()));
        assert_eq!(view.bytes(0, 4), b"mine", "of {size} bytes");
        for at in (512..view.len()).step_by(512) {
            assert_eq!(view.bytes(at, 4), [0; 4], "byte {at} of {size}");
        }
    }
}

/// Pins all of a view, for the kernel's own use.
#[track_caller]
fn pinned(view: &View) -> Pinned<'_> {
    match Pinned::new(view) {
        Ok(pin) => pin,
        Err(Errno::ENOSYS | Errno::EPERM) => skip("this kernel has no io_uring"),
        Err(errno) => panic!("{errno}"),
    }
}

fn a_pin_reads_and_writes_the_page_of_a_freed_block() {
    for size in SIZES {
        let arena = arena();
        let block = alloc(&arena, size);
        let len = block.bytes.next_multiple_of(page()) as usize;
        let view = View::shared(&arena, 0, len);
        view.set_bytes(0, b"mine");
        let mut pin = pinned(&view);
        free(&arena, block);
        let (read, write) = pipe().unwrap();
        assert_eq!(pin.write_to(&write, 0..4), Ok(4));
        assert_eq!(&got(&read), b"mine", "of {size} bytes");
        nix::unistd::write(&write, b"next").unwrap();
        assert_eq!(pin.read_from(&read, 0..4), Ok(4));
        assert_eq!(view.bytes(0, 4), b"next", "of {size} bytes");
        // A pin of a page that is free already.
        drop(pin);
        let mut pin = pinned(&view);
        assert_eq!(pin.write_to(&write, 0..4), Ok(4));
        assert_eq!(&got(&read), b"next", "of {size} bytes");
    }
}

/// Prior art: vulnerabilities CVE-2024-0582.
fn a_write_through_a_pin_to_a_removed_page_shows_nowhere() {
    for size in SIZES {
        let (mine, other) = (arena(), arena());
        let block = alloc(&mine, size);
        let len = block.bytes.next_multiple_of(page()) as usize;
        let view = View::shared(&mine, 0, len);
        view.set_bytes(0, b"mine");
        let mut pin = pinned(&view);
        free(&mine, block);
        assert_eq!(mine.trim(0).unwrap(), len as u64);
        assert_eq!(stat(&mine).held_bytes, 0);
        // New pages of both arenas: the pinned ones are not among them.
        let views = [&mine, &other].map(|arena| {
            assert_eq!(alloc(arena, size).offset, 0, "low offsets are used first");
            View::shared(arena, 0, len)
        });
        let (read, write) = pipe().unwrap();
        nix::unistd::write(&write, b"next").unwrap();
        assert_eq!(pin.read_from(&read, 0..4), Ok(4));
        for view in &views {
            assert_eq!(view.bytes(0, 4), [0; 4], "of {size} bytes");
            view.set_bytes(0, b"live");
        }
        // The pinned memory is unchanged.
        assert_eq!(pin.write_to(&write, 0..4), Ok(4));
        assert_eq!(&got(&read), b"next", "of {size} bytes");
    }
}
