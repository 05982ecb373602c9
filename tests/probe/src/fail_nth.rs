// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail (Documentation/fault-injection of the kernel, `fail-nth`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The switch of the thread that opened it.
#[derive(Debug)]
pub struct FailNth(File);

impl FailNth {
    /// Lets all kinds of allocations and copies fail, without messages. Returns [`None`] if the kernel has no
    /// fault injection.
    ///
    /// # Errors
    ///
    /// Those of setting its options, which only root may.
    pub fn new() -> io::Result<Option<Self>> {
        let debugfs = Path::new("/sys/kernel/debug");
        let options = [
            ("failslab/ignore-gfp-wait", "N"),
            ("failslab/verbose", "0"),
            ("fail_page_alloc/ignore-gfp-wait", "N"),
            ("fail_page_alloc/ignore-gfp-highmem", "N"),
            ("fail_page_alloc/min-order", "0"),
            ("fail_page_alloc/verbose", "0"),
            ("fail_usercopy/verbose", "0"),
        ];
        for (option, value) in options {
            let path = debugfs.join(option);
            if path.exists() {
                fs::write(path, value)?;
            }
        }
        let mut file = File::options();
        let file = file.read(true).write(true);
        Ok(file.open("/proc/thread-self/fail-nth").ok().map(Self))
    }

    /// Runs `call`, which makes system calls in this thread, and lets its failure point number `nth` fail.
    /// Returns also whether it had that point.
    ///
    /// # Panics
    ///
    /// If the kernel refuses the number, which has to be positive.
    pub fn run<T>(&self, nth: usize, call: impl FnOnce() -> T) -> (T, bool) {
        let text = nth.to_string();
        let set = self.0.write_at(text.as_bytes(), 0);
        let result = call();
        // Failures that were not used up may hit these calls instead.
        let mut left = [0; 16];
        let read = self.0.read_at(&mut left, 0);
        while self.0.write_at(b"0", 0).is_err() {}
        set.expect("fail-nth is set");
        let failed = read.is_ok_and(|len| &left[..len] == b"0\n");
        (result, failed)
    }
}
