// SPDX-License-Identifier: MIT OR Apache-2.0

//! The calls of an open arena.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::{Call, Error, Result};
use crate::flags::Flags;
use crate::mapping::Mapping;
use crate::sys;
use crate::timeout::Timeout;
use crate::uapi::{
    freelist_alloc, freelist_bulk, freelist_discard, freelist_free, freelist_info as Info,
    freelist_limit as Limit, freelist_resize, freelist_stat as Stat, FREELIST_SLACK_NONE,
};

/// The path of the module's device.
pub const DEVICE: &str = "/dev/freelist";

/// A block, as a request returned it. Dropping this does not free the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its offset in the arena, in bytes; aligned to its size class, at most to 64 KiB.
    pub offset: u64,
    /// The bytes of the block, at least as many as were asked for.
    pub bytes: u64,
}

/// An open of the device: a private address space and its blocks.
///
/// The arena lives until its last file descriptor is closed and its last
/// mapping gone. Threads may use it at the same time.
#[derive(Debug)]
pub struct Arena {
    file: OwnedFd,
    writable: bool,
}

impl Arena {
    /// Opens a new arena of [`DEVICE`] for reading and writing.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], when the module is not loaded or access is denied.
    pub fn open() -> Result<Self> {
        Self::open_path(DEVICE)
    }

    /// Opens a new arena of another device file for reading and writing.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path);
        Self::opened(file, path)
    }

    /// Opens a new arena for reading only: [`Arena::info`] and [`Arena::stat`] work, calls that change
    /// the arena fail with `EBADF`.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::open`].
    pub fn open_read_only() -> Result<Self> {
        Self::opened(File::open(DEVICE), Path::new(DEVICE))
    }

    fn opened(file: std::io::Result<File>, path: &Path) -> Result<Self> {
        let file = file.map_err(|error| Error::Open {
            path: path.to_owned(),
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        })?;
        Ok(Self::from_fd(file.into()))
    }

    /// Makes an arena of an open file of the device, for instance of one that another process passed: both
    /// share the arena.
    pub fn from_fd(file: OwnedFd) -> Self {
        let mode = nix::fcntl::fcntl(&file, nix::fcntl::F_GETFL);
        let writable = mode
            .is_ok_and(|mode| OFlag::from_bits_retain(mode) & OFlag::O_ACCMODE != OFlag::O_RDONLY);
        Self { file, writable }
    }

    /// Duplicates the file descriptor of this arena. ([`Arena::copy`] makes another arena.)
    ///
    /// # Errors
    ///
    /// Those of `dup()`.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            writable: self.writable,
        })
    }

    /// Makes a new arena with the same live blocks at the same offsets, a copy of their content, and the
    /// same limit, span and slack. A write to either arena does not change the other.
    ///
    /// A block that another thread allocates, frees or resizes during the call is in the copy or not.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOMEM` when memory is short, `EDQUOT` when a limit forbids the copy, `EMFILE`
    /// when too many files are open, `EBADF` when the arena is open for reading only. No copy remains then.
    pub fn copy(&self) -> Result<Self> {
        let file = sys::clone(self.as_fd()).map_err(Error::refused(Call::Clone))?;
        Ok(Self {
            file,
            writable: self.writable,
        })
    }

    /// Returns the properties of the module and the arena.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOTTY` when the file is another device's.
    pub fn info(&self) -> Result<Info> {
        sys::info(self.as_fd()).map_err(Error::refused(Call::Info))
    }

    /// Allocates one block of at least `size` bytes. Does not wait: with WAIT, a request that would have to
    /// wait fails with `EAGAIN`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with an errno of the contract's table: `EINVAL`,
    /// `E2BIG`, `ENOMEM`, `EDQUOT`, `ENOSPC`, `EAGAIN`, `EOPNOTSUPP`, `EBADF`.
    pub fn alloc(&self, size: u64, flags: Flags) -> Result<Block> {
        self.alloc_one(size, 0, flags, &mut Timeout::from(Duration::ZERO))
    }

    /// Allocates one block of at least `size` bytes that is aligned to at least `1 << align_shift` bytes;
    /// `align_shift` is at most 30.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::alloc`], and `EINVAL` when `align_shift` is over 30.
    pub fn alloc_aligned(&self, size: u64, align_shift: u32, flags: Flags) -> Result<Block> {
        self.alloc_one(size, align_shift, flags, &mut Timeout::from(Duration::ZERO))
    }

    /// Allocates one block of at least `size` bytes, and waits for it if necessary: WAIT is added to
    /// `flags`. Subtracts the time that it waited from `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::alloc`]; `ETIMEDOUT`; `EINTR` when a signal arrived; `EAGAIN` when the file is
    /// non-blocking or `timeout` is zero.
    pub fn alloc_wait(&self, size: u64, flags: Flags, timeout: &mut Timeout) -> Result<Block> {
        self.alloc_one(size, 0, flags | Flags::WAIT, timeout)
    }

    fn alloc_one(
        &self,
        size: u64,
        align_shift: u32,
        flags: Flags,
        timeout: &mut Timeout,
    ) -> Result<Block> {
        let mut request = freelist_alloc {
            size,
            align_shift,
            flags: flags.bits(),
            timeout_ns: timeout.ns(),
            ..Default::default()
        };
        let result = sys::alloc(self.as_fd(), &mut request);
        *timeout = Timeout::from_ns(request.timeout_ns);
        result.map_err(Error::refused(Call::Alloc { size, flags }))?;
        Ok(Block {
            offset: request.offset,
            bytes: request.block_bytes,
        })
    }

    /// Frees the block at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOENT` when no live block starts there, `EINVAL` when no block can start
    /// there or `offset` lies inside of a live block, `EUCLEAN` when the block's header was overwritten;
    /// the block is freed in that case.
    pub fn free(&self, offset: u64) -> Result<()> {
        sys::free(self.as_fd(), freelist_free { offset })
            .map_err(Error::refused(Call::Free { offset }))
    }

    /// Allocates blocks of at least `size` bytes in one call, as many as `offsets` has entries. Stores
    /// their offsets at its beginning, and returns their number. Fewer than all are no error; a further
    /// call for the rest fails with the reason.
    ///
    /// # Errors
    ///
    /// If no block was allocated: those of [`Arena::alloc`], and `EINVAL` when `offsets` is empty.
    pub fn alloc_bulk(&self, size: u64, flags: Flags, offsets: &mut [u64]) -> Result<usize> {
        self.alloc_many(size, flags, &mut Timeout::from(Duration::ZERO), offsets)
    }

    /// Allocates blocks as [`Arena::alloc_bulk`], and waits for them if necessary, at most `timeout` for
    /// all of them together: WAIT is added to `flags`. Subtracts the time that it waited from `timeout`.
    ///
    /// # Errors
    ///
    /// If no block was allocated: those of [`Arena::alloc_wait`], and `EINVAL` when `offsets` is empty.
    pub fn alloc_bulk_wait(
        &self,
        size: u64,
        flags: Flags,
        timeout: &mut Timeout,
        offsets: &mut [u64],
    ) -> Result<usize> {
        self.alloc_many(size, flags | Flags::WAIT, timeout, offsets)
    }

    fn alloc_many(
        &self,
        size: u64,
        flags: Flags,
        timeout: &mut Timeout,
        offsets: &mut [u64],
    ) -> Result<usize> {
        let count = offsets.len();
        let mut request = freelist_bulk {
            size,
            flags: flags.bits(),
            timeout_ns: timeout.ns(),
            ..Default::default()
        };
        let result = sys::alloc_bulk(self.as_fd(), &mut request, offsets);
        *timeout = Timeout::from_ns(request.timeout_ns);
        result.map_err(Error::refused(Call::AllocBulk { size, count, flags }))?;
        Ok(request.done as usize)
    }

    /// Frees the blocks at `offsets` in one call, up to the first that is refused. Returns the number of
    /// blocks that it freed; a further call for the rest fails with the reason.
    ///
    /// # Errors
    ///
    /// If no block was freed: those of [`Arena::free`], and `EINVAL` when `offsets` is empty.
    pub fn free_bulk(&self, offsets: &[u64]) -> Result<usize> {
        let count = offsets.len();
        let done = sys::free_bulk(self.as_fd(), offsets)
            .map_err(Error::refused(Call::FreeBulk { count }))?;
        Ok(done as usize)
    }

    /// Limits the bytes of pages that the arena may hold. Live blocks stay as they are; free pages above the
    /// limit are returned to the system. 0 changes nothing. Returns the limits in force.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EPERM` when `bytes` is above the administrator's default and the caller has no
    /// `CAP_SYS_RESOURCE`, `EBADF` when the arena is open for reading only.
    pub fn set_limit(&self, bytes: u64) -> Result<Limit> {
        self.bound(Limit {
            bytes,
            ..Limit::default()
        })
    }

    /// Sets the span of the arena's offsets in bytes (`INFO.arena_bytes`), before its first block is
    /// allocated. 0 changes nothing. Returns the limits in force.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when `bytes` are not whole pages, more than 16 Mi pages, or set too
    /// late; `EBADF` as in [`Arena::set_limit`].
    pub fn set_span(&self, bytes: u64) -> Result<Limit> {
        self.bound(Limit {
            span: bytes,
            ..Limit::default()
        })
    }

    /// Sets the slack in thousandths: how much more memory the arena may hold than its blocks ever needed at
    /// once, before it reuses scattered free memory instead of growing; `None` is unlimited. Returns the
    /// limits in force.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when it is 0 or over 1000, `EBADF` as in [`Arena::set_limit`].
    pub fn set_slack_permille(&self, slack: Option<u32>) -> Result<Limit> {
        let refused = Error::refused(Call::Slack { permille: slack });
        let mut limit = Limit {
            slack_permille: slack.unwrap_or(FREELIST_SLACK_NONE),
            ..Limit::default()
        };
        if limit.slack_permille == 0 {
            // The call takes 0 for no change.
            return Err(refused(sys::Errno::INVAL));
        }
        sys::limit(self.as_fd(), &mut limit).map_err(refused)?;
        Ok(limit)
    }

    /// Resizes the live block at `offset` to `size` bytes in place, in whole pages. The tail of a block that
    /// shrinks is free at once; a block that grows gets the free pages that follow it, and new memory as
    /// `flags` allow. Returns the bytes of the block.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOSPC` when the pages that follow the block are in use; `EINVAL` when the size
    /// is 0, when the block has a header or is below a page, or for flags other than `LARGER`, `GROW`,
    /// `ZERO`, `POPULATE` and `LAZY`; `ENOENT` when no live block starts there; those of [`Arena::alloc`].
    /// The block is unchanged then.
    pub fn resize(&self, offset: u64, size: u64, flags: Flags) -> Result<u64> {
        let mut request = freelist_resize {
            offset,
            size,
            flags: flags.bits(),
            ..Default::default()
        };
        sys::resize(self.as_fd(), &mut request)
            .map_err(Error::refused(Call::Resize { offset, size }))?;
        Ok(request.block_bytes)
    }

    /// Discards the memory of the whole pages inside of `bytes` bytes from `offset` on: they read as zero,
    /// and get new memory when they are touched. A page that is pinned for I/O keeps its memory, and is
    /// zeroed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when `bytes` is 0, or when a part of the range lies in no live block, or
    /// in one that has a header, is below a page or is CONTIG; `EBADF` as in [`Arena::set_limit`].
    pub fn discard(&self, offset: u64, bytes: u64) -> Result<()> {
        sys::discard(self.as_fd(), freelist_discard { offset, bytes })
            .map_err(Error::refused(Call::Discard { offset, bytes }))
    }

    fn bound(&self, mut limit: Limit) -> Result<Limit> {
        let (bytes, span) = (limit.bytes, limit.span);
        sys::limit(self.as_fd(), &mut limit)
            .map_err(Error::refused(Call::Limit { bytes, span }))?;
        Ok(limit)
    }

    /// Returns wholly free pages to the system until the arena holds at most `keep_bytes` of them. Returns
    /// the bytes of these pages. Touching them raises `SIGBUS` until they are part of a block again.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EBADF` when the arena is open for reading only.
    pub fn trim(&self, keep_bytes: u64) -> Result<u64> {
        sys::trim(self.as_fd(), keep_bytes).map_err(Error::refused(Call::Trim { keep_bytes }))
    }

    /// Returns the arena's counters, all of one moment.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::info`].
    pub fn stat(&self) -> Result<Stat> {
        sys::stat(self.as_fd()).map_err(Error::refused(Call::Stat))
    }

    /// Maps the arena's first `len` bytes; `INFO.arena_bytes` maps all of it. Takes address space only, until
    /// blocks are touched.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when `len` is 0 or beyond the arena, `ENOMEM` when the process has too
    /// little address space.
    pub fn map(&self, len: u64) -> Result<Mapping> {
        self.map_at(0, len)
    }

    /// Maps `len` bytes from `offset`, which is a multiple of the page size.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::map`].
    pub fn map_at(&self, offset: u64, len: u64) -> Result<Mapping> {
        Mapping::new(self.as_fd(), offset, len, self.writable)
            .map_err(Error::refused(Call::Map { offset, len }))
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Arena> for OwnedFd {
    fn from(arena: Arena) -> Self {
        arena.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named_with_what_to_do() {
        let error = Arena::open_path("/nonexistent/freelist").unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("cannot open /nonexistent/freelist"));
        assert!(message.contains("modprobe freelist"), "{message}");
    }

    #[test]
    fn another_device_is_not_taken_for_ours() {
        let null = Arena::open_path("/dev/null").unwrap();
        let error = null.info().unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOTTY));
        assert!(error.to_string().contains("not /dev/freelist"));
    }
}
