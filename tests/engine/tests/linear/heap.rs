// SPDX-License-Identifier: GPL-2.0

//! A simulated linear heap: the pages that each request gets, without memory.
//!
//! Adjacent free pages are one run, backed and unbacked apart, merged on both sides by boundary tags out of band
//! (Knuth, 1973). Runs are found through a two-level table of lists, last in first out (TLSF, Masmano et al.,
//! 2004): by the power of 2 below their length, then by the leading bits of the rest. Small blocks are nodes of
//! a binary buddy tree in a divided page. A freed block stays on the quick list of its class for a while (Quick
//! Fit, Weinstock and Wulf, 1988).

mod lists;
mod runs;

use std::collections::HashMap;

use lists::Lists;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Pages of the largest alignment that no request asked for: 64 KiB.
const ALIGN_PAGES: u32 = 16;

/// The page number for no page.
const NONE: u32 = u32::MAX;

/// Classes of subpage blocks: 32 B to 2 KiB, by depth in the page's tree (7 to 1).
const DEPTHS: usize = 8;

/// The parameters that were chosen by measurement.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Sub-lists of a doubling, as a power of 2.
    pub sub_bits: u32,
    /// The entries of one list that are examined.
    pub candidates: u32,
    /// The slack in thousandths: how much more than the peak need may be held before memory is moved.
    pub slack_permille: u64,
    /// The largest block on a quick list, in bytes.
    pub quick_largest: u64,
    /// The most bytes on one quick list of whole pages, but for one block.
    pub quick_bytes: u64,
    /// The most blocks on one quick list.
    pub quick_len: usize,
    /// A list returns its newest entry first.
    pub newest_first: bool,
    /// Memory is moved from the largest run first, else from the smallest of several pages.
    pub move_largest: bool,
    /// The size in bytes up to which blocks are allocated at the end of a run.
    pub from_end: u64,
    /// Of the runs that are examined in a list, the one at the lowest offset is used.
    pub lowest: bool,
    /// The size in bytes above which a request empties the quick lists before it searches for a run.
    pub drain_above: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sub_bits: 4,
            candidates: 8,
            slack_permille: 50,
            quick_largest: 64 << 10,
            quick_bytes: 256 << 10,
            quick_len: 64,
            newest_first: true,
            move_largest: false,
            drain_above: 64 << 10,
            from_end: 256 << 10,
            lowest: true,
        }
    }
}

/// The content of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No run and no block begins here.
    Inside,
    Backed,
    Unbacked,
    Block,
    Divided,
}

/// The record of a page.
#[derive(Clone, Copy)]
struct Record {
    kind: Kind,
    /// Pages of what begins here.
    len: u32,
    /// The beginning of the run that ends here.
    run_start: u32,
    prev: u32,
    next: u32,
}

const EMPTY: Record = Record {
    kind: Kind::Inside,
    len: 0,
    run_start: NONE,
    prev: NONE,
    next: NONE,
};

/// A page that is divided: a binary buddy tree over 128 granules of 32 bytes.
#[derive(Clone, Copy, Default)]
struct Tree {
    free: [u64; 4],
}

impl Tree {
    fn get(&self, node: u32) -> bool {
        (self.free[node as usize / 64] >> (node % 64)) & 1 != 0
    }
    fn flip(&mut self, node: u32) {
        self.free[node as usize / 64] ^= 1 << (node % 64);
    }
    fn first(&self, depth: u32) -> Option<u32> {
        (1 << depth..2 << depth).find(|node| self.get(*node))
    }
    fn largest(&self) -> Option<u32> {
        let word = (0..4).find(|word| self.free[*word] != 0)?;
        let node = word as u32 * 64 + self.free[word].trailing_zeros();
        Some(node.ilog2())
    }
}

/// The counters of the heap, in pages where not said otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub held_pages: u64,
    pub peak_held_pages: u64,
    pub moved_pages: u64,
    pub frontier: u32,
    /// The peak of `frontier`.
    pub space: u32,
    /// The entries that the longest search examined.
    pub longest_search: u32,
    pub searches: u64,
    pub examined: u64,
    pub trees: u64,
    pub peak_trees: u64,
}

/// The heap.
pub struct Heap {
    settings: Settings,
    records: Vec<Record>,
    backed: Lists,
    unbacked: Lists,
    trees: HashMap<u32, Tree>,
    divided: [Vec<u32>; DEPTHS],
    quick: Vec<std::collections::VecDeque<(u64, u32)>>,
    claimed: u64,
    peak: u64,
    free_backed: u64,
    pub counts: Counts,
}

/// Returns the smallest `k` with `n <= 1 << k`.
fn ceil_log2(n: u64) -> u32 {
    n.next_power_of_two().ilog2()
}

/// Returns the bytes that a block for a request of `size` bytes has.
fn block_bytes(size: u64) -> u64 {
    if size <= PAGE / 2 {
        size.next_power_of_two().max(32)
    } else {
        size.next_multiple_of(PAGE)
    }
}

impl Heap {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            records: Vec::new(),
            backed: Lists::new(settings.sub_bits),
            unbacked: Lists::new(settings.sub_bits),
            trees: HashMap::new(),
            divided: Default::default(),
            quick: vec![Default::default(); 40],
            claimed: 0,
            peak: 0,
            free_backed: 0,
            counts: Counts::default(),
        }
    }

    pub fn alloc(&mut self, size: u64) -> u64 {
        let bytes = block_bytes(size);
        self.claimed += bytes;
        self.peak = self.peak.max(self.claimed);
        let class = ceil_log2(bytes);
        let pages = bytes.div_ceil(PAGE) as u32;
        if let Some((start, len)) = self.quick[class as usize].back().copied() {
            if bytes < PAGE || len == pages {
                self.quick[class as usize].pop_back();
                return start;
            }
        }
        if bytes >= PAGE {
            return u64::from(self.alloc_pages(pages)) * PAGE;
        }
        let depth = PAGE.ilog2() - class;
        if let Some(offset) = self.take_node(depth) {
            return offset;
        }
        // A whole page is a larger block, before new memory is taken.
        let page = self.alloc_pages(1);
        if self.records[page as usize].kind == Kind::Divided {
            unreachable!();
        }
        let mut tree = Tree::default();
        for depth in 1..=depth {
            tree.flip((1 << depth) + 1);
        }
        self.records[page as usize].kind = Kind::Divided;
        self.trees.insert(page, tree);
        self.counts.trees += 1;
        self.counts.peak_trees = self.counts.peak_trees.max(self.counts.trees);
        if let Some(largest) = tree.largest() {
            self.divided[largest as usize].push(page);
        }
        u64::from(page) * PAGE
    }

    /// Takes a node of a divided page, from the page with the smallest free node that fits.
    fn take_node(&mut self, depth: u32) -> Option<u64> {
        for from in (1..=depth).rev() {
            while let Some(page) = self.divided[from as usize].last().copied() {
                let valid = self.trees.get(&page).and_then(Tree::largest) == Some(from);
                if !valid {
                    self.divided[from as usize].pop();
                    continue;
                }
                let tree = self.trees.get_mut(&page).unwrap();
                let from = (1..=depth)
                    .rev()
                    .find(|d| tree.first(*d).is_some())
                    .unwrap();
                let mut node = tree.first(from).unwrap();
                tree.flip(node);
                for _ in from..depth {
                    node *= 2;
                    tree.flip(node + 1);
                }
                let largest = tree.largest();
                if let Some(largest) = largest {
                    self.divided[largest as usize].push(page);
                }
                let within = u64::from(node - (1 << depth)) << (PAGE.ilog2() - depth);
                return Some(u64::from(page) * PAGE + within);
            }
        }
        None
    }

    pub fn free(&mut self, offset: u64, size: u64) {
        let bytes = block_bytes(size);
        self.claimed -= bytes;
        let class = ceil_log2(bytes) as usize;
        if bytes > self.settings.quick_largest {
            return self.merge(offset, bytes);
        }
        let max = if bytes < PAGE {
            ((128 << 10) >> class).clamp(1, self.settings.quick_len)
        } else {
            ((self.settings.quick_bytes >> class) as usize).clamp(1, self.settings.quick_len)
        };
        let pages = bytes.div_ceil(PAGE) as u32;
        self.quick[class].push_back((offset, if bytes < PAGE { 0 } else { pages }));
        if self.quick[class].len() > max {
            let (offset, pages) = self.quick[class].pop_front().unwrap();
            let bytes = if pages == 0 {
                1 << class
            } else {
                u64::from(pages) * PAGE
            };
            self.merge(offset, bytes);
        }
    }

    fn merge(&mut self, offset: u64, bytes: u64) {
        let page = (offset / PAGE) as u32;
        if bytes >= PAGE {
            self.records[page as usize].kind = Kind::Inside;
            return self.release(page, (bytes / PAGE) as u32, true);
        }
        let shift = bytes.ilog2();
        let mut node = ((PAGE + offset % PAGE) >> shift) as u32;
        let tree = self.trees.get_mut(&page).unwrap();
        while node > 1 && tree.get(node ^ 1) {
            tree.flip(node ^ 1);
            node /= 2;
        }
        if node > 1 {
            tree.flip(node);
            let largest = tree.largest().unwrap();
            self.divided[largest as usize].push(page);
            return;
        }
        self.trees.remove(&page);
        self.counts.trees -= 1;
        self.records[page as usize].kind = Kind::Inside;
        self.release(page, 1, true);
    }

    fn drain(&mut self) -> bool {
        let mut any = false;
        for class in 0..self.quick.len() {
            while let Some((offset, pages)) = self.quick[class].pop_front() {
                any = true;
                let bytes = if pages == 0 {
                    1 << class
                } else {
                    u64::from(pages) * PAGE
                };
                self.merge(offset, bytes);
            }
        }
        any
    }

    fn alloc_pages(&mut self, pages: u32) -> u32 {
        let align = pages.next_power_of_two().min(ALIGN_PAGES);
        self.counts.searches += 1;
        let mut examined = 0;
        if u64::from(pages) * PAGE > self.settings.drain_above {
            self.drain();
        }
        let mut found = self.find(true, pages, align, &mut examined);
        if found.is_none() && self.drain() {
            found = self.find(true, pages, align, &mut examined);
        }
        let start = match found {
            Some(run) => self.take(run, pages, align),
            None => self.grow(pages, align, &mut examined),
        };
        self.counts.examined += u64::from(examined);
        self.counts.longest_search = self.counts.longest_search.max(examined);
        self.records[start as usize].kind = Kind::Block;
        self.records[start as usize].len = pages;
        start
    }

    /// Checks the invariants: runs and blocks follow one another, no two neighbours of one kind are free, and
    /// exactly the free runs are on lists.
    pub fn check(&self) {
        let (mut page, mut before, mut free, mut held) = (0, Kind::Inside, 0, 0);
        while page < self.counts.frontier {
            let Record { kind, len, .. } = self.records[page as usize];
            assert!(
                kind != Kind::Inside && len > 0,
                "nothing begins at page {page}"
            );
            let is_run = matches!(kind, Kind::Backed | Kind::Unbacked);
            assert!(!is_run || kind != before, "two runs side by side at {page}");
            if is_run {
                assert_eq!(self.records[(page + len - 1) as usize].run_start, page);
            }
            free += u64::from(len) * u64::from(kind == Kind::Backed);
            held += u64::from(len) * u64::from(kind != Kind::Unbacked);
            before = kind;
            page += len;
        }
        assert_eq!(page, self.counts.frontier);
        assert_eq!(free, self.free_backed);
        assert_eq!(held, self.counts.held_pages);
    }
}
