// SPDX-License-Identifier: GPL-2.0-only

//! The table of pages: which extent each page belongs to, and which pages have memory.
//!
//! A *chunk* has the records of [`CHUNK_PAGES`] pages. It exists while one of these pages has memory,
//! or an extent begins after its first page. Otherwise its [`Entry`] alone describes it, so that empty
//! address space costs one entry per chunk. Entries come in *parts*, made on first use; the
//! *root* is a table of parts.
//!
//! ```text
//! root [256] -> part [64] -> Entry { starts, backed, occupied, pages, head, chunk }
//!                                                                            +-> chunk [1024] -> Record
//! ```
//!
//! Every page below the frontier belongs to exactly one *extent*: a run, a block, a divided page, or an
//! isolated range. The [`Head`] of an extent is kept at its first page, where a bit of `starts` is set.
//! Two levels of summary bits (`occupied`, in the entries and in the directory) find the extent of any
//! page in a bounded number of steps. A run finds the run before it in this way.

use super::head::{Head, Links};
use super::metadata::{Backend, MetadataCounts};
use core::ops::Range;

/// Pages in a chunk.
pub const CHUNK_PAGES: usize = 1024;
/// Entries in a part.
pub const PART_LEN: usize = 64;
/// Parts in the root.
pub const ROOT_LEN: usize = 256;
/// The most pages that an arena spans.
pub const MAX_PAGES: u32 = (ROOT_LEN * PART_LEN * CHUNK_PAGES) as u32;

/// Words of a bitmap with a bit for each page of a chunk.
const WORDS: usize = CHUNK_PAGES / 64;
/// Chunks that share one summary word, kept in the entry of the first of them.
const GROUP: usize = 64;
/// Groups of an arena.
const GROUPS: usize = ROOT_LEN * PART_LEN / GROUP;

/// A table of [`PART_LEN`] entries; `None` until one of them is used.
pub type Part<B, const PAGE_KIB: usize> = Option<<B as Backend>::Slice<Entry<B, PAGE_KIB>>>;

/// The summary of one chunk: where extents begin, which pages have memory, and its records, if any.
pub struct Entry<B: Backend, const PAGE_KIB: usize> {
    /// A bit for each page: an extent begins there.
    starts: [u64; WORDS],
    /// A bit for each page: it has memory.
    backed: [u64; WORDS],
    /// In the entry of the first chunk of a group: a bit for each chunk in which an extent begins.
    occupied: u64,
    /// Pages with memory.
    pages: u32,
    /// Ranges of the chunk that are in transit (`transit.rs`): they need their records.
    pub(super) transits: u32,
    /// The head at the first page, while the chunk has no records.
    pub(super) head: Head<B, PAGE_KIB>,
    pub(super) chunk: Option<B::Slice<Record<B, PAGE_KIB>>>,
}

impl<B: Backend, const PAGE_KIB: usize> Default for Entry<B, PAGE_KIB> {
    fn default() -> Self {
        Self {
            starts: [0; WORDS],
            backed: [0; WORDS],
            occupied: 0,
            pages: 0,
            transits: 0,
            head: Head::None,
            chunk: None,
        }
    }
}

impl<B: Backend, const PAGE_KIB: usize> Entry<B, PAGE_KIB> {
    fn head(&self, within: usize) -> Option<&Head<B, PAGE_KIB>> {
        match &self.chunk {
            Some(chunk) => Some(&chunk.get(within)?.head),
            None => (within == 0).then_some(&self.head),
        }
    }

    #[inline]
    fn head_mut(&mut self, within: usize) -> Option<&mut Head<B, PAGE_KIB>> {
        match &mut self.chunk {
            Some(chunk) => Some(&mut chunk.get_mut(within)?.head),
            None => (within == 0).then_some(&mut self.head),
        }
    }

    /// Returns whether the entry says as much without its records.
    pub(super) fn is_idle(&self) -> bool {
        let [first, rest @ ..] = &self.starts;
        let needed = self.pages > 0 || self.transits > 0;
        !needed && first & !1 == 0 && rest.iter().all(|word| *word == 0)
    }
}

/// The head of one page of a chunk.
pub struct Record<B: Backend, const PAGE_KIB: usize> {
    pub(super) head: Head<B, PAGE_KIB>,
}

impl<B: Backend, const PAGE_KIB: usize> Default for Record<B, PAGE_KIB> {
    fn default() -> Self {
        Self { head: Head::None }
    }
}

/// The root with all that hangs from it.
pub(super) struct Directory<B: Backend, const PAGE_KIB: usize> {
    /// Has length 0 until first use.
    pub(super) root: B::Slice<Part<B, PAGE_KIB>>,
    /// A bit for each group of chunks: an extent begins in one of them.
    occupied: [u64; GROUPS / 64],
    pub(super) counts: MetadataCounts,
    pub(super) changes: Changes,
}

/// The kinds of changes since the last [`Engine::take_changes`](super::Engine::take_changes): `true` if there may be
/// one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Which pages are free.
    pub free: bool,
    /// How many pages are held, or how much metadata there is.
    pub held: bool,
}

/// Returns the index of the highest set bit of `bits` at or below `last`.
fn highest(bits: &[u64], last: usize) -> Option<usize> {
    let mut word = last / 64;
    let mut masked = *bits.get(word)? & (u64::MAX >> (63 - last % 64));
    while masked == 0 {
        word = word.checked_sub(1)?;
        masked = *bits.get(word)?;
    }
    Some(word * 64 + 63 - masked.leading_zeros() as usize)
}

impl<B: Backend, const PAGE_KIB: usize> Directory<B, PAGE_KIB> {
    pub(super) fn new() -> Self {
        Self {
            root: B::Slice::default(),
            occupied: [0; GROUPS / 64],
            counts: MetadataCounts::default(),
            changes: Changes::default(),
        }
    }

    /// Returns how much metadata there is.
    pub(super) fn counts(&self) -> MetadataCounts {
        self.counts
    }

    pub(super) fn entry(&self, page: u32) -> Option<&Entry<B, PAGE_KIB>> {
        let index = page as usize / CHUNK_PAGES;
        let entries = self.root.get(index / PART_LEN)?.as_ref()?;
        entries.get(index % PART_LEN)
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, page: u32) -> Option<&mut Entry<B, PAGE_KIB>> {
        let index = page as usize / CHUNK_PAGES;
        let entries = self.root.get_mut(index / PART_LEN)?.as_mut()?;
        entries.get_mut(index % PART_LEN)
    }

    /// Returns whether a page has memory.
    pub(super) fn is_backed(&self, page: u32) -> bool {
        let within = page as usize % CHUNK_PAGES;
        let word = self
            .entry(page)
            .and_then(|entry| entry.backed.get(within / 64));
        word.is_some_and(|word| word & (1 << (within % 64)) != 0)
    }

    /// Returns whether `page` has memory, and how many pages from there on, up to `end`, are alike.
    ///
    /// Costs a step for each word of bits, and one for each chunk without memory.
    pub(super) fn alike(&self, page: u32, end: u32) -> (bool, u32) {
        let has = self.is_backed(page);
        let mut next = page;
        while next < end {
            let within = next as usize % CHUNK_PAGES;
            let Some(entry) = self.entry(next).filter(|entry| entry.pages > 0) else {
                if has {
                    break;
                }
                next += (CHUNK_PAGES - within) as u32;
                continue;
            };
            let word = entry.backed.get(within / 64).copied().unwrap_or_default();
            let other = if has { !word } else { word };
            let first = (other >> (within % 64)).trailing_zeros();
            let rest = (64 - within % 64) as u32;
            next += first.min(rest);
            if first < rest {
                break;
            }
        }
        (has, next.min(end) - page)
    }

    /// Adds `change` to the number of ranges in transit of the chunk of `page`.
    pub(super) fn count_transit(&mut self, page: u32, change: i32) {
        if let Some(entry) = self.entry_mut(page) {
            entry.transits = entry.transits.wrapping_add_signed(change);
        }
    }

    /// Returns how many pages of `range` have memory.
    pub(super) fn count_backed(&self, range: Range<u32>) -> u32 {
        let mut count = 0;
        let mut page = range.start;
        while page < range.end {
            let within = page as usize % CHUNK_PAGES;
            if within == 0 && range.end - page >= CHUNK_PAGES as u32 {
                count += self.entry(page).map_or(0, |entry| entry.pages);
                page += CHUNK_PAGES as u32;
                continue;
            }
            let pages = (range.end - page).min((64 - within % 64) as u32);
            let mask = (u64::MAX >> (64 - pages)) << (within % 64);
            let word = self
                .entry(page)
                .and_then(|entry| entry.backed.get(within / 64));
            count += word.map_or(0, |word| (word & mask).count_ones());
            page += pages;
        }
        count
    }

    /// Sets whether the pages of `range` have memory. Returns how many pages that changed.
    ///
    /// Pages get memory only in chunks that have records.
    pub(super) fn set_backed(&mut self, range: Range<u32>, has: bool) -> u32 {
        self.changes.held = true;
        let mut changed = 0;
        let mut page = range.start;
        while page < range.end {
            let within = page as usize % CHUNK_PAGES;
            let count = (range.end - page).min((64 - within % 64) as u32);
            let mask = (u64::MAX >> (64 - count)) << (within % 64);
            if let Some(entry) = self.entry_mut(page) {
                debug_assert!(!has || entry.chunk.is_some());
                if let Some(word) = entry.backed.get_mut(within / 64) {
                    let before = *word;
                    *word = if has { before | mask } else { before & !mask };
                    let differ = (*word ^ before).count_ones();
                    changed += differ;
                    entry.pages = match has {
                        true => entry.pages + differ,
                        false => entry.pages - differ,
                    };
                }
            }
            page += count;
        }
        changed
    }

    /// Returns the head of the extent that begins at `page`.
    pub(super) fn head(&self, page: u32) -> Option<&Head<B, PAGE_KIB>> {
        let head = self.entry(page)?.head(page as usize % CHUNK_PAGES)?;
        (!matches!(head, Head::None)).then_some(head)
    }

    /// Returns the head of the extent that begins at `page`, to be changed. Not into
    /// [`Head::None`]: [`Directory::take_head`] does that.
    #[inline]
    pub(super) fn head_mut(&mut self, page: u32) -> Option<&mut Head<B, PAGE_KIB>> {
        let head = self
            .entry_mut(page)?
            .head_mut(page as usize % CHUNK_PAGES)?;
        (!matches!(head, Head::None)).then_some(head)
    }

    /// Begins an extent at `page`, where [`Directory::ensure_places`] has made a place for its head.
    pub(super) fn put_head(&mut self, page: u32, head: Head<B, PAGE_KIB>) {
        if matches!(head, Head::Subpage(..)) {
            self.counts.trees += 1;
            self.changes.held = true;
        }
        let within = page as usize % CHUNK_PAGES;
        let mut was_empty = false;
        let place = self.entry_mut(page).and_then(|entry| {
            let word = entry.starts.get_mut(within / 64)?;
            was_empty = *word == 0;
            *word |= 1 << (within % 64);
            entry.head_mut(within)
        });
        let Some(place) = place else {
            debug_assert!(false, "metadata is ensured before anything is changed");
            return;
        };
        *place = head;
        if was_empty {
            let index = page as usize / CHUNK_PAGES;
            if let Some(first) = self.entry_mut(Self::group_of(page)) {
                first.occupied |= 1 << (index % GROUP);
            }
            if let Some(word) = self.occupied.get_mut(index / GROUP / 64) {
                *word |= 1 << (index / GROUP % 64);
            }
        }
    }

    /// Removes and returns the head at `page`; [`Head::None`] where nothing begins.
    pub(super) fn take_head(&mut self, page: u32) -> Option<Head<B, PAGE_KIB>> {
        let within = page as usize % CHUNK_PAGES;
        let entry = self.entry_mut(page)?;
        let place = entry.head_mut(within)?;
        let head = core::mem::replace(place, Head::None);
        let word = entry.starts.get_mut(within / 64)?;
        *word &= !(1 << (within % 64));
        if *word == 0 && entry.starts.iter().all(|word| *word == 0) {
            let index = page as usize / CHUNK_PAGES;
            if let Some(first) = self.entry_mut(Self::group_of(page)) {
                first.occupied &= !(1 << (index % GROUP));
                if first.occupied == 0 {
                    if let Some(word) = self.occupied.get_mut(index / GROUP / 64) {
                        *word &= !(1 << (index / GROUP % 64));
                    }
                }
            }
        }
        if matches!(head, Head::Subpage(..)) {
            self.counts.trees -= 1;
            self.changes.held = true;
        }
        Some(head)
    }

    /// Returns the first page of the group of chunks that `page` lies in.
    fn group_of(page: u32) -> u32 {
        page & !((GROUP * CHUNK_PAGES) as u32 - 1)
    }

    /// Returns the first page of the extent in which `page` lies, for a page below the frontier. Of
    /// another page, the first page of the last extent before it.
    pub(super) fn start_of(&self, page: u32) -> Option<u32> {
        let index = page as usize / CHUNK_PAGES;
        let within = page as usize % CHUNK_PAGES;
        let in_chunk = |index: usize, last: usize| {
            let first = (index * CHUNK_PAGES) as u32;
            let found = highest(&self.entry(first)?.starts, last)?;
            Some(first + found as u32)
        };
        if let Some(found) = in_chunk(index, within) {
            return Some(found);
        }
        // An earlier chunk of its group, else the last of an earlier group.
        let in_group = |group: usize, end: usize| {
            let last = end.checked_sub(1)?;
            let first = self.entry((group * GROUP * CHUNK_PAGES) as u32)?;
            Some(group * GROUP + highest(&[first.occupied], last)?)
        };
        let group = index / GROUP;
        let chunk = in_group(group, index % GROUP).or_else(|| {
            let group = highest(&self.occupied, group.checked_sub(1)?)?;
            in_group(group, GROUP)
        })?;
        in_chunk(chunk, CHUNK_PAGES - 1)
    }

    /// Returns the first page and the head of the extent in which `page` lies; `None` beyond the
    /// frontier.
    pub(super) fn extent_of(&self, page: u32) -> Option<(u32, &Head<B, PAGE_KIB>)> {
        let start = self.start_of(page)?;
        let head = self.head(start)?;
        (page - start < head.pages()).then_some((start, head))
    }

    /// Returns the list links of the run or divided page that begins at `page`.
    pub(super) fn links_mut(&mut self, page: u32) -> Option<&mut Links> {
        match self.head_mut(page)? {
            Head::Backed { links, .. } | Head::Unbacked { links, .. } | Head::Subpage(_, links) => {
                Some(links)
            }
            _ => None,
        }
    }

    /// Returns how many extents begin in the chunk of `page`, and how many of its pages have memory, by
    /// its entry; `None` where the entry contradicts itself or a summary. For [`Engine::check`](super::Engine::check).
    pub(super) fn check_chunk(&self, page: u32) -> Option<(u32, u32)> {
        let Some(entry) = self.entry(page) else {
            return Some((0, 0));
        };
        let starts = entry.starts.iter().map(|word| word.count_ones()).sum();
        let index = page as usize / CHUNK_PAGES;
        let group = index / GROUP;
        let first = self.entry(Self::group_of(page));
        let occupied = first.map_or(0, |first| first.occupied);
        let summed_up = (self.occupied[group / 64] >> (group % 64)) & 1 != 0;
        let right = ((occupied >> (index % GROUP)) & 1 != 0) == (starts > 0)
            && summed_up == (occupied != 0);
        let backed: u32 = entry.backed.iter().map(|word| word.count_ones()).sum();
        let records = backed == 0 || entry.chunk.is_some();
        (right && records && backed == entry.pages).then_some((starts, backed))
    }
}
