// SPDX-License-Identifier: GPL-2.0-only

//! Records: made where an extent is about to begin or pages are about to get memory, and freed once
//! the [`Entry`] alone describes the extent, or at the end of the arena.

use super::directory::{Directory, Entry, Record, CHUNK_PAGES, MAX_PAGES, PART_LEN, ROOT_LEN};
use super::head::Head;
use super::metadata::{Backend, Garbage, Metadata, Prealloc};
use super::Engine;

impl<B: Backend, const PAGE_KIB: usize> Directory<B, PAGE_KIB> {
    /// Returns whether the chunk of `page` has records. Without records no page of the chunk has
    /// memory, and nothing begins after its first page.
    pub(super) fn has_records(&self, page: u32) -> bool {
        self.entry(page).is_some_and(|entry| entry.chunk.is_some())
    }

    /// Ensures that an extent can begin at each of `pages`. On failure no page gets a record.
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
                // Two lacked parts are requested one by one; the first stays on failure.
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

    /// Ensures that `page` has an entry.
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

    /// Ensures that `page` has a record.
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

    /// Moves the chunk of `page` to `garbage` if its entry says as much and the garbage has room.
    ///
    /// The chunk stays where a block, which may begin before the chunk, is about to get memory.
    pub(super) fn release_chunk(&mut self, page: u32, garbage: &mut Garbage<B, PAGE_KIB>) {
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

    /// Returns whether the first page of the chunk of `page` may be about to get memory.
    fn awaits_memory(&self, page: u32) -> bool {
        let first = page - page % CHUNK_PAGES as u32;
        match self.extent_of(first) {
            Some((_, Head::Reserved { awaits_memory, .. })) => *awaits_memory,
            // A divided page has memory or is about to get it.
            Some((_, Head::Subpage(..))) => true,
            _ => false,
        }
    }

    /// Removes the first chunk at or after `page`. Returns the page number after it, and the chunk;
    /// `None` when no chunk is left. For the end of an arena.
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
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Ends the arena in steps: returns one chunk of records, to be dropped without the lock; `None`
    /// when none is left. No other method may be called afterwards.
    pub fn dismantle(&mut self) -> Option<B::Slice<Record<B, PAGE_KIB>>> {
        let (next, chunk) = self.directory.dismantle(self.dismantled)?;
        self.dismantled = next;
        Some(chunk)
    }
}
