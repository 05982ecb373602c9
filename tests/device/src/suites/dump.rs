// SPDX-License-Identifier: GPL-2.0

//! Core dumps: which pages of an arena they have.
//!
//! The kernel decides by the filter of the process (`/proc/PID/coredump_filter`, core(5)), as for any
//! shared mapping of a file. `MADV_DODUMP` is not for mappings that may not grow.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;
use nix::sys::resource::{setrlimit, Resource, RLIM_INFINITY};
use nix::sys::signal::{raise, Signal};
use nix::sys::wait::WaitStatus;

use crate::harness::{skip, suite};
use crate::kit::process::fork_child;
use crate::kit::{alloc, arena, check, page, system_page, View, DEFAULT, MIB};
use freelist::Flags;

suite!("freelist_dump":
    a_dump_has_the_arena_where_it_has_shared_files,
    a_dump_backs_no_page,
    a_part_with_dontdump_is_in_no_dump,
);

/// The kernel's default filter: no shared mapping of a file.
const DEFAULT_FILTER: u32 = 0x33;
/// The default filter and shared mappings of files.
const SHARED_FILES: u32 = DEFAULT_FILTER | 0x8;

/// The file that the kernel writes.
const PATH: &str = "/tmp/freelist-core";
const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// A core dump of this program, 64 bit.
struct Core(File);

/// A segment of a dump: its place in the file, its address, its bytes in the process and in the file.
struct Segment {
    offset: u64,
    address: u64,
    bytes: u64,
    dumped: u64,
}

impl Core {
    /// Returns the core of a child that dies with `filter`.
    #[track_caller]
    fn of_child(filter: u32) -> Self {
        let Ok(before) = fs::read_to_string(PATTERN) else {
            skip("this kernel writes no core dumps");
        };
        fs::write(PATTERN, PATH).unwrap();
        let status = fork_child(|| {
            fs::write("/proc/self/coredump_filter", format!("{filter:#x}")).unwrap();
            setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).unwrap();
            raise(Signal::SIGABRT).unwrap();
        });
        fs::write(PATTERN, before.trim_end()).unwrap();
        let WaitStatus::Signaled(_, Signal::SIGABRT, true) = status else {
            panic!("{status:?}");
        };
        let core = Self(File::open(PATH).unwrap());
        fs::remove_file(PATH).unwrap();
        core
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.0
            .read_exact_at(&mut bytes, at)
            .expect("the file has it");
        bytes
    }

    fn number(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.read(at))
    }

    /// The segments of the dump that `view` was mapped as, which may be divided.
    fn segments(&self, view: &View) -> Vec<Segment> {
        const LOAD: u32 = 1;
        let first = self.number(32);
        let count = u64::from(u16::from_le_bytes(self.read(56)));
        let range = view.address(0).get() as u64..view.address(view.len()).get() as u64;
        let headers = (0..count).map(|index| first + index * 56);
        let loads = headers.filter(|header| u32::from_le_bytes(self.read(*header)) == LOAD);
        let segments = loads.map(|header| Segment {
            offset: self.number(header + 8),
            address: self.number(header + 16),
            bytes: self.number(header + 40),
            dumped: self.number(header + 32),
        });
        segments
            .filter(|segment| range.contains(&segment.address))
            .collect()
    }

    /// Returns a byte of `view` as it was.
    #[track_caller]
    fn byte(&self, view: &View, at: usize) -> u8 {
        let address = view.address(at).get() as u64;
        let segments = self.segments(view);
        let segment = segments
            .iter()
            .find(|segment| (segment.address..segment.address + segment.dumped).contains(&address));
        let segment = segment.unwrap_or_else(|| panic!("byte {at:#x} is not in the dump"));
        let [byte] = self.read(segment.offset + (address - segment.address));
        byte
    }
}

fn a_dump_has_the_arena_where_it_has_shared_files() {
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let large = alloc(&arena, 4 * MIB + page());
    let small = alloc(&arena, 100);
    let byte = |at: usize| (at / system_page()) as u8 ^ 0xa7;
    let inside = large.offset as usize..(large.offset + large.bytes) as usize;
    for at in inside.clone().step_by(system_page()) {
        view.store(at, byte(at));
    }
    view.store(small.offset as usize, 0x11);
    let core = Core::of_child(DEFAULT_FILTER);
    let segments = core.segments(&view);
    assert_eq!(segments.len(), 1);
    assert_eq!((segments[0].bytes, segments[0].dumped), (16 * MIB, 0));
    let core = Core::of_child(SHARED_FILES);
    let segments = core.segments(&view);
    assert_eq!(segments.len(), 1);
    assert_eq!(
        (segments[0].bytes, segments[0].dumped),
        (16 * MIB, 16 * MIB)
    );
    for at in inside.step_by(system_page()) {
        assert_eq!(core.byte(&view, at), byte(at), "byte {at:#x}");
    }
    assert_eq!(core.byte(&view, small.offset as usize), 0x11);
    // Where no block is.
    assert_eq!(core.byte(&view, view.len() - 1), 0);
}

/// Untouched pages have no memory after a dump either.
fn a_dump_backs_no_page() {
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let block = arena.alloc(8 * MIB, DEFAULT | Flags::LAZY).unwrap();
    let touched = block.offset as usize + 5 * system_page();
    view.store(touched, 9);
    let before = arena.stat().unwrap();
    let core = Core::of_child(SHARED_FILES);
    assert_eq!(core.byte(&view, touched), 9);
    assert_eq!(core.byte(&view, touched + 3 * system_page()), 0);
    let after = arena.stat().unwrap();
    assert_eq!(after.held_bytes, before.held_bytes);
    assert_eq!(after.faulted_bytes, before.faulted_bytes);
    check();
    // The program itself gets memory as before.
    view.store(touched + 3 * system_page(), 1);
    assert!(arena.stat().unwrap().held_bytes > before.held_bytes);
}

/// The kernel refuses MADV_DODUMP for mappings that may not grow (madvise_vma_behavior()).
fn a_part_with_dontdump_is_in_no_dump() {
    let arena = arena();
    let view = View::shared(&arena, 0, 8 * MIB as usize);
    alloc(&arena, 8 * MIB);
    let out = 2 * MIB as usize..3 * MIB as usize;
    for at in (0..view.len()).step_by(system_page()) {
        view.store(at, 7);
    }
    view.advise(out.clone(), MmapAdvise::MADV_DONTDUMP).unwrap();
    for range in [out.clone(), 0..view.len()] {
        let result = view.advise(range, MmapAdvise::MADV_DODUMP);
        assert_eq!(result, Err(Errno::EINVAL));
    }
    let core = Core::of_child(SHARED_FILES);
    let parts: Vec<_> = core
        .segments(&view)
        .iter()
        .map(|segment| (segment.bytes, segment.dumped))
        .collect();
    assert_eq!(parts, [(2 * MIB, 2 * MIB), (MIB, 0), (5 * MIB, 5 * MIB)]);
    for at in [0, out.start - 1, out.end, view.len() - system_page()] {
        let byte = core.byte(&view, at / system_page() * system_page());
        assert_eq!(byte, 7, "byte {at:#x}");
    }
}
