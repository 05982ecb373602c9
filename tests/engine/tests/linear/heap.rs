// SPDX-License-Identifier: GPL-2.0

//! One linear heap, in numbers: which pages a request gets, without memory behind them.
//!
//! Free pages that lie side by side are one run, backed and unbacked apart, joined on both sides by
//! boundary tags out of band (Knuth, 1973). Runs are found through a two-level table of lists, last
//! in first out (TLSF, Masmano et al., 2004): by the power of 2 below their length, then by the
//! leading bits of the rest. Small blocks are nodes of a binary buddy tree in a divided page. A freed
//! block stays on the quick list of its class for a while (Quick Fit, Weinstock and Wulf, 1988).

use std::collections::HashMap;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Pages of the largest alignment that no request asked for: 64 KiB.
const ALIGN_PAGES: u32 = 16;
/// No page.
const NONE: u32 = u32::MAX;
/// Classes of subpage blocks: 32 B to 2 KiB, by depth in the page's tree (7 to 1).
const DEPTHS: usize = 8;

/// What is settled by the figures.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Sub-lists of a doubling, as a power of 2.
    pub sub_bits: u32,
    /// Entries of one list that are looked at.
    pub look: u32,
    /// How much more than the most that was needed may be held before memory is moved, in thousandths.
    pub slack_permille: u64,
    /// The largest block on a quick list, in bytes.
    pub quick_largest: u64,
    /// The most bytes on one quick list of whole pages, but for one block.
    pub quick_bytes: u64,
    /// The most blocks on one quick list.
    pub quick_len: usize,
    /// A list gives what was put there last.
    pub newest_first: bool,
    /// Memory is moved from the largest run first, else from the smallest of several pages.
    pub move_largest: bool,
    /// Blocks of at most so many bytes are taken from the end of a run.
    pub from_end: u64,
    /// Of those looked at in a list the one at the lowest offset is taken.
    pub lowest: bool,
    /// A request of more bytes empties the quick lists before it looks for a run.
    pub drain_above: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sub_bits: 4,
            look: 8,
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

/// What lies at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing begins here.
    Inside,
    Backed,
    Unbacked,
    Block,
    Divided,
}

/// What is known of a page.
#[derive(Clone, Copy)]
struct Record {
    kind: Kind,
    /// Pages of what begins here.
    len: u32,
    /// Where the run begins that ends here.
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

/// Lists of runs, two levels.
struct Lists {
    bits: u32,
    heads: Vec<[u32; 2]>,
    /// Which lists have a run.
    map: Vec<u64>,
}

impl Lists {
    fn new(bits: u32) -> Self {
        let count = (33 << bits) + 33;
        Self {
            bits,
            heads: vec![[NONE; 2]; count],
            map: vec![0; count / 64 + 1],
        }
    }

    /// Returns the list of runs of `len` pages. The powers of 2 have lists of their own.
    fn index(&self, len: u32) -> usize {
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

    fn next_with_a_run(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = *self.map.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.map.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    fn last_with_a_run(&self) -> Option<usize> {
        let word = (0..self.map.len())
            .rev()
            .find(|word| self.map[*word] != 0)?;
        Some(word * 64 + 63 - self.map[word].leading_zeros() as usize)
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub held_pages: u64,
    pub peak_held_pages: u64,
    pub moved_pages: u64,
    pub frontier: u32,
    /// The most that this was.
    pub space: u32,
    /// Entries of lists that the longest search looked at.
    pub longest_search: u32,
    pub searches: u64,
    pub looked_at: u64,
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

/// Bytes that a block of `size` bytes takes.
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

    /// A node of a divided page, from the page with the smallest free node that fits.
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
        let most = if bytes < PAGE {
            ((128 << 10) >> class).clamp(1, self.settings.quick_len)
        } else {
            ((self.settings.quick_bytes >> class) as usize).clamp(1, self.settings.quick_len)
        };
        let pages = bytes.div_ceil(PAGE) as u32;
        self.quick[class].push_back((offset, if bytes < PAGE { 0 } else { pages }));
        if self.quick[class].len() > most {
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
        let mut looked = 0;
        if u64::from(pages) * PAGE > self.settings.drain_above {
            self.drain();
        }
        let mut found = self.find(true, pages, align, &mut looked);
        if found.is_none() && self.drain() {
            found = self.find(true, pages, align, &mut looked);
        }
        let start = match found {
            Some(run) => self.take(run, pages, align),
            None => self.grow(pages, align, &mut looked),
        };
        self.counts.looked_at += u64::from(looked);
        self.counts.longest_search = self.counts.longest_search.max(looked);
        self.records[start as usize].kind = Kind::Block;
        self.records[start as usize].len = pages;
        start
    }

    /// A run that has `pages` aligned pages.
    fn find(&self, is_backed: bool, pages: u32, align: u32, looked: &mut u32) -> Option<u32> {
        let lists = if is_backed {
            &self.backed
        } else {
            &self.unbacked
        };
        let mut index = lists.index(pages);
        loop {
            index = lists.next_with_a_run(index)?;
            let [mut run, last] = lists.heads[index];
            if !self.settings.newest_first {
                run = last;
            }
            let mut best = NONE;
            for _ in 0..self.settings.look {
                if run == NONE {
                    break;
                }
                *looked += 1;
                let record = self.records[run as usize];
                let start = run.next_multiple_of(align);
                if start + pages <= run + record.len {
                    if !self.settings.lowest {
                        return Some(run);
                    }
                    best = best.min(run);
                }
                run = if self.settings.newest_first {
                    record.next
                } else {
                    record.prev
                };
            }
            if best != NONE {
                return Some(best);
            }
            index += 1;
        }
    }

    /// Takes pages of a run with memory; what is before and after them stays free.
    fn take(&mut self, run: u32, pages: u32, align: u32) -> u32 {
        let len = self.remove(run);
        let mut start = run.next_multiple_of(align);
        if u64::from(pages) * PAGE <= self.settings.from_end {
            start = (run + len - pages) / align * align;
        }
        if start > run {
            self.insert(run, start - run, true);
        }
        if run + len > start + pages {
            self.insert(start + pages, run + len - start - pages, true);
        }
        start
    }

    /// New memory: behind a run that ends where there is none, or in address space of its own.
    fn grow(&mut self, pages: u32, align: u32, looked: &mut u32) -> u32 {
        // Where a run with memory begins whose end borders on enough address space.
        let mut candidates = [NONE; 3];
        let frontier = self.counts.frontier;
        let left_of = |page: u32, records: &[Record]| match page.checked_sub(1) {
            Some(last) => records[last as usize].run_start,
            None => NONE,
        };
        candidates[0] = left_of(frontier, &self.records);
        let hole = self.find(false, pages, align, looked);
        if let Some(hole) = hole {
            candidates[1] = left_of(hole, &self.records);
        }
        if let Some(index) = self.backed.last_with_a_run() {
            candidates[2] = self.backed.heads[index][0];
        }
        let mut best: Option<(u32, u32, u32)> = None;
        for run in candidates {
            if run == NONE || self.records[run as usize].kind != Kind::Backed {
                continue;
            }
            *looked += 1;
            let start = run.next_multiple_of(align);
            let end = run + self.records[run as usize].len;
            if start >= end || start + pages <= end {
                continue;
            }
            let room = if end == frontier {
                u32::MAX
            } else if self.records[end as usize].kind == Kind::Unbacked {
                end + self.records[end as usize].len
            } else {
                continue;
            };
            if start + pages <= room && best.is_none_or(|(_, has, _)| has < end - start) {
                best = Some((run, end - start, end));
            }
        }
        let (start, has) = if let Some((run, has, end)) = best {
            let start = run.next_multiple_of(align);
            self.remove(run);
            if start > run {
                self.insert(run, start - run, true);
            }
            self.take_space(end, pages - has);
            (start, has)
        } else {
            let at = hole.unwrap_or(frontier);
            let start = at.next_multiple_of(align);
            if hole.is_none() && start > frontier {
                self.extend_to(start + pages);
                self.insert(frontier, start - frontier, false);
                self.bring(pages);
                return start;
            } else if start > at {
                let len = self.remove(at);
                self.insert(at, start - at, false);
                self.insert(start, len - (start - at), false);
            }
            self.take_space(start, pages);
            (start, 0)
        };
        self.bring(pages - has);
        start
    }

    fn extend_to(&mut self, end: u32) {
        if end > self.counts.frontier {
            self.counts.frontier = end;
            self.counts.space = self.counts.space.max(end);
            if self.records.len() < end as usize + 1 {
                self.records.resize(end as usize + 1, EMPTY);
            }
        }
    }

    /// Takes address space from its beginning.
    fn take_space(&mut self, start: u32, pages: u32) {
        if start == self.counts.frontier {
            return self.extend_to(start + pages);
        }
        let len = self.remove(start);
        if len > pages {
            self.insert(start + pages, len - pages, false);
        }
    }

    /// Gets memory for so many pages: new as far as the slack allows, else that of free runs.
    fn bring(&mut self, missing: u32) {
        let most = self.peak + self.peak * self.settings.slack_permille / 1000;
        let after = (self.counts.held_pages + u64::from(missing)) * PAGE;
        let over = after.saturating_sub(most).div_ceil(PAGE);
        let mut move_pages = over.min(u64::from(missing)).min(self.free_backed) as u32;
        self.counts.held_pages += u64::from(missing - move_pages);
        self.counts.peak_held_pages = self.counts.peak_held_pages.max(self.counts.held_pages);
        self.counts.moved_pages += u64::from(move_pages);
        while move_pages > 0 {
            let from = if self.settings.move_largest {
                0
            } else {
                self.backed.index(2)
            };
            let index = if self.settings.move_largest {
                self.backed.last_with_a_run()
            } else {
                self.backed
                    .next_with_a_run(from)
                    .or(self.backed.next_with_a_run(0))
            };
            let run = self.backed.heads[index.expect("so many are free")][0];
            let len = self.remove(run);
            let part = len.min(move_pages);
            if len > part {
                self.insert(run, len - part, true);
            }
            self.release(run + len - part, part, false);
            move_pages -= part;
        }
    }

    /// A range is free: it joins its neighbours of one kind.
    fn release(&mut self, mut start: u32, mut len: u32, is_backed: bool) {
        let kind = if is_backed {
            Kind::Backed
        } else {
            Kind::Unbacked
        };
        if let Some(last) = start.checked_sub(1) {
            let left = self.records[last as usize].run_start;
            if left != NONE && self.records[left as usize].kind == kind {
                len += self.remove(left);
                start = left;
            }
        }
        let end = start + len;
        if end < self.counts.frontier && self.records[end as usize].kind == kind {
            len += self.remove(end);
        }
        if !is_backed && end == self.counts.frontier {
            // Nothing is behind it: it was never used.
            self.counts.frontier = start;
            return;
        }
        self.insert(start, len, is_backed);
    }

    fn insert(&mut self, start: u32, len: u32, is_backed: bool) {
        let lists = if is_backed {
            &mut self.backed
        } else {
            &mut self.unbacked
        };
        let index = lists.index(len);
        let [first, last] = lists.heads[index];
        lists.heads[index] = [start, if last == NONE { start } else { last }];
        lists.map[index / 64] |= 1 << (index % 64);
        self.records[start as usize] = Record {
            kind: if is_backed {
                Kind::Backed
            } else {
                Kind::Unbacked
            },
            len,
            prev: NONE,
            next: first,
            run_start: self.records[start as usize].run_start,
        };
        if first != NONE {
            self.records[first as usize].prev = start;
        }
        self.records[(start + len - 1) as usize].run_start = start;
        if is_backed {
            self.free_backed += u64::from(len);
        }
    }

    /// Takes a run off its list. Gives its length.
    fn remove(&mut self, start: u32) -> u32 {
        let Record {
            kind,
            len,
            prev,
            next,
            ..
        } = self.records[start as usize];
        let lists = if kind == Kind::Backed {
            &mut self.backed
        } else {
            &mut self.unbacked
        };
        assert!(
            matches!(kind, Kind::Backed | Kind::Unbacked),
            "{kind:?} at {start}"
        );
        let index = lists.index(len);
        if prev == NONE {
            lists.heads[index][0] = next;
        } else {
            self.records[prev as usize].next = next;
        }
        if next == NONE {
            lists.heads[index][1] = prev;
        } else {
            self.records[next as usize].prev = prev;
        }
        if lists.heads[index][0] == NONE {
            lists.map[index / 64] &= !(1 << (index % 64));
        }
        self.records[start as usize].kind = Kind::Inside;
        self.records[(start + len - 1) as usize].run_start = NONE;
        if kind == Kind::Backed {
            self.free_backed -= u64::from(len);
        }
        len
    }

    /// The invariants: runs and blocks follow one another, no two neighbours of one kind are free,
    /// and what is free and what is on lists is the same.
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
