// SPDX-License-Identifier: GPL-2.0

//! Leaks of the module, on kernels with kmemleak or page_owner.

use anyhow::{bail, Result};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
const PAGE_STACKS: &str = "/sys/kernel/debug/page_owner_stacks/show_stacks";

/// kmemleak does not report objects younger than 5 s.
const MINIMUM_AGE: Duration = Duration::from_millis(5200);

/// Functions that allocate pages for the whole kernel, not for their caller: slabs
/// (kmemleak finds leaked objects), saved stacks, page tables, per-CPU chunks.
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

/// Makes kmemleak forget leaks from before the module was loaded, and scan only on
/// request from here on.
pub fn forget_earlier() {
    let _ = fs::write(KMEMLEAK, "scan=off");
    let _ = fs::write(KMEMLEAK, "clear");
}

/// Fails with a report if pages or objects of the unloaded module are left.
pub fn look_for_any() -> Result<()> {
    // Each CPU holds references to the last pages that it put on an LRU list: compaction drops them.
    let _ = fs::write("/proc/sys/vm/compact_memory", "1");
    if let Ok(stacks) = fs::read_to_string(PAGE_STACKS) {
        let left: Vec<_> = stacks
            .split("\n\n")
            .filter(|stack| is_of_module(stack))
            .collect();
        // The kernel never frees a bad page, and its stack stays that of its last owner.
        let pages: u64 = left.iter().map(|stack| pages_of(stack)).sum();
        if pages > bad_pages() {
            bail!(
                "pages of the module are left after its unload:\n{}",
                left.join("\n\n")
            );
        }
    }
    if fs::metadata(KMEMLEAK).is_ok() {
        // The first scan notes checksums, the second reports objects that did not change.
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

/// Returns how many pages were allocated by a stack: at least 1.
fn pages_of(stack: &str) -> u64 {
    let mut lines = stack.lines();
    let count = lines.find_map(|line| line.trim().strip_prefix("nr_base_pages:"));
    count.map_or(1, |count| count.trim().parse().unwrap_or(1))
}

/// Returns how many pages the kernel has set aside as bad.
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

/// Returns whether a stack is the module's. After the unload the addresses of its
/// functions have no names, and no other module was loaded.
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
