// SPDX-License-Identifier: MIT OR Apache-2.0

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
        /// The block's pages get their memory when they are touched.
        const LAZY = uapi::FREELIST_LAZY;
        /// LARGER and GROW.
        const DEFAULT = uapi::FREELIST_DEFAULT;
    }
}

bitflags::bitflags! {
    /// What a module offers, `INFO.features`: the flags that it serves, and other parts of the
    /// contract.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u64 {
        /// [`Flags::LARGER`].
        const LARGER = uapi::FREELIST_LARGER as u64;
        /// [`Flags::GROW`].
        const GROW = uapi::FREELIST_GROW as u64;
        /// [`Flags::WAIT`].
        const WAIT = uapi::FREELIST_WAIT as u64;
        /// [`Flags::ZERO`].
        const ZERO = uapi::FREELIST_ZERO as u64;
        /// [`Flags::CONTIG`].
        const CONTIG = uapi::FREELIST_CONTIG as u64;
        /// [`Flags::HEADER`].
        const HEADER = uapi::FREELIST_HEADER as u64;
        /// [`Flags::POPULATE`].
        const POPULATE = uapi::FREELIST_POPULATE as u64;
        /// [`Flags::LAZY`].
        const LAZY = uapi::FREELIST_LAZY as u64;
        /// ALLOC and ALLOC_BULK take an alignment.
        const ALIGN = uapi::FREELIST_FEATURE_ALIGN;
        /// RESIZE is served.
        const RESIZE = uapi::FREELIST_FEATURE_RESIZE;
        /// LIMIT takes a slack.
        const SLACK = uapi::FREELIST_FEATURE_SLACK;
        /// STAT counts what was moved.
        const MOVED = uapi::FREELIST_FEATURE_MOVED;
        /// STAT counts what is held in folios of the size of a huge page.
        const HUGE = uapi::FREELIST_FEATURE_HUGE;
        /// DISCARD is served.
        const DISCARD = uapi::FREELIST_FEATURE_DISCARD;
        /// CLONE is served.
        const CLONE = uapi::FREELIST_FEATURE_CLONE;
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no flags");
        }
        // Name by name: DEFAULT is a short form, not a flag.
        write_names(
            f,
            self.iter_names()
                .map(|(name, _)| name)
                .filter(|name| *name != "DEFAULT"),
        )
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        write_names(f, self.iter_names().map(|(name, _)| name))
    }
}

fn write_names(
    f: &mut fmt::Formatter<'_>,
    names: impl Iterator<Item = &'static str>,
) -> fmt::Result {
    let mut separator = "";
    for name in names {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_by_name() {
        assert_eq!(Flags::DEFAULT.to_string(), "LARGER|GROW");
        assert_eq!((Flags::WAIT | Flags::ZERO).to_string(), "WAIT|ZERO");
        assert_eq!(Flags::empty().to_string(), "no flags");
        let features = Features::ZERO | Features::RESIZE;
        assert_eq!(features.to_string(), "ZERO|RESIZE");
        // A module that is newer has bits without a name.
        assert_eq!(
            Features::from_bits_retain((1 << 63) | 2).to_string(),
            "GROW"
        );
    }
}
