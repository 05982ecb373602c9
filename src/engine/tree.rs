// SPDX-License-Identifier: GPL-2.0-only

//! A divided page: a binary buddy tree over its granules of 32 bytes, in two bitmaps.
//!
//! A page of `KIB` KiB has `32 * KIB` granules, so its tree has fewer than `64 * KIB` nodes, and a
//! bitmap over them is exactly `KIB` words:
//!
//! ```text
//! node                  1                    depth 0: the page (never free, never live here)
//!               2               3            depth 1: half a page
//!           4       5       6       7        depth 2
//!          ...
//!  32*KIB ........................ 64*KIB-1  the granules
//! ```
//!
//! A node is *free*, *live* (a block), or neither: split into smaller nodes, part of a larger node, or
//! pending.

use super::head::Links;
use super::request::header_bytes;
use super::{FreeError, MIN_SHIFT};

/// Returns the depth of a node: its size is that of the page, halved as often.
pub(super) const fn depth(node: u32) -> u32 {
    // Not `ilog2`, which panics for a node that does not exist.
    (u32::BITS - 1).saturating_sub(node.leading_zeros())
}

/// Returns where a node begins, in bytes from the beginning of its page.
pub(super) const fn start<const KIB: usize>(node: u32) -> u64 {
    let depth = depth(node);
    let index = (node - (1 << depth)) as u64;
    index << (super::class::page_shift(KIB) - depth)
}

/// The unused bit before the root, node 1: in `live` it says that the memory of the page is lost.
const NO_NODE: u32 = 0;

/// The blocks of one divided page.
pub struct Tree<const KIB: usize> {
    free: [u64; KIB],
    live: [u64; KIB],
    /// A bit for each granule: a live block with a header begins there.
    headed: [u32; KIB],
    pub(super) links: Links,
}

impl<const KIB: usize> Default for Tree<KIB> {
    fn default() -> Self {
        Self {
            free: [0; KIB],
            live: [0; KIB],
            headed: [0; KIB],
            links: Links::NONE,
        }
    }
}

impl<const KIB: usize> Tree<KIB> {
    const LEAVES: u32 = 32 * KIB as u32;

    /// Becomes the tree of a page that was whole: takes its first node of `depth`; the rest is free.
    pub(super) fn reset(&mut self, depth: u32) -> u32 {
        *self = Self::default();
        for depth in 1..=depth {
            set(&mut self.free, (1 << depth) + 1);
        }
        1 << depth
    }

    /// Takes a node of `depth` from the smallest free node that holds one, which is halved as often as
    /// needed. Returns the node, and the depth of the free node.
    pub(super) fn take(&mut self, depth: u32) -> Option<(u32, u32)> {
        let (mut node, from) = (1..=depth)
            .rev()
            .find_map(|from| Some((self.first_free(from)?, from)))?;
        clear(&mut self.free, node);
        for _ in from..depth {
            node *= 2;
            set(&mut self.free, node + 1);
        }
        Some((node, from))
    }

    /// Frees a node and merges it with its buddy as long as that is free. Returns the depth of the free
    /// node; 0 when the whole page is free, and the tree no longer used.
    pub(super) fn give(&mut self, mut node: u32) -> u32 {
        while node > 1 {
            if !get(&self.free, node ^ 1) {
                set(&mut self.free, node);
                break;
            }
            clear(&mut self.free, node ^ 1);
            node /= 2;
        }
        depth(node)
    }

    /// Returns the depth of the largest free node.
    pub(super) fn largest(&self) -> Option<u32> {
        let (index, word) = self.free.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(depth(index as u32 * 64 + word.trailing_zeros()))
    }

    /// Returns the first free node of a depth.
    fn first_free(&self, depth: u32) -> Option<u32> {
        let (first, end) = (1usize << depth, 2usize << depth);
        if depth < 6 {
            // All nodes of these depths are in the first word.
            let word = self.free.first()? & depth_mask(depth);
            return (word != 0).then(|| word.trailing_zeros());
        }
        let words = self.free.get(first / 64..end / 64)?;
        let (index, word) = words.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(first as u32 + index as u32 * 64 + word.trailing_zeros())
    }

    /// Makes a taken node live.
    #[inline(always)]
    pub(super) fn set_live(&mut self, node: u32, headed: bool) {
        set(&mut self.live, node);
        if headed {
            self.mark((start::<KIB>(node) >> MIN_SHIFT) as u32);
        }
    }

    /// Returns whether a live node has a header.
    pub(super) fn is_headed(&self, node: u32) -> bool {
        self.has_mark((start::<KIB>(node) >> MIN_SHIFT) as u32)
    }

    /// Returns how many granules are marked as the beginning of a live node with a header.
    pub(super) fn marks(&self) -> u32 {
        self.headed.iter().map(|word| word.count_ones()).sum()
    }

    /// Returns whether a node is live.
    pub(super) fn has_live(&self) -> bool {
        let mut words = self.live.iter();
        let first = words.next().is_some_and(|word| word >> 1 != 0);
        first || words.any(|word| *word != 0)
    }

    /// Becomes a tree with the live nodes of another one. No node is free until [`Tree::free_rest`] is
    /// called.
    pub(super) fn copy_live(&mut self, of: &Self) {
        *self = Self {
            live: of.live,
            headed: of.headed,
            ..Self::default()
        };
        clear(&mut self.live, NO_NODE);
    }

    /// Frees all that is not live, in the largest possible nodes.
    pub(super) fn free_rest(&mut self) {
        // Nodes that are live, or have a live one in them.
        let mut used = self.live;
        for node in (2..2 * Self::LEAVES).rev() {
            if get(&used, node) {
                set(&mut used, node / 2);
            }
        }
        for node in 2..2 * Self::LEAVES {
            let above = node / 2;
            if get(&used, above) && !get(&self.live, above) && !get(&used, node) {
                set(&mut self.free, node);
            }
        }
    }

    /// Notes that the memory of the page is lost.
    pub(super) fn set_lost(&mut self) {
        set(&mut self.live, NO_NODE);
    }

    /// Returns whether the memory of the page is lost.
    pub(super) fn is_lost(&self) -> bool {
        get(&self.live, NO_NODE)
    }

    /// Ends the live node whose caller's bytes begin `within` bytes into the page. Returns the shift of
    /// its size, and whether it had a header.
    #[inline(always)]
    pub(super) fn end_live(&mut self, within: u64) -> Result<(u32, bool), FreeError> {
        let page_shift = super::class::page_shift(KIB);
        for shift in MIN_SHIFT..page_shift {
            let node = (((1 << page_shift) + within) >> shift) as u32;
            if get(&self.live, node) {
                let start = within >> shift << shift;
                let granule = (start >> MIN_SHIFT) as u32;
                let headed = self.has_mark(granule);
                if start + header_bytes(headed) != within {
                    return Err(FreeError::Inside);
                }
                clear(&mut self.live, node);
                if headed {
                    self.unmark(granule);
                }
                return Ok((shift, headed));
            }
        }
        Err(FreeError::NotLive)
    }

    /// Returns the shift of the size of the live node in which the byte `within` lies.
    #[inline(always)]
    pub(super) fn live_shift(&self, within: u64) -> Option<u32> {
        let page_shift = super::class::page_shift(KIB);
        (MIN_SHIFT..page_shift)
            .find(|shift| get(&self.live, (((1 << page_shift) + within) >> shift) as u32))
    }

    /// Ends the live node of `1 << shift` bytes without a header that begins `within` bytes into the
    /// page. Returns whether there was one.
    #[inline]
    pub(super) fn end_plain(&mut self, within: u64, shift: u32) -> bool {
        let node = (((1 << super::class::page_shift(KIB)) + within) >> shift) as u32;
        let is_plain = within % (1 << shift) == 0
            && get(&self.live, node)
            && !self.has_mark((within >> MIN_SHIFT) as u32);
        if is_plain {
            clear(&mut self.live, node);
        }
        is_plain
    }

    /// Returns whether a live block with a header begins at a granule.
    fn has_mark(&self, granule: u32) -> bool {
        let word = self.headed.get(granule as usize / 32);
        word.is_some_and(|word| word & (1 << (granule % 32)) != 0)
    }

    fn mark(&mut self, granule: u32) {
        if let Some(word) = self.headed.get_mut(granule as usize / 32) {
            *word |= 1 << (granule % 32);
        }
    }

    fn unmark(&mut self, granule: u32) {
        if let Some(word) = self.headed.get_mut(granule as usize / 32) {
            *word &= !(1 << (granule % 32));
        }
    }

    /// Returns whether a node is free or live as a whole.
    pub(super) fn is_used(&self, node: u32) -> bool {
        get(&self.free, node) || get(&self.live, node)
    }

    /// Returns the bytes of the free nodes, and of the live ones.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (Self::sum(&self.free), Self::sum(&self.live))
    }

    /// Returns the bytes of the nodes in a bitmap.
    fn sum(bits: &[u64; KIB]) -> u64 {
        let page_shift = super::class::page_shift(KIB);
        let bytes = |word: u64, depth| u64::from(word.count_ones()) << (page_shift - depth);
        // The first word has the nodes of depths 0 to 5, each other word those of one depth.
        let first = (1..6).map(|depth| bytes(bits[0] & depth_mask(depth), depth));
        let rest = bits.iter().enumerate().skip(1);
        let rest = rest.map(|(index, word)| bytes(*word, 6 + index.ilog2()));
        first.sum::<u64>() + rest.sum::<u64>()
    }

    /// Calls `see` with every node that is free or live, and whether it is live.
    pub(super) fn for_each(&self, mut see: impl FnMut(u32, bool)) {
        for node in 1..2 * Self::LEAVES {
            if get(&self.free, node) {
                see(node, false);
            }
            if get(&self.live, node) {
                see(node, true);
            }
        }
    }
}

/// Returns the bits of the nodes of a depth below 6 in the first word of a bitmap.
fn depth_mask(depth: u32) -> u64 {
    (u64::MAX << (1 << depth)) & (u64::MAX >> (64 - (2 << depth)))
}

fn get<const N: usize>(bits: &[u64; N], node: u32) -> bool {
    bits.get(node as usize / 64)
        .is_some_and(|word| word & (1 << (node % 64)) != 0)
}

fn set<const N: usize>(bits: &mut [u64; N], node: u32) {
    if let Some(word) = bits.get_mut(node as usize / 64) {
        *word |= 1 << (node % 64);
    }
}

fn clear<const N: usize>(bits: &mut [u64; N], node: u32) {
    if let Some(word) = bits.get_mut(node as usize / 64) {
        *word &= !(1 << (node % 64));
    }
}
