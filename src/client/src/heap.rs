// SPDX-License-Identifier: MIT OR Apache-2.0

//! An allocator over an arena of its own.
//!
//! Small blocks, up to 32 KiB, have size classes: eight a doubling, 16 bytes apart up to 128. They are cut from
//! slabs of 4 to 64 KiB, each of one class, which the heap allocates and frees in batches (ALLOC_BULK,
//! FREE_BULK). Each thread caches some free blocks, at most 48 KiB of all classes together, and allocates from
//! and frees to its cache without any lock or atomic operation: the fast path is [`Heap::alloc_or`] by way of
//! `Shared::kept` to `Magazine::pop`, and [`Heap::free`] by way of `Shared::free` to `Magazine::push`. A
//! thread's cache is drained when the thread ends, and when another thread is short of memory. A larger block
//! is a block of the arena, in whole pages.
//!
//! A freed block goes to the cache of the thread that frees it, and from there, in batches, to its slab. It
//! does not return to the thread that allocated it, so the bound of a cache holds for consumers as well as for
//! producers.
//!
//! | module | is |
//! | --- | --- |
//! | `alloc`, `release`, `bounds` | allocation; release; limits, trimming and what a heap does when it is short |
//! | `class` | sizes of small blocks and of their slabs |
//! | `magazine`, `cache`, `registry` | a thread's free blocks: of one class; of all; the caches of all threads |
//! | `local` | the calling thread's caches, one a heap |
//! | `small` | the slow path, from caches to slabs and back |
//! | `slab`, `central`, `pool` | small blocks that are in no cache; slabs that are wholly free |
//! | `quarantine` | freed blocks that are held back, by which double frees are found |
//! | `table` | the class or size of the block at an address, as blocks have no header |
//! | `slice` | owned memory for Rust |
//!
//! Blocks that are free in the heap are live to the module. [`Heap::trim`] frees their slabs where it can, and
//! the heap does so by itself before a request fails. When the heap gets smaller, it discards (DISCARD) the
//! pages of its slabs in which no block is in use.

#![expect(unsafe_code, reason = "memory that is handed out by its address")]

mod alloc;
mod bounds;
mod cache;
mod central;
mod class;
mod local;
mod magazine;
#[cfg(test)]
mod model;
mod pool;
mod quarantine;
mod registry;
mod release;
mod slab;
mod slice;
mod small;
mod table;

use std::alloc::Layout;
use std::env;
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::arena::{Arena, DEVICE};
use crate::error::{Call, Error, Result};
use crate::flags::{Features, Flags};
use crate::malloc::copy_touched;
use crate::mapping::Mapping;
use crate::sync;
use crate::sys::{Anonymous, Errno, Fork};
use crate::uapi::{freelist_limit as Limit, freelist_stat as Stat};

use alloc::{bytes_for, Content};
pub(crate) use cache::Cache;
use class::{Class, UNIT_BYTES};
use quarantine::Quarantine;
pub(crate) use slab::Slab;
pub use slice::{Buffer, Slice};
use small::Small;

/// An allocator over an arena of its own, for all threads of a process.
///
/// A clone is the same heap. The heap and all its memory end with the last clone and the last [`Slice`] in it.
///
/// ```no_run
/// use freelist::Heap;
///
/// let heap = Heap::open()?;
/// let mut buffer = heap.buffer(5 << 20)?;
/// buffer[..5].copy_from_slice(b"hello");
/// std::thread::spawn(move || drop(buffer));
/// # Ok::<(), freelist::Error>(())
/// ```
///
/// # Processes
///
/// A heap is for one process. A forked child shares the arena's memory, but would have its own copy of the
/// heap's state: both processes would hand out the same blocks. So that state is wiped in the child, where
/// requests fail with [`Error::Forked`] and releases do nothing. (The memory itself stays mapped in the child,
/// without `MADV_DONTFORK`: between fork and exec a child reads its arguments from it.)
///
/// # Closed files
///
/// If the program closes all of its files, with the heap's among them, live blocks stay as they are. Freed
/// blocks stay in use until the process ends, which one line on standard error reports; requests fail.
///
/// # Double frees
///
/// With `FREELIST_CHECK=1` in the environment when it is opened, a heap caches no blocks in threads and holds
/// back the last 1,024 small blocks that were freed. A second free of one of these ends the program, for
/// certain. Each call takes a lock then.
#[derive(Clone)]
pub struct Heap(Arc<Shared>);

/// The state that all clones of a heap share.
struct Shared {
    /// The number of the heap among all that this process ever opened, from 1.
    id: u64,
    /// A reference to this state, for threads that have a cache of the heap.
    weak: Weak<Shared>,
    small: Small,
    /// 1; 0 in a forked child.
    here: Anonymous<AtomicU32>,
    mapping: Mapping,
    arena: Arena,
    /// The flags of blocks whose memory is allocated when they are touched; the default flags if the module
    /// has no lazy blocks.
    lazy: Flags,
    /// `true` if a thread can drain the caches of others.
    drains: bool,
    /// The freed blocks that are held back, if double frees are looked for; then no thread has a cache.
    quarantine: Option<Quarantine>,
}

/// The environment variable that is 1 if heaps look for double frees of small blocks.
const CHECK: &str = "FREELIST_CHECK";

/// The largest alignment of a heap's memory in bytes: the module's largest alignment of a block.
const MAX_ALIGN: usize = 1 << 30;
/// The fewest bytes of address space with which a heap opens.
const MIN_SPAN: u64 = 1 << 20;

/// Maps `span` bytes of an arena, and the tables of the heap over it.
fn parts(
    arena: &Arena,
    span: u64,
) -> std::result::Result<(Mapping, Small, Anonymous<AtomicU32>), Errno> {
    let align = (span as usize).next_power_of_two().min(MAX_ALIGN);
    let mapping = Mapping::aligned(arena.as_fd(), span, align)?;
    let here = Anonymous::new(1, Fork::Wipe)?;
    let small = Small::new(mapping.as_ptr(), mapping.len())?;
    Ok((mapping, small, here))
}

impl Heap {
    /// Opens a heap over a new arena of [`DEVICE`].
    ///
    /// # Errors
    ///
    /// Those of [`Arena::open`], [`Arena::info`] and [`Arena::map`].
    pub fn open() -> Result<Self> {
        Self::open_path(DEVICE)
    }

    /// Opens a heap over a new arena of another device file.
    ///
    /// # Errors
    ///
    /// As [`Heap::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self> {
        /// The number of heaps that this process ever opened.
        static COUNT: AtomicU64 = AtomicU64::new(0);

        let arena = Arena::open_path(path)?;
        let info = arena.info()?;
        let lazy = match Features::from_bits_retain(info.features).contains(Features::LAZY) {
            true => Flags::DEFAULT | Flags::LAZY,
            false => Flags::DEFAULT,
        };
        let mut span = info.arena_bytes;
        let (mapping, small, here) = loop {
            match parts(&arena, span) {
                Ok(parts) => break parts,
                // A limit on address space (RLIMIT_AS) or on locked memory is reached: try half.
                Err(Errno::NOMEM | Errno::AGAIN) if span > MIN_SPAN => span /= 2,
                Err(errno) => {
                    let call = Call::Map {
                        offset: 0,
                        len: span,
                    };
                    return Err(Error::refused(call)(errno));
                }
            }
        };
        if span < info.arena_bytes {
            arena.set_span(span)?;
        }
        here[0].store(1, Ordering::Relaxed);
        let heap = Self(Arc::new_cyclic(|weak| Shared {
            id: COUNT.fetch_add(1, Ordering::Relaxed) + 1,
            weak: weak.clone(),
            small,
            here,
            mapping,
            arena,
            lazy,
            drains: sync::can_heavy_barrier(),
            quarantine: env::var_os(CHECK)
                .is_some_and(|value| value == "1")
                .then(Quarantine::new),
        }));
        heap.0.can_align(UNIT_BYTES)?;
        Ok(heap)
    }

    /// Allocates a block for `layout`, of at least one byte. Its content is undefined: it may have been
    /// another block of this heap. It is aligned as `layout` asks, up to 1 GiB, and at least to 16 bytes and
    /// to the largest power of 2 that divides its size; above 32 KiB also to 64 KiB.
    ///
    /// May sleep in the kernel if this thread caches no block of that class.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::alloc`]; [`Error::Alignment`] for an alignment above 1 GiB or above the heap's
    /// address space; [`Error::Forked`].
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>> {
        self.0.alloc(layout, Content::Any)
    }

    /// Allocates as [`Heap::alloc`], for allocators that return an address: on failure it returns what
    /// `failed` makes of the error, usually null.
    #[inline]
    pub fn alloc_or(&self, layout: Layout, failed: impl FnOnce(Error) -> *mut u8) -> *mut u8 {
        match self.0.kept(layout) {
            Some(block) => block.as_ptr(),
            None => self.0.alloc_slow(layout, failed),
        }
    }

    /// Allocates as [`Heap::alloc`], and sets the first `layout.size()` bytes to zero.
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc`].
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>> {
        self.0.alloc(layout, Content::Zeros)
    }

    /// Changes the size of a block to `size` bytes, and keeps its content up to the smaller of both sizes. A
    /// block of up to 32 KiB stays in place if it holds `size` bytes and not more than twice as many. A
    /// larger one has as many pages as `size` needs: it stays in place when it shrinks, and when it grows
    /// into free memory that follows it.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::alloc`], if the block had to grow: it is unchanged then.
    ///
    /// # Safety
    ///
    /// `block` is a live block of this heap that no other thread uses during the call, and that is not used
    /// afterwards if another address is returned. `align` is a power of 2 and a multiple of the alignment of
    /// the block's present layout.
    pub unsafe fn realloc(
        &self,
        block: NonNull<u8>,
        size: usize,
        align: usize,
    ) -> Result<NonNull<u8>> {
        let layout = Layout::from_size_align(size, align);
        let layout = layout.map_err(|_| Error::Alignment { align })?;
        let has = self.0.usable(block)?;
        let aligned = block.addr().get() % align == 0;
        let needs = bytes_for(layout);
        let are_large = Class::of(needs).is_none() && Class::of(has).is_none();
        if aligned && are_large && self.0.resize_large(block, has, needs) {
            return Ok(block);
        }
        if aligned && needs <= has && (needs > has / 2 || Class::of(needs) == Class::of(has)) {
            return Ok(block);
        }
        let new = match self.alloc(layout) {
            Ok(new) => new,
            // The block is large enough as it is.
            Err(_) if aligned && needs <= has => return Ok(block),
            Err(error) => return Err(error),
        };
        let len = has.min(size);
        let are_lazy = are_large && self.0.lazy.contains(Flags::LAZY);
        // SAFETY: The new block is not the caller's, which is live. Each has at least as many bytes as
        // are copied, and no other thread uses them. Large ones begin with a page.
        unsafe {
            match are_lazy {
                true => copy_touched(block.as_ptr(), new.as_ptr(), len),
                false => ptr::copy_nonoverlapping(block.as_ptr(), new.as_ptr(), len),
            }
        }
        // SAFETY: By the contract the caller does not use the block any more.
        unsafe { self.free(block) };
        Ok(new)
    }

    /// Frees a block.
    ///
    /// Ends the program if it finds that `block` is not live. It always finds that for an address at which no
    /// block starts, and for blocks above 32 KiB. A double free of a smaller block is found at once if it is
    /// the last of its class that this thread freed, otherwise when that thread's cache is emptied, unless the
    /// block was allocated again.
    ///
    /// # Safety
    ///
    /// `block` is a live block of this heap, and is not used afterwards.
    #[inline]
    pub unsafe fn free(&self, block: NonNull<u8>) {
        self.0.free(block);
    }

    /// Returns the bytes of the block, at least as many as were asked for; `None` if no block of this heap
    /// can begin there.
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        self.0.small.table.block(self.0.offset(block))
    }

    /// Returns whether an address lies in this heap's arena.
    #[inline]
    pub fn has(&self, address: NonNull<u8>) -> bool {
        self.0.offset(address) < self.0.mapping.len()
    }

    /// Drains the caches of all threads that are not in a call of the heap, frees the slabs that are wholly
    /// free, discards unused pages of the others, and has the arena release its free pages to the system, but
    /// for `keep_bytes` of them. Returns the bytes that were released.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::trim`]; [`Error::Forked`].
    pub fn trim(&self, keep_bytes: u64) -> Result<u64> {
        self.0.must_be_here()?;
        self.0.relieve();
        self.0.discard();
        self.0.arena.trim(keep_bytes)
    }

    /// Sets the slack: how much more memory the heap may hold than its blocks ever needed at once, in
    /// thousandths, before it reuses scattered free memory. See [`Arena::set_slack_permille`].
    ///
    /// # Errors
    ///
    /// Those of [`Arena::set_slack_permille`]; [`Error::Forked`].
    pub fn set_slack_permille(&self, slack: Option<u32>) -> Result<Limit> {
        self.0.must_be_here()?;
        self.0.arena.set_slack_permille(slack)
    }

    /// Limits the bytes of pages that the heap may hold. See [`Arena::set_limit`].
    ///
    /// # Errors
    ///
    /// Those of [`Arena::set_limit`]; [`Error::Forked`].
    pub fn set_limit(&self, bytes: u64) -> Result<Limit> {
        self.0.must_be_here()?;
        self.0.arena.set_limit(bytes)
    }

    /// Returns the arena's counters. Slabs and large blocks are its live blocks.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::stat`].
    pub fn stat(&self) -> Result<Stat> {
        self.0.arena.stat()
    }

    /// Allocates `len` bytes, all zero, that are freed when they are dropped.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::alloc`].
    pub fn buffer(&self, len: usize) -> Result<Buffer> {
        Buffer::zeroed(self.clone(), len)
    }

    /// Allocates `len` copies of `value`, that are freed when they are dropped.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::alloc`].
    pub fn slice<T: Copy>(&self, len: usize, value: T) -> Result<Slice<T>> {
        Slice::filled(self.clone(), len, value)
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heap").field(&self.0.id).finish()
    }
}
