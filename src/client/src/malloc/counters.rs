// SPDX-License-Identifier: GPL-2.0

//! What a process did with large blocks, counted where `freelistctl run` can read it.
//!
//! With `FREELIST_REPORT` each process has a row in that file, mapped and shared, so that the counts
//! are there however it ends; without, they are in the process itself.

use std::ffi::CStr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc;

use super::os;
use super::refusal::Refusal;
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// What one process did. Sizes are in bytes.
#[derive(Default)]
#[repr(C)]
pub(super) struct Counters {
    /// The process; 0 where a row of the file is unused.
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
    /// Requests that the next allocator served, a number for each [`Refusal`].
    pub(super) refused: [AtomicU64; Refusal::COUNT],
    /// The largest of these.
    pub(super) refused_bytes: AtomicU64,
}

/// Numbers of a row.
const WORDS: usize = size_of::<Counters>() / size_of::<u64>();
/// Rows of a report; processes beyond that are not in it.
const ROWS: usize = 4096;
/// The first row's numbers are the file's own: this, the numbers of a row, the rows that are used.
const MAGIC: u64 = u64::from_ne_bytes(*b"freelst1");

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

    /// Notes what the arena holds.
    pub(super) fn note_held(&self, held: u64) {
        self.held.store(held, Relaxed);
        self.peak_held.fetch_max(held, Relaxed);
    }
}

/// The counters of a process without a report.
static OWN: Counters = Counters::new();
/// The counters of this process.
static CURRENT: AtomicPtr<Counters> = AtomicPtr::new(std::ptr::null_mut());

/// Returns this process's counters.
#[inline]
pub(super) fn counters() -> &'static Counters {
    // SAFETY: It is null or a row of a mapping that is never unmapped, whose numbers are atomic.
    unsafe { CURRENT.load(Relaxed).as_ref() }.unwrap_or(&OWN)
}

/// Whether anybody reads the counters while or after the process runs.
pub(super) fn are_reported() -> bool {
    !CURRENT.load(Relaxed).is_null()
}

/// Maps a report file, and takes a row of it for this process. A file that is none, or is full,
/// leaves the counters in the process.
pub(super) fn attach(path: &CStr) {
    let bytes = ROWS * size_of::<Counters>();
    let opened = |fd: RawFd| -> Result<usize, Errno> {
        let mapped = os::map_file(fd, 0, bytes, 0);
        // SAFETY: It was opened below, for this.
        unsafe { libc::close(fd) };
        mapped
    };
    // SAFETY: `path` is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    // SAFETY: It takes an open number and has no effect.
    let long = fd >= 0 && unsafe { libc::lseek(fd, 0, libc::SEEK_END) } >= bytes as libc::off_t;
    if !long {
        if fd >= 0 {
            super::descriptor::close(fd);
        }
        return;
    }
    let Ok(base) = opened(fd) else { return };
    MAPPED.store(base as *mut Counters, Relaxed);
    new_row(0, 0);
}

/// The mapping of a report file, or null.
static MAPPED: AtomicPtr<Counters> = AtomicPtr::new(std::ptr::null_mut());

/// Takes a row for this process, which has so many blocks and bytes: at first, and in a forked
/// child, whose parent goes on counting in its own.
pub(super) fn new_row(blocks: u64, bytes: u64) {
    let base = MAPPED.load(Relaxed);
    if base.is_null() {
        return;
    }
    // SAFETY: The mapping has `ROWS` rows of atomic numbers, and is never unmapped.
    let rows = unsafe { std::slice::from_raw_parts(base, ROWS) };
    let [header, rows @ ..] = rows else { return };
    let row = (header.pid.load(Relaxed) == MAGIC)
        .then(|| rows.get(header.live_bytes.fetch_add(1, Relaxed) as usize))
        .flatten();
    if let Some(row) = row {
        row.live_blocks.store(blocks, Relaxed);
        row.live_bytes.store(bytes, Relaxed);
        row.peak_live.store(bytes, Relaxed);
        row.pid.store(std::process::id().into(), Relaxed);
    }
    CURRENT.store(
        row.map_or(std::ptr::null_mut(), |row| {
            std::ptr::from_ref(row).cast_mut()
        }),
        Relaxed,
    );
}

/// What a process did with large blocks, as read from a report. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessReport {
    /// The process.
    pub pid: u64,
    /// Blocks that were live at the end.
    pub live_blocks: u64,
    /// What was in them.
    pub live_bytes: u64,
    /// The most that was live at a time.
    pub peak_live: u64,
    /// What the arena held when it was last asked.
    pub held: u64,
    /// The most that the arena held when it was asked: at each new peak of what was live.
    pub peak_held: u64,
    /// Blocks that the arena served.
    pub allocs: u64,
    /// Blocks that went back to it.
    pub frees: u64,
    /// How often free memory was given back to the system.
    pub trims: u64,
    /// How much.
    pub trimmed: u64,
    /// Forked children that got a copy.
    pub forks: u64,
    /// What was copied for them.
    pub copied: u64,
    /// Requests that the next allocator served, and why, for each reason that there was.
    pub refused: Vec<(&'static str, u64)>,
    /// The largest of these.
    pub refused_bytes: u64,
}

/// Returns the bytes of an empty report file: what `FREELIST_REPORT` has to name. The file is
/// extended with zeros to [`report_len`].
pub fn empty_report() -> Vec<u8> {
    [MAGIC, WORDS as u64, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

/// Returns the bytes that a report file has.
pub fn report_len() -> u64 {
    (ROWS * size_of::<Counters>()) as u64
}

/// Reads the rows of a report file.
pub fn read_report(bytes: &[u8]) -> Vec<ProcessReport> {
    let words: Vec<u64> = bytes
        .chunks_exact(size_of::<u64>())
        .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
        .collect();
    let rows = words.chunks_exact(WORDS).skip(1);
    rows.take_while(|row| row[0] != 0).map(process).collect()
}

/// A row, in the order of [`Counters`].
fn process(row: &[u64]) -> ProcessReport {
    let (fixed, rest) = row.split_at(12);
    let (refused, last) = rest.split_at(Refusal::COUNT);
    let reasons = Refusal::all()
        .map(Refusal::reason)
        .zip(refused.iter().copied());
    ProcessReport {
        pid: fixed[0],
        live_blocks: fixed[1],
        live_bytes: fixed[2],
        peak_live: fixed[3],
        held: fixed[4],
        peak_held: fixed[5],
        allocs: fixed[6],
        frees: fixed[7],
        trims: fixed[8],
        trimmed: fixed[9],
        forks: fixed[10],
        copied: fixed[11],
        refused: reasons.filter(|(_, count)| *count != 0).collect(),
        refused_bytes: last[0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::io::Write;

    #[test]
    fn what_is_counted_is_read_back() {
        let path = std::env::temp_dir().join(format!("freelist-report-{}", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&empty_report()).unwrap();
        file.set_len(report_len()).unwrap();
        attach(&CString::new(path.to_str().unwrap()).unwrap());
        assert!(are_reported());
        counters().peak_live.fetch_max(7 << 20, Relaxed);
        counters().note_held(9 << 20);
        counters().refused[Refusal::Limit as usize].fetch_add(3, Relaxed);
        counters().refused_bytes.fetch_max(5, Relaxed);
        new_row(2, 3 << 20);
        counters().copied.fetch_add(11, Relaxed);
        let rows = read_report(&std::fs::read(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].pid, u64::from(std::process::id()));
        assert_eq!((rows[0].peak_live, rows[0].peak_held), (7 << 20, 9 << 20));
        assert_eq!(rows[0].refused, [(Refusal::Limit.reason(), 3)]);
        assert_eq!((rows[0].refused_bytes, rows[0].copied), (5, 0));
        assert_eq!((rows[1].copied, rows[1].live_bytes), (11, 3 << 20));
    }

    #[test]
    fn a_file_that_is_no_report_is_left_alone() {
        assert_eq!(read_report(&empty_report()), []);
        assert_eq!(read_report(&[]), []);
        attach(c"/dev/null");
    }
}
