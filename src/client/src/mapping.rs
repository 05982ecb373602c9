// SPDX-License-Identifier: MIT OR Apache-2.0

//! A mapping of an arena's offsets.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use crate::error::{Error, Result};
use crate::sys::{Errno, Map};

/// A part of an arena's address space, mapped into this process. Offsets are those of the arena, in bytes,
/// whichever part of it is mapped.
///
/// The memory is shared with all processes that have the arena, so a read returns some value that each byte
/// had. Touching an offset without a page (where no block ever was) raises `SIGBUS`. A mapping keeps its
/// arena alive.
///
/// [`Mapping::read`] and [`Mapping::write`] access single bytes, which is safe beside other threads and
/// processes. A program that moves much data uses [`Mapping::as_ptr`], and has to keep other writers out.
#[derive(Debug)]
pub struct Mapping {
    map: Map,
    start: u64,
}

impl Mapping {
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        start: u64,
        len: u64,
        writable: bool,
    ) -> std::result::Result<Self, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        let len = NonZeroUsize::new(len).ok_or(Errno::INVAL)?;
        if i64::try_from(start).is_err() {
            return Err(Errno::OVERFLOW);
        }
        let map = Map::new(fd, start, len, writable)?;
        Ok(Self { map, start })
    }

    /// Maps the first `len` bytes of an arena at a multiple of `align`, a power of 2 and of the page's size.
    pub(crate) fn aligned(
        fd: BorrowedFd<'_>,
        len: u64,
        align: usize,
    ) -> std::result::Result<Self, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        let len = NonZeroUsize::new(len).ok_or(Errno::INVAL)?;
        let map = Map::aligned(fd, len, align)?;
        Ok(Self { map, start: 0 })
    }

    /// Returns the first offset of the arena that is mapped.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Returns the bytes that are mapped.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns the address of offset [`Mapping::start`], valid until the mapping is dropped, of
    /// [`Mapping::len`] bytes.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.map.base()
    }

    /// Reads `into.len()` bytes from `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMapped`] when the range is not wholly mapped.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let at = self.place(offset, into.len())?;
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = self.map.load(at + i);
        }
        Ok(())
    }

    /// Writes `from` to `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMapped`] when the range is not wholly mapped.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        let at = self.place(offset, from.len())?;
        for (i, byte) in from.iter().enumerate() {
            self.map.store(at + i, *byte);
        }
        Ok(())
    }

    /// Reads the byte at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMapped`] when it is not mapped.
    pub fn byte(&self, offset: u64) -> Result<u8> {
        Ok(self.map.load(self.place(offset, 1)?))
    }

    /// Writes the byte at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMapped`] when it is not mapped.
    pub fn set_byte(&self, offset: u64, value: u8) -> Result<()> {
        self.map.store(self.place(offset, 1)?, value);
        Ok(())
    }

    /// Returns the index in the mapping at which `len` bytes from `offset` begin.
    fn place(&self, offset: u64, len: usize) -> Result<usize> {
        offset
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok())
            .filter(|at| at.checked_add(len).is_some_and(|end| end <= self.map.len()))
            .ok_or(Error::NotMapped {
                offset,
                len,
                start: self.start,
                mapped: self.map.len(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    const PAGE: u64 = 65536;

    fn mapping(name: &str) -> Mapping {
        let path = std::env::temp_dir().join(format!("freelist-{}-{name}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(3 * PAGE).unwrap();
        Mapping::new(file.as_fd(), PAGE, 2 * PAGE, true).unwrap()
    }

    #[test]
    fn written_bytes_are_read_at_the_arenas_offsets() {
        let mapping = mapping("offsets");
        mapping.write(2 * PAGE - 2, b"abcd").unwrap();
        let mut read = [0; 4];
        mapping.read(2 * PAGE - 2, &mut read).unwrap();
        assert_eq!(&read, b"abcd");
        assert_eq!(mapping.byte(2 * PAGE + 1).unwrap(), b'd');
    }

    #[test]
    fn a_range_that_is_not_wholly_mapped_is_refused() {
        let mapping = mapping("range");
        assert!(mapping.byte(PAGE - 1).is_err());
        assert!(mapping.set_byte(3 * PAGE, 0).is_err());
        assert!(mapping.write(3 * PAGE - 1, b"ab").is_err());
        assert!(mapping.read(u64::MAX, &mut [0]).is_err());
        assert!(mapping.read(3 * PAGE - 1, &mut [0]).is_ok());
    }
}
