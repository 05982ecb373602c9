// SPDX-License-Identifier: GPL-2.0-only

//! What the engine knows of each page, and where it is kept.
//!
//! A *chunk* has the records of [`CHUNK_PAGES`] pages. It exists while one of them is backed, or
//! something begins inside it; else its [`Entry`] says all there is to say, so that a terabyte of
//! empty address space costs an entry. Entries come in *parts*, made on first use; the *root* is a
//! table of parts.
//!
//! ```text
//! root [128] -> part [128] -> Entry { starts, backed, occupied, pages, head, chunk }
//!                                                                             +-> chunk [1024] -> Record
//! ```
//!
//! Everything below the frontier belongs to one *extent*: a run, a block, a divided page. An extent
//! is known by its [`Head`], which stands at its first page, and by a bit there (`starts`). The bits
//! are summed up by part (`occupied`) and by root, so that the extent in which a page lies is found
//! in a bounded number of steps: that is how a run finds the one before it.

use super::Tree;
use core::ops::{DerefMut, Range};

/// Pages in a chunk.
pub const CHUNK_PAGES: usize = 1024;
/// Entries in a part.
pub const PART_LEN: usize = 64;
/// Parts in the root.
pub const ROOT_LEN: usize = 256;
/// The most pages that an arena spans.
pub const MAX_PAGES: u32 = (ROOT_LEN * PART_LEN * CHUNK_PAGES) as u32;

/// Words of a chunk's bits.
const WORDS: usize = CHUNK_PAGES / 64;
/// Chunks that one word sums up, which is in the entry of the first of them.
const GROUP: usize = 64;
/// Such groups.
const GROUPS: usize = ROOT_LEN * PART_LEN / GROUP;

/// What the engine's surroundings lend it: memory for metadata. The pages themselves are theirs.
pub trait Backend {
    /// A metadata object of its own.
    type Box<T>: DerefMut<Target = T>;
    /// A metadata table of fixed length; by default of none.
    type Slice<T>: DerefMut<Target = [T]> + Default;
}

/// The kinds of metadata that the engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// [`ROOT_LEN`] parts: before anything else.
    Root,
    /// [`PART_LEN`] entries.
    Part,
    /// [`CHUNK_PAGES`] records.
    Chunk,
    /// A [`Tree`].
    Tree,
}

/// Chunks that one call may lack: a block may begin in one and end in another.
const LACKED_CHUNKS: usize = 2;

/// Metadata that was allocated outside the lock, for the engine to take what it lacks.
///
/// What is left serves the next call, or is dropped after the unlock.
pub struct Prealloc<B: Backend, const PAGE_KIB: usize> {
    root: Option<B::Slice<Part<B, PAGE_KIB>>>,
    part: Option<B::Slice<Entry<B, PAGE_KIB>>>,
    chunks: [Option<B::Slice<Record<B, PAGE_KIB>>>; LACKED_CHUNKS],
    pub(super) tree: Option<B::Box<Tree<PAGE_KIB>>>,
}

impl<B: Backend, const PAGE_KIB: usize> Default for Prealloc<B, PAGE_KIB> {
    fn default() -> Self {
        Self {
            root: None,
            part: None,
            chunks: [const { None }; LACKED_CHUNKS],
            tree: None,
        }
    }
}

impl<B: Backend, const PAGE_KIB: usize> Prealloc<B, PAGE_KIB> {
    /// Adds [`ROOT_LEN`] default parts.
    pub fn add_root(&mut self, root: B::Slice<Part<B, PAGE_KIB>>) {
        self.root = Some(root);
    }

    /// Adds [`PART_LEN`] default entries.
    pub fn add_part(&mut self, part: B::Slice<Entry<B, PAGE_KIB>>) {
        self.part = Some(part);
    }

    /// Adds [`CHUNK_PAGES`] default records.
    pub fn add_chunk(&mut self, chunk: B::Slice<Record<B, PAGE_KIB>>) {
        let [first, second] = &mut self.chunks;
        let place = if first.is_none() { first } else { second };
        *place = Some(chunk);
    }

    /// Adds a tree in any state.
    pub fn add_tree(&mut self, tree: B::Box<Tree<PAGE_KIB>>) {
        self.tree = Some(tree);
    }

    fn take_chunk(&mut self) -> Option<B::Slice<Record<B, PAGE_KIB>>> {
        self.chunks.iter_mut().find_map(Option::take)
    }

    fn chunks(&self) -> usize {
        self.chunks.iter().flatten().count()
    }
}

/// Chunks and trees that a call may leave behind.
const LEFT_CHUNKS: usize = 4;
const LEFT_TREES: usize = 16;

/// Metadata that the engine has no more use for, to be dropped after the unlock.
///
/// It has room for what one call leaves behind: where a call needs a new one it says so.
#[must_use = "garbage is to be dropped after the unlock"]
pub struct Garbage<B: Backend, const PAGE_KIB: usize> {
    chunks: [Option<B::Slice<Record<B, PAGE_KIB>>>; LEFT_CHUNKS],
    trees: [Option<B::Box<Tree<PAGE_KIB>>>; LEFT_TREES],
}

impl<B: Backend, const PAGE_KIB: usize> Default for Garbage<B, PAGE_KIB> {
    fn default() -> Self {
        Self {
            chunks: [const { None }; LEFT_CHUNKS],
            trees: [const { None }; LEFT_TREES],
        }
    }
}

impl<B: Backend, const PAGE_KIB: usize> Garbage<B, PAGE_KIB> {
    fn chunk_place(&mut self) -> Option<&mut Option<B::Slice<Record<B, PAGE_KIB>>>> {
        self.chunks.iter_mut().find(|place| place.is_none())
    }

    /// Whether it has room for what one more call may leave.
    pub fn has_room(&self) -> bool {
        self.has_room_for_tree()
    }

    /// Whether one more tree has room.
    pub(super) fn has_room_for_tree(&self) -> bool {
        self.trees.iter().any(Option::is_none)
    }

    /// Takes a tree over. One that has no room is dropped here, under the lock: allowed, but slow.
    pub(super) fn add_tree(&mut self, tree: B::Box<Tree<PAGE_KIB>>) {
        if let Some(place) = self.trees.iter_mut().find(|place| place.is_none()) {
            *place = Some(tree);
        }
    }
}

/// A part of the directory, if it was used.
pub type Part<B, const PAGE_KIB: usize> = Option<<B as Backend>::Slice<Entry<B, PAGE_KIB>>>;

/// What is known of one chunk.
pub struct Entry<B: Backend, const PAGE_KIB: usize> {
    /// A bit for each page: an extent begins there.
    starts: [u64; WORDS],
    /// A bit for each page: it has memory.
    backed: [u64; WORDS],
    /// Of the first of [`GROUP`] chunks: a bit for each of them that an extent begins in.
    occupied: u64,
    /// Pages with memory.
    pages: u32,
    /// Ranges whose memory comes or goes at this moment: they need their records.
    transits: u32,
    /// Of what begins at the first page, while there are no records.
    head: Head<B, PAGE_KIB>,
    chunk: Option<B::Slice<Record<B, PAGE_KIB>>>,
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

    /// Whether its records say nothing that the entry could not.
    fn is_idle(&self) -> bool {
        let [first, rest @ ..] = &self.starts;
        let needed = self.pages > 0 || self.transits > 0;
        !needed && first & !1 == 0 && rest.iter().all(|word| *word == 0)
    }
}

/// What begins at a page, if anything does.
pub struct Record<B: Backend, const PAGE_KIB: usize> {
    head: Head<B, PAGE_KIB>,
}

impl<B: Backend, const PAGE_KIB: usize> Default for Record<B, PAGE_KIB> {
    fn default() -> Self {
        Self { head: Head::None }
    }
}

/// Neighbours on a list, as page numbers; [`Links::END`] where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl Links {
    pub(super) const END: u32 = u32::MAX;
    pub(super) const NONE: Self = Self {
        prev: Self::END,
        next: Self::END,
    };
}

/// Where the memory of a live block's pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// In all of them, but for those that were lost ([`Engine::lose`](super::Engine::lose)).
    Whole,
    /// In those that were touched; the others have their room under the limits.
    Lazy,
    /// The same, of a block that has lost a page: no other page gets memory any more, lest a loss
    /// pass for zeros.
    Damaged,
}

/// What begins at a page.
pub(super) enum Head<B: Backend, const PAGE_KIB: usize> {
    /// Nothing: the page lies inside an extent, or was never used.
    None,
    /// A run of free pages with memory. On a list.
    Backed { pages: u32, links: Links },
    /// A run of free pages without memory. On a list.
    Unbacked { pages: u32, links: Links },
    /// Pages that no request can get: a block that is being allocated or freed, or a range that is
    /// isolated.
    Reserved {
        pages: u32,
        /// So many of them, the first, have memory.
        backed: u32,
        /// The others are about to get it, without the lock.
        awaits_memory: bool,
    },
    /// A live block.
    Live {
        pages: u32,
        memory: Memory,
        headed: bool,
        /// Pages behind it are reserved for it.
        growing: bool,
        /// Its pages lie side by side in physical memory.
        contiguous: bool,
    },
    /// A page that is divided into blocks smaller than itself.
    Subpage(B::Box<Tree<PAGE_KIB>>),
}

impl<B: Backend, const PAGE_KIB: usize> Head<B, PAGE_KIB> {
    /// Pages of the extent.
    pub(super) fn pages(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Backed { pages, .. }
            | Self::Unbacked { pages, .. }
            | Self::Reserved { pages, .. }
            | Self::Live { pages, .. } => *pages,
            Self::Subpage(_) => 1,
        }
    }
}

/// The root, and a count of what hangs from it.
pub(super) struct Directory<B: Backend, const PAGE_KIB: usize> {
    /// Of no length until it is needed.
    root: B::Slice<Part<B, PAGE_KIB>>,
    /// Groups of chunks that something begins in.
    occupied: [u64; GROUPS / 64],
    counts: MetadataCounts,
    pub(super) changes: Changes,
}

/// Names what may have changed since the engine was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Which pages are free.
    pub free: bool,
    /// What is held, or how much metadata there is.
    pub held: bool,
}

/// How much metadata there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataCounts {
    /// Tables of [`ROOT_LEN`] parts: one, or none yet.
    pub roots: u64,
    /// Tables of [`PART_LEN`] entries.
    pub parts: u64,
    /// Tables of [`CHUNK_PAGES`] records.
    pub chunks: u64,
    /// Trees of divided pages.
    pub trees: u64,
}

/// The highest set bit of `bits` up to `last`.
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

    /// How much metadata there is.
    pub(super) fn counts(&self) -> MetadataCounts {
        self.counts
    }

    fn entry(&self, page: u32) -> Option<&Entry<B, PAGE_KIB>> {
        let index = page as usize / CHUNK_PAGES;
        let entries = self.root.get(index / PART_LEN)?.as_ref()?;
        entries.get(index % PART_LEN)
    }

    #[inline]
    fn entry_mut(&mut self, page: u32) -> Option<&mut Entry<B, PAGE_KIB>> {
        let index = page as usize / CHUNK_PAGES;
        let entries = self.root.get_mut(index / PART_LEN)?.as_mut()?;
        entries.get_mut(index % PART_LEN)
    }

    /// Whether the pages of the chunk of `page` have records: without, none of them has memory, and
    /// nothing begins behind the first.
    pub(super) fn has_records(&self, page: u32) -> bool {
        self.entry(page).is_some_and(|entry| entry.chunk.is_some())
    }

    /// Whether a page has memory.
    pub(super) fn is_backed(&self, page: u32) -> bool {
        let within = page as usize % CHUNK_PAGES;
        let word = self
            .entry(page)
            .and_then(|entry| entry.backed.get(within / 64));
        word.is_some_and(|word| word & (1 << (within % 64)) != 0)
    }

    /// Makes sure that an extent may begin at each of `pages`. Changes nothing where it cannot.
    pub(super) fn ensure_places(
        &mut self,
        pages: [Option<u32>; 2],
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        let mut lacked = None;
        let mut chunks = 0;
        for page in pages.into_iter().flatten() {
            let index = page as usize / CHUNK_PAGES;
            let part = self.root.get(index / PART_LEN);
            let has_part = part.map_or(index >= PART_LEN * ROOT_LEN, Option::is_some);
            if !has_part {
                // Of two that are lacked one is asked for after the other: a part may stay.
                self.ensure_part(page, prealloc)?;
            }
            let has_chunk = self.entry(page).is_none_or(|entry| entry.chunk.is_some());
            if !has_chunk && page as usize % CHUNK_PAGES != 0 && lacked != Some(index) {
                lacked = Some(index);
                chunks += 1;
            }
        }
        if chunks > prealloc.chunks() {
            return Err(Metadata::Chunk);
        }
        for page in pages.into_iter().flatten() {
            if page as usize % CHUNK_PAGES != 0 {
                self.ensure_chunk(page, prealloc)?;
            }
        }
        Ok(())
    }

    fn ensure_part(
        &mut self,
        page: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        if self.root.is_empty() {
            self.root = prealloc.root.take().ok_or(Metadata::Root)?;
            self.counts.roots += 1;
            self.changes.held = true;
        }
        let index = page as usize / CHUNK_PAGES / PART_LEN;
        if let Some(part @ None) = self.root.get_mut(index) {
            *part = Some(prealloc.part.take().ok_or(Metadata::Part)?);
            self.counts.parts += 1;
            self.changes.held = true;
        }
        Ok(())
    }

    /// Makes sure that `page` has a record.
    pub(super) fn ensure_chunk(
        &mut self,
        page: u32,
        prealloc: &mut Prealloc<B, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        self.ensure_part(page, prealloc)?;
        if let Some(Entry { chunk, head, .. }) = self.entry_mut(page) {
            if chunk.is_none() {
                let mut new = prealloc.take_chunk().ok_or(Metadata::Chunk)?;
                if let Some(first) = new.first_mut() {
                    first.head = core::mem::replace(head, Head::None);
                }
                *chunk = Some(new);
                self.counts.chunks += 1;
                self.changes.held = true;
            }
        }
        Ok(())
    }

    /// Moves the chunk of `page` to `garbage` if its entry says as much and there is room. Leaves it
    /// where a block, which may begin before it, is about to get memory.
    pub(super) fn give_chunk(&mut self, page: u32, garbage: &mut Garbage<B, PAGE_KIB>) {
        let Some(place) = garbage.chunk_place() else {
            return;
        };
        if !self.entry(page).is_some_and(Entry::is_idle) || self.awaits_memory(page) {
            return;
        }
        let Some(entry) = self.entry_mut(page) else {
            return;
        };
        if let Some(mut chunk) = entry.chunk.take() {
            if let Some(first) = chunk.first_mut() {
                entry.head = core::mem::replace(&mut first.head, Head::None);
            }
            *place = Some(chunk);
            self.counts.chunks -= 1;
            self.changes.held = true;
        }
    }

    /// Whether the first page of the chunk of `page` may be about to get memory.
    fn awaits_memory(&self, page: u32) -> bool {
        let first = page - page % CHUNK_PAGES as u32;
        match self.extent_of(first) {
            Some((_, Head::Reserved { awaits_memory, .. })) => *awaits_memory,
            // It has memory, or is about to get it.
            Some((_, Head::Subpage(_))) => true,
            _ => false,
        }
    }

    /// Whether `page` has memory, and how many pages from there on are alike, up to `end`. Looks at
    /// whole words, and at chunks without records as a whole.
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

    /// So many more ranges of the chunk of `page` are in transit: -1 ends one.
    pub(super) fn count_transit(&mut self, page: u32, change: i32) {
        if let Some(entry) = self.entry_mut(page) {
            entry.transits = entry.transits.wrapping_add_signed(change);
        }
    }

    /// How many pages of `range` have memory.
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

    /// The pages of `range`, whose chunks have records, have memory from now on, or none. Returns how
    /// many of them it was otherwise with.
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

    /// What begins at `page`, if anything does.
    pub(super) fn head(&self, page: u32) -> Option<&Head<B, PAGE_KIB>> {
        let head = self.entry(page)?.head(page as usize % CHUNK_PAGES)?;
        (!matches!(head, Head::None)).then_some(head)
    }

    /// As [`Directory::head`], to be changed into something else that begins there.
    #[inline]
    pub(super) fn head_mut(&mut self, page: u32) -> Option<&mut Head<B, PAGE_KIB>> {
        let head = self
            .entry_mut(page)?
            .head_mut(page as usize % CHUNK_PAGES)?;
        (!matches!(head, Head::None)).then_some(head)
    }

    /// From now on `head` begins at `page`, whose place exists.
    pub(super) fn put_head(&mut self, page: u32, head: Head<B, PAGE_KIB>) {
        if matches!(head, Head::Subpage(_)) {
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

    /// Takes away what begins at `page`.
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
        if matches!(head, Head::Subpage(_)) {
            self.counts.trees -= 1;
            self.changes.held = true;
        }
        Some(head)
    }

    /// The first page of the group of chunks that `page` lies in.
    fn group_of(page: u32) -> u32 {
        page & !((GROUP * CHUNK_PAGES) as u32 - 1)
    }

    /// Where the extent begins in which `page` lies, if it lies below the frontier.
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

    /// The extent in which `page` lies, and where it begins.
    pub(super) fn extent_of(&self, page: u32) -> Option<(u32, &Head<B, PAGE_KIB>)> {
        let start = self.start_of(page)?;
        let head = self.head(start)?;
        (page - start < head.pages()).then_some((start, head))
    }

    /// The list links of what begins at `page`.
    pub(super) fn links_mut(&mut self, page: u32) -> Option<&mut Links> {
        match self.head_mut(page)? {
            Head::Backed { links, .. } | Head::Unbacked { links, .. } => Some(links),
            Head::Subpage(tree) => Some(&mut tree.links),
            _ => None,
        }
    }

    /// Takes a chunk away: the first one at or behind `page`. Returns it with the page number behind it.
    /// For the end of an arena.
    pub(super) fn dismantle(
        &mut self,
        mut page: u32,
    ) -> Option<(u32, B::Slice<Record<B, PAGE_KIB>>)> {
        const PART_PAGES: u32 = (PART_LEN * CHUNK_PAGES) as u32;
        while page < MAX_PAGES {
            let Some(entry) = self.entry_mut(page) else {
                page = (page / PART_PAGES + 1) * PART_PAGES;
                continue;
            };
            page += CHUNK_PAGES as u32;
            if let Some(chunk) = entry.chunk.take() {
                self.counts.chunks -= 1;
                return Some((page, chunk));
            }
        }
        None
    }

    /// How many extents begin in the chunk of `page`, and how many of its pages have memory, as its
    /// entry says; `None` where the summaries of its bits are wrong.
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
