// SPDX-License-Identifier: GPL-2.0

//! In which functions instructions are that a VM has run (`scripts/profile`).

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};

/// Where every call begins, by architecture.
const ENTRIES: [&str; 2] = ["entry_SYSCALL_64", "el0t_64_sync"];
/// Programs are below.
const KERNEL: u64 = 1 << 63;

/// Instructions of each function.
pub struct Profile {
    functions: Vec<(String, usize)>,
    instructions: usize,
    calls: usize,
}

impl Profile {
    /// Reads what /proc/kallsyms says, and addresses of instructions in the order in which they
    /// were run, in hexadecimal, a line each.
    pub fn read(symbols: &Path, addresses: &Path) -> Result<Self> {
        let read =
            |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
        Self::new(&read(symbols)?, &read(addresses)?)
    }

    fn new(symbols: &str, addresses: &str) -> Result<Self> {
        let symbols: BTreeMap<u64, &str> = symbols.lines().filter_map(symbol).collect();
        ensure!(!symbols.is_empty(), "there are no symbols");
        let mut run = Vec::new();
        for line in addresses.lines() {
            let address = u64::from_str_radix(line, 16).with_context(|| line.to_owned())?;
            let found = symbols.range(..=address).next_back();
            run.push(match found {
                Some((begin, name)) if address >= KERNEL => (*name, address == *begin),
                _ => ("the program", false),
            });
        }
        // From the begin of a call to that of another: whole calls only.
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

/// A function's address and name: `ADDRESS TYPE NAME [MODULE]`.
fn symbol(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
    let name = words.next()?;
    // What is before a function is no function.
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
        ffffffff81000200 D data\n";

    #[test]
    fn instructions_are_counted_a_function_and_a_whole_call() {
        let addresses = [
            "ffffffff81000110", // before the first call
            "ffffffff81000000",
            "ffffffff81000004",
            "ffffffff81000112",
            "ffffffffc0000010",
            "401000",
            "ffffffff81000000",
            "ffffffff81000110",
            "401000",
            "ffffffff81000000", // and the begin of a third
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
    fn without_a_whole_call_there_is_no_profile() {
        assert!(Profile::new(SYMBOLS, "ffffffff81000110").is_err());
        assert!(Profile::new(SYMBOLS, "ffffffff81000000").is_err());
        assert!(Profile::new("", "ffffffff81000000").is_err());
        assert!(Profile::new(SYMBOLS, "x").is_err());
    }
}
