// SPDX-License-Identifier: GPL-2.0

//! The two-level table of lists of runs.

use super::NONE;

/// Lists of runs, two levels.
pub struct Lists {
    bits: u32,
    pub heads: Vec<[u32; 2]>,
    /// A bit for each list, set if it has a run.
    pub map: Vec<u64>,
}

impl Lists {
    pub fn new(bits: u32) -> Self {
        let count = (33 << bits) + 33;
        Self {
            bits,
            heads: vec![[NONE; 2]; count],
            map: vec![0; count / 64 + 1],
        }
    }

    /// Returns the list of runs of `len` pages. The powers of 2 have lists of their own.
    pub fn index(&self, len: u32) -> usize {
        let order = len.ilog2();
        let rest = u64::from(len) - (1 << order);
        let per = (1 << self.bits) + 1;
        let sub = if rest == 0 {
            0
        } else {
            1 + ((rest << self.bits) >> order)
        };
        order as usize * per + sub as usize
    }

    pub fn next_with_a_run(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = *self.map.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.map.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    pub fn last_with_a_run(&self) -> Option<usize> {
        let word = (0..self.map.len())
            .rev()
            .find(|word| self.map[*word] != 0)?;
        Some(word * 64 + 63 - self.map[word].leading_zeros() as usize)
    }
}
