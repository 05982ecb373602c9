// SPDX-License-Identifier: MIT OR Apache-2.0

//! The counters of a process's large blocks, which `freelistctl run` can read.
//!
//! With `FREELIST_REPORT` each process has a row in that file, mapped shared, so that the counts
//! remain however the process ends. Without, they are in the process itself.

use core::ffi::CStr;
use core::{ptr, slice};

use rustix::fd::AsRawFd;
use rustix::fs::{self, Mode, OFlags};

use super::os;
use super::refusal::Refusal;
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// The counters of one process. Sizes are in bytes.
#[derive(Default)]
#[repr(C)]
pub(super) struct Counters {
    /// The process's id; 0 in an unused row of the file.
    pid: AtomicU64,
    pub(super) live_blocks: AtomicU64,
    pub(super) live_bytes: AtomicU64,
    pub(super) peak_live: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) peak_held: AtomicU64,
    pub(super) allocs: AtomicU64,
    pub(super) frees: AtomicU64,
    pub(super) trims: AtomicU64,
    pub(super) trimmed: AtomicU64,
    pub(super) forks: AtomicU64,
    pub(super) copied: AtomicU64,
    /// The number of requests that the next allocator served, for each [`Refusal`].
    pub(super) refused: [AtomicU64; Refusal::COUNT],
    /// The bytes of the largest of these.
    pub(super) refused_bytes: AtomicU64,
}

/// The number of rows of a report. Further processes are not in it.
pub(super) const ROWS: usize = 4096;
/// The first number of the first row, which is the file's own: then the size of a row, and the rows in use.
pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"freelst1");

impl Counters {
    const fn new() -> Self {
        Self {
            pid: AtomicU64::new(0),
            live_blocks: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            peak_live: AtomicU64::new(0),
            held: AtomicU64::new(0),
            peak_held: AtomicU64::new(0),
            allocs: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            trims: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
            forks: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; Refusal::COUNT],
            refused_bytes: AtomicU64::new(0),
        }
    }

    /// Notes that the arena holds `held` bytes.
    pub(super) fn note_held(&self, held: u64) {
        self.held.store(held, Relaxed);
        self.peak_held.fetch_max(held, Relaxed);
    }
}

/// The counters of a process without a report.
static OWN: Counters = Counters::new();
/// The counters of this process.
static CURRENT: AtomicPtr<Counters> = AtomicPtr::new(ptr::null_mut());

/// Returns this process's counters.
#[inline]
pub(super) fn counters() -> &'static Counters {
    // SAFETY: It is null or a row of a mapping that is never unmapped, whose numbers are atomic.
    unsafe { CURRENT.load(Relaxed).as_ref() }.unwrap_or(&OWN)
}

/// Returns whether the counters are in a report file, which `freelistctl run` reads.
pub(super) fn are_reported() -> bool {
    !CURRENT.load(Relaxed).is_null()
}

/// Maps a report file, and takes a row of it for this process. If the file is no report, or full,
/// the counters stay in the process.
pub(super) fn attach(path: &CStr) {
    let bytes = ROWS * size_of::<Counters>();
    let Ok(file) = fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
        return;
    };
    // A device file has no length.
    if !fs::fstat(&file).is_ok_and(|stat| stat.st_size as usize >= bytes) {
        return;
    }
    let Ok(base) = os::map_file(file.as_raw_fd(), 0, bytes, 0) else {
        return;
    };
    MAPPED.store(base as *mut Counters, Relaxed);
    new_row(0, 0);
}

/// The mapping of a report file, or null.
static MAPPED: AtomicPtr<Counters> = AtomicPtr::new(ptr::null_mut());

/// Takes a row for this process, which has `blocks` live blocks of `bytes` bytes together. Called at
/// the start and in a forked child, as its parent goes on counting in its own row.
pub(super) fn new_row(blocks: u64, bytes: u64) {
    let base = MAPPED.load(Relaxed);
    if base.is_null() {
        return;
    }
    // SAFETY: The mapping has `ROWS` rows of atomic numbers, and is never unmapped.
    let rows = unsafe { slice::from_raw_parts(base, ROWS) };
    let [header, rows @ ..] = rows else { return };
    let row = (header.pid.load(Relaxed) == MAGIC)
        .then(|| rows.get(header.live_bytes.fetch_add(1, Relaxed) as usize))
        .flatten();
    if let Some(row) = row {
        row.live_blocks.store(blocks, Relaxed);
        row.live_bytes.store(bytes, Relaxed);
        row.peak_live.store(bytes, Relaxed);
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        row.pid.store(pid as u64, Relaxed);
    }
    CURRENT.store(
        row.map_or(ptr::null_mut(), |row| ptr::from_ref(row).cast_mut()),
        Relaxed,
    );
}
