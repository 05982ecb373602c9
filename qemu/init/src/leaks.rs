// SPDX-License-Identifier: GPL-2.0

//! What the module left behind, on kernels that can tell.

use anyhow::{bail, Result};
use std::fs;
use std::ops::Range;
use std::thread;
use std::time::Duration;

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

/// What leaked before the module came is not its fault.
pub fn forget_earlier() {
    let _ = fs::write(KMEMLEAK, "clear");
}

/// Fails with a report if pages or objects of the unloaded module are left.
/// Its addresses were `text`.
pub fn look_for(text: &Range<u64>) -> Result<()> {
    if let Ok(stacks) = fs::read_to_string(PAGE_STACKS) {
        let left: Vec<_> = stacks
            .split("\n\n")
            .filter(|stack| is_of(stack, text))
            .collect();
        if !left.is_empty() {
            bail!(
                "pages of the module are left after its unload:\n{}",
                left.join("\n\n")
            );
        }
    }
    if fs::metadata(KMEMLEAK).is_ok() {
        // The first scan notes checksums, the second reports what did not change.
        fs::write(KMEMLEAK, "scan")?;
        thread::sleep(MINIMUM_AGE);
        fs::write(KMEMLEAK, "scan")?;
        let found = fs::read_to_string(KMEMLEAK)?;
        if !found.is_empty() {
            bail!("kmemleak found memory that nothing points to:\n{found}");
        }
    }
    Ok(())
}

/// Whether pages were taken from the module's code, for itself. After the
/// unload its frames are bare addresses.
fn is_of(stack: &str, text: &Range<u64>) -> bool {
    let from_module = stack
        .lines()
        .filter_map(|line| u64::from_str_radix(line.trim().strip_prefix("0x")?, 16).ok())
        .any(|address| text.contains(&address));
    from_module && !SHARED.iter().any(|function| stack.contains(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Range<u64> = 0xffff_ffff_c000_0000..0xffff_ffff_c000_8000;

    #[test]
    fn a_bare_address_of_the_module_is_its_page() {
        let stack = " __alloc_pages+0x1/0x2\n 0xffffffffc0000123\nnr_base_pages: 8";
        assert!(is_of(stack, &TEXT));
        assert!(!is_of(" 0xffffffffc0009123\nnr_base_pages: 8", &TEXT));
    }

    #[test]
    fn a_slab_that_it_caused_is_not() {
        let stack = " allocate_slab+0x1/0x2\n 0xffffffffc0000123\nnr_base_pages: 8";
        assert!(!is_of(stack, &TEXT));
    }
}
