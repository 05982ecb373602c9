// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges of addresses with large blocks: the arena that serves, and what is left of earlier ones.

mod fork;

use core::ptr::NonNull;

use rustix::fd::{BorrowedFd, RawFd};

use super::os;
use super::refusal::Refusal;
use super::table::{Entry, Table, UNIT};
use crate::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use crate::sys::{self, Errno};
use crate::uapi::{self, freelist_alloc, freelist_free, freelist_limit, freelist_resize};

/// What lies in a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Nothing: the slot is free.
    Unused = 0,
    /// An arena that serves requests.
    Arena,
    /// An arena whose file the program closed: blocks stay until all of them are free.
    Orphan,
    /// Private memory with the blocks that a forked child was given.
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

/// Mappings end at multiples of this, where there is room.
const HUGE: usize = 2 << 20;
/// The largest alignment that a block can be given, as a shift: 1 GiB.
const MAX_ALIGN_SHIFT: u32 = 30;
/// Addresses that are tried for an arena before the kernel chooses.
const ATTEMPTS: usize = 8;

/// A number that no open file has: calls answer `EBADF`. (-1 is none that a [`BorrowedFd`] can be of.)
const NO_FILE: RawFd = RawFd::MAX;

/// A range of addresses with large blocks.
///
/// # Invariants
///
/// While `kind` is not `Unused`, `mapped` bytes from `base` on are mappings that this range owns. A
/// table entry at an offset means that a block lies there, within them.
pub(super) struct Range {
    kind: AtomicU32,
    /// The address of offset 0.
    base: AtomicUsize,
    /// Bytes of offsets that the arena has.
    span: AtomicUsize,
    /// Bytes that are mapped, from `base` on.
    mapped: AtomicUsize,
    /// The arena's open file, or [`NO_FILE`].
    fd: AtomicI32,
    /// The largest block, in bytes.
    max_block: AtomicUsize,
    /// What the module offers: `INFO.features`.
    features: AtomicU64,
    blocks: AtomicUsize,
    bytes: AtomicUsize,
    /// The open file of a copy of the arena during a fork, for the child, plus 1; 0 for none.
    clone: AtomicI32,
    /// Where a copy of all blocks lies in private memory during a fork, for the child; 0 for none.
    copy: AtomicUsize,
    /// Bytes of that copy: the end of the last block.
    extent: AtomicUsize,
    table: Table,
}

fn round_up(bytes: usize, to: usize) -> usize {
    bytes.div_ceil(to).saturating_mul(to)
}

impl Range {
    /// Returns an unused one, which is all zeros.
    pub(super) const fn new() -> Self {
        Self {
            kind: AtomicU32::new(Kind::Unused as u32),
            base: AtomicUsize::new(0),
            span: AtomicUsize::new(0),
            mapped: AtomicUsize::new(0),
            fd: AtomicI32::new(0),
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

    /// Returns the address after the last that it may ever have.
    pub(super) fn end(&self) -> usize {
        self.base() + self.span.load(Relaxed)
    }

    /// Returns whether an address lies where blocks may be: beyond what is mapped anything else may
    /// be.
    pub(super) fn has(&self, address: usize) -> bool {
        let mapped = self.mapped.load(Relaxed);
        self.kind() != Kind::Unused && address.wrapping_sub(self.base()) < mapped
    }

    /// Bytes in live blocks.
    pub(super) fn live_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Live blocks.
    pub(super) fn live_blocks(&self) -> usize {
        self.blocks.load(Relaxed)
    }

    /// Returns the file for system calls, which fail if the program has closed it.
    pub(super) fn file(&self) -> BorrowedFd<'static> {
        let fd: RawFd = self.fd.load(Relaxed);
        // SAFETY: The number was opened for this range and is not closed by it while it serves. If the
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

    /// Maps an arena for the open file `fd`, in an unused range. The caller is alone.
    pub(super) fn open(&self, fd: RawFd) -> Result<(), Refusal> {
        self.fd.store(fd, Relaxed);
        let info = sys::info(self.file()).map_err(Refusal::of_open)?;
        let span = usize::try_from(info.arena_bytes).map_err(|_| Refusal::NoRoom)?;
        self.max_block
            .store(1_usize.checked_shl(info.max_shift).unwrap_or(0), Relaxed);
        self.features.store(info.features, Relaxed);
        self.span.store(span, Relaxed);
        self.mapped.store(0, Relaxed);
        self.blocks.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        // An address where the first step fits; later ones may be taken by then, as for any mapping.
        for attempt in 0..ATTEMPTS {
            let base = os::random_address(attempt);
            self.base.store(base, Relaxed);
            if self.extend(HUGE.min(span)).is_ok() {
                self.kind.store(Kind::Arena as u32, Release);
                return Ok(());
            }
        }
        // Fewer address bits than expected: all of it, wherever the kernel finds room.
        match os::map_file(fd, 0, span, 0) {
            Ok(base) => {
                self.base.store(base, Relaxed);
                self.mapped.store(span, Relaxed);
                self.withhold(0, span);
                self.kind.store(Kind::Arena as u32, Release);
                Ok(())
            }
            Err(_) => Err(Refusal::NoRoom),
        }
    }

    /// Maps the arena up to `end` at least. The caller is alone.
    ///
    /// It is mapped as far as it is used, and an eighth more, so that a large arena is not of
    /// many mappings: addresses count where a process's are limited or locked.
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

    /// Bounds the bytes that the arena may hold; 0 leaves it with the module's own limit.
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

    /// Bounds how much more than its blocks ever needed the arena may hold, in thousandths, where the
    /// module can.
    pub(super) fn set_slack(&self, slack_permille: u32) {
        let mut limit = freelist_limit {
            slack_permille,
            ..Default::default()
        };
        if self.has_feature(uapi::FREELIST_FEATURE_SLACK) {
            // A module that has it takes this slack.
            let _ = sys::limit(self.file(), &mut limit);
        }
    }

    fn has_feature(&self, feature: u64) -> bool {
        self.features.load(Relaxed) & feature != 0
    }

    /// Returns the flags of a request. Memory comes when it is touched, where the module can do
    /// that: programs ask for more than they touch.
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

    /// Returns the alignment to ask for, for a block of `size` bytes at a multiple of `align`: 0
    /// where it comes by itself. `None` where the module cannot align it.
    fn align_shift(&self, size: usize, align: usize) -> Option<u32> {
        if align <= UNIT {
            return Some(0);
        }
        if self.has_feature(uapi::FREELIST_FEATURE_ALIGN) {
            // The arena's address is aligned to as much.
            let shift = align.trailing_zeros();
            return (shift <= MAX_ALIGN_SHIFT).then_some(shift);
        }
        // A module without it aligns blocks to their size class.
        let class = size.checked_next_power_of_two()?;
        (class >= align).then_some(0)
    }

    /// Returns whether all offsets below `end` are mapped already.
    fn is_mapped(&self, end: usize) -> bool {
        end <= self.mapped.load(Acquire)
    }

    /// Allocates a block of at least `size` bytes at a multiple of `align`. Its bytes are any, or
    /// zero. `alone` calls what it is given while no fork and no other extension runs.
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
            Err(Refusal::NoRoom)
        } else if !self.table.set(offset, entry) {
            Err(Refusal::NoMemory)
        } else {
            Ok(())
        };
        if let Err(refusal) = placed {
            // It was ours alone; nothing was written to it.
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
            None => Err(Refusal::NoRoom),
        }
    }

    /// Makes a live block of this arena `size` bytes long where it is, in whole pages; returns what
    /// it has then. `None` if it stays as it was: what lies behind it is in use, there is no memory,
    /// or the module cannot resize. `alone` as for [`Range::alloc`], `together` calls what it is
    /// given while no fork runs.
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
                // Before a fork can look for bytes that are not there any more.
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
            // As it was.
            request.size = old.bytes as u64;
            let _ = sys::resize(self.file(), &mut request);
            return None;
        }
        self.table.set(offset, new);
        self.bytes.fetch_add(new.bytes - old.bytes, Relaxed);
        Some(new)
    }

    /// Marks a live block as one that `realloc()` made larger.
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

    /// Takes a block out of the table and gives its memory back, in the way of this kind of range.
    /// `None` where no live block begins at `address`.
    ///
    /// # Errors
    ///
    /// The device's answer, where the block was taken out but not given back.
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
                // SAFETY: The block lay there, which its owner gave up, in memory of this process
                // alone.
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

    /// Gives up the file, which the program closed: blocks stay where they are.
    pub(super) fn orphan(&self) {
        self.fd.store(NO_FILE, Relaxed);
        self.kind.store(Kind::Orphan as u32, Release);
        if self.live_blocks() == 0 {
            self.dissolve();
        }
    }

    /// Unmaps all of it. Only one caller gets to do that.
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
