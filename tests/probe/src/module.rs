// SPDX-License-Identifier: GPL-2.0

//! The addresses of the loaded module.

use std::fs;
use std::path::Path;

/// A position in the module's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place<'a> {
    /// The section's name.
    pub section: &'a str,
    /// The bytes from its beginning.
    pub offset: u64,
}

/// The sections of the loaded module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The beginning and the name of each section, in the order of addresses.
    sections: Vec<(u64, String)>,
}

/// The most bytes of a section.
const MAX_SECTION_BYTES: u64 = 1 << 24;

impl Module {
    /// Returns the module as it is loaded now; `None` if it is not. Only root can read its addresses.
    pub fn loaded() -> Option<Self> {
        Self::read(Path::new("/sys/module/freelist/sections"))
    }

    fn read(dir: &Path) -> Option<Self> {
        let mut sections = Vec::new();
        for entry in fs::read_dir(dir).ok()?.flatten() {
            let name = entry.file_name().into_string().ok()?;
            let address = fs::read_to_string(entry.path()).ok()?;
            let address = u64::from_str_radix(address.trim().trim_start_matches("0x"), 16).ok()?;
            sections.push((address, name));
        }
        sections.sort_unstable();
        (!sections.is_empty()).then_some(Self { sections })
    }

    /// Returns the position in the file of the code at an address.
    pub fn place(&self, address: u64) -> Option<Place<'_>> {
        let after = self
            .sections
            .partition_point(|(begin, _)| *begin <= address);
        let (begin, name) = self.sections.get(after.checked_sub(1)?)?;
        let offset = address - begin;
        (offset < MAX_SECTION_BYTES).then_some(Place {
            section: name,
            offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_section_that_begins_last_before_it() {
        let sections = [(0x1000, ".init.text"), (0x8000, ".text")];
        let sections = sections.map(|(begin, name)| (begin, name.to_owned()));
        let module = Module {
            sections: sections.to_vec(),
        };
        let place = |section, offset| Some(Place { section, offset });
        assert_eq!(module.place(0xfff), None);
        assert_eq!(module.place(0x1000), place(".init.text", 0));
        assert_eq!(module.place(0x7fff), place(".init.text", 0x6fff));
        assert_eq!(module.place(0x8123), place(".text", 0x123));
        assert_eq!(module.place(0x8000 + MAX_SECTION_BYTES), None);
    }

    #[test]
    fn a_missing_module_has_no_path() {
        assert_eq!(Module::read(Path::new("/nowhere")), None);
    }
}
