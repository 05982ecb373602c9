// SPDX-License-Identifier: GPL-2.0

//! What the engine is lent: pages, and memory for metadata.

use super::directory::{Entry, Record};
use super::Tree;
use core::ops::DerefMut;

/// What the engine's surroundings lend it: pages, and memory for metadata.
pub trait Backend {
    /// One page. Dropping it gives the page back.
    type Page;
    /// A metadata object of its own.
    type Box<T>: DerefMut<Target = T>;
    /// A metadata table of fixed length.
    type Slice<T>: DerefMut<Target = [T]>;
}

/// The kinds of metadata that the engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// [`PART_LEN`](super::PART_LEN) entries.
    Part,
    /// [`CHUNK_PAGES`](super::CHUNK_PAGES) records.
    Chunk,
    /// A [`Tree`].
    Tree,
}

/// Metadata that was made outside the lock.
///
/// The engine takes from it what it needs, and leaves in it what it has no more use for. What is
/// left may serve the next call, or be dropped after the unlock.
pub struct Kit<M: Backend, const PAGE_KIB: usize> {
    /// [`PART_LEN`](super::PART_LEN) default entries.
    pub part: Option<M::Slice<Entry<M, PAGE_KIB>>>,
    /// [`CHUNK_PAGES`](super::CHUNK_PAGES) default records.
    pub chunk: Option<M::Slice<Record<M, PAGE_KIB>>>,
    /// A tree in any state.
    pub tree: Option<M::Box<Tree<PAGE_KIB>>>,
}

impl<M: Backend, const PAGE_KIB: usize> Default for Kit<M, PAGE_KIB> {
    fn default() -> Self {
        Self {
            part: None,
            chunk: None,
            tree: None,
        }
    }
}
