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
//! | `free` | `live` | the node is |
//! | --- | --- | --- |
//! | 1 | 0 | free |
//! | 0 | 1 | a live block |
//! | 1 | 1 | a live block with a header |
//! | 0 | 0 | split into smaller nodes, part of a larger node, or pending |

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
}

impl<const KIB: usize> Default for Tree<KIB> {
    fn default() -> Self {
        Self {
            free: [0; KIB],
            live: [0; KIB],
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
    pub(super) fn free_node(&mut self, mut node: u32) -> u32 {
        while node > 1 {
            if !self.is_free(node ^ 1) {
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
        let (index, word) = self.free_words().enumerate().find(|(_, word)| *word != 0)?;
        Some(depth(index as u32 * 64 + word.trailing_zeros()))
    }

    /// Returns the first free node of a depth.
    fn first_free(&self, depth: u32) -> Option<u32> {
        let (first, end) = (1usize << depth, 2usize << depth);
        if depth < 6 {
            // All nodes of these depths are in the first word.
            let word = self.free_words().next()? & depth_mask(depth);
            return (word != 0).then(|| word.trailing_zeros());
        }
        let (first, end) = (first / 64, end / 64);
        let words = self.free_words().skip(first).take(end - first);
        let (index, word) = words.enumerate().find(|(_, word)| *word != 0)?;
        Some((first + index) as u32 * 64 + word.trailing_zeros())
    }

    /// Returns the bits of the free nodes.
    fn free_words(&self) -> impl Iterator<Item = u64> + '_ {
        let words = self.free.iter().zip(&self.live);
        words.map(|(free, live)| free & !live)
    }

    /// Returns whether a node is free.
    fn is_free(&self, node: u32) -> bool {
        get(&self.free, node) && !get(&self.live, node)
    }

    /// Makes a taken node live.
    #[inline(always)]
    pub(super) fn set_live(&mut self, node: u32, headed: bool) {
        set(&mut self.live, node);
        if headed {
            set(&mut self.free, node);
        }
    }

    /// Returns whether a live node has a header.
    pub(super) fn is_headed(&self, node: u32) -> bool {
        get(&self.free, node)
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
            free: core::array::from_fn(|index| of.free[index] & of.live[index]),
            live: of.live,
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
                let headed = self.is_headed(node);
                if start + header_bytes(headed) != within {
                    return Err(FreeError::Inside);
                }
                clear(&mut self.live, node);
                if headed {
                    clear(&mut self.free, node);
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
        let is_plain = within % (1 << shift) == 0 && get(&self.live, node) && !self.is_headed(node);
        if is_plain {
            clear(&mut self.live, node);
        }
        is_plain
    }

    /// Returns whether a node is free or live as a whole.
    pub(super) fn is_used(&self, node: u32) -> bool {
        get(&self.free, node) || get(&self.live, node)
    }

    /// Returns the bytes of the free nodes, and of the live ones.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let live = self.live.iter().copied();
        (Self::sum(self.free_words()), Self::sum(live))
    }

    /// Returns the bytes of the nodes in a bitmap.
    fn sum(bits: impl Iterator<Item = u64>) -> u64 {
        let page_shift = super::class::page_shift(KIB);
        let bytes = |word: u64, depth| u64::from(word.count_ones()) << (page_shift - depth);
        // The first word has the nodes of depths 0 to 5, each other word those of one depth.
        let of_word = |(index, word): (usize, u64)| match index {
            0 => (1..6)
                .map(|depth| bytes(word & depth_mask(depth), depth))
                .sum(),
            _ => bytes(word, 6 + index.ilog2()),
        };
        bits.enumerate().map(of_word).sum()
    }

    /// Calls `see` with every node that is free or live, and whether it is live.
    pub(super) fn for_each(&self, mut see: impl FnMut(u32, bool)) {
        for node in 1..2 * Self::LEAVES {
            if self.is_used(node) {
                see(node, get(&self.live, node));
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
