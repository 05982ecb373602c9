// SPDX-License-Identifier: MIT OR Apache-2.0

//! System calls that place mappings at chosen addresses, and values of the auxiliary vector.

use core::ffi::c_void;
use core::ptr;

use rustix::fd::{BorrowedFd, RawFd};
use rustix::mm::{
    madvise, mmap, mmap_anonymous, mprotect, mremap_fixed, munmap, Advice, MapFlags, MprotectFlags,
    MremapFlags, ProtFlags,
};
use rustix::rand::{getrandom, GetRandomFlags};
use syscalls::{syscall, Sysno};

use crate::sys::Errno;

/// The lowest address that is chosen: far from where programs, libraries, the C library's heap and
/// other allocators lie on processors with 47 bits of addresses or more.
const LOWEST: usize = 32 << 40;
const ADDRESSES: usize = 32 << 40;
/// The alignment of chosen addresses in bytes: a block is then aligned as its offset is.
const ALIGN: usize = 1 << 30;

/// The access that all mappings here allow.
const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// Returns whether the process has more rights than its caller (set-user-ID, or by file capabilities).
pub(super) fn is_privileged() -> bool {
    // SAFETY: It takes a number and has no effect.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Returns the bytes of a page.
pub(super) fn page_size() -> usize {
    // SAFETY: As above.
    match unsafe { libc::getauxval(libc::AT_PAGESZ) } {
        0 => 4096,
        bytes => bytes as usize,
    }
}

/// Chooses a random address, a multiple of 1 GiB; another one for each `attempt`.
pub(super) fn random_address(attempt: usize) -> usize {
    let mut bytes = [0; size_of::<usize>()];
    let random = match getrandom(&mut bytes[..], GetRandomFlags::NONBLOCK) {
        Ok(8) => usize::from_ne_bytes(bytes),
        // The stack's address is random too.
        _ => (ptr::from_ref(&bytes) as usize) >> 4,
    };
    let places = ADDRESSES / ALIGN;
    LOWEST + random.wrapping_add(attempt.wrapping_mul(7919)) % places * ALIGN
}

/// Maps `len` bytes of a file from `offset` at `at`, where nothing may be mapped; at any address if
/// `at` is 0.
pub(super) fn map_file(fd: RawFd, offset: usize, len: usize, at: usize) -> Result<usize, Errno> {
    let mut flags = MapFlags::SHARED;
    flags.set(MapFlags::FIXED_NOREPLACE, at != 0);
    let (hint, offset) = (at as *mut c_void, offset as u64);
    // SAFETY: The number is used for this call alone, which the kernel refuses if it is closed. No
    // mapping that is there is replaced: `FIXED_NOREPLACE` refuses that, and without it the kernel
    // chooses.
    let mapped = unsafe {
        let file = BorrowedFd::borrow_raw(fd);
        mmap(hint, len, READ_WRITE, flags, file, offset)
    }? as usize;
    if at != 0 && mapped != at {
        // A kernel before 4.17 takes the address for a hint.
        // SAFETY: It was mapped just now, and no other code knows of it.
        unsafe { unmap(mapped, len) };
        return Err(Errno::EXIST);
    }
    Ok(mapped)
}

/// Maps the first `len` bytes of a file at `at`, in place of what is mapped there.
///
/// # Safety
///
/// The caller owns the range, and its users expect the bytes of the file.
pub(super) unsafe fn map_file_over(fd: RawFd, len: usize, at: usize) -> Result<(), Errno> {
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: By the caller's contract. The number is used for this call alone, which the kernel refuses
    // if it is closed.
    unsafe {
        let file = BorrowedFd::borrow_raw(fd);
        mmap(at as *mut c_void, len, READ_WRITE, flags, file, 0)
    }
    .map(drop)
}

/// Keeps a range from being inherited by forked children.
///
/// # Safety
///
/// The caller owns it, and provides for children that use it.
pub(super) unsafe fn withhold(at: usize, len: usize) {
    // SAFETY: By the caller's contract. If it fails, a child inherits the range until it maps another
    // file there.
    let _ = unsafe { madvise(at as *mut c_void, len, Advice::LinuxDontFork) };
}

/// Maps `len` bytes of private memory, all zero, at any address. Memory is allocated page by page: a huge
/// page would also hold the gaps between blocks.
pub(super) fn map_private(len: usize) -> Result<usize, Errno> {
    let at = map_anonymous(len, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
    // SAFETY: The range was mapped just now, and this changes nothing that can be read in it. Where
    // there are no huge pages it is refused.
    let _ = unsafe { madvise(at as *mut c_void, len, Advice::LinuxNoHugepage) };
    Ok(at)
}

/// Maps `len` bytes of memory, all zero, that a forked child shares.
pub(super) fn map_shared(len: usize) -> Result<usize, Errno> {
    map_anonymous(len, MapFlags::SHARED)
}

fn map_anonymous(len: usize, flags: MapFlags) -> Result<usize, Errno> {
    // SAFETY: The kernel chooses where nothing is mapped.
    let mapped = unsafe { mmap_anonymous(ptr::null_mut(), len, READ_WRITE, flags) }?;
    Ok(mapped as usize)
}

/// Moves a mapping to `to`, in place of what is mapped there, in one step.
///
/// # Safety
///
/// The caller owns both ranges, and nothing uses `from`; what uses `to` expects the bytes that
/// are at `from`.
pub(super) unsafe fn move_over(from: usize, len: usize, to: usize) -> Result<(), Errno> {
    let (from, to) = (from as *mut c_void, to as *mut c_void);
    // SAFETY: By the caller's contract.
    unsafe { mremap_fixed(from, len, len, MremapFlags::MAYMOVE, to) }.map(drop)
}

/// Unmaps a range.
///
/// # Safety
///
/// The caller owns it, and nothing uses it afterwards.
pub(super) unsafe fn unmap(at: usize, len: usize) {
    // SAFETY: By the caller's contract. It fails only if it would split a mapping beyond the system's
    // limit of them; then the range stays mapped, which does no harm.
    let _ = unsafe { munmap(at as *mut c_void, len) };
}

/// Releases the memory of a range of private memory, which reads as zero afterwards.
///
/// # Safety
///
/// The caller owns it, and nothing uses its content afterwards.
pub(super) unsafe fn discard(at: usize, len: usize) {
    // SAFETY: By the caller's contract.
    let _ = unsafe { madvise(at as *mut c_void, len, Advice::LinuxDontNeed) };
}

/// Forbids writing to a range.
///
/// # Safety
///
/// The caller owns it.
pub(super) unsafe fn make_read_only(at: usize, len: usize) {
    // SAFETY: By the caller's contract; a later write is a signal, not a wrong access.
    let _ = unsafe { mprotect(at as *mut c_void, len, MprotectFlags::READ) };
}

/// Copies whole pages, but not those that are all zero where `to` is zero.
///
/// # Safety
///
/// `from` is readable and `to` writable for `len` bytes, a multiple of `page`; `to` is all zero and
/// used by the caller alone. Other threads may write to `from` at that time: `to` may have any of it.
pub(super) unsafe fn copy_pages(from: usize, to: usize, len: usize, page: usize) {
    for at in (0..len).step_by(page) {
        let (from, to) = (from + at, to + at);
        // SAFETY: By the caller's contract. The C library's functions compare and copy bytes, and other
        // threads' writes cannot mislead them.
        unsafe {
            let first = from as *const u8;
            // A page is all zero if its first byte is and each equals the next one.
            let zero = first.read_volatile() == 0
                && libc::memcmp(first.cast(), first.add(1).cast(), page - 1) == 0;
            if !zero {
                libc::memcpy(to as *mut c_void, first.cast(), page);
            }
        }
    }
}

/// Finds which pages of a mapped file have memory, from the page at `at` on: sets `has` to 1 for
/// each of these. Returns `false` if the kernel does not report it.
pub(super) fn has_memory(at: usize, has: &mut [u8]) -> bool {
    let len = has.len() * page_size();
    // SAFETY: It writes a byte for each page, as many as it has bytes, and reads nothing.
    let result = unsafe { syscall!(Sysno::mincore, at, len, has.as_mut_ptr()) };
    // The upper bits are reserved.
    has.iter_mut().for_each(|page| *page &= 1);
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_chosen_in_their_range() {
        for attempt in 0..100 {
            let at = random_address(attempt);
            assert_eq!(at % ALIGN, 0);
            assert!((LOWEST..LOWEST + ADDRESSES).contains(&at), "{at:#x}");
        }
    }

    #[test]
    fn a_copy_has_all_bytes_and_no_memory_for_zeros() {
        let (page, len) = (4096, 64 << 12);
        let (from, to) = (map_private(len).unwrap(), map_private(len).unwrap());
        let resident = || {
            let mut pages = [0_u8; 64];
            // SAFETY: The range is mapped, and the vector has a byte a page.
            unsafe { libc::mincore(to as *mut c_void, len, pages.as_mut_ptr()) };
            pages.iter().filter(|page| **page & 1 != 0).count()
        };
        // SAFETY: Both are this test's own, of as many bytes.
        unsafe {
            *((from + 3 * page + 4095) as *mut u8) = 7;
            *((from + 9 * page) as *mut u8) = 9;
            copy_pages(from, to, len, page);
            assert_eq!(*((to + 3 * page + 4095) as *const u8), 7);
            assert_eq!(*((to + 9 * page) as *const u8), 9);
        }
        assert_eq!(resident(), 2, "pages with memory");
        // SAFETY: As above; nothing uses what is in them afterwards.
        unsafe {
            move_over(to, len, from).unwrap();
            assert_eq!(*((from + 9 * page) as *const u8), 9);
            unmap(from, len);
        }
    }
}
