// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges of addresses with large blocks: that of the arena that serves, and those of earlier ones.

mod fork;

use core::ptr::NonNull;

use rustix::fd::{BorrowedFd, RawFd};

use super::os;
use super::refusal::Refusal;
use super::table::{Entry, Table, UNIT};
use crate::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use crate::sys::{self, Errno};
use crate::uapi::{self, freelist_alloc, freelist_free, freelist_limit, freelist_resize};

/// The content of a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Nothing: the slot is free.
    Unused = 0,
    /// An arena that serves requests.
    Arena,
    /// An arena whose file the program closed: blocks stay until all of them are free.
    Orphan,
    /// Private memory, with a forked child's copy of the blocks.
    Copy,
    /// The parent's arena in a forked child, to read.
    Shared,
}

impl Kind {
    fn of(number: u32) -> Self {
        match number {
            1 => Self::Arena,
            2 => Self::Orphan,
            3 => Self::Copy,
            4 => Self::Shared,
            _ => Self::Unused,
        }
    }
}

/// The end of a mapping is a multiple of this, if the addresses before it are unused.
const HUGE: usize = 2 << 20;
/// The log2 of the largest alignment of a block: 1 GiB.
const MAX_ALIGN_SHIFT: u32 = 30;
/// The number of addresses that are tried for an arena before the kernel chooses one.
const ATTEMPTS: usize = 8;

/// A number that no open file has: calls fail with `EBADF`. (A [`BorrowedFd`] cannot have -1.)
const NO_FILE: RawFd = RawFd::MAX;

/// A range of addresses with large blocks.
///
/// # Invariants
///
/// While `kind` is not `Unused`, the `mapped` bytes from `base` on are mappings that this range owns.
/// Each entry of the table is a block within them.
pub(super) struct Range {
    kind: AtomicU32,
    /// The address of offset 0.
    base: AtomicUsize,
    /// The bytes of the arena's address space.
    span: AtomicUsize,
    /// The bytes that are mapped, from `base` on.
    mapped: AtomicUsize,
    /// The arena's open file, or [`NO_FILE`].
    fd: AtomicI32,
    /// The identity of the file while the program can reach its number, and put another file there: see
    /// `lower_file`.
    identity: AtomicU64,
    /// The bytes of the largest block.
    max_block: AtomicUsize,
    /// The module's features, as of INFO.
    features: AtomicU64,
    blocks: AtomicUsize,
    bytes: AtomicUsize,
    /// During a fork, the open file of the arena's copy, for the child, plus 1; 0 if there is none.
    clone: AtomicI32,
    /// During a fork, the address of the blocks' copy in private memory, for the child; 0 if none.
    copy: AtomicUsize,
    /// The bytes of that copy: the end of the last block.
    extent: AtomicUsize,
    table: Table,
}

fn round_up(bytes: usize, to: usize) -> usize {
    bytes.div_ceil(to).saturating_mul(to)
}

impl Range {
    /// Makes an unused range, which is all zeros.
    pub(super) const fn new() -> Self {
        Self {
            kind: AtomicU32::new(Kind::Unused as u32),
            base: AtomicUsize::new(0),
            span: AtomicUsize::new(0),
            mapped: AtomicUsize::new(0),
            fd: AtomicI32::new(0),
            identity: AtomicU64::new(0),
            max_block: AtomicUsize::new(0),
            features: AtomicU64::new(0),
            blocks: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            clone: AtomicI32::new(0),
            copy: AtomicUsize::new(0),
            extent: AtomicUsize::new(0),
            table: Table::new(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::of(self.kind.load(Acquire))
    }

    pub(super) fn base(&self) -> usize {
        self.base.load(Relaxed)
    }

    /// Returns the address after the last that the range may ever have.
    pub(super) fn end(&self) -> usize {
        self.base() + self.span.load(Relaxed)
    }

    /// Returns whether an address lies in the mapped part, where the blocks are.
    pub(super) fn has(&self, address: usize) -> bool {
        let mapped = self.mapped.load(Relaxed);
        self.kind() != Kind::Unused && address.wrapping_sub(self.base()) < mapped
    }

    /// Returns the bytes of live blocks.
    pub(super) fn live_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Returns the number of live blocks.
    pub(super) fn live_blocks(&self) -> usize {
        self.blocks.load(Relaxed)
    }

    /// Returns the file for system calls, which fail if the program has closed it.
    pub(super) fn file(&self) -> BorrowedFd<'static> {
        let fd: RawFd = self.fd.load(Relaxed);
        // SAFETY: The number was opened for this range, which does not close it while it serves. If the
        // program has closed it, the kernel refuses the calls, or another file with that number does:
        // it has no calls with the device's numbers.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Returns the offset of an address of this range.
    fn offset(&self, address: usize) -> usize {
        address.wrapping_sub(self.base())
    }

    /// Returns the block that begins at an address.
    pub(super) fn block(&self, address: usize) -> Option<Entry> {
        self.table.get(self.offset(address))
    }

    /// Maps an arena of the open file `fd`, in an unused range. The caller holds the gate exclusively.
    pub(super) fn open(&self, fd: RawFd) -> Result<(), Refusal> {
        self.fd.store(fd, Relaxed);
        let info = sys::info(self.file()).map_err(Refusal::of_open)?;
        let span = usize::try_from(info.arena_bytes).map_err(|_| Refusal::NoSpace)?;
        self.max_block
            .store(1_usize.checked_shl(info.max_shift).unwrap_or(0), Relaxed);
        self.features.store(info.features, Relaxed);
        self.span.store(span, Relaxed);
        self.mapped.store(0, Relaxed);
        self.blocks.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        // An address at which the first step fits; a later step may find other mappings there.
        for attempt in 0..ATTEMPTS {
            let base = os::random_address(attempt);
            self.base.store(base, Relaxed);
            if self.extend(HUGE.min(span)).is_ok() {
                self.kind.store(Kind::Arena as u32, Release);
                return Ok(());
            }
        }
        // The processor has fewer address bits: map all of it, at an address that the kernel chooses.
        match os::map_file(fd, 0, span, 0) {
            Ok(base) => {
                self.base.store(base, Relaxed);
                self.mapped.store(span, Relaxed);
                self.withhold(0, span);
                self.kind.store(Kind::Arena as u32, Release);
                Ok(())
            }
            Err(_) => Err(Refusal::NoSpace),
        }
    }

    /// Maps the arena up to `end` at least. The caller holds the gate exclusively.
    ///
    /// Maps as much as is used and an eighth more, so that a large arena has few mappings. It does not
    /// map all of the arena, as address space may be limited or locked.
    fn extend(&self, end: usize) -> Result<(), Errno> {
        let (mapped, span) = (self.mapped.load(Relaxed), self.span.load(Relaxed));
        if end <= mapped {
            return Ok(());
        }
        if end > span {
            return Err(Errno::NOMEM);
        }
        let ahead = round_up(end.max(mapped + mapped / 8), HUGE);
        let steps = [ahead, round_up(end, HUGE), end];
        let mut result = Err(Errno::NOMEM);
        for to in steps.map(|to| to.min(span)) {
            let (fd, at) = (self.fd.load(Relaxed), self.base() + mapped);
            result = os::map_file(fd, mapped, to - mapped, at).map(drop);
            if result.is_ok() {
                self.withhold(mapped, to);
                self.mapped.store(to, Release);
                break;
            }
        }
        result
    }

    /// Limits the bytes that the arena may hold; 0 leaves the module's own limit.
    pub(super) fn set_limit(&self, bytes: u64) -> Result<(), Errno> {
        if bytes == 0 {
            return Ok(());
        }
        let mut limit = freelist_limit {
            bytes,
            ..Default::default()
        };
        sys::limit(self.file(), &mut limit)
    }

    /// Sets the arena's slack, in thousandths, if the module has it.
    pub(super) fn set_slack(&self, slack_permille: u32) {
        let mut limit = freelist_limit {
            slack_permille,
            ..Default::default()
        };
        if self.has_feature(uapi::FREELIST_FEATURE_SLACK) {
            // A module that has it accepts this slack.
            let _ = sys::limit(self.file(), &mut limit);
        }
    }

    fn has_feature(&self, feature: u64) -> bool {
        self.features.load(Relaxed) & feature != 0
    }

    /// Returns the flags of a request, with LAZY if the module has it: programs ask for more memory
    /// than they touch.
    fn flags(&self, flags: u32) -> u32 {
        let lazy = match self.is_lazy() {
            true => uapi::FREELIST_LAZY,
            false => 0,
        };
        uapi::FREELIST_DEFAULT | flags | lazy
    }

    /// Returns whether pages of its blocks get memory when they are touched.
    pub(super) fn is_lazy(&self) -> bool {
        self.kind() == Kind::Arena && self.has_feature(uapi::FREELIST_LAZY.into())
    }

    /// Returns the alignment to ask for, as a log2, for a block of `size` bytes at a multiple of
    /// `align`: 0 if the block has it anyway. `None` if the module cannot align it.
    fn align_shift(&self, size: usize, align: usize) -> Option<u32> {
        if align <= UNIT {
            return Some(0);
        }
        if self.has_feature(uapi::FREELIST_FEATURE_ALIGN) {
            // The arena's address has that alignment too.
            let shift = align.trailing_zeros();
            return (shift <= MAX_ALIGN_SHIFT).then_some(shift);
        }
        // A module without alignments aligns blocks to their size class.
        let class = size.checked_next_power_of_two()?;
        (class >= align).then_some(0)
    }

    /// Returns whether all offsets below `end` are mapped.
    fn is_mapped(&self, end: usize) -> bool {
        end <= self.mapped.load(Acquire)
    }

    /// Allocates a block of at least `size` bytes at a multiple of `align`. Its content is undefined,
    /// or zero. `alone` calls its argument while no fork and no other extension runs.
    ///
    /// May sleep in the kernel.
    pub(super) fn alloc(
        &self,
        size: usize,
        align: usize,
        flags: u32,
        alone: impl FnOnce(&mut dyn FnMut() -> Result<(), Errno>) -> Result<(), Errno>,
    ) -> Result<(NonNull<u8>, Entry), Refusal> {
        if size > self.max_block.load(Relaxed) {
            return Err(Refusal::TooLarge);
        }
        let mut request = freelist_alloc {
            size: size as u64,
            flags: self.flags(flags),
            align_shift: self.align_shift(size, align).ok_or(Refusal::Alignment)?,
            ..Default::default()
        };
        sys::alloc(self.file(), &mut request).map_err(Refusal::of_alloc)?;
        let (offset, bytes) = (request.offset as usize, request.block_bytes as usize);
        let entry = Entry {
            bytes,
            grown: false,
        };
        let placed = if offset & (align - 1) != 0 {
            Err(Refusal::Alignment)
        } else if !self.is_mapped(offset + bytes)
            && alone(&mut || self.extend(offset + bytes)).is_err()
        {
            Err(Refusal::NoSpace)
        } else if !self.table.set(offset, entry) {
            Err(Refusal::NoMemory)
        } else {
            Ok(())
        };
        if let Err(refusal) = placed {
            // No other thread has it, and nothing was written to it.
            let _ = sys::free(
                self.file(),
                freelist_free {
                    offset: offset as u64,
                },
            );
            return Err(refusal);
        }
        self.blocks.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        match NonNull::new((self.base() + offset) as *mut u8) {
            Some(block) => Ok((block, entry)),
            None => Err(Refusal::NoSpace),
        }
    }

    /// Resizes a live block of this arena to `size` bytes in place, in whole pages, and returns its
    /// size then. `None` if it is unchanged: the pages that follow are in use, there is no memory, or
    /// the module has no RESIZE. `alone` is as in [`Range::alloc`]; `together` calls its argument while
    /// no fork runs.
    pub(super) fn resize(
        &self,
        address: usize,
        size: usize,
        together: impl Fn(&mut dyn FnMut() -> Result<(), Errno>) -> Result<(), Errno>,
        alone: impl FnOnce(&mut dyn FnMut() -> Result<(), Errno>) -> Result<(), Errno>,
    ) -> Option<Entry> {
        let offset = self.offset(address);
        let old = self.table.get(offset)?;
        if self.kind() != Kind::Arena
            || !self.has_feature(uapi::FREELIST_FEATURE_RESIZE)
            || size > self.max_block.load(Relaxed)
        {
            return None;
        }
        let mut request = freelist_resize {
            offset: offset as u64,
            size: size as u64,
            flags: self.flags(0),
            ..Default::default()
        };
        let shorter = size < old.bytes;
        let resized = together(&mut || {
            sys::resize(self.file(), &mut request)?;
            if shorter {
                // Before a fork can read bytes that are gone.
                let bytes = request.block_bytes as usize;
                self.table.set(offset, Entry { bytes, ..old });
            }
            Ok(())
        });
        resized.ok()?;
        let new = Entry {
            bytes: request.block_bytes as usize,
            ..old
        };
        if shorter {
            self.bytes.fetch_sub(old.bytes - new.bytes, Relaxed);
            return Some(new);
        }
        let end = offset + new.bytes;
        if !self.is_mapped(end) && alone(&mut || self.extend(end)).is_err() {
            // Undo the growth.
            request.size = old.bytes as u64;
            let _ = sys::resize(self.file(), &mut request);
            return None;
        }
        self.table.set(offset, new);
        self.bytes.fetch_add(new.bytes - old.bytes, Relaxed);
        Some(new)
    }

    /// Marks a live block as one that `realloc()` has grown.
    pub(super) fn mark_grown(&self, address: usize) {
        let offset = self.offset(address);
        if let Some(entry) = self.table.get(offset) {
            self.table.set(
                offset,
                Entry {
                    grown: true,
                    ..entry
                },
            );
        }
    }

    /// Takes a block out of the table and frees its memory, as the kind of range requires. Returns
    /// `None` if no live block begins at `address`.
    ///
    /// # Errors
    ///
    /// The device's error, if the block was taken out but not freed.
    pub(super) fn free(&self, address: usize) -> Option<(Entry, Result<(), Errno>)> {
        let offset = self.offset(address);
        let entry = self.table.take(offset)?;
        self.bytes.fetch_sub(entry.bytes, Relaxed);
        let left = self.blocks.fetch_sub(1, AcqRel) - 1;
        let result = match self.kind() {
            Kind::Arena => sys::free(
                self.file(),
                freelist_free {
                    offset: offset as u64,
                },
            ),
            Kind::Copy => {
                // SAFETY: The block lay there, in memory of this process alone, and its owner does not
                // use it any more.
                unsafe { os::discard(address, entry.bytes) };
                Ok(())
            }
            Kind::Orphan if left == 0 => {
                self.dissolve();
                Ok(())
            }
            Kind::Orphan | Kind::Shared | Kind::Unused => Ok(()),
        };
        Some((entry, result))
    }

    /// Drops the file, which the program closed. Blocks stay where they are.
    pub(super) fn orphan(&self) {
        self.fd.store(NO_FILE, Relaxed);
        self.kind.store(Kind::Orphan as u32, Release);
        if self.live_blocks() == 0 {
            self.dissolve();
        }
    }

    /// Unmaps the range, once no block is in it. One caller succeeds.
    fn dissolve(&self) {
        let orphan = Kind::Orphan as u32;
        let unused = Kind::Unused as u32;
        let mapped = self.mapped.load(Relaxed);
        if self
            .kind
            .compare_exchange(orphan, unused, AcqRel, Relaxed)
            .is_ok()
        {
            // SAFETY: By the type's invariant the mapping is ours, and no block is in it.
            unsafe { os::unmap(self.base(), mapped) };
        }
    }
}
