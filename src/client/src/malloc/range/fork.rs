// SPDX-License-Identifier: MIT OR Apache-2.0

//! The copy of a range for a forked child. Only the forking thread calls these functions.

use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::{Kind, Range, NO_FILE};
use crate::malloc::refusal::Refusal;
use crate::malloc::settings::{ForkMode, Settings};
use crate::malloc::{descriptor, os};
use crate::sync::atomic::Ordering::*;
use crate::sys::{self, Errno};
use crate::uapi::{self, freelist_resize};

impl Range {
    /// Keeps a part of the mapping from being inherited: forked children get a copy. In a child of a
    /// bare system call nothing is mapped there.
    pub(super) fn withhold(&self, from: usize, to: usize) {
        if Settings::get().is_none_or(|settings| settings.fork == ForkMode::Copy) {
            // SAFETY: The part was just mapped, for this range.
            unsafe { os::withhold(self.base() + from, to - from) };
        }
    }

    /// Returns whether the blocks lie in shared memory, which a fork does not copy.
    pub(in crate::malloc) fn is_shared(&self) -> bool {
        matches!(self.kind(), Kind::Arena | Kind::Orphan)
    }

    /// Copies all blocks for the child, before a fork. The module copies an arena that serves. If its
    /// file is closed, or the module has no CLONE, each block is copied to its offset in private memory.
    ///
    /// # Errors
    ///
    /// Those of CLONE, or `ENOMEM`. No copy remains then.
    ///
    /// # Safety
    ///
    /// No block is freed during the call.
    pub(in crate::malloc) unsafe fn make_copy(&self, page: usize) -> Result<(), Errno> {
        let mapped = self.mapped.load(Relaxed);
        let mut extent = 0;
        self.table.for_each(mapped, |offset, entry| {
            extent = extent.max(offset + entry.bytes);
        });
        self.extent.store(extent, Relaxed);
        if extent == 0 {
            return Ok(());
        }
        if self.kind() == Kind::Arena && self.has_feature(uapi::FREELIST_FEATURE_CLONE) {
            match descriptor::with_room(|| sys::clone(self.file())) {
                Ok(clone) => {
                    self.clone.store(clone.into_raw_fd() + 1, Relaxed);
                    return Ok(());
                }
                // The program has closed the file, which no call has noticed yet. The blocks remain.
                Err(errno) if Refusal::of_alloc(errno) == Refusal::FileLost => {}
                Err(errno) => return Err(errno),
            }
        }
        let copy = os::map_private(extent)?;
        self.copy.store(copy, Relaxed);
        self.table.for_each(mapped, |offset, entry| {
            // A block that another thread allocates now may lie beyond the copy.
            if offset + entry.bytes <= extent {
                // SAFETY: A live block is mapped and has memory until it is freed, which by the caller's
                // contract does not happen now; the copy has the same bytes of space, all zero.
                unsafe { os::copy_pages(self.base() + offset, copy + offset, entry.bytes, page) };
            }
        });
        Ok(())
    }

    /// Returns whether there is a copy in private memory for a child.
    pub(in crate::malloc) fn has_private_copy(&self) -> bool {
        self.copy.load(Relaxed) != 0
    }

    /// Takes the file of the module's copy, if there is one.
    fn take_clone(&self) -> Option<OwnedFd> {
        let fd = self.clone.swap(0, Relaxed).checked_sub(1)?;
        // SAFETY: `make_copy()` opened it and stored it here, and only the first call takes it: one in
        // the parent, and one in the child, which has a descriptor of its own.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Drops the copy, in the parent after a fork.
    pub(in crate::malloc) fn drop_copy(&self) {
        drop(self.take_clone());
        let copy = self.copy.swap(0, Relaxed);
        if copy != 0 {
            // SAFETY: `make_copy()` mapped it with that length, and nothing here uses it.
            unsafe { os::unmap(copy, self.extent.load(Relaxed)) };
        }
    }

    /// Puts the copy in place of the parent's arena, in the child after a fork. `threads` is `true` if
    /// the parent had other threads, which may have allocated blocks while the copy was made.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the process has as many mappings as the system allows, or too few addresses.
    pub(in crate::malloc) fn become_copy(&self, threads: bool) -> Result<(), Errno> {
        if let Some(clone) = self.take_clone() {
            return self.become_clone(clone, threads);
        }
        let (base, mapped) = (self.base(), self.mapped.load(Relaxed));
        let (copy, extent) = (self.copy.swap(0, Relaxed), self.extent.load(Relaxed));
        if copy != 0 {
            // SAFETY: Both are ours; blocks have the same bytes in the copy.
            unsafe { os::move_over(copy, extent, base) }?;
        }
        if mapped > extent {
            // SAFETY: No block in the table reaches beyond the extent.
            unsafe { os::unmap(base + extent, mapped - extent) };
        }
        self.drop_file();
        self.mapped.store(extent, Relaxed);
        self.span.store(extent, Relaxed);
        let kind = if extent == 0 {
            Kind::Unused
        } else {
            Kind::Copy
        };
        self.kind.store(kind as u32, Release);
        Ok(())
    }

    /// Serves from the module's copy of the parent's arena.
    fn become_clone(&self, clone: OwnedFd, threads: bool) -> Result<(), Errno> {
        let mapped = self.mapped.load(Relaxed);
        self.drop_file();
        let fd = descriptor::hide(clone);
        self.fd.store(fd, Relaxed);
        // SAFETY: The range is ours; blocks have the same bytes in the copy.
        unsafe { os::map_file_over(fd, mapped, self.base()) }?;
        self.withhold(0, mapped);
        if threads && self.has_feature(uapi::FREELIST_FEATURE_RESIZE) {
            self.forget_absent();
        }
        Ok(())
    }

    /// Removes blocks that the copy does not have: other threads of the parent allocated them when it
    /// was made, and no thread of this process uses them. (A block that the copy has, and the table
    /// did not have yet, stays live until this process ends.)
    fn forget_absent(&self) {
        let (mut blocks, mut bytes) = (0, 0);
        self.table
            .for_each(self.mapped.load(Relaxed), |offset, entry| {
                // To its present size, which changes nothing.
                let mut request = freelist_resize {
                    offset: offset as u64,
                    size: entry.bytes as u64,
                    ..Default::default()
                };
                if sys::resize(self.file(), &mut request).is_ok() {
                    blocks += 1;
                    bytes += entry.bytes;
                } else {
                    self.table.take(offset);
                }
            });
        self.blocks.store(blocks, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    /// Moves the file to a low number, before a fork without live blocks.
    pub(in crate::malloc) fn lower_file(&self) {
        let identity = self.identify();
        self.identity.store(identity, Relaxed);
        if identity != 0 {
            let fd = descriptor::lower(self.fd.load(Relaxed));
            self.fd.store(fd, Relaxed);
        }
    }

    /// Moves the file back, in the parent after that fork. Returns whether the file is still open.
    pub(in crate::malloc) fn raise_file(&self) -> bool {
        let identity = self.identity.load(Relaxed);
        if identity == 0 {
            // It was not moved.
            return true;
        }
        if self.identify() != identity {
            return false;
        }
        // SAFETY: The number is the arena's file, and nothing else of this process uses it.
        let file = unsafe { OwnedFd::from_raw_fd(self.fd.load(Relaxed)) };
        self.fd.store(descriptor::hide(file), Relaxed);
        true
    }

    /// Returns a number by which the file is recognised, even among arenas of the program's own: all
    /// bytes that were ever requested of it. 0 if the program has closed it.
    fn identify(&self) -> u64 {
        sys::stat(self.file()).map_or(0, |stat| stat.requested_bytes)
    }

    /// Drops the parent's arena, in the child after that fork. None of it is mapped here.
    pub(in crate::malloc) fn abandon(&self) {
        let identity = self.identity.load(Relaxed);
        if identity == 0 {
            self.drop_file();
        } else if self.identify() == identity {
            descriptor::close(self.fd.swap(NO_FILE, Relaxed));
        }
        self.mapped.store(0, Relaxed);
        self.span.store(0, Relaxed);
        self.kind.store(Kind::Unused as u32, Release);
    }

    /// Keeps the parent's arena, to read, in a forked child.
    pub(in crate::malloc) fn become_shared(&self) {
        // SAFETY: The mapping is ours.
        unsafe { os::make_read_only(self.base(), self.mapped.load(Relaxed)) };
        self.drop_file();
        self.kind.store(Kind::Shared as u32, Release);
    }

    /// Closes the file, if the number is still the device's.
    fn drop_file(&self) {
        let fd: RawFd = self.fd.swap(NO_FILE, Relaxed);
        // SAFETY: As in `file()`.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        if sys::info(file).is_ok() {
            descriptor::close(fd);
        }
    }
}
