// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports: files with the counters of processes, as `freelistctl run` makes and reads them.

use super::counters::{Counters, MAGIC, ROWS};
use super::refusal::Refusal;

/// The numbers of a row.
const WORDS: usize = size_of::<Counters>() / size_of::<u64>();

/// The counters of a process's large blocks, as read from a report. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessReport {
    /// The process's id.
    pub pid: u64,
    /// The number of blocks that were live at the end.
    pub live_blocks: u64,
    /// The bytes of these blocks.
    pub live_bytes: u64,
    /// The peak of `live_bytes`.
    pub peak_live: u64,
    /// The bytes that the arena held when its counters were last read.
    pub held: u64,
    /// The peak of `held`, which is read at each new peak of `live_bytes`.
    pub peak_held: u64,
    /// The number of blocks that the arena allocated.
    pub allocs: u64,
    /// The number of blocks that were freed to it.
    pub frees: u64,
    /// The number of times that free memory was returned to the system.
    pub trims: u64,
    /// The bytes that were returned.
    pub trimmed: u64,
    /// The number of forked children that got a copy.
    pub forks: u64,
    /// The bytes that were copied for them.
    pub copied: u64,
    /// The number of requests that the next allocator served, for each reason of [`super::Refusal`] that occurred.
    pub refused: Vec<(&'static str, u64)>,
    /// The bytes of the largest of these requests.
    pub refused_bytes: u64,
}

/// Returns the content of an empty report file, whose path goes into `FREELIST_REPORT`. The caller
/// extends the file with zeros to [`report_len`].
pub fn empty_report() -> Vec<u8> {
    [MAGIC, WORDS as u64, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

/// Returns the bytes of a report file.
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

/// Reads a row, whose numbers are in the order of [`Counters`].
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
    use super::super::counters::{are_reported, attach, counters, new_row};
    use super::*;
    use crate::sync::atomic::Ordering::Relaxed;
    use std::ffi::CString;
    use std::io::Write;

    #[test]
    fn counters_are_read_back() {
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
