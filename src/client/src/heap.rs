// SPDX-License-Identifier: MIT OR Apache-2.0

//! An allocator over an arena of its own.
//!
//! Small blocks, up to 32 KiB, are the powers of 2. They are cut from slabs of
//! 64 KiB, all of one class, which come from the arena and go back to it in
//! batches (ALLOC_BULK, FREE_BULK). Each thread keeps some free ones of each
//! class, at most 61 and 128 KiB, all classes together less than 1 MiB: it takes
//! and gives those without any lock or atomic operation. What it keeps goes back
//! when it ends. Larger blocks are the arena's own, in whole pages.
//!
//! A block that another thread frees goes to that thread's cache, and from there,
//! in batches, to its slab: there is nothing to hand back to who allocated it, and
//! a bound holds for consumers as it does for producers.
//!
//! | module | is |
//! | --- | --- |
//! | `class` | sizes of small blocks, and what is kept of them |
//! | `cache` | what a thread keeps |
//! | `local` | which caches a thread has |
//! | `quarantine` | blocks that are not handed out again soon, where double frees are looked for |
//! | `slab`, `central` | small blocks that no thread has |
//! | `table` | what lies where, for blocks have no header |
//! | `slice` | owned memory for Rust |
//!
//! Blocks that are free in the heap are live to the module: [`Heap::trim`] gives
//! back what can be, and the heap does so by itself before a request fails.

#![expect(unsafe_code, reason = "memory that is handed out by its address")]

mod cache;
mod central;
mod class;
mod local;
mod quarantine;
mod slab;
mod slice;
mod table;

use std::alloc::Layout;
use std::env;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Once, Weak};

use crate::arena::{Arena, DEVICE};
use crate::error::{Call, Error, Result};
use crate::flags::{Features, Flags};
use crate::malloc::copy_touched;
use crate::mapping::Mapping;
use crate::sys::{Anonymous, Errno, Fork};
use crate::uapi::{freelist_limit as Limit, freelist_stat as Stat};

pub(crate) use cache::Cache;
use central::{Central, NotLive, Source};
use class::{Class, Place, MIN_BYTES, MOST_CACHED, SLAB_BYTES};
use quarantine::Quarantine;
pub(crate) use slab::Slab;
pub use slice::{Buffer, Slice};
use table::{Table, Unit, GRAIN_BYTES};

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
    central: Central,
    table: Table,
    /// 1, and 0 in a forked child.
    here: Anonymous<AtomicU32>,
    mapping: Mapping,
    arena: Arena,
    /// The flags of large blocks: their memory comes when it is touched, where the module can do that.
    large: Flags,
    /// Where double frees are looked for: then no thread keeps anything.
    quarantine: Option<Quarantine>,
}

/// With 1 in this environment variable heaps look for double frees of small blocks.
const CHECK: &str = "FREELIST_CHECK";

/// The most that a heap's memory is aligned to: what the module aligns a block to at most.
const MOST_ALIGN: usize = 1 << 30;
/// The fewest bytes of addresses that are worth a heap.
const LEAST_SPAN: u64 = 1 << 20;

/// Bytes of a block that has a layout: as many as its alignment, which it has by that. A large block is
/// aligned by the module.
fn bytes_for(layout: Layout) -> usize {
    layout.size().max(layout.align().min(SLAB_BYTES))
}

/// Whether a call failed because the program has closed the arena's file, or has another one of its number
/// by now.
fn is_of_closed_file(error: &Error) -> bool {
    use nix::errno::Errno;
    matches!(error.errno(), Some(Errno::EBADF | Errno::ENOTTY))
}

/// Maps `span` bytes of an arena, and the tables that go with them.
fn parts(
    arena: &Arena,
    span: u64,
) -> std::result::Result<(Mapping, Central, Table, Anonymous<AtomicU32>), Errno> {
    let align = (span as usize).next_power_of_two().min(MOST_ALIGN);
    let mapping = Mapping::aligned(arena.as_fd(), span, align)?;
    let units = mapping.len().div_ceil(SLAB_BYTES);
    let here = Anonymous::new(1, Fork::Wipe)?;
    Ok((mapping, Central::new(units)?, Table::new(units)?, here))
}

/// What is in a new block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Any,
    Zeros,
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
        let large = match Features::from_bits_retain(info.features).contains(Features::LAZY) {
            true => Flags::DEFAULT | Flags::LAZY,
            false => Flags::DEFAULT,
        };
        let mut span = info.arena_bytes;
        let (mapping, central, table, here) = loop {
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
            central,
            table,
            here,
            mapping,
            arena,
            large,
            quarantine: env::var_os(CHECK)
                .is_some_and(|value| value == "1")
                .then(Quarantine::new),
        }));
        heap.0.can_align(SLAB_BYTES)?;
        Ok(heap)
    }

    /// A block for `layout`, and at least one byte. Its bytes are any; they may
    /// have been another block's of this heap. It is aligned to the smallest power
    /// of 2 that holds it, up to 64 KiB, and to what `layout` wants, up to 1 GiB.
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
            None => self.0.alloc_elsewhere(layout, failed),
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
        let are_lazy = are_large && self.0.large.contains(Flags::LAZY);
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
        if !self.0.free(block) {
            self.0.misused(self.0.offset(block));
        }
    }

    /// Bytes that belong to the block, at least as many as were asked for; `None`
    /// when no block of this heap can begin there.
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        self.0.bytes_of(self.0.offset(block))
    }

    /// Whether an address lies in this heap's arena.
    #[inline]
    pub fn has(&self, address: NonNull<u8>) -> bool {
        self.0.table.unit(self.0.offset(address)).is_some()
    }

    /// Gives back to the arena what this thread keeps and slabs that are wholly
    /// free, and has the arena give its free pages to the system, down to
    /// `keep_bytes` of them. Says how many bytes went there.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::trim`]; [`Error::Forked`].
    pub fn trim(&self, keep_bytes: u64) -> Result<u64> {
        self.0.must_be_here()?;
        self.0.relieve();
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

impl Shared {
    #[inline]
    fn alloc(&self, layout: Layout, content: Content) -> Result<NonNull<u8>> {
        let block = match self.kept(layout) {
            Some(block) => block,
            None => {
                let bytes = bytes_for(layout);
                match Class::of(bytes) {
                    Some(class) => self.refill(class)?,
                    None => return self.alloc_large(bytes, layout.align(), content),
                }
            }
        };
        if content == Content::Zeros {
            // SAFETY: The block is new, and has as many bytes.
            unsafe { ptr::write_bytes(block.as_ptr(), 0, layout.size()) };
        }
        Ok(block)
    }

    /// A block that this thread keeps, which is what most requests come to.
    #[inline]
    fn kept(&self, layout: Layout) -> Option<NonNull<u8>> {
        let bytes = match layout.align() {
            // As every block is; none of no bytes, which is another's business.
            ..=MIN_BYTES => layout.size(),
            align => layout.size().max(align),
        };
        let place = Place::of(bytes)?;
        local::with(self.id, |cache| cache.pop(place))?
    }

    /// A block that this thread does not keep, or what `failed` says.
    #[cold]
    #[inline(never)]
    fn alloc_elsewhere(&self, layout: Layout, failed: impl FnOnce(Error) -> *mut u8) -> *mut u8 {
        let block = self.alloc(layout, Content::Any);
        block.map_or_else(failed, NonNull::as_ptr)
    }

    /// A block of a class of which this thread keeps none, or where it keeps those
    /// of another heap at hand.
    #[cold]
    #[inline(never)]
    fn refill(&self, class: Class) -> Result<NonNull<u8>> {
        self.must_be_here()?;
        self.or_relieved(|| {
            local::attached(self, |cache| {
                if let Some(block) = cache.pop(class.place()) {
                    return Ok(block);
                }
                let mut blocks = [0; MOST_CACHED / 2];
                let most = match self.quarantine {
                    Some(_) => 1,
                    None => class.most_cached() / 2,
                };
                let blocks = &mut blocks[..most];
                let count = self.take(class, blocks)?;
                cache.fill(
                    class,
                    blocks[1..count].iter().map(|offset| self.at(*offset)),
                );
                Ok(self.at(blocks[0]))
            })
            .unwrap_or_else(|| {
                let mut block = [0];
                self.take(class, &mut block)?;
                Ok(self.at(block[0]))
            })
        })
    }

    fn take(&self, class: Class, into: &mut [usize]) -> Result<usize> {
        self.central.take(self, &self.table, class, into)
    }

    #[inline(never)]
    fn alloc_large(&self, bytes: usize, align: usize, content: Content) -> Result<NonNull<u8>> {
        self.must_be_here()?;
        self.can_align(align)?;
        let flags = match content {
            Content::Any => self.large,
            Content::Zeros => self.large | Flags::ZERO,
        };
        // What needs more than the arena gives by itself is asked for.
        let align_shift = match align {
            ..=SLAB_BYTES => 0,
            align => align.ilog2(),
        };
        let block =
            self.or_relieved(|| self.arena.alloc_aligned(bytes as u64, align_shift, flags))?;
        let offset = block.offset as usize;
        if let Err(errno) = self.open_tables(offset) {
            let _ = self.arena.free(block.offset);
            let size = bytes as u64;
            return Err(Error::refused(Call::Alloc { size, flags })(errno));
        }
        self.table.set(offset, Unit::Large(block.bytes as usize));
        Ok(self.at(offset))
    }

    /// Has room in the tables for what begins at `offset`.
    fn open_tables(&self, offset: usize) -> std::result::Result<(), Errno> {
        let units = offset / SLAB_BYTES + 1;
        self.table.open(units)?;
        self.central.open(units)
    }

    /// Makes a large block `bytes` long where it is, in whole pages; it has `has` now. Returns `false`
    /// if it stays as it was: what lies behind it is in use, memory is short, or the module cannot.
    fn resize_large(&self, block: NonNull<u8>, has: usize, bytes: usize) -> bool {
        if bytes <= has && has - bytes < GRAIN_BYTES {
            return true;
        }
        let offset = self.offset(block);
        match self.arena.resize(offset as u64, bytes as u64, self.large) {
            Ok(bytes) => {
                self.table.set(offset, Unit::Large(bytes as usize));
                true
            }
            Err(_) => false,
        }
    }

    /// Asks, and once more if memory came back that the heap held for nothing.
    fn or_relieved<T>(&self, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
        ask().or_else(|error| if self.relieve() { ask() } else { Err(error) })
    }

    /// Gives back to the arena what this thread keeps, as far as slabs become
    /// free by it, and all free slabs. Whether there were any.
    fn relieve(&self) -> bool {
        local::attached(self, |cache| self.empty(cache));
        self.central.trim(self, &self.table) > 0
    }

    /// Takes all out of a cache.
    fn empty(&self, cache: &Cache) {
        for class in Class::all() {
            self.put_oldest(cache, class, MOST_CACHED);
        }
    }

    /// Takes the `count` blocks of a class out of a cache that came first.
    fn put_oldest(&self, cache: &Cache, class: Class, count: usize) {
        let mut blocks = [ptr::null_mut(); MOST_CACHED];
        let count = cache.take_oldest(class, count, &mut blocks);
        let offsets = blocks.map(|block| self.offset_of(block));
        self.put(class, &offsets[..count]);
    }

    /// Takes a block back; `false` if it does not lie in the arena.
    #[inline]
    fn free(&self, block: NonNull<u8>) -> bool {
        let offset = self.offset(block);
        let Some(place) = self.table.place(offset) else {
            return false;
        };
        if local::with(self.id, |cache| cache.push(place, block)) != Some(true) {
            self.free_elsewhere(block, offset);
        }
        true
    }

    /// Takes a block back that this thread cannot keep.
    #[cold]
    #[inline(never)]
    fn free_elsewhere(&self, block: NonNull<u8>, offset: usize) {
        match self.table.unit(offset) {
            Some(Unit::Slab(class)) => self.spill(class, block, offset),
            _ => self.free_large(offset),
        }
    }

    /// Takes a block back of which this thread has enough, or where it keeps
    /// those of another heap at hand; or what is none.
    fn spill(&self, class: Class, block: NonNull<u8>, offset: usize) {
        if offset % class.bytes() != 0 {
            self.misused(offset);
        }
        if let Some(quarantine) = &self.quarantine {
            return self.detain(quarantine, offset);
        }
        let kept = local::attached(self, |cache| {
            if cache.is_last(class.place(), block) {
                self.misused(offset);
            }
            if !cache.push(class.place(), block) {
                self.put_oldest(cache, class, class.most_cached() / 2);
                cache.push(class.place(), block);
            }
        });
        if kept.is_none() {
            self.put(class, &[offset]);
        }
    }

    /// Takes a small block back that is not to be handed out again soon.
    fn detain(&self, quarantine: &Quarantine, offset: usize) {
        // Nothing is known of blocks in a forked child.
        if self.must_be_here().is_err() {
            return;
        }
        match quarantine.detain(offset) {
            Ok(None) => {}
            Ok(Some(oldest)) => match self.table.unit(oldest) {
                Some(Unit::Slab(class)) => self.put(class, &[oldest]),
                _ => self.misused(oldest),
            },
            Err(NotLive { offset }) => self.misused(offset),
        }
    }

    fn put(&self, class: Class, offsets: &[usize]) {
        if let Err(NotLive { offset }) = self.central.put(self, &self.table, class, offsets) {
            self.misused(offset);
        }
    }

    /// Takes a block back that is none of a slab.
    #[inline(never)]
    fn free_large(&self, offset: usize) {
        // Nothing is known of blocks in a forked child, nor theirs to give back.
        if self.must_be_here().is_err() {
            return;
        }
        let starts = offset % SLAB_BYTES == 0;
        // First, as who gets the place next says what is there.
        if !(starts && self.table.clear_large(offset).is_some()) {
            self.misused(offset);
        }
        match self.arena.free(offset as u64) {
            Ok(_) => {}
            Err(error) if is_of_closed_file(&error) => self.say_file_is_closed(),
            Err(_) => self.misused(offset),
        }
    }

    /// Says once that nothing comes back to the arena any more: it has its memory until the process
    /// ends.
    #[cold]
    fn say_file_is_closed(&self) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            // A closed stderr is no reason to end.
            let _ = writeln!(
                io::stderr(),
                "freelist: the file of a heap was closed, as by close_range() or by a daemon: what is \
                 freed stays in use until the process ends, and no more can be had"
            );
        });
    }

    /// Ends the program: memory that somebody else may use by now would go on to
    /// be used.
    #[cold]
    fn misused(&self, offset: usize) -> ! {
        let address = self.mapping.as_ptr().as_ptr().wrapping_add(offset);
        // A closed stderr is no reason to go on.
        let _ = writeln!(
            io::stderr(),
            "freelist: {address:p} is freed or resized, but no live block of the heap starts there: \
             freed before?"
        );
        process::abort()
    }

    /// The bytes of the block that may be at `offset`.
    fn bytes_of(&self, offset: usize) -> Option<usize> {
        match self.table.unit(offset)? {
            Unit::Slab(class) => (offset % class.bytes() == 0).then_some(class.bytes()),
            Unit::Large(bytes) => (offset % SLAB_BYTES == 0).then_some(bytes),
            Unit::Nothing => None,
        }
    }

    /// The bytes of a block that has to be there.
    fn usable(&self, block: NonNull<u8>) -> Result<usize> {
        self.must_be_here()?;
        let offset = self.offset(block);
        Ok(self
            .bytes_of(offset)
            .unwrap_or_else(|| self.misused(offset)))
    }

    /// That no fork lies between the heap and this process.
    fn must_be_here(&self) -> Result<()> {
        match self.here[0].load(Ordering::Relaxed) {
            0 => Err(Error::Forked),
            _ => Ok(()),
        }
    }

    /// That the mapping does not lessen an offset's alignment.
    fn can_align(&self, align: usize) -> Result<()> {
        let base = self.mapping.as_ptr().addr().get();
        match base & (align - 1) {
            0 => Ok(()),
            _ => Err(Error::Alignment { align }),
        }
    }

    /// The address of an offset.
    #[inline]
    fn at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: The module hands no offset out that lies beyond the arena's
        // span, and all of that is mapped.
        unsafe { self.mapping.as_ptr().add(offset) }
    }

    /// The offset of an address: beyond the mapping for one that is not in it.
    #[inline]
    fn offset(&self, address: NonNull<u8>) -> usize {
        self.offset_of(address.as_ptr())
    }

    #[inline]
    fn offset_of(&self, address: *mut u8) -> usize {
        let base = self.mapping.as_ptr().addr().get();
        address.addr().wrapping_sub(base)
    }
}

impl Source for Shared {
    fn take(&self, slabs: &mut [u64]) -> Result<usize> {
        let count = self
            .arena
            .alloc_bulk(SLAB_BYTES as u64, Flags::DEFAULT, slabs)?;
        let slabs = &slabs[..count];
        let last = slabs.iter().max().map_or(0, |last| *last as usize);
        if let Err(errno) = self.open_tables(last) {
            self.give(slabs);
            let call = Call::AllocBulk {
                size: SLAB_BYTES as u64,
                count,
                flags: Flags::DEFAULT,
            };
            return Err(Error::refused(call)(errno));
        }
        Ok(count)
    }

    fn give(&self, slabs: &[u64]) {
        match self.arena.free_bulk(slabs) {
            Err(error) if is_of_closed_file(&error) => self.say_file_is_closed(),
            given => debug_assert_eq!(given.ok(), Some(slabs.len()), "slabs are live blocks"),
        }
    }
}
