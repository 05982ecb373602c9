// SPDX-License-Identifier: MIT OR Apache-2.0

//! Release. The fast path is [`Shared::free`], if the calling thread's cache can keep the block.

use std::io::{self, Write};
use std::process;
use std::ptr::NonNull;
use std::sync::Once;

use super::central::NotLive;
use super::class::{Class, UNIT_BYTES};
use super::quarantine::Quarantine;
use super::{local, Shared};
use crate::error::{Error, Result};

/// Returns whether a call failed because the program has closed the arena's file. Its number may be that of
/// another file by now.
pub(super) fn is_of_closed_file(error: &Error) -> bool {
    use nix::errno::Errno;
    matches!(error.errno(), Some(Errno::EBADF | Errno::ENOTTY))
}

impl Shared {
    /// Frees a block. Ends the program if it does not lie in the arena.
    #[inline]
    pub(super) fn free(&self, block: NonNull<u8>) {
        let offset = self.offset(block);
        let Some(place) = self.small.table.place(offset) else {
            self.misused(offset);
        };
        if local::with(self.id, |cache| cache.push(place, block)) != Some(true) {
            self.free_slow(block, offset);
        }
    }

    /// Frees a block on the slow path.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, block: NonNull<u8>, offset: usize) {
        match self.small.table.class(offset) {
            Some(class) => self.spill(class, block, offset),
            None => self.free_large(offset),
        }
    }

    /// Frees a small block of which this thread's cache is full, or where the fast path has the thread's
    /// cache of another heap, or at whose address no block begins.
    fn spill(&self, class: Class, block: NonNull<u8>, offset: usize) {
        if class.block_at(offset).is_none() {
            self.misused(offset);
        }
        if let Some(quarantine) = &self.quarantine {
            return self.detain(quarantine, offset);
        }
        let spilled = local::attached(self, |cache| self.small.spill(self, cache, class, block));
        let spilled = spilled.unwrap_or_else(|| self.small.put_one(self, class, offset));
        self.unless_misused(spilled);
    }

    /// Holds a freed block back, and frees the oldest of those that are held back.
    fn detain(&self, quarantine: &Quarantine, offset: usize) {
        // A forked child has no state of blocks.
        if self.must_be_here().is_err() {
            return;
        }
        match quarantine.detain(offset) {
            Ok(None) => {}
            Ok(Some(oldest)) => match self.small.table.class(oldest) {
                Some(class) => {
                    self.unless_misused(self.small.put_one(self, class, oldest));
                }
                None => self.misused(oldest),
            },
            Err(NotLive { offset }) => self.misused(offset),
        }
    }

    /// Frees a block that lies in no slab.
    #[inline(never)]
    fn free_large(&self, offset: usize) {
        // A forked child has no state of blocks, and they are not its own.
        if self.must_be_here().is_err() {
            return;
        }
        // Before the arena frees it, as the next thread to get that place will make an entry there.
        if self.small.table.clear_large(offset).is_none() {
            self.misused(offset);
        }
        match self.arena.free(offset as u64) {
            Ok(_) => {}
            Err(error) if is_of_closed_file(&error) => self.say_file_is_closed(),
            Err(_) => self.misused(offset),
        }
    }

    /// Reports once that freed blocks stay in the arena until the process ends, as its file is closed.
    #[cold]
    pub(super) fn say_file_is_closed(&self) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            // A closed stderr is no reason to end the program.
            let _ = writeln!(
                io::stderr(),
                "freelist: the program closed the file of a heap, as close_range() or a daemon does: freed \
                 blocks stay in use until the process ends, and requests fail"
            );
        });
    }

    /// Returns the bytes of a block. Ends the program if no block begins there.
    pub(super) fn usable(&self, block: NonNull<u8>) -> Result<usize> {
        self.must_be_here()?;
        let offset = self.offset(block);
        let bytes = self.small.table.block(offset);
        Ok(bytes.unwrap_or_else(|| self.misused(offset)))
    }

    /// Returns the value, or ends the program if a block that was freed was not live.
    pub(super) fn unless_misused<T>(&self, result: std::result::Result<T, NotLive>) -> T {
        result.unwrap_or_else(|NotLive { offset }| self.misused(offset))
    }

    /// Ends the program: it would go on to use memory that may be in use elsewhere by now.
    #[cold]
    pub(super) fn misused(&self, offset: usize) -> ! {
        let address = self.mapping.as_ptr().as_ptr().wrapping_add(offset);
        // A closed stderr is no reason to continue.
        let _ = writeln!(
            io::stderr(),
            "freelist: {address:p} is freed or resized, but no live block of the heap starts there: \
             freed before?"
        );
        process::abort()
    }

    /// Returns the offset of an address: one beyond the mapping if the address is not in it.
    #[inline]
    pub(super) fn offset(&self, address: NonNull<u8>) -> usize {
        self.small.offset(address.as_ptr())
    }

    /// Fails with [`Error::Alignment`] if the mapping's address is less aligned than `align`.
    pub(super) fn can_align(&self, align: usize) -> Result<()> {
        let base = self.mapping.as_ptr().addr().get();
        match base & (align - 1) {
            0 => Ok(()),
            _ => Err(Error::Alignment { align }),
        }
    }
}

const _: () = assert!(UNIT_BYTES.is_power_of_two());
