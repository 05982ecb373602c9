// SPDX-License-Identifier: GPL-2.0-only

//! Metadata that passes between the engine and its caller.
//!
//! The engine allocates and frees nothing. A call that lacks metadata changes nothing and returns
//! which kind it lacks ([`Metadata`]); the caller allocates that without the lock, adds it to the
//! [`Prealloc`] and calls again. Metadata that a call no longer uses goes to [`Garbage`], which the
//! caller drops after the unlock.
//!
//! The elements of tables are types of `directory.rs`, which are generic over the [`Backend`] of this file:
//! therefore the two files use each other.

use super::directory::{Entry, Part, Record};
use super::Tree;
use core::ops::DerefMut;

/// The memory for metadata that the engine's caller provides.
pub trait Backend {
    /// An allocated object.
    type Box<T>: DerefMut<Target = T>;
    /// An allocated table of fixed length; the default has length 0.
    type Slice<T>: DerefMut<Target = [T]> + Default;
}

/// The kinds of metadata that a call can lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// [`ROOT_LEN`](super::ROOT_LEN) parts. Lacked before any other kind.
    Root,
    /// [`PART_LEN`](super::PART_LEN) entries.
    Part,
    /// [`CHUNK_PAGES`](super::CHUNK_PAGES) records.
    Chunk,
    /// A [`Tree`].
    Tree,
}

/// How much metadata there is, in tables and trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataCounts {
    /// Tables of [`ROOT_LEN`](super::ROOT_LEN) parts: 0 or 1.
    pub roots: u64,
    /// Tables of [`PART_LEN`](super::PART_LEN) entries.
    pub parts: u64,
    /// Tables of [`CHUNK_PAGES`](super::CHUNK_PAGES) records.
    pub chunks: u64,
    /// Trees of divided pages.
    pub trees: u64,
}

/// The most chunks that one call can lack: a block may begin in one and end in another.
const LACKED_CHUNKS: usize = 2;

/// Metadata that the caller allocated without the lock, from which a call takes what it lacks.
///
/// Metadata that a call leaves serves the next call, or is dropped after the unlock.
pub struct Prealloc<B: Backend, const PAGE_KIB: usize> {
    pub(super) root: Option<B::Slice<Part<B, PAGE_KIB>>>,
    pub(super) part: Option<B::Slice<Entry<B, PAGE_KIB>>>,
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
    /// Adds [`ROOT_LEN`](super::ROOT_LEN) default parts.
    pub fn add_root(&mut self, root: B::Slice<Part<B, PAGE_KIB>>) {
        self.root = Some(root);
    }

    /// Adds [`PART_LEN`](super::PART_LEN) default entries.
    pub fn add_part(&mut self, part: B::Slice<Entry<B, PAGE_KIB>>) {
        self.part = Some(part);
    }

    /// Adds [`CHUNK_PAGES`](super::CHUNK_PAGES) default records.
    pub fn add_chunk(&mut self, chunk: B::Slice<Record<B, PAGE_KIB>>) {
        let [first, second] = &mut self.chunks;
        let place = if first.is_none() { first } else { second };
        *place = Some(chunk);
    }

    /// Adds a tree in any state.
    pub fn add_tree(&mut self, tree: B::Box<Tree<PAGE_KIB>>) {
        self.tree = Some(tree);
    }

    pub(super) fn take_chunk(&mut self) -> Option<B::Slice<Record<B, PAGE_KIB>>> {
        self.chunks.iter_mut().find_map(Option::take)
    }

    /// Returns how many chunks are left.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.iter().flatten().count()
    }
}

/// The most chunks and trees that one call adds to the garbage.
const LEFT_CHUNKS: usize = 4;
const LEFT_TREES: usize = 16;

/// Metadata that the engine no longer uses, to be dropped after the unlock.
///
/// It holds the garbage of one call. When it is full, the call stops and returns
/// [`Refusal::Again`](super::Refusal::Again) or [`Drained::Part`](super::Drained::Part).
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
    /// Returns the place for one more chunk, or `None` when it is full.
    pub(super) fn chunk_place(&mut self) -> Option<&mut Option<B::Slice<Record<B, PAGE_KIB>>>> {
        self.chunks.iter_mut().find(|place| place.is_none())
    }

    /// Returns whether it has room for the garbage of one more call.
    pub fn has_room(&self) -> bool {
        self.has_room_for_tree()
    }

    /// Returns whether it has room for one more tree.
    pub(super) fn has_room_for_tree(&self) -> bool {
        self.trees.iter().any(Option::is_none)
    }

    /// Adds a tree. Without room the tree is dropped here, under the lock: allowed, but slow.
    pub(super) fn add_tree(&mut self, tree: B::Box<Tree<PAGE_KIB>>) {
        if let Some(place) = self.trees.iter_mut().find(|place| place.is_none()) {
            *place = Some(tree);
        }
    }
}
