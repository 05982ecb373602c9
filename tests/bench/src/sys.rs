// SPDX-License-Identifier: GPL-2.0

//! System calls as a C program makes them, and memory that is touched.
//!
//! Any failure ends the measurement: there would be nothing to compare.

#![expect(unsafe_code, reason = "system calls, and memory that they map")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use freelist::uapi::{
    freelist_alloc, freelist_bulk, freelist_discard, freelist_free, freelist_stat, freelist_trim,
    FREELIST_DEFAULT, FREELIST_IOC_ALLOC, FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_DISCARD,
    FREELIST_IOC_FREE, FREELIST_IOC_FREE_BULK, FREELIST_IOC_STAT, FREELIST_IOC_TRIM,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{madvise, mmap, mmap_anonymous, munmap, MapFlags, MmapAdvise, ProtFlags};

/// The bytes of a page: all comparisons are on machines with such pages.
pub const PAGE: usize = 4096;

/// Writes a byte to every page of `len` bytes.
///
/// # Safety
///
/// The bytes are writable, and no other code uses them.
#[inline(never)]
pub unsafe fn touch(base: *mut u8, len: usize) {
    let mut at = 0;
    while at < len {
        // SAFETY: By the caller's contract: it is inside of the range.
        unsafe { base.add(at).write_volatile(1) };
        at += PAGE;
    }
}

/// Mapped memory, unmapped when it is dropped.
///
/// # Invariants
///
/// `base` is the start of a writable mapping of `len` bytes that this value owns.
pub struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: A mapping belongs to the process. The users of its parts agree on
// which thread has which block.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps new private memory.
    pub fn anonymous(len: usize) -> Self {
        // SAFETY: The kernel puts it where nothing of this process lies.
        let base = unsafe {
            mmap_anonymous(
                None,
                not_zero(len),
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE,
            )
        };
        Self::of(base, len)
    }

    /// Maps the beginning of a file.
    pub fn shared(file: impl AsFd, len: usize) -> Self {
        // SAFETY: As above.
        let base = unsafe {
            mmap(
                None,
                not_zero(len),
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                file,
                0,
            )
        };
        Self::of(base, len)
    }

    fn of(base: nix::Result<NonNull<libc::c_void>>, len: usize) -> Self {
        let base = base.expect("mmap").cast();
        // INVARIANT: The kernel mapped `len` bytes, for us.
        Self { base, len }
    }

    /// Passes advice about all of it to the kernel.
    pub fn advise(&self, advice: MmapAdvise) {
        // SAFETY: The range is ours, and what it is of is not lost by any advice that is given here.
        unsafe { madvise(self.base.cast(), self.len, advice) }.expect("madvise");
    }

    /// Populates the `len` bytes from `at` on for writing.
    pub fn populate(&self, at: usize, len: usize) {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: The range was checked; its content does not change.
        let result = unsafe {
            libc::madvise(
                self.base.as_ptr().add(at).cast(),
                len,
                libc::MADV_POPULATE_WRITE,
            )
        };
        assert_eq!(result, 0, "madvise: {}", Errno::last());
    }

    /// Writes a byte to every page of the `len` bytes from `at` on.
    pub fn touch(&self, at: usize, len: usize) {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: The range was checked; the thread that has a block touches it alone.
        unsafe { touch(self.base.as_ptr().add(at), len) };
    }

    /// Returns the first byte's address.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: By the invariant this value owns it.
        unsafe { munmap(self.base.cast(), self.len) }.expect("munmap");
    }
}

fn not_zero(len: usize) -> NonZeroUsize {
    NonZeroUsize::new(len).expect("some bytes")
}

/// Makes a file in memory of `len` bytes.
pub fn memfd(len: usize) -> OwnedFd {
    let file = memfd_create(c"bench", MFdFlags::MFD_CLOEXEC).expect("memfd_create");
    nix::unistd::ftruncate(&file, len as i64).expect("ftruncate");
    file
}

/// struct dma_heap_allocation_data of linux/dma-heap.h.
#[repr(C)]
struct DmaHeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

/// The system's dma-buf heap.
pub struct DmaHeap(File);

impl DmaHeap {
    /// Opens it.
    pub fn open() -> Self {
        Self(File::open("/dev/dma_heap/system").expect("this kernel has a dma-buf heap"))
    }

    /// Allocates a buffer of `len` bytes.
    pub fn alloc(&self, len: usize) -> OwnedFd {
        const DMA_HEAP_IOCTL_ALLOC: libc::c_ulong = nix::request_code_readwrite!(b'H', 0, 24);
        let mut request = DmaHeapAllocation {
            len: len as u64,
            fd: 0,
            fd_flags: (libc::O_RDWR | libc::O_CLOEXEC) as u32,
            heap_flags: 0,
        };
        let fd = self.0.as_raw_fd();
        // SAFETY: The structure is what the call takes, and writable.
        done(unsafe { libc::ioctl(fd, DMA_HEAP_IOCTL_ALLOC, &mut request) });
        // SAFETY: The call was answered: this is a new descriptor, for us.
        unsafe { OwnedFd::from_raw_fd(request.fd as i32) }
    }
}

fn done(result: libc::c_int) {
    assert_eq!(result, 0, "ioctl: {}", Errno::last());
}

/// Makes an ioctl that no file implements.
pub fn empty(fd: BorrowedFd<'_>) {
    // SAFETY: No driver has an ioctl of this type; the argument is not a pointer.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), nix::request_code_none!(0xee, 0x7f), 0) };
    assert_eq!(result, -1);
}

/// Makes a system call that does almost nothing.
pub fn getppid() {
    // SAFETY: It takes nothing, and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// An arena, by the calls themselves.
pub struct Raw(OwnedFd);

impl Raw {
    /// Opens a new one.
    pub fn open() -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .open(freelist::DEVICE);
        Self(file.expect("the module is loaded").into())
    }

    /// Allocates a block, and returns its offset.
    #[inline]
    pub fn alloc(&self, size: usize, flags: u32) -> usize {
        let mut request = freelist_alloc {
            size: size as u64,
            flags: FREELIST_DEFAULT | flags,
            ..Default::default()
        };
        // SAFETY: The structure is what the call takes, and writable.
        done(unsafe { libc::ioctl(self.fd(), FREELIST_IOC_ALLOC.into(), &mut request) });
        request.offset as usize
    }

    /// Frees a block.
    #[inline]
    pub fn free(&self, offset: usize) {
        let request = freelist_free {
            offset: offset as u64,
        };
        // SAFETY: The structure is what the call takes.
        done(unsafe { libc::ioctl(self.fd(), FREELIST_IOC_FREE.into(), &request) });
    }

    /// Allocates blocks for all of `offsets`.
    #[inline]
    pub fn alloc_bulk(&self, size: usize, offsets: &mut [u64]) {
        let mut request = freelist_bulk {
            size: size as u64,
            offsets: offsets.as_mut_ptr() as u64,
            count: offsets.len() as u32,
            flags: FREELIST_DEFAULT,
            ..Default::default()
        };
        // SAFETY: The structure is what the call takes, and the array is writable for `count`
        // numbers.
        done(unsafe { libc::ioctl(self.fd(), FREELIST_IOC_ALLOC_BULK.into(), &mut request) });
        assert_eq!(request.done, request.count);
    }

    /// Frees the blocks at `offsets`.
    #[inline]
    pub fn free_bulk(&self, offsets: &[u64]) {
        let mut request = freelist_bulk {
            offsets: offsets.as_ptr() as u64,
            count: offsets.len() as u32,
            ..Default::default()
        };
        // SAFETY: As above; the array is only read.
        done(unsafe { libc::ioctl(self.fd(), FREELIST_IOC_FREE_BULK.into(), &mut request) });
        assert_eq!(request.done, request.count);
    }

    /// Returns the memory of the `len` bytes from `offset` on to the system, which lie in live blocks.
    pub fn discard(&self, offset: usize, len: usize) {
        let request = freelist_discard {
            offset: offset as u64,
            bytes: len as u64,
        };
        // SAFETY: The structure is what the call takes.
        done(unsafe { libc::ioctl(self.fd(), FREELIST_IOC_DISCARD.into(), &request) });
    }

    /// Returns all free pages to the system.
    pub fn trim(&self) {
        let mut request = freelist_trim::default();
        // SAFETY: The structure is what the call takes, and writable.
        done(unsafe { libc::ioctl(self.fd(), FREELIST_IOC_TRIM.into(), &mut request) });
    }

    /// Returns the counters.
    pub fn stat(&self) -> freelist_stat {
        let mut answer = freelist_stat::default();
        // SAFETY: The structure is the one that the call fills, and writable.
        done(unsafe { libc::ioctl(self.fd(), FREELIST_IOC_STAT.into(), &mut answer) });
        answer
    }

    /// Maps the first `len` bytes of the arena.
    pub fn map(&self, len: usize) -> Pages {
        Pages::shared(&self.0, len)
    }

    fn fd(&self) -> libc::c_int {
        self.0.as_raw_fd()
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
