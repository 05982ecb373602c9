// SPDX-License-Identifier: MIT OR Apache-2.0

//! An allocator over an arena of its own.
//!
//! Small blocks, up to 32 KiB, are of classes: eight a doubling, 16 bytes apart up to 128. They are cut from
//! slabs of 4 to 64 KiB, all of one class, which come from the arena and go back to it in batches
//! (ALLOC_BULK, FREE_BULK). Each thread keeps some free blocks, at most 48 KiB of all classes together, which
//! it takes and gives without any lock or atomic operation: the fast path is [`Heap::alloc_or`] by way of
//! `Shared::kept` to `Magazine::pop`, and [`Heap::free`] by way of `Shared::free` to `Magazine::push`. What a
//! thread keeps goes back when it ends, and when another one is short of memory. Larger blocks are the
//! arena's own, in whole pages.
//!
//! A block that another thread frees goes to that thread's cache, and from there,
//! in batches, to its slab: there is nothing to hand back to the thread that allocated it, and
//! a bound holds for consumers as it does for producers.
//!
//! | module | is |
//! | --- | --- |
//! | `alloc`, `release`, `bounds` | requests; releases; limits, trimming and what a heap does when it is short |
//! | `class` | sizes of small blocks and of their slabs |
//! | `magazine`, `cache`, `registry` | what a thread keeps: of a class, in all; of all threads |
//! | `local` | which caches a thread has |
//! | `small` | the slow path, from caches to slabs and back |
//! | `slab`, `central`, `pool` | small blocks that no thread has; slabs that are wholly free |
//! | `quarantine` | blocks that are not handed out again soon, where double frees are looked for |
//! | `table` | what lies where, for blocks have no header |
//! | `slice` | owned memory for Rust |
//!
//! Blocks that are free in the heap are live to the module: [`Heap::trim`] gives
//! back what can be, and the heap does so by itself before a request fails. Pages of a slab in which no block
//! is in use lose their memory (DISCARD) when the heap gets smaller.

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
/// Clones are the same heap. It ends with the last of them and of the
/// [`Slice`]s in it, and all its memory with it.
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
/// A heap is for one process. The arena is shared memory, and stays shared with
/// a forked child, while what the heap knows of it would be each one's own copy:
/// both would hand the same blocks out. So what the heap knows is not there in the
/// child, where requests are [`Error::Forked`] and releases do nothing. (Blocks
/// are not withheld from the child, as `MADV_DONTFORK` would do: between fork and
/// exec it reads its arguments from them.)
///
/// # Closed files
///
/// Where the program closes all of its files, the heap's too, its blocks stay as they are. What is freed
/// stays in use until the process ends, which a line on standard error says once; requests fail.
///
/// # Double frees
///
/// With `FREELIST_CHECK=1` in the environment when it is opened a heap keeps nothing in threads, and the
/// last 1,024 small blocks that were freed are not handed out again: one that is freed twice meanwhile ends
/// the program, for certain. Each call takes a lock then.
#[derive(Clone)]
pub struct Heap(Arc<Shared>);

/// What the clones of a heap have in common.
struct Shared {
    /// Which heap it is, of all that this process ever had; from 1.
    id: u64,
    /// Itself, for the threads that have blocks of it.
    weak: Weak<Shared>,
    small: Small,
    /// 1, and 0 in a forked child.
    here: Anonymous<AtomicU32>,
    mapping: Mapping,
    arena: Arena,
    /// The flags of blocks whose memory comes when it is touched, where the module can do that.
    lazy: Flags,
    /// Whether a thread can drain the caches of others.
    drains: bool,
    /// Where double frees are looked for: then no thread keeps anything.
    quarantine: Option<Quarantine>,
}

/// With 1 in this environment variable heaps look for double frees of small blocks.
const CHECK: &str = "FREELIST_CHECK";

/// The most that a heap's memory is aligned to: what the module aligns a block to at most.
const MOST_ALIGN: usize = 1 << 30;
/// The fewest bytes of addresses that are worth a heap.
const LEAST_SPAN: u64 = 1 << 20;

/// Maps `span` bytes of an arena, and the tables that go with them.
fn parts(
    arena: &Arena,
    span: u64,
) -> std::result::Result<(Mapping, Small, Anonymous<AtomicU32>), Errno> {
    let align = (span as usize).next_power_of_two().min(MOST_ALIGN);
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
        /// How many there were.
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
                // A limit on addresses (RLIMIT_AS) or on memory that is locked: with fewer addresses.
                Err(Errno::NOMEM | Errno::AGAIN) if span > LEAST_SPAN => span /= 2,
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

    /// Allocates a block for `layout`, and at least one byte. Its bytes are any; they may
    /// have been another block's of this heap. It is aligned to what `layout` asks for, up to 1 GiB, and at
    /// least to 16 bytes; to the largest power of 2 that divides its size; and above 32 KiB to 64 KiB.
    ///
    /// May sleep in the kernel when this thread keeps none of that class.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::alloc`]; [`Error::Alignment`] for more than 1 GiB, or than
    /// the heap has addresses for; [`Error::Forked`].
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>> {
        self.0.alloc(layout, Content::Any)
    }

    /// As [`Heap::alloc`], for allocators whose answer is an address: where there is no block it
    /// is what `failed` makes of the error, as a rule null.
    #[inline]
    pub fn alloc_or(&self, layout: Layout, failed: impl FnOnce(Error) -> *mut u8) -> *mut u8 {
        match self.0.kept(layout) {
            Some(block) => block.as_ptr(),
            None => self.0.alloc_slow(layout, failed),
        }
    }

    /// As [`Heap::alloc`], and its first `layout.size()` bytes are zero.
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc`].
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>> {
        self.0.alloc(layout, Content::Zeros)
    }

    /// Makes a block one of `size` bytes, with its bytes as far as both go. A block
    /// up to 32 KiB stays where it is if it holds as many, and not more than twice
    /// as many. A larger one has as many pages as `size` needs: it stays where it
    /// is when it gets smaller, and when what lies behind it is free.
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc`], when it had to grow: it is as it was then.
    ///
    /// # Safety
    ///
    /// `block` is a live block of this heap that nobody else uses meanwhile, and is
    /// not used afterwards if another one is returned. `align` is a power of 2 and
    /// a multiple of that of its present layout.
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
        let wants = bytes_for(layout);
        let are_large = Class::of(wants).is_none() && Class::of(has).is_none();
        if aligned && are_large && self.0.resize_large(block, has, wants) {
            return Ok(block);
        }
        if aligned && wants <= has && (wants > has / 2 || Class::of(wants) == Class::of(has)) {
            return Ok(block);
        }
        let new = match self.alloc(layout) {
            Ok(new) => new,
            // It was only to be smaller.
            Err(_) if aligned && wants <= has => return Ok(block),
            Err(error) => return Err(error),
        };
        let len = has.min(size);
        let are_lazy = are_large && self.0.lazy.contains(Flags::LAZY);
        // SAFETY: The new block is another one than the caller's, which is live;
        // each has at least as many bytes as are copied, and nobody else uses them.
        // Large ones begin with a page.
        unsafe {
            match are_lazy {
                true => copy_touched(block.as_ptr(), new.as_ptr(), len),
                false => ptr::copy_nonoverlapping(block.as_ptr(), new.as_ptr(), len),
            }
        }
        // SAFETY: The caller gives the block up.
        unsafe { self.free(block) };
        Ok(new)
    }

    /// Gives a block back. Ends the program where `block` is seen not to be one:
    /// always for addresses that are no block's start and for blocks above
    /// 32 KiB; for smaller ones that were freed before, at once if it is the last
    /// of its class that this thread freed, else when that thread's cache is
    /// emptied, unless it was handed out again.
    ///
    /// # Safety
    ///
    /// `block` is a live block of this heap, and is not used afterwards.
    #[inline]
    pub unsafe fn free(&self, block: NonNull<u8>) {
        self.0.free(block);
    }

    /// Bytes that belong to the block, at least as many as were asked for; `None`
    /// when no block of this heap can begin there.
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        self.0.small.table.block(self.0.offset(block))
    }

    /// Whether an address lies in this heap's arena.
    #[inline]
    pub fn has(&self, address: NonNull<u8>) -> bool {
        self.0.offset(address) < self.0.mapping.len()
    }

    /// Gives back to the arena what threads keep, those that are not in a call of the heap, and slabs that are
    /// wholly free; discards pages of others in which no block is in use; and has the arena give its free
    /// pages to the system, down to `keep_bytes` of them. Returns how many bytes it gave.
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

    /// Sets how much more than the most that its blocks ever needed the heap may
    /// hold before it reuses scattered free memory: [`Arena::set_slack_permille`].
    ///
    /// # Errors
    ///
    /// Those of [`Arena::set_slack_permille`]; [`Error::Forked`].
    pub fn set_slack_permille(&self, slack: Option<u32>) -> Result<Limit> {
        self.0.must_be_here()?;
        self.0.arena.set_slack_permille(slack)
    }

    /// Bounds the bytes of pages that the heap may hold: [`Arena::set_limit`].
    ///
    /// # Errors
    ///
    /// Those of [`Arena::set_limit`]; [`Error::Forked`].
    pub fn set_limit(&self, bytes: u64) -> Result<Limit> {
        self.0.must_be_here()?;
        self.0.arena.set_limit(bytes)
    }

    /// The arena's counters. Slabs and large blocks are its live blocks.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::stat`].
    pub fn stat(&self) -> Result<Stat> {
        self.0.arena.stat()
    }

    /// `len` bytes, all zero, that are given back when they are dropped.
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc`].
    pub fn buffer(&self, len: usize) -> Result<Buffer> {
        Buffer::zeroed(self.clone(), len)
    }

    /// `len` times `value`, given back when they are dropped.
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc`].
    pub fn slice<T: Copy>(&self, len: usize, value: T) -> Result<Slice<T>> {
        Slice::filled(self.clone(), len, value)
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heap").field(&self.0.id).finish()
    }
}
