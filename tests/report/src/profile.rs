// SPDX-License-Identifier: GPL-2.0

//! The functions of the instructions that a VM has run (`scripts/profile`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};

/// The functions in which every call begins, by architecture.
const ENTRIES: [&str; 2] = ["entry_SYSCALL_64", "el0t_64_sync"];
/// The prefixes of functions in which interrupts begin (x86), and the last instruction of an interrupt: a VM that
/// is slowed down by recording has more of them than usual.
const INTERRUPTS: [&str; 2] = ["asm_sysvec_", "asm_common_interrupt"];
const INTERRUPT_END: &str = "native_irq_return_iret";
/// The lowest address of the kernel; programs are below.
const KERNEL: u64 = 1 << 63;

/// The instructions of each function.
pub struct Profile {
    functions: Vec<(String, usize)>,
    instructions: usize,
    calls: usize,
}

impl Profile {
    /// Reads the text of /proc/kallsyms, and the instructions in the order in which they were run: on each line
    /// the CPU's number and the address in hexadecimal.
    pub fn read(symbols: &Path, addresses: &Path) -> Result<Self> {
        let read =
            |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
        Self::new(&read(symbols)?, &read(addresses)?)
    }

    fn new(symbols: &str, addresses: &str) -> Result<Self> {
        let symbols: BTreeMap<u64, &str> = symbols.lines().filter_map(symbol).collect();
        ensure!(!symbols.is_empty(), "there are no symbols");
        let mut run = Vec::new();
        let mut interrupted = BTreeSet::new();
        for line in addresses.lines() {
            let (cpu, address) = line.split_once(' ').with_context(|| line.to_owned())?;
            let address = u64::from_str_radix(address, 16).with_context(|| line.to_owned())?;
            let found = symbols.range(..=address).next_back();
            let (name, begins) = match found {
                Some((begin, name)) if address >= KERNEL => (*name, address == *begin),
                _ => ("the program", false),
            };
            if begins && INTERRUPTS.iter().any(|begin| name.starts_with(begin)) {
                interrupted.insert(cpu);
            }
            let counts = !interrupted.contains(cpu);
            if name == INTERRUPT_END {
                interrupted.remove(cpu);
            }
            if counts {
                run.push((name, begins));
            }
        }
        // From the beginning of a call to that of another: whole calls only.
        let is_entry = |(name, begins): &(&str, bool)| *begins && ENTRIES.contains(name);
        let entries: Vec<usize> = (0..run.len()).filter(|at| is_entry(&run[*at])).collect();
        let (first, last) = match (entries.first(), entries.last()) {
            (Some(first), Some(last)) if first < last => (*first, *last),
            _ => (0, 0),
        };
        ensure!(last > first, "no whole call is in there");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, _) in &run[first..last] {
            *counts.entry(name).or_default() += 1;
        }
        let mut functions: Vec<_> = counts
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(Self {
            functions,
            instructions: last - first,
            calls: entries.len() - 1,
        })
    }
}

/// Parses a function's address and name: `ADDRESS TYPE NAME [MODULE]`.
fn symbol(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
    let name = words.next()?;
    // The padding before a function is not one.
    (is_code && !name.starts_with("__pfx_")).then_some((address, name))
}

impl Display for Profile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let each = |count: usize| count as f64 / self.calls as f64;
        writeln!(
            f,
            "{:9.1} instructions a call, of {} calls",
            each(self.instructions),
            self.calls
        )?;
        for (name, count) in &self.functions {
            let name = rustc_demangle::demangle(name);
            writeln!(f, "{:9.1} {name:#}", each(*count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "\
        ffffffff81000000 T entry_SYSCALL_64\n\
        ffffffff81000100 t __pfx_do_it\n\
        ffffffff81000110 t do_it\n\
        ffffffffc0000000 t _RNvCs1_8freelist4pair\t[freelist]\n\
        ffffffff81000200 D data\n\
        ffffffff81000300 T asm_sysvec_apic_timer_interrupt\n\
        ffffffff81000320 T native_irq_return_iret\n\
        ffffffff81000322 T other\n";

    #[test]
    fn instructions_are_counted_a_function_and_a_whole_call() {
        let addresses = [
            "0 ffffffff81000110", // before the first call
            "0 ffffffff81000000",
            "0 ffffffff81000004",
            "0 ffffffff81000112",
            "0 ffffffffc0000010",
            "0 401000",
            "1 ffffffff81000000",
            "0 ffffffff81000110",
            "0 401000",
            "1 ffffffff81000000", // and the begin of a third
        ];
        let profile = Profile::new(SYMBOLS, &addresses.join("\n")).unwrap();
        assert_eq!((profile.instructions, profile.calls), (8, 2));
        let text = profile.to_string();
        assert!(
            text.starts_with("      4.0 instructions a call, of 2 calls\n"),
            "{text}"
        );
        assert!(text.contains("      1.5 entry_SYSCALL_64\n"), "{text}");
        assert!(text.contains("      1.0 do_it\n"), "{text}");
        assert!(text.contains("      1.0 the program\n"), "{text}");
        assert!(text.contains("      0.5 freelist::pair\n"), "{text}");
    }

    #[test]
    fn interrupts_do_not_count() {
        let addresses = [
            "0 ffffffff81000000",
            "0 ffffffff81000300",
            "0 ffffffff81000110",
            "1 ffffffff81000110", // which is not interrupted
            "0 ffffffff81000320",
            "0 ffffffff81000112",
            "0 ffffffff81000000",
        ];
        let profile = Profile::new(SYMBOLS, &addresses.join("\n")).unwrap();
        assert_eq!((profile.instructions, profile.calls), (3, 1));
        let text = profile.to_string();
        assert!(text.contains("      2.0 do_it\n"), "{text}");
        assert!(!text.contains("timer"), "{text}");
    }

    #[test]
    fn a_trace_without_a_whole_call_has_no_profile() {
        assert!(Profile::new(SYMBOLS, "0 ffffffff81000110").is_err());
        assert!(Profile::new(SYMBOLS, "0 ffffffff81000000").is_err());
        assert!(Profile::new("", "ffffffff81000000").is_err());
        for line in ["x", "0 x", "ffffffff81000000"] {
            assert!(Profile::new(SYMBOLS, line).is_err(), "{line}");
        }
    }
}
