// SPDX-License-Identifier: MIT OR Apache-2.0

//! An open of the device.

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

/// Where the module puts its device.
pub const DEVICE: &str = "/dev/freelist";

/// What a request got. Plain numbers: dropping it gives nothing back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Where it lies in the arena, in bytes; aligned to its size class, at most
    /// to 64 KiB.
    pub offset: u64,
    /// Bytes that belong to it, at least as many as were asked for.
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
    /// As [`Arena::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path);
        Self::opened(file, path)
    }

    /// Opens a new arena for reading only: [`Arena::info`] and [`Arena::stat`]
    /// work, calls that change it are `EBADF`.
    ///
    /// # Errors
    ///
    /// As [`Arena::open`].
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

    /// Takes an open file of the device, for instance one that another process
    /// passed: the arena is shared with it.
    pub fn from_fd(file: OwnedFd) -> Self {
        let mode = nix::fcntl::fcntl(&file, nix::fcntl::F_GETFL);
        let writable = mode
            .is_ok_and(|mode| OFlag::from_bits_retain(mode) & OFlag::O_ACCMODE != OFlag::O_RDONLY);
        Self { file, writable }
    }

    /// Another descriptor of the same arena. ([`Arena::copy`] makes another
    /// arena.)
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

    /// Makes a new arena with the same live blocks at the same offsets and a copy
    /// of what is in them, under the same limit, span and slack. It is the
    /// caller's own: what is written to either does not show in the other.
    ///
    /// A block that another thread allocates, frees or resizes meanwhile is in
    /// the copy or not.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOMEM` when memory is short, `EDQUOT` when a limit
    /// forbids the copy, `EMFILE` when too many files are open, `EBADF` when the
    /// arena is open for reading only. Nothing is left of the copy then.
    pub fn copy(&self) -> Result<Self> {
        let file = sys::clone(self.as_fd()).map_err(Error::refused(Call::Clone))?;
        Ok(Self {
            file,
            writable: self.writable,
        })
    }

    /// What this module offers.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOTTY` when the file is another device's.
    pub fn info(&self) -> Result<Info> {
        sys::info(self.as_fd()).map_err(Error::refused(Call::Info))
    }

    /// Asks for one block of at least `size` bytes. It does not wait: with
    /// WAIT, a request that would have to is `EAGAIN`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with an errno of the contract's table: `EINVAL`,
    /// `E2BIG`, `ENOMEM`, `EDQUOT`, `ENOSPC`, `EAGAIN`, `EOPNOTSUPP`, `EBADF`.
    pub fn alloc(&self, size: u64, flags: Flags) -> Result<Block> {
        self.alloc_one(size, 0, flags, &mut Timeout::from(Duration::ZERO))
    }

    /// Asks for one block of at least `size` bytes that is aligned to at least
    /// `1 << align_shift` bytes, at most 30.
    ///
    /// # Errors
    ///
    /// As [`Arena::alloc`], and `EINVAL` when `align_shift` is over 30.
    pub fn alloc_aligned(&self, size: u64, align_shift: u32, flags: Flags) -> Result<Block> {
        self.alloc_one(size, align_shift, flags, &mut Timeout::from(Duration::ZERO))
    }

    /// Asks for one block of at least `size` bytes, and waits for it if it has
    /// to, with WAIT added to `flags`. What is left of `timeout` is in it
    /// afterwards.
    ///
    /// # Errors
    ///
    /// As [`Arena::alloc`], and `ETIMEDOUT`; `EINTR` when a signal came, and
    /// `EAGAIN` when the file is non-blocking or `timeout` is zero.
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

    /// Gives the block at `offset` back.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOENT` when nothing live is there, `EINVAL` when
    /// `offset` cannot be a block's start or lies inside of a live block,
    /// `EUCLEAN` when its header was overwritten: then it is given back all the
    /// same.
    pub fn free(&self, offset: u64) -> Result<()> {
        sys::free(self.as_fd(), freelist_free { offset })
            .map_err(Error::refused(Call::Free { offset }))
    }

    /// Asks for as many blocks of at least `size` bytes as `offsets` has room
    /// for, in one call. Says how many were given: their offsets are at its
    /// beginning. Fewer than all is no error; asking for the rest tells why.
    ///
    /// # Errors
    ///
    /// When not even one was given: those of [`Arena::alloc`], and `EINVAL`
    /// when `offsets` is empty.
    pub fn alloc_bulk(&self, size: u64, flags: Flags, offsets: &mut [u64]) -> Result<usize> {
        self.alloc_many(size, flags, &mut Timeout::from(Duration::ZERO), offsets)
    }

    /// As [`Arena::alloc_bulk`], and waits for blocks if it has to, with WAIT
    /// added to `flags`: at most `timeout` for all of them together. What is
    /// left of it is in it afterwards.
    ///
    /// # Errors
    ///
    /// When not even one was given: those of [`Arena::alloc_wait`], and
    /// `EINVAL` when `offsets` is empty.
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

    /// Gives the blocks at `offsets` back, in one call, up to the first that is
    /// refused. Says how many were taken back; giving the rest tells why not
    /// more.
    ///
    /// # Errors
    ///
    /// When not even one was taken back: those of [`Arena::free`], and `EINVAL`
    /// when `offsets` is empty.
    pub fn free_bulk(&self, offsets: &[u64]) -> Result<usize> {
        let count = offsets.len();
        let done = sys::free_bulk(self.as_fd(), offsets)
            .map_err(Error::refused(Call::FreeBulk { count }))?;
        Ok(done as usize)
    }

    /// Bounds the bytes of pages that the arena may hold. Live blocks stay as
    /// they are; what is held beyond it is given back as far as it is free. 0
    /// changes nothing. Gives what is in force.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EPERM` when it is raised above the administrator's
    /// default without `CAP_SYS_RESOURCE`, `EBADF` when the arena is open for
    /// reading only.
    pub fn set_limit(&self, bytes: u64) -> Result<Limit> {
        self.bound(Limit {
            bytes,
            ..Limit::default()
        })
    }

    /// Sets the bytes of the arena's offsets (`INFO.arena_bytes`), before the
    /// first block is asked for only. 0 changes nothing. Gives what is in force.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when `bytes` are not whole pages, more than
    /// 16 Mi pages, or set too late; `EBADF` as [`Arena::set_limit`].
    pub fn set_span(&self, bytes: u64) -> Result<Limit> {
        self.bound(Limit {
            span: bytes,
            ..Limit::default()
        })
    }

    /// Sets how much more than the most that its blocks ever needed the arena
    /// may hold before it reuses scattered free memory instead of growing, in
    /// thousandths; `None` is without a bound. Returns what is in force.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when it is 0 or over 1000, `EBADF` as
    /// [`Arena::set_limit`].
    pub fn set_slack_permille(&self, slack: Option<u32>) -> Result<Limit> {
        let refused = Error::refused(Call::Slack { permille: slack });
        let mut limit = Limit {
            slack_permille: slack.unwrap_or(FREELIST_SLACK_NONE),
            ..Limit::default()
        };
        if limit.slack_permille == 0 {
            // The call would leave it as it is.
            return Err(refused(sys::Errno::INVAL));
        }
        sys::limit(self.as_fd(), &mut limit).map_err(refused)?;
        Ok(limit)
    }

    /// Makes the live block at `offset` `size` bytes long, in whole pages, where
    /// it is: the tail of a shorter one is free at once, a longer one takes the
    /// free pages behind it, as `flags` allow. Returns the bytes that it has now.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOSPC` when what lies behind the block is in use,
    /// `EINVAL` when the size is 0, when the block has a header or is below a
    /// page, or for flags other than `LARGER`, `GROW`, `ZERO`, `POPULATE` and `LAZY`;
    /// `ENOENT` when nothing live is there; those of [`Arena::alloc`]. Nothing
    /// has changed then.
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

    /// Lets the whole pages inside `bytes` bytes from `offset` on lose their
    /// memory: they read as zero, and get new memory when they are touched. A
    /// page that is pinned for I/O keeps its memory, and is zeroed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when `bytes` is 0, or when some of the range
    /// lies in no live block, or in one that has a header, is below a page or is
    /// CONTIG; `EBADF` as [`Arena::set_limit`].
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

    /// Gives wholly free pages back to the system until at most `keep_bytes`
    /// of them are held. Says how many bytes went. Touching them is `SIGBUS`
    /// then, until they are part of a block again.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EBADF` when the arena is open for reading only.
    pub fn trim(&self, keep_bytes: u64) -> Result<u64> {
        sys::trim(self.as_fd(), keep_bytes).map_err(Error::refused(Call::Trim { keep_bytes }))
    }

    /// Returns the arena's counters, of one moment.
    ///
    /// # Errors
    ///
    /// As [`Arena::info`].
    pub fn stat(&self) -> Result<Stat> {
        sys::stat(self.as_fd()).map_err(Error::refused(Call::Stat))
    }

    /// Maps the arena's first `len` bytes; `INFO.arena_bytes` maps all of it.
    /// Only addresses are used until blocks are touched.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` when `len` is 0 or beyond the arena,
    /// `ENOMEM` when the process has no room for it.
    pub fn map(&self, len: u64) -> Result<Mapping> {
        self.map_at(0, len)
    }

    /// Maps `len` bytes from `offset`, which is a multiple of the page size.
    ///
    /// # Errors
    ///
    /// As [`Arena::map`].
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
