// SPDX-License-Identifier: GPL-2.0

//! What a program's calls do, in the process that makes them.

#![expect(unsafe_code, reason = "bare system calls, with any argument")]

use std::cell::UnsafeCell;
use std::ffi::{c_void, CStr, CString};
use std::fs;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use freelist::uapi::{
    FREELIST_IOC_ALLOC, FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE, FREELIST_IOC_FREE_BULK,
    FREELIST_IOC_INFO, FREELIST_IOC_LIMIT, FREELIST_IOC_STAT, FREELIST_IOC_TRIM,
};

use crate::program::{Call, Kind};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Descriptors that a program has at most, and places where it maps.
const FILES: usize = 4;
const PLACES: usize = 4;
/// Bytes of address space of a place.
const PLACE_LEN: usize = 16 << 20;
/// Offsets that are remembered, and elements of a bulk at most.
const BLOCKS: usize = 256;
/// 8-byte words that any structure has room in: request numbers encode less than 16 KiB.
const WORDS: usize = 2048;
/// Bytes that a program's arenas may hold, unless it says otherwise.
const LIMIT: u64 = 32 << 20;
/// The longest wait, in ns.
const LONGEST: u64 = 2_000_000;
/// The signal that ends waits; its handler does nothing.
pub const SIGNAL: i32 = libc::SIGUSR1;

/// Words that the kernel may write to at any time, also when a program says a wrong address.
struct Room(UnsafeCell<[u64; WORDS]>);

/// What the calls of both threads have in common. Every number is one that a system call may be
/// given at any time: a file that was closed is EBADF, an address where nothing is, EFAULT.
///
/// # Invariants
///
/// `base` begins [`PLACES`] times [`PLACE_LEN`] bytes of address space that no other code uses.
pub struct Machine {
    /// Descriptors, or -1.
    files: [AtomicI32; FILES],
    /// Offsets of blocks, and of what was freed.
    blocks: [AtomicU64; BLOCKS],
    next_block: AtomicUsize,
    base: usize,
    /// Held while a place is no mapping at all, so that nothing else comes to lie there.
    moving: Mutex<()>,
    /// The threads, for signals.
    threads: [AtomicU64; 2],
    /// A file in memory, which takes what is read by way of copy_from_user().
    memory: i32,
    delay: CString,
}

/// A path for system calls.
fn path(text: &str) -> CString {
    CString::new(text).expect("it has no 0")
}

/// Reads a file and forgets what it says; without memory of the heap, which the other thread's
/// calls may want to be where they unmap.
fn show(path: &CStr) {
    let mut text = [0_u8; 4096];
    // SAFETY: `path` ends in 0, and there is room for what is read.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY);
        while libc::read(file, text.as_mut_ptr().cast(), text.len()) > 0 {}
        libc::close(file);
    }
}

/// Writes to a file.
fn tell(path: &CStr, text: &[u8]) {
    // SAFETY: `path` ends in 0, and `text` has so many bytes.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY);
        libc::write(file, text.as_ptr().cast(), text.len());
        libc::close(file);
    }
}

/// ioctl() over these words; says whether it succeeded.
fn ioctl(file: i32, request: u32, words: &mut [u64]) -> bool {
    let room = Room(UnsafeCell::new([0; WORDS]));
    // SAFETY: `room` is ours alone but for the call.
    unsafe { (&mut *room.0.get())[..words.len()].copy_from_slice(words) };
    // SAFETY: The kernel accesses at most the bytes that the request's number encodes, which
    // `room` has. Addresses that the words say are of rooms of their callers, of the first page,
    // or no addresses of this process.
    let result = unsafe { libc::ioctl(file, request.into(), room.0.get()) };
    // SAFETY: As before; the call has ended.
    unsafe { words.copy_from_slice(&(&*room.0.get())[..words.len()]) };
    result == 0
}

impl Machine {
    /// Takes address space.
    pub fn new(memory: i32) -> io::Result<Self> {
        // SAFETY: The kernel puts it where nothing of this process lies.
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
        // INVARIANT: It is new, and is never given back: what is unmapped there is covered again.
        Ok(Self {
            files: std::array::from_fn(|_| AtomicI32::new(-1)),
            blocks: std::array::from_fn(|_| AtomicU64::new(0)),
            next_block: AtomicUsize::new(0),
            base: base as usize,
            moving: Mutex::new(()),
            threads: [AtomicU64::new(0), AtomicU64::new(0)],
            memory,
            delay: path(&format!("{}/delay_us", freelist::debugfs::DIR)),
        })
    }

    /// The calling thread is the first, or the second.
    pub fn begin(&self, second: bool) {
        // SAFETY: Only names this thread.
        let this = unsafe { libc::pthread_self() };
        self.threads[usize::from(second)].store(this, Relaxed);
    }

    /// Two arenas with nothing in them, and nothing mapped.
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
                // SAFETY: The descriptor is ours, and forgotten.
                unsafe { libc::close(file) };
            }
        }
        self.cover(self.base, PLACES * PLACE_LEN);
        self.blocks.iter().for_each(|block| block.store(0, Relaxed));
        self.next_block.store(0, Relaxed);
        tell(&self.delay, b"0");
    }

    /// Puts nothing over a part of our address space.
    fn cover(&self, at: usize, len: usize) {
        // SAFETY: The range is ours (type invariant), and nothing in it is known to Rust.
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
        // SAFETY: The range is ours (type invariant), and nothing in it is known to Rust.
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
        // Mostly a block that was given out, sometimes any number.
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

    /// Another file in the place of one.
    fn replace(&self, which: u64, file: i32) {
        let old = self.files[which as usize % FILES].swap(file, Relaxed);
        if old >= 0 {
            // SAFETY: The descriptor is ours, and forgotten.
            unsafe { libc::close(old) };
        }
    }

    /// Makes a call.
    pub fn run(&self, call: &Call) {
        let [a, b, c, d] = call.args;
        let file = self.file(a);
        let place = a as usize % PLACES;
        let at = self.base + place * PLACE_LEN;
        // Some whole pages of the place; more often from its begin, where the blocks are.
        let pages = PLACE_LEN / PAGE;
        let first = b as usize % if b % 2 == 0 { 64 } else { pages };
        let count = 1 + c as usize % (pages - first).min(256);
        let (part, part_len) = (at + first * PAGE, count * PAGE);
        match call.kind {
            Kind::Open => {
                let modes = [
                    libc::O_RDONLY,
                    libc::O_WRONLY,
                    libc::O_RDWR | libc::O_NONBLOCK,
                ];
                // Most of them can be written to.
                let mode = if b % 4 == 0 {
                    modes[c as usize % modes.len()]
                } else {
                    libc::O_RDWR
                };
                // SAFETY: The name ends in 0.
                let file = unsafe { libc::open(c"/dev/freelist".as_ptr(), mode) };
                ioctl(file, FREELIST_IOC_LIMIT, &mut [LIMIT, 0]);
                self.replace(d, file);
            }
            // SAFETY: Gives a new descriptor.
            Kind::Dup => self.replace(d, unsafe { libc::dup(file) }),
            Kind::Close => self.replace(a, -1),
            Kind::Alloc => {
                let timeout = if d % 2 == 0 { 0 } else { d % LONGEST };
                let mut words = [b, c & 0x7f, timeout, 0, 0];
                if ioctl(file, FREELIST_IOC_ALLOC, &mut words) {
                    self.push(words[3]);
                }
            }
            Kind::Free => drop(ioctl(file, FREELIST_IOC_FREE, &mut [self.offset(b)])),
            Kind::AllocBulk | Kind::FreeBulk => {
                let alloc = call.kind == Kind::AllocBulk;
                let mut offsets: [u64; BLOCKS] =
                    std::array::from_fn(|i| self.offset((b + i as u64) * 8 + 1));
                // An array of our own, or one in a mapping of ours, which a fault may stop.
                let at = match d % 8 {
                    0 => d % PAGE as u64,
                    1 => part as u64,
                    _ => offsets.as_mut_ptr() as u64,
                };
                let size = if alloc { b } else { 0 };
                let flags = if alloc { (d >> 3) & 0x7f } else { 0 };
                let count = c % (BLOCKS as u64 + 1);
                let mut words = [size, at, count | (flags << 32), d % LONGEST, 0];
                let request = if alloc {
                    FREELIST_IOC_ALLOC_BULK
                } else {
                    FREELIST_IOC_FREE_BULK
                };
                let done = ioctl(file, request, &mut words);
                if alloc && done && d % 8 > 1 {
                    let done = words[4] as u32 as usize;
                    offsets
                        .iter()
                        .take(done)
                        .for_each(|offset| self.push(*offset));
                }
            }
            Kind::Limit => {
                // Seldom more than what is given: memory is what takes time.
                let bytes = if b % 8 == 0 { b } else { b % (2 * LIMIT) };
                ioctl(
                    file,
                    FREELIST_IOC_LIMIT,
                    &mut [bytes, if d % 4 == 0 { c } else { 0 }],
                );
            }
            Kind::Trim => drop(ioctl(file, FREELIST_IOC_TRIM, &mut [b, 0])),
            Kind::Info => {
                let request = if b % 2 == 0 {
                    FREELIST_IOC_INFO
                } else {
                    FREELIST_IOC_STAT
                };
                ioctl(file, request, &mut [0; 32]);
            }
            Kind::Raw => {
                // Any number and size of a call, any fields; no addresses but of the first page.
                let request = 0xf100 | (b % 10) as u32 | (((c % 0x1000) as u32 * 4) << 16);
                if d % 4 == 0 {
                    // SAFETY: Nothing of this process lies in the first page.
                    unsafe { libc::ioctl(file, request.into(), d % PAGE as u64) };
                } else {
                    let words = [
                        d % (1 << 26),
                        c % PAGE as u64,
                        a % LONGEST,
                        d % LONGEST,
                        0,
                        c,
                    ];
                    ioctl(file, request, &mut { words });
                }
            }
            Kind::Map => {
                let both = libc::PROT_READ | libc::PROT_WRITE;
                let prot = match d % 16 {
                    0 => libc::PROT_READ,
                    1 => libc::PROT_READ | libc::PROT_EXEC,
                    _ => both,
                };
                let flags = match d % 32 {
                    2 => libc::MAP_PRIVATE,
                    3 => libc::MAP_SHARED | libc::MAP_POPULATE,
                    4 => libc::MAP_SHARED | libc::MAP_LOCKED,
                    _ => 0,
                };
                let len = if d % 4 == 0 { count * PAGE } else { PLACE_LEN };
                self.map(
                    b as usize % PLACES,
                    file,
                    len,
                    c % 64 * PAGE as u64,
                    prot,
                    flags,
                );
            }
            Kind::Unmap => self.cover(part, part_len),
            Kind::Remap => {
                let to = self.base + d as usize % PLACES * PLACE_LEN;
                let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                let flags = if b % 4 == 0 {
                    fixed | libc::MREMAP_DONTUNMAP
                } else {
                    fixed
                };
                let new = if c % 4 == 0 { part_len } else { PLACE_LEN };
                if to != at {
                    let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
                    // SAFETY: Both ranges are ours (type invariant), and nothing in them is known
                    // to Rust.
                    let to = unsafe {
                        libc::mremap(at as *mut c_void, new, new, flags, to as *mut c_void)
                    };
                    if to != libc::MAP_FAILED {
                        self.cover(at, new);
                    }
                }
            }
            // SAFETY: The range is ours (type invariant), and nothing in it is known to Rust.
            Kind::Advise => unsafe {
                let advice = [d % 26, 100 + d % 6][usize::from(d % 7 == 0)];
                // Poison would take the pages from the whole machine.
                if !(100..102).contains(&advice) {
                    libc::madvise(part as *mut c_void, part_len, advice as i32);
                }
            },
            // SAFETY: As above.
            Kind::Protect => unsafe {
                libc::mprotect(part as *mut c_void, part_len, (d % 8) as i32);
            },
            // The kernel copies, by way of faults as a program's are, and says EFAULT for SIGBUS.
            // SAFETY: As above; the names end in 0.
            Kind::Touch => unsafe {
                if d % 4 == 0 {
                    libc::pwrite(self.memory, part as *const c_void, part_len, 0);
                } else {
                    let zero = libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY);
                    libc::read(zero, part as *mut c_void, part_len);
                    libc::close(zero);
                }
            },
            // The kernel looks pages up, as debuggers do.
            Kind::Read | Kind::Write => {
                let room = Room(UnsafeCell::new([0; WORDS]));
                let len = part_len.min(WORDS * 8);
                let local = libc::iovec {
                    iov_base: room.0.get().cast(),
                    iov_len: len,
                };
                let remote = libc::iovec {
                    iov_base: part as *mut c_void,
                    iov_len: len,
                };
                let copy = if call.kind == Kind::Read {
                    libc::process_vm_readv
                } else {
                    libc::process_vm_writev
                };
                // SAFETY: `room` is as long, and the part is ours, and nothing in it known to Rust.
                unsafe { copy(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
            }
            Kind::Poll => {
                let mut poll = libc::pollfd {
                    fd: file,
                    events: b as i16,
                    revents: 0,
                };
                // SAFETY: One structure is given.
                unsafe { libc::poll(&raw mut poll, 1, (c % 3) as i32) };
            }
            // SAFETY: Both threads live as long as the process, and have a handler.
            Kind::Signal => unsafe {
                let thread = self.threads[usize::from(!call.second)].load(Relaxed);
                libc::pthread_kill(thread, SIGNAL);
            },
            // SAFETY: The child makes system calls only.
            Kind::Fork => match unsafe { libc::fork() } {
                0 => {
                    ioctl(file, FREELIST_IOC_FREE, &mut [self.offset(b)]);
                    // SAFETY: Ends the process.
                    unsafe { libc::_exit(0) }
                }
                // SAFETY: No status is asked for.
                child if child > 0 => drop(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }),
                _ => {}
            },
            Kind::Show => {
                let name = ["stats", "classes", "arenas", "check"][b as usize % 4];
                show(&path(&format!("{}/{name}", freelist::debugfs::DIR)));
                show(&path(&format!("/proc/self/fdinfo/{file}")));
                for arena in arenas() {
                    show(&path(&format!("{arena}/map")));
                }
            }
            Kind::DebugTrim => {
                for arena in arenas() {
                    tell(&path(&format!("{arena}/trim")), b.to_string().as_bytes());
                }
            }
            Kind::Shrink => shrink(b % 65),
            Kind::Delay => tell(&self.delay, (b % 200).to_string().as_bytes()),
        }
    }
}

/// Returns the directories of the arenas.
fn arenas() -> impl Iterator<Item = String> {
    let dir = format!("{}/arenas.d", freelist::debugfs::DIR);
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    entries.map(move |entry| format!("{dir}/{}", entry.file_name().to_string_lossy()))
}

/// Makes the module's shrinker shrink, in every cgroup, where the kernel lets it be told.
fn shrink(pages: u64) {
    let Ok(entries) = fs::read_dir("/sys/kernel/debug/shrinker") else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("freelist") {
            continue;
        }
        let dir = entry.path();
        let counts = fs::read_to_string(dir.join("count")).unwrap_or_default();
        for cgroup in counts.lines().filter_map(|line| line.split(' ').next()) {
            let _ = fs::write(dir.join("scan"), format!("{cgroup} 0 {pages}"));
        }
    }
}

/// What is wrong with the module, if anything is: an arena's invariants, while there are arenas.
pub fn wrong() -> Option<String> {
    let check = fs::read_to_string(format!("{}/check", freelist::debugfs::DIR));
    let bad = match &check {
        Ok(text) => text
            .lines()
            .find(|line| !line.ends_with(" ok"))
            .map(str::to_owned),
        Err(error) => Some(format!("check: {error}")),
    };
    bad.map(|line| format!("the invariants do not hold: {line}"))
}

/// How long a child that a killed process had may go on: it has the arenas open as well.
const ORPHANS: Duration = Duration::from_secs(10);

/// What is left when no arena is open, if anything is.
pub fn left() -> Option<String> {
    let start = Instant::now();
    loop {
        let stats = match freelist::debugfs::Stats::read() {
            Ok(stats) => stats,
            Err(error) => return Some(format!("stats: {error}")),
        };
        let held = stats.get("held_bytes").unwrap_or(0);
        if held == 0 {
            return None;
        }
        if start.elapsed() > ORPHANS {
            return Some(format!("{held} bytes are held with no arena open"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
