// SPDX-License-Identifier: GPL-2.0

//! Mappings of every kind that the kernel allows, and every pointer that a program can pass to a call.
//!
//! A wrong access here ends the process by a signal, which is a test's result. It never reaches memory that Rust
//! knows: accesses are checked against the mapping, and are atomic, as others may write.

#![expect(unsafe_code, reason = "mappings")]

use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};

use super::calls::write_from;

/// An address that may be passed to the kernel: this process has a [`View`] there, or no memory at all.
#[derive(Debug, Clone, Copy)]
pub struct Address(usize);

impl Address {
    /// The null pointer.
    pub const NULL: Self = Self(0);
    /// An address in the first page, which no process may map.
    pub const FIRST_PAGE: Self = Self(0x10);
    /// An address in the upper half of the address space, which is the kernel's.
    pub const KERNEL: Self = Self((1 << (usize::BITS - 1)) | 0x1000);
    /// The last bytes of the address space, so that any structure wraps around.
    pub const LAST: Self = Self(usize::MAX - 7);

    /// Returns the address as a number.
    pub fn get(self) -> usize {
        self.0
    }
}

/// A mapping of this process.
///
/// # Invariants
///
/// The ranges of `pieces` are mapped, by and for this value alone, and ascend.
#[derive(Debug)]
pub struct View {
    base: usize,
    len: usize,
    pieces: Vec<Range<usize>>,
}

impl View {
    /// Calls mmap() for `len` bytes of a file from `offset`, at any address.
    pub fn map(
        fd: impl AsFd,
        offset: u64,
        len: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        Self::map_near(Address::NULL, fd, offset, len, prot, flags)
    }

    /// Maps as [`View::map`], with a hint address.
    pub fn map_near(
        wish: Address,
        fd: impl AsFd,
        offset: u64,
        len: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        assert!(!flags.contains(MapFlags::MAP_FIXED), "would hit the heap");
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: Without MAP_FIXED the kernel replaces no mapping of this process, whatever the hint is.
        let base = unsafe {
            libc::mmap(
                ptr::with_exposed_provenance_mut(wish.get()),
                len,
                prot.bits(),
                flags.bits(),
                fd,
                offset as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self::own(base as usize, len))
    }

    /// Calls mmap() as programs do: shared, readable and writable.
    #[track_caller]
    pub fn shared(fd: impl AsFd, offset: u64, len: usize) -> Self {
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Self::map(fd, offset, len, prot, MapFlags::MAP_SHARED).expect("mmap of the arena")
    }

    /// Maps private memory of `len` bytes, followed by an inaccessible range that is larger than the largest
    /// structure of any ioctl().
    pub fn anonymous(len: usize) -> Self {
        const LARGEST: usize = 1 << 14;
        let page = super::system_page();
        let len = len.next_multiple_of(page);
        let whole = NonZeroUsize::new(len + LARGEST.next_multiple_of(page)).expect("not 0");
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: As in `map()`.
        let base =
            unsafe { nix::sys::mman::mmap_anonymous(None, whole, prot, MapFlags::MAP_PRIVATE) };
        let base = base.expect("memory").as_ptr() as usize;
        let mut view = Self::own(base, whole.get());
        view.protect(len..whole.get(), ProtFlags::PROT_NONE)
            .expect("mprotect of own memory");
        view.len = len;
        view
    }

    fn own(base: usize, len: usize) -> Self {
        // INVARIANT: The caller got the range from the kernel just now.
        #[expect(clippy::single_range_in_vec_init, reason = "one piece at first")]
        let pieces = vec![base..base + len];
        Self { base, len, pieces }
    }

    /// Returns the bytes from the first to the last that can be accessed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the address of byte `at`.
    pub fn address(&self, at: usize) -> Address {
        assert!(at <= self.len, "byte {at} of {}", self.len);
        Address(self.base + at)
    }

    /// Returns the address of the last `bytes` before the end of what can be accessed.
    pub fn tail(&self, bytes: usize) -> Address {
        self.address(self.len - bytes)
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        let address = self.base + at;
        let inside = |piece: &Range<usize>| piece.contains(&address);
        assert!(self.pieces.iter().any(inside), "byte {at} is not mapped");
        // SAFETY: By the type's invariant the byte belongs to a mapping that is this value's as long as it
        // is borrowed. All accesses of this process are atomic; other processes may write any value.
        unsafe { AtomicU8::from_ptr(address as *mut u8) }
    }

    /// Reads byte `at`; raises a signal if the page cannot be read.
    pub fn load(&self, at: usize) -> u8 {
        self.byte(at).load(Ordering::Relaxed)
    }

    /// Writes byte `at`; raises a signal if the page cannot be written.
    pub fn store(&self, at: usize, value: u8) {
        self.byte(at).store(value, Ordering::Relaxed);
    }

    /// Reads byte `at`, for the effect only.
    pub fn touch(&self, at: usize) {
        std::hint::black_box(self.load(at));
    }

    /// Reads `len` bytes from `at`.
    pub fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        (at..at + len).map(|at| self.load(at)).collect()
    }

    /// Writes `from` to `at`.
    pub fn set_bytes(&self, at: usize, from: &[u8]) {
        for (i, byte) in from.iter().enumerate() {
            self.store(at + i, *byte);
        }
    }

    /// Reads byte `at` through the kernel, which fails with `EFAULT` where a program would get a signal.
    pub fn probe(&self, at: usize) -> Result<u8, Errno> {
        let (read, write) = nix::unistd::pipe().expect("pipe");
        write_from(&write, self.address(at), 1)?;
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).expect("a byte was written");
        Ok(byte[0])
    }

    /// Returns whether the page of byte `at` belongs to any mapping, without touching it.
    pub fn is_mapped(&self, at: usize) -> bool {
        let page = super::system_page();
        let address = (self.base + at) / page * page;
        // SAFETY: MS_ASYNC looks the mapping up and changes nothing.
        unsafe { libc::msync(address as *mut _, page, libc::MS_ASYNC) == 0 }
    }

    fn absolute(&self, range: &Range<usize>) -> (*mut libc::c_void, usize) {
        let address = self.base + range.start;
        let whole =
            |piece: &Range<usize>| piece.start <= address && self.base + range.end <= piece.end;
        assert!(self.pieces.iter().any(whole), "{range:?} is not mapped");
        (address as *mut _, range.len())
    }

    /// Calls mprotect() for a range.
    pub fn protect(&self, range: Range<usize>, prot: ProtFlags) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        // SAFETY: The range is this mapping's; accesses may end in a
        // signal.
        Errno::result(unsafe { libc::mprotect(address, len, prot.bits()) }).map(drop)
    }

    /// Calls madvise() for a range.
    pub fn advise(&self, range: Range<usize>, advice: MmapAdvise) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        // SAFETY: The range is this mapping's, whose contents may change at
        // any time.
        Errno::result(unsafe { libc::madvise(address, len, advice as i32) }).map(drop)
    }

    /// Calls munmap() for a range.
    pub fn unmap(&mut self, range: Range<usize>) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        // SAFETY: The range is this mapping's. It leaves `pieces` below, so that no code accesses a later
        // mapping there.
        Errno::result(unsafe { libc::munmap(address, len) })?;
        let (start, end) = (address as usize, address as usize + len);
        let pieces = std::mem::take(&mut self.pieces).into_iter();
        // INVARIANT: The unmapped range is taken out of the pieces.
        self.pieces = pieces
            .flat_map(|piece| {
                [
                    piece.start..piece.end.min(start),
                    piece.start.max(end)..piece.end,
                ]
            })
            .filter(|piece| !piece.is_empty())
            .collect();
        Ok(())
    }

    /// Maps anonymous memory over a range. The range remains this value's.
    pub fn cover(&self, range: Range<usize>) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: The range is this mapping's, whose contents may change at
        // any time.
        let at = unsafe { libc::mmap(address, len, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(())
    }

    /// Maps a file over a range. The range remains this value's.
    pub fn cover_with(&self, range: Range<usize>, fd: impl AsFd, offset: u64) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: As in `cover()`.
        let at = unsafe { libc::mmap(address, len, prot, flags, fd, offset as libc::off_t) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(())
    }

    /// Calls madvise() with a number that nix does not have.
    pub fn advise_raw(&self, range: Range<usize>, advice: i32) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        // SAFETY: As in `advise()`.
        Errno::result(unsafe { libc::madvise(address, len, advice) }).map(drop)
    }

    /// Calls mremap() for the whole mapping, of `len` bytes, to another address.
    pub fn move_to_elsewhere(&mut self, len: usize) -> Result<(), Errno> {
        let there = Self::anonymous(len);
        let target = there.base as *mut libc::c_void;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: Both ranges are this process's own: the mapping's, and that of `there`, which no code
        // accesses any more.
        let moved = unsafe { libc::mremap(self.base as *mut _, len, len, flags, target) };
        if moved == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // INVARIANT: The range is where `there` was, whose value is forgotten.
        self.pieces.clear();
        *self = Self::own(moved as usize, len);
        std::mem::forget(there);
        Ok(())
    }

    /// Calls mremap() for a range that is to stay mapped as well: to any address, or over all of `target`.
    /// Returns the error with which the kernel refuses that.
    pub fn leave_behind(&self, range: Range<usize>, target: Option<Self>) -> Errno {
        let (address, len) = self.absolute(&range);
        let mut flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        let to = target.as_ref().map_or(ptr::null_mut(), |target| {
            assert!(target.len() >= len, "the target is shorter than the range");
            flags |= libc::MREMAP_FIXED;
            target.base as *mut libc::c_void
        });
        // SAFETY: Both ranges are ours. No code accesses the target any more.
        let moved = unsafe { libc::mremap(address, len, len, flags, to) };
        assert_eq!(moved, libc::MAP_FAILED, "{range:?} is there twice");
        Errno::last()
    }

    /// Calls move_pages() for a range, including pages that other processes map. Returns the node of each
    /// page afterwards, or the error that hides it.
    pub fn move_to_node(
        &self,
        range: Range<usize>,
        node: i32,
    ) -> Result<Vec<Result<i32, Errno>>, Errno> {
        /// MPOL_MF_MOVE_ALL of linux/mempolicy.h.
        const MOVE_ALL: i32 = 1 << 2;
        let (address, len) = self.absolute(&range);
        let pages: Vec<usize> = (0..len)
            .step_by(super::system_page())
            .map(|at| address as usize + at)
            .collect();
        let nodes = vec![node; pages.len()];
        let mut places = vec![-libc::ENOENT; pages.len()];
        // SAFETY: The arrays have as many elements as the call reads and writes. It changes nothing that is in
        // the pages.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                pages.len(),
                pages.as_ptr(),
                nodes.as_ptr(),
                places.as_mut_ptr(),
                MOVE_ALL,
            )
        })?;
        let place = |place: i32| match place {
            0.. => Ok(place),
            errno => Err(Errno::from_raw(-errno)),
        };
        Ok(places.into_iter().map(place).collect())
    }

    /// Calls mlock() for a range.
    pub fn lock(&self, range: Range<usize>) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        // SAFETY: The range is this mapping's, and keeps its bytes.
        Errno::result(unsafe { libc::mlock(address, len) }).map(drop)
    }

    /// Calls munlock() for a range.
    pub fn unlock(&self, range: Range<usize>) -> Result<(), Errno> {
        let (address, len) = self.absolute(&range);
        // SAFETY: As in `lock()`.
        Errno::result(unsafe { libc::munlock(address, len) }).map(drop)
    }

    /// Calls process_madvise() for several ranges of this process. Returns the bytes that were advised of.
    pub fn advise_ranges(&self, ranges: &[Range<usize>], advice: i32) -> Result<usize, Errno> {
        let vectors: Vec<libc::iovec> = ranges
            .iter()
            .map(|range| {
                let (iov_base, iov_len) = self.absolute(range);
                libc::iovec { iov_base, iov_len }
            })
            .collect();
        // SAFETY: Returns a descriptor of this process, which is closed below.
        let own = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })?;
        // SAFETY: As in `advise()`.
        let advised = Errno::result(unsafe {
            let (vectors, count) = (vectors.as_ptr(), vectors.len());
            libc::syscall(libc::SYS_process_madvise, own, vectors, count, advice, 0)
        });
        // SAFETY: The descriptor is from above, and no other object owns it.
        unsafe { libc::close(own as i32) };
        advised.map(|advised| advised as usize)
    }

    /// Calls mremap() for the whole mapping, from `old` to `new` bytes. On failure it is unchanged.
    pub fn remap(&mut self, old: usize, new: usize, flags: i32) -> Result<(), Errno> {
        assert_eq!(flags & libc::MREMAP_FIXED, 0, "would hit the heap");
        // SAFETY: The range is this mapping's. The kernel chooses the new address, which `self` gets below.
        let moved = unsafe { libc::mremap(self.base as *mut _, old, new, flags) };
        if moved == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let before = std::mem::take(&mut self.pieces);
        let old_stays = old == 0 || flags & libc::MREMAP_DONTUNMAP != 0;
        // INVARIANT: The range is where the kernel moved it to.
        *self = Self::own(moved as usize, new);
        if old_stays {
            self.pieces.extend(before);
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        for piece in &self.pieces {
            // SAFETY: By the type's invariant the range is ours, and `self` is
            // not used again.
            unsafe { libc::munmap(piece.start as *mut _, piece.len()) };
        }
    }
}
