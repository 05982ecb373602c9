// SPDX-License-Identifier: MIT OR Apache-2.0

//! The flags of a request.

use std::fmt;

use crate::uapi;

bitflags::bitflags! {
    /// The permissions of a request whose size class has no free block, and properties of the block.
    /// `INFO.features` has the flags that the loaded module supports.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Splits a larger free block.
        const LARGER = uapi::FREELIST_LARGER;
        /// Allocates new pages from the system, within the limit.
        const GROW = uapi::FREELIST_GROW;
        /// Sleeps until a block is freed.
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
    /// The features of a module, `INFO.features`: the flags that it supports, and other parts of the contract.
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
        /// ALLOC and ALLOC_BULK accept an alignment.
        const ALIGN = uapi::FREELIST_FEATURE_ALIGN;
        /// RESIZE is supported.
        const RESIZE = uapi::FREELIST_FEATURE_RESIZE;
        /// LIMIT accepts a slack.
        const SLACK = uapi::FREELIST_FEATURE_SLACK;
        /// STAT counts moved bytes.
        const MOVED = uapi::FREELIST_FEATURE_MOVED;
        /// STAT counts bytes in folios of the size of a huge page.
        const HUGE = uapi::FREELIST_FEATURE_HUGE;
        /// DISCARD is supported.
        const DISCARD = uapi::FREELIST_FEATURE_DISCARD;
        /// CLONE is supported.
        const CLONE = uapi::FREELIST_FEATURE_CLONE;
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no flags");
        }
        // Name by name: DEFAULT is a short form of two flags.
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
        // A newer module has bits without a name.
        assert_eq!(
            Features::from_bits_retain((1 << 63) | 2).to_string(),
            "GROW"
        );
    }
}
