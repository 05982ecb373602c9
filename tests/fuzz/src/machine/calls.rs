// SPDX-License-Identifier: GPL-2.0

//! Calls of the device, with numbers as the program has them.

use freelist::uapi::{
    FREELIST_IOC_ALLOC, FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE_BULK, FREELIST_IOC_INFO,
    FREELIST_IOC_LIMIT, FREELIST_IOC_STAT,
};

use super::{ioctl, Machine, BLOCKS, LIMIT, LONGEST, PAGE};

impl Machine {
    /// Opens a file in the place of another.
    pub(super) fn open(&self, [_, b, c, d]: [u64; 4]) {
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

    /// Allocates a block, and remembers its offset.
    pub(super) fn alloc(&self, file: i32, [_, b, c, d]: [u64; 4]) {
        let timeout = if d % 2 == 0 { 0 } else { d % LONGEST };
        let mut words = [b, c & 0x7f, timeout, 0, 0];
        if ioctl(file, FREELIST_IOC_ALLOC, &mut words) {
            self.push(words[3]);
        }
    }

    /// Allocates or frees many blocks. The array is in ordinary memory, or in the mapping at `part`.
    pub(super) fn bulk(&self, file: i32, alloc: bool, part: usize, [_, b, c, d]: [u64; 4]) {
        let mut offsets: [u64; BLOCKS] =
            std::array::from_fn(|i| self.offset((b + i as u64) * 8 + 1));
        // An array in ordinary memory, or one in a mapping of an arena, which a fault may stop.
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
}

/// Sets bounds.
pub(super) fn limit(file: i32, [_, b, c, d]: [u64; 4]) {
    // Seldom more than was allocated: a program that touches much memory takes long.
    let bytes = if b % 8 == 0 { b } else { b % (2 * LIMIT) };
    ioctl(
        file,
        FREELIST_IOC_LIMIT,
        &mut [bytes, if d % 4 == 0 { c } else { 0 }],
    );
}

/// Asks for the limits of the module, or for the counters.
pub(super) fn info(file: i32, b: u64) {
    let request = if b % 2 == 0 {
        FREELIST_IOC_INFO
    } else {
        FREELIST_IOC_STAT
    };
    ioctl(file, request, &mut [0; 32]);
}

/// Makes any call.
pub(super) fn any(file: i32, [a, b, c, d]: [u64; 4]) {
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

/// Polls.
pub(super) fn poll(file: i32, b: u64, c: u64) {
    let mut poll = libc::pollfd {
        fd: file,
        events: b as i16,
        revents: 0,
    };
    // SAFETY: One structure is given.
    unsafe { libc::poll(&raw mut poll, 1, (c % 3) as i32) };
}
