// SPDX-License-Identifier: GPL-2.0-only

//! The engine's backend in the kernel: metadata in charged memory.

use crate::{
    engine::{
        Backend,
        Engine,
        Entry,
        Garbage,
        Metadata,
        MetadataCounts,
        Part,
        Prealloc,
        Record,
        Stack,
        Tree,
        CHUNK_PAGES,
        PART_LEN,
        QUICK_LISTS,
        ROOT_LEN, //
    },
    mm::metadata::{
        Tables,
        Trees, //
    },
};
use kernel::{
    alloc::{
        Box,
        Vec, //
    },
    page::{
        page_align,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// The [`Backend`] of the kernel.
pub(crate) struct KernelBackend;

impl Backend for KernelBackend {
    type Box<T> = Box<T, Trees>;
    type Slice<T> = Table<T>;
}

/// A table of fixed length.
pub(crate) type Table<T> = Vec<T, Tables>;

/// The size of a page in KiB, the engine's parameter.
pub(crate) const PAGE_KIB: usize = PAGE_SIZE / 1024;

pub(crate) type KernelEngine = Engine<KernelBackend, PAGE_KIB>;
pub(crate) type KernelTree = Tree<PAGE_KIB>;
pub(crate) type KernelPrealloc = Prealloc<KernelBackend, PAGE_KIB>;
pub(crate) type KernelGarbage = Garbage<KernelBackend, PAGE_KIB>;
pub(crate) type KernelPart = Part<KernelBackend, PAGE_KIB>;
pub(crate) type KernelChunk = Table<Record<KernelBackend, PAGE_KIB>>;

/// Allocates a table of `len` default values. Fails with `ENOMEM` when memory is short. May sleep.
pub(crate) fn table<T: Default>(len: usize) -> Result<Table<T>> {
    Tables::table(len)
}

/// Allocates the metadata that the engine lacks. Fails with `ENOMEM` when memory is short. May sleep.
pub(crate) fn make(metadata: Metadata, prealloc: &mut KernelPrealloc) -> Result {
    match metadata {
        Metadata::Root => prealloc.add_root(table::<KernelPart>(ROOT_LEN)?),
        Metadata::Part => prealloc.add_part(table(PART_LEN)?),
        Metadata::Chunk => prealloc.add_chunk(table(CHUNK_PAGES)?),
        Metadata::Tree => {
            prealloc.add_tree(Box::new(KernelTree::default(), GFP_KERNEL_ACCOUNT)?);
        }
    }
    Ok(())
}

/// Returns the bytes of a table of `len` values of `T`: whole pages.
const fn table_bytes<T>(len: usize) -> u64 {
    match page_align(len * size_of::<T>()) {
        Some(bytes) => bytes as u64,
        None => 0,
    }
}

/// Returns the bytes of all the metadata of an engine with these counts.
pub(crate) fn metadata_bytes(counts: MetadataCounts) -> u64 {
    table_bytes::<Stack>(QUICK_LISTS)
        + counts.roots * bytes_of(Metadata::Root)
        + counts.parts * bytes_of(Metadata::Part)
        + counts.chunks * bytes_of(Metadata::Chunk)
        + counts.trees * bytes_of(Metadata::Tree)
}

/// Returns the bytes of one piece of metadata.
pub(crate) const fn bytes_of(metadata: Metadata) -> u64 {
    match metadata {
        Metadata::Root => table_bytes::<KernelPart>(ROOT_LEN),
        Metadata::Part => table_bytes::<Entry<KernelBackend, PAGE_KIB>>(PART_LEN),
        Metadata::Chunk => table_bytes::<Record<KernelBackend, PAGE_KIB>>(CHUNK_PAGES),
        Metadata::Tree => size_of::<KernelTree>() as u64,
    }
}
