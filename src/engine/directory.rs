// SPDX-License-Identifier: GPL-2.0

//! Where the engine keeps what it knows of each page.
//!
//! A *chunk* has the records of [`CHUNK_PAGES`] pages. It is made when one of them is backed or a
//! run or block smaller than a chunk lies there, and given back when that is over. The *directory* has an [`Entry`] for each chunk,
//! which also has the head of a run or block of a chunk or more, so a terabyte of empty address
//! space costs one entry. Entries come in *parts*, made on first use; the *root* is a table of
//! parts. A slot never crosses a part.
//!
//! ```text
//! root [64] -> part [256] -> Entry { head of order >= 10, chunk }
//!                                                          +-> chunk [1024] -> Record { page, head of order < 10 }
//! ```

use super::backend::{Backend, Kit, Metadata};
use super::Tree;

/// Pages in a chunk.
pub const CHUNK_PAGES: usize = 1 << CHUNK_ORDER;
/// Entries in a part.
pub const PART_LEN: usize = 256;
/// Parts in the root.
pub const ROOT_LEN: usize = 64;
/// The most pages that an arena spans.
pub const MAX_PAGES: u32 = (ROOT_LEN * PART_LEN * CHUNK_PAGES) as u32;

/// The order of a slot that is a chunk.
pub(super) const CHUNK_ORDER: u8 = 10;

/// What is known of one chunk.
pub struct Entry<M: Backend, const PAGE_KIB: usize> {
    head: Head<M, PAGE_KIB>,
    chunk: Option<M::Slice<Record<M, PAGE_KIB>>>,
}

impl<M: Backend, const PAGE_KIB: usize> Default for Entry<M, PAGE_KIB> {
    fn default() -> Self {
        Self {
            head: Head::Interior,
            chunk: None,
        }
    }
}

/// What is known of one page.
pub struct Record<M: Backend, const PAGE_KIB: usize> {
    pub(super) page: Option<M::Page>,
    head: Head<M, PAGE_KIB>,
}

impl<M: Backend, const PAGE_KIB: usize> Default for Record<M, PAGE_KIB> {
    fn default() -> Self {
        Self {
            page: None,
            head: Head::Interior,
        }
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

/// What begins at a page.
pub(super) enum Head<M: Backend, const PAGE_KIB: usize> {
    /// Nothing: the page is inside something that begins before it, or was never used.
    Interior,
    /// A run: a free slot whose first `backed` pages have memory. On a list.
    Free {
        order: u8,
        backed: u32,
        links: Links,
    },
    /// A block that is not live yet. `whole`: it owns its slot of `order`, not just `pages`.
    Reserved {
        order: u8,
        whole: bool,
        pages: u32,
        backed: u32,
    },
    /// A block of `pages` pages, all backed.
    Live {
        order: u8,
        whole: bool,
        pages: u32,
        headed: bool,
    },
    /// A page that is divided.
    Subpage(M::Box<Tree<PAGE_KIB>>),
}

/// The root, and a count of what hangs from it.
pub(super) struct Directory<M: Backend, const PAGE_KIB: usize> {
    root: M::Slice<Option<M::Slice<Entry<M, PAGE_KIB>>>>,
    parts: u64,
    chunks: u64,
    trees: u64,
}

impl<M: Backend, const PAGE_KIB: usize> Directory<M, PAGE_KIB> {
    pub(super) fn new(root: M::Slice<Option<M::Slice<Entry<M, PAGE_KIB>>>>) -> Self {
        Self {
            root,
            parts: 0,
            chunks: 0,
            trees: 0,
        }
    }

    /// Parts, chunks and trees.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.parts, self.chunks, self.trees)
    }

    fn entry(&self, page: u32) -> Option<&Entry<M, PAGE_KIB>> {
        let index = page as usize / CHUNK_PAGES;
        let part = self.root.get(index / PART_LEN)?.as_ref()?;
        part.get(index % PART_LEN)
    }

    fn entry_mut(&mut self, page: u32) -> Option<&mut Entry<M, PAGE_KIB>> {
        let index = page as usize / CHUNK_PAGES;
        let part = self.root.get_mut(index / PART_LEN)?.as_mut()?;
        part.get_mut(index % PART_LEN)
    }

    pub(super) fn record(&self, page: u32) -> Option<&Record<M, PAGE_KIB>> {
        let chunk = self.entry(page)?.chunk.as_ref()?;
        chunk.get(page as usize % CHUNK_PAGES)
    }

    /// The pages behind page numbers from `page` on, at most `most`, up to the first without one and to
    /// the end of the chunk.
    pub(super) fn pages(&self, page: u32, most: u32) -> impl Iterator<Item = &M::Page> {
        let chunk = self
            .entry(page)
            .and_then(|entry| entry.chunk.as_deref())
            .unwrap_or_default();
        let records = chunk.get(page as usize % CHUNK_PAGES..).unwrap_or_default();
        let wanted = records.iter().take(most as usize);
        wanted.map_while(|record| record.page.as_ref())
    }

    pub(super) fn record_mut(&mut self, page: u32) -> Option<&mut Record<M, PAGE_KIB>> {
        let chunk = self.entry_mut(page)?.chunk.as_mut()?;
        chunk.get_mut(page as usize % CHUNK_PAGES)
    }

    /// Makes sure that the slots of the part of `page` have a place for their heads.
    pub(super) fn ensure_part(
        &mut self,
        page: u32,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        let index = page as usize / CHUNK_PAGES / PART_LEN;
        if let Some(part @ None) = self.root.get_mut(index) {
            *part = Some(kit.part.take().ok_or(Metadata::Part)?);
            self.parts += 1;
        }
        Ok(())
    }

    /// Makes sure that `page` has a record. Its part exists.
    pub(super) fn ensure_chunk(
        &mut self,
        page: u32,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        if let Some(Entry { chunk, .. }) = self.entry_mut(page) {
            if chunk.is_none() {
                *chunk = Some(kit.chunk.take().ok_or(Metadata::Chunk)?);
                self.chunks += 1;
            }
        }
        Ok(())
    }

    /// Puts pages from `pages` behind page numbers from `page` on, at most `most`, up to the end of
    /// the chunk. Gives how many came.
    pub(super) fn put_pages(
        &mut self,
        page: u32,
        most: u32,
        pages: &mut impl Iterator<Item = M::Page>,
    ) -> u32 {
        let chunk = self
            .entry_mut(page)
            .and_then(|entry| entry.chunk.as_deref_mut());
        let records = chunk
            .and_then(|chunk| chunk.get_mut(page as usize % CHUNK_PAGES..))
            .unwrap_or_default();
        let mut came = 0;
        for record in records.iter_mut().take(most as usize) {
            let Some(page) = pages.next() else {
                break;
            };
            debug_assert!(record.page.is_none());
            record.page = Some(page);
            came += 1;
        }
        came
    }

    /// Makes sure that the head of a slot of `order` at `page` has a place. Its part exists.
    pub(super) fn ensure_place(
        &mut self,
        page: u32,
        order: u8,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<(), Metadata> {
        if order < CHUNK_ORDER {
            self.ensure_chunk(page, kit)?;
        }
        Ok(())
    }

    /// What begins at `page`, if anything does.
    pub(super) fn head(&self, page: u32) -> Option<&Head<M, PAGE_KIB>> {
        let entry = self.entry(page)?;
        let within = page as usize % CHUNK_PAGES;
        if within == 0 && !matches!(entry.head, Head::Interior) {
            return Some(&entry.head);
        }
        let head = &entry.chunk.as_ref()?.get(within)?.head;
        (!matches!(head, Head::Interior)).then_some(head)
    }

    pub(super) fn head_mut(&mut self, page: u32) -> Option<&mut Head<M, PAGE_KIB>> {
        let entry = self.entry_mut(page)?;
        let within = page as usize % CHUNK_PAGES;
        if within == 0 && !matches!(entry.head, Head::Interior) {
            return Some(&mut entry.head);
        }
        let head = &mut entry.chunk.as_mut()?.get_mut(within)?.head;
        (!matches!(head, Head::Interior)).then_some(head)
    }

    /// The place of the head of a slot of `order` that begins at `page`.
    fn place(&mut self, page: u32, order: u8) -> Option<&mut Head<M, PAGE_KIB>> {
        if order >= CHUNK_ORDER {
            Some(&mut self.entry_mut(page)?.head)
        } else {
            Some(&mut self.record_mut(page)?.head)
        }
    }

    /// Writes the head of a slot of `order`, whose place exists.
    pub(super) fn put(&mut self, page: u32, order: u8, head: Head<M, PAGE_KIB>) {
        self.trees += u64::from(matches!(head, Head::Subpage(_)));
        if let Some(place) = self.place(page, order) {
            *place = head;
        } else {
            debug_assert!(false, "metadata is ensured before anything is changed");
        }
    }

    /// Takes the head of a slot of `order` away.
    pub(super) fn take_head(&mut self, page: u32, order: u8) -> Option<Head<M, PAGE_KIB>> {
        let place = self.place(page, order)?;
        Some(core::mem::replace(place, Head::Interior))
    }

    /// Takes the tree of a divided page away.
    pub(super) fn take_tree(&mut self, page: u32) -> Option<M::Box<Tree<PAGE_KIB>>> {
        match self.take_head(page, 0) {
            Some(Head::Subpage(tree)) => {
                self.trees -= 1;
                Some(tree)
            }
            _ => {
                debug_assert!(false, "the page is divided");
                None
            }
        }
    }

    /// Takes the chunk of `page` away, with all its pages.
    pub(super) fn take_chunk(&mut self, page: u32) -> Option<M::Slice<Record<M, PAGE_KIB>>> {
        let chunk = self.entry_mut(page)?.chunk.take()?;
        self.chunks -= 1;
        Some(chunk)
    }

    /// The slot or block that `page` lies in, or the last one before it: the nearest head among
    /// the beginnings of all slots up to `max_order` that `page` is in.
    pub(super) fn locate(&self, page: u32, max_order: u8) -> Option<(u32, &Head<M, PAGE_KIB>)> {
        let end = page & !((1 << max_order) - 1);
        let mut first = page;
        loop {
            if let Some(head) = self.head(first) {
                return Some((first, head));
            }
            if first == end {
                return None;
            }
            first &= first - 1;
        }
    }

    /// The list links of what begins at `page`.
    pub(super) fn links_mut(&mut self, page: u32) -> Option<&mut Links> {
        match self.head_mut(page)? {
            Head::Free { links, .. } => Some(links),
            Head::Subpage(tree) => Some(&mut tree.links),
            _ => None,
        }
    }
}
