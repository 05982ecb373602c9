// SPDX-License-Identifier: GPL-2.0

//! Executes a program's calls, in a process of its own.

#![expect(unsafe_code, reason = "bare system calls, with any argument")]

mod calls;
mod debugfs;
mod memory;

use std::cell::UnsafeCell;
use std::ffi::{c_void, CString};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use freelist::uapi::{FREELIST_IOC_FREE, FREELIST_IOC_LIMIT, FREELIST_IOC_TRIM};

use crate::program::{Call, Kind};

use debugfs::{arenas, delays, show, shrink, tell};
pub use debugfs::{left, wrong};

/// Bytes of a page.
const PAGE: usize = 4096;

/// The most descriptors of a program, and the places at which it maps.
const FILES: usize = 4;
const PLACES: usize = 4;

/// Bytes of address space of a place.
const PLACE_LEN: usize = 16 << 20;

/// The number of offsets that are recorded, and the most elements of a bulk.
const BLOCKS: usize = 256;

/// The 8-byte words that hold any structure: request numbers encode less than 16 KiB.
const WORDS: usize = 2048;

/// The bytes that a program's arenas may hold by default.
const LIMIT: u64 = 32 << 20;

/// The longest wait, in ns.
const LONGEST: u64 = 2_000_000;

/// The signal that ends waits; its handler does nothing.
pub const SIGNAL: i32 = libc::SIGUSR1;

/// Words that the kernel may write to at any time, even if a program passes a wrong address.
struct Buffer(UnsafeCell<[u64; WORDS]>);

/// The state of both threads' calls. Every number may be passed to a system call at any time: a closed file is
/// EBADF, an address without a mapping EFAULT.
///
/// # Invariants
///
/// `base` begins [`PLACES`] times [`PLACE_LEN`] bytes of address space that no other code uses.
pub struct Machine {
    /// Descriptors, or -1.
    files: [AtomicI32; FILES],
    /// Offsets of live and of freed blocks.
    blocks: [AtomicU64; BLOCKS],
    next_block: AtomicUsize,
    base: usize,
    /// Held while a place has no mapping, so that no other mapping gets its address.
    moving: Mutex<()>,
    /// The threads, for signals.
    threads: [AtomicU64; 2],
    /// A file in memory, whose writes use copy_from_user().
    memory: i32,
    /// The files of the race points, ordered by name; none on a kernel without fault injection.
    delays: Vec<CString>,
}

/// Returns a path for system calls.
fn path(text: &str) -> CString {
    CString::new(text).expect("it has no 0")
}

/// Calls ioctl() over these words. Returns whether it succeeded.
fn ioctl(file: i32, request: u32, words: &mut [u64]) -> bool {
    let buffer = Buffer(UnsafeCell::new([0; WORDS]));
    // SAFETY: Only this thread and the call use `buffer`.
    unsafe { (&mut *buffer.0.get())[..words.len()].copy_from_slice(words) };
    // SAFETY: The kernel accesses at most the bytes that the request's number encodes, which
    // `buffer` has. Addresses in the words are those of buffers of their callers, of the first page,
    // or no addresses of this process.
    let result = unsafe { libc::ioctl(file, request.into(), buffer.0.get()) };
    // SAFETY: As before; the call has ended.
    unsafe { words.copy_from_slice(&(&*buffer.0.get())[..words.len()]) };
    result == 0
}

impl Machine {
    /// Reserves address space.
    pub fn new(memory: i32) -> io::Result<Self> {
        // SAFETY: The kernel chooses a range that this process does not use.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PLACES * PLACE_LEN,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // INVARIANT: It is new, and is never released: what is unmapped there is covered again.
        Ok(Self {
            files: std::array::from_fn(|_| AtomicI32::new(-1)),
            blocks: std::array::from_fn(|_| AtomicU64::new(0)),
            next_block: AtomicUsize::new(0),
            base: base as usize,
            moving: Mutex::new(()),
            threads: [AtomicU64::new(0), AtomicU64::new(0)],
            memory,
            delays: delays(),
        })
    }

    /// Registers the calling thread as the first or the second.
    pub fn begin(&self, second: bool) {
        // SAFETY: It returns the calling thread's name, and has no effect.
        let this = unsafe { libc::pthread_self() };
        self.threads[usize::from(second)].store(this, Relaxed);
    }

    /// Opens two empty arenas, with nothing mapped.
    pub fn set_up(&self) {
        self.clear();
        for (slot, place) in self.files[..2].iter().zip([0, 1]) {
            // SAFETY: The name ends in 0.
            let file = unsafe { libc::open(c"/dev/freelist".as_ptr(), libc::O_RDWR) };
            slot.store(file, Relaxed);
            ioctl(file, FREELIST_IOC_LIMIT, &mut [LIMIT, 0]);
            self.map(
                place,
                file,
                PLACE_LEN,
                0,
                libc::PROT_READ | libc::PROT_WRITE,
                0,
            );
        }
    }

    /// Closes and unmaps all.
    pub fn clear(&self) {
        for slot in &self.files {
            let file = slot.swap(-1, Relaxed);
            if file >= 0 {
                // SAFETY: The descriptor is this value's, and is not used again.
                unsafe { libc::close(file) };
            }
        }
        self.cover(self.base, PLACES * PLACE_LEN);
        self.blocks.iter().for_each(|block| block.store(0, Relaxed));
        self.next_block.store(0, Relaxed);
        self.delays.iter().for_each(|file| tell(file, b"0"));
    }

    /// Maps an inaccessible range over a part of the reserved address space.
    fn cover(&self, at: usize, len: usize) {
        // SAFETY: By the type's invariant no other code uses the range, and Rust has no object in it.
        unsafe {
            libc::mmap(
                at as *mut c_void,
                len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
    }

    /// Maps a file at one of the places; covers the place when that fails half-way.
    fn map(&self, place: usize, file: i32, len: usize, offset: u64, prot: i32, flags: i32) {
        let kind = if flags == 0 { libc::MAP_SHARED } else { flags };
        let at = self.base + place * PLACE_LEN;
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: By the type's invariant no other code uses the range, and Rust has no object in it.
        let to = unsafe {
            libc::mmap(
                at as *mut c_void,
                len,
                prot,
                kind | libc::MAP_FIXED,
                file,
                offset as libc::off_t,
            )
        };
        if to == libc::MAP_FAILED {
            self.cover(at, len);
        }
    }

    fn offset(&self, which: u64) -> u64 {
        // Mostly a live block's offset, sometimes any number.
        match which % 8 {
            0 => which,
            _ => self.blocks[which as usize / 8 % BLOCKS].load(Relaxed),
        }
    }

    fn push(&self, offset: u64) {
        let at = self.next_block.fetch_add(1, Relaxed) % BLOCKS;
        self.blocks[at].store(offset, Relaxed);
    }

    fn file(&self, which: u64) -> i32 {
        let file = self.files[which as usize % FILES].load(Relaxed);
        if file >= 0 {
            return file;
        }
        self.files[which as usize % 2].load(Relaxed)
    }

    /// Replaces one of the files.
    fn replace(&self, which: u64, file: i32) {
        let old = self.files[which as usize % FILES].swap(file, Relaxed);
        if old >= 0 {
            // SAFETY: The descriptor is this value's, and is not used again.
            unsafe { libc::close(old) };
        }
    }

    /// Makes a call.
    pub fn run(&self, call: &Call) {
        let [a, b, c, d] = call.args;
        let file = self.file(a);
        let place = a as usize % PLACES;
        let at = self.base + place * PLACE_LEN;
        // Whole pages of the place, more often at its beginning, where the blocks are.
        let pages = PLACE_LEN / PAGE;
        let first = b as usize % if b % 2 == 0 { 64 } else { pages };
        let count = 1 + c as usize % (pages - first).min(256);
        let (part, part_len) = (at + first * PAGE, count * PAGE);
        match call.kind {
            Kind::Open => self.open(call.args),
            // SAFETY: It returns a new descriptor.
            Kind::Dup => self.replace(d, unsafe { libc::dup(file) }),
            Kind::Close => self.replace(a, -1),
            Kind::Alloc => self.alloc(file, call.args),
            Kind::Free => drop(ioctl(file, FREELIST_IOC_FREE, &mut [self.offset(b)])),
            Kind::AllocBulk => self.bulk(file, true, part, call.args),
            Kind::FreeBulk => self.bulk(file, false, part, call.args),
            Kind::Limit => calls::limit(file, call.args),
            Kind::Trim => drop(ioctl(file, FREELIST_IOC_TRIM, &mut [b, 0])),
            Kind::Info => calls::info(file, b),
            Kind::Raw => calls::any(file, call.args),
            Kind::Map => self.map_file(file, count, call.args),
            Kind::Unmap => self.cover(part, part_len),
            Kind::Remap => self.remap(at, part_len, call.args),
            // SAFETY: By the type's invariant no other code uses the range, and Rust has no object in it.
            Kind::Advise => unsafe { memory::advise(part, part_len, d) },
            // SAFETY: As above.
            Kind::Protect => unsafe {
                libc::mprotect(part as *mut c_void, part_len, (d % 8) as i32);
            },
            Kind::Touch => self.touch(part, part_len, d),
            // SAFETY: As above.
            Kind::Read => unsafe { memory::look_up(true, part, part_len) },
            // SAFETY: As above.
            Kind::Write => unsafe { memory::look_up(false, part, part_len) },
            Kind::Poll => calls::poll(file, b, c),
            // SAFETY: Both threads live as long as the process, and have a handler.
            Kind::Signal => unsafe {
                let thread = self.threads[usize::from(!call.second)].load(Relaxed);
                libc::pthread_kill(thread, SIGNAL);
            },
            Kind::Fork => self.free_in_child(file, b),
            Kind::Show => show_all(file, b),
            Kind::DebugTrim => {
                for arena in arenas() {
                    tell(&path(&format!("{arena}/trim")), b.to_string().as_bytes());
                }
            }
            Kind::Shrink => shrink(b % 65),
            Kind::Delay => {
                if let Some(at) = (c as usize).checked_rem(self.delays.len()) {
                    tell(&self.delays[at], (b % 200).to_string().as_bytes());
                }
            }
        }
    }

    /// Frees a block in a forked child.
    fn free_in_child(&self, file: i32, block: u64) {
        // SAFETY: The child makes system calls only.
        match unsafe { libc::fork() } {
            0 => {
                ioctl(file, FREELIST_IOC_FREE, &mut [self.offset(block)]);
                // SAFETY: Ends the process.
                unsafe { libc::_exit(0) }
            }
            // SAFETY: No status is asked for.
            child if child > 0 => drop(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }),
            _ => {}
        }
    }
}

/// Reads one file of debugfs, the fdinfo of `file`, and the maps of all arenas.
fn show_all(file: i32, which: u64) {
    let name = ["stats", "classes", "arenas", "check"][which as usize % 4];
    show(&path(&format!("{}/{name}", freelist::debugfs::DIR)));
    show(&path(&format!("/proc/self/fdinfo/{file}")));
    for arena in arenas() {
        show(&path(&format!("{arena}/map")));
    }
}
