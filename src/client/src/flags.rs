// SPDX-License-Identifier: GPL-2.0

//! The flags of a request.

use std::fmt;

use crate::uapi;

bitflags::bitflags! {
    /// What a request allows when the list of its own size class is empty, and
    /// what the block has to be. `INFO.features` tells which of them the
    /// running module serves.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Split a larger free block.
        const LARGER = uapi::FREELIST_LARGER;
        /// Take new pages from the system, within the limit.
        const GROW = uapi::FREELIST_GROW;
        /// Sleep until a block comes back.
        const WAIT = uapi::FREELIST_WAIT;
        /// The block reads as zero.
        const ZERO = uapi::FREELIST_ZERO;
        /// The block's pages are physically contiguous.
        const CONTIG = uapi::FREELIST_CONTIG;
        /// The classic 16-byte header lies before the block.
        const HEADER = uapi::FREELIST_HEADER;
        /// The block is mapped before the call returns.
        const POPULATE = uapi::FREELIST_POPULATE;
        /// LARGER and GROW.
        const DEFAULT = uapi::FREELIST_DEFAULT;
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no flags");
        }
        // Name by name: DEFAULT is a short form, not a flag.
        let mut separator = "";
        for (name, _) in self.iter_names().filter(|(name, _)| *name != "DEFAULT") {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_by_name() {
        assert_eq!(Flags::DEFAULT.to_string(), "LARGER|GROW");
        assert_eq!((Flags::WAIT | Flags::ZERO).to_string(), "WAIT|ZERO");
        assert_eq!(Flags::empty().to_string(), "no flags");
    }
}
