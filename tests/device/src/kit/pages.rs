// SPDX-License-Identifier: GPL-2.0

//! The pages at addresses, as root can read them from `/proc/self/pagemap`
//! (Documentation/admin-guide/mm/pagemap.rst of the kernel).

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::system_page;
use super::view::View;

/// The bits of an entry.
const PRESENT: u64 = 1 << 63;
const NUMBER: u64 = (1 << 55) - 1;

/// Returns the numbers of the pages that are mapped at `pages` pages of `view`, from byte `at` on;
/// [`None`] where no page is mapped.
pub fn frames(view: &View, at: usize, pages: usize) -> Vec<Option<u64>> {
    let file = File::open("/proc/self/pagemap").expect("/proc is mounted");
    let first = view.address(at).get() / system_page();
    let mut bytes = vec![0; pages * 8];
    file.read_exact_at(&mut bytes, first as u64 * 8)
        .expect("pagemap can be read");
    let entries = bytes.chunks_exact(8).map(|entry| {
        let entry = u64::from_le_bytes(entry.try_into().expect("8 bytes"));
        (entry & PRESENT != 0).then_some(entry & NUMBER)
    });
    entries.collect()
}
