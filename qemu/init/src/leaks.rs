// SPDX-License-Identifier: GPL-2.0

//! What the module left behind, on kernels that can tell.

use anyhow::{bail, Result};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
const PAGE_STACKS: &str = "/sys/kernel/debug/page_owner_stacks/show_stacks";

/// kmemleak says nothing of objects younger than 5 s.
const MINIMUM_AGE: Duration = Duration::from_millis(5200);

/// Functions that keep pages for the whole kernel, whoever called them: slabs
/// (their objects are kmemleak's), saved stacks, page tables, per-CPU chunks.
const SHARED: [&str; 8] = [
    "allocate_slab",
    "new_slab",
    "stack_depot",
    "kasan_populate_vmalloc",
    "__pte_alloc_kernel",
    "__pmd_alloc",
    "__pud_alloc",
    "pcpu_",
];

/// What leaked before the module came is not its fault. From here on kmemleak
/// scans when we say so.
pub fn forget_earlier() {
    let _ = fs::write(KMEMLEAK, "scan=off");
    let _ = fs::write(KMEMLEAK, "clear");
}

/// Fails with a report if pages or objects of the unloaded module are left.
pub fn look_for_any() -> Result<()> {
    // Each CPU keeps the last pages that it put on an LRU list, freed or not: compaction lets them go.
    let _ = fs::write("/proc/sys/vm/compact_memory", "1");
    if let Ok(stacks) = fs::read_to_string(PAGE_STACKS) {
        let left: Vec<_> = stacks
            .split("\n\n")
            .filter(|stack| is_of_module(stack))
            .collect();
        // A page that has turned out to be bad is kept by the kernel for ever, whoever had it last.
        let pages: u64 = left.iter().map(|stack| pages_of(stack)).sum();
        if pages > bad_pages() {
            bail!(
                "pages of the module are left after its unload:\n{}",
                left.join("\n\n")
            );
        }
    }
    if fs::metadata(KMEMLEAK).is_ok() {
        // The first scan notes checksums, the second reports what did not change.
        let start = Instant::now();
        fs::write(KMEMLEAK, "scan")?;
        thread::sleep(MINIMUM_AGE.saturating_sub(start.elapsed()));
        fs::write(KMEMLEAK, "scan")?;
        let found = fs::read_to_string(KMEMLEAK)?;
        if !found.is_empty() {
            bail!("kmemleak found memory that nothing points to:\n{found}");
        }
    }
    Ok(())
}

/// Returns the pages that a stack stands for.
fn pages_of(stack: &str) -> u64 {
    let mut lines = stack.lines();
    let count = lines.find_map(|line| line.trim().strip_prefix("nr_base_pages:"));
    // A page at least.
    count.map_or(1, |count| count.trim().parse().unwrap_or(1))
}

/// Returns the pages that the kernel has put aside as bad.
fn bad_pages() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut lines = meminfo.lines();
    let bad = lines.find_map(|line| line.strip_prefix("HardwareCorrupted:"));
    let kib = bad.and_then(|bad| bad.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) / (page_bytes() / 1024)
}

/// Returns the bytes of a page.
fn page_bytes() -> u64 {
    let bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    bytes.ok().flatten().map_or(4096, |bytes| bytes as u64)
}

/// Whether pages were taken by a module's code, for itself. After the unload
/// its frames are bare addresses, and no other module was there.
fn is_of_module(stack: &str) -> bool {
    stack
        .lines()
        .any(|line| line.trim_start().starts_with("0x"))
        && !SHARED.iter().any(|function| stack.contains(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_with_a_bare_address_in_its_stack_is_the_modules() {
        let module = " __alloc_pages+0x1/0x2\n 0xffffffffc0000123\nnr_base_pages: 8";
        assert!(is_of_module(module));
        let kernel = " __alloc_pages+0x1/0x2\n do_one_initcall+0x1/0x2\nnr_base_pages: 8";
        assert!(!is_of_module(kernel));
    }

    #[test]
    fn the_page_count_of_a_stack_is_read() {
        assert_eq!(pages_of(" 0xffffffffc0000123\nnr_base_pages: 8"), 8);
        assert_eq!(pages_of(" 0xffffffffc0000123"), 1);
    }

    #[test]
    fn a_slab_that_the_module_caused_is_not_the_modules() {
        let slab = " allocate_slab+0x1/0x2\n 0xffffffffc0000123\nnr_base_pages: 8";
        assert!(!is_of_module(slab));
    }
}
